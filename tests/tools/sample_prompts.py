"""Makes data/prompts.h5 and data/prompts.txt from data/prompts.jsonl. Usage: sample_prompts.py DATA_DIR (needs h5py)."""
import json
import sys

import h5py

data = sys.argv[1]
rows = [json.loads(line) for line in open(f"{data}/prompts.jsonl", encoding="utf-8")]
with open(f"{data}/prompts.txt", "w", encoding="utf-8") as out:
    out.writelines(row["prompt"].replace("\n", " ") + "\n" for row in rows)
with h5py.File(f"{data}/prompts.h5", "w", track_order=False) as out:
    text = h5py.string_dtype("utf-8")
    out.create_dataset("prompts/text", data=[row["prompt"] for row in rows], dtype=text, track_times=False)
    out.create_dataset("prompts/id", data=[row["id"] for row in rows], dtype=text, track_times=False)
