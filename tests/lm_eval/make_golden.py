#!/usr/bin/env python3
"""Writes tests/lm_eval/golden.json: what lm-eval's own `hf` backend gives for runs.py in float32 on a CPU. Needs lm-eval[hf].
Usage: make_golden.py [NAME ...] (all runs by default)

softmax_dtype=float64: its sums are of float32 otherwise, which is 1e-2 off where thousands of tokens are added. logits_cache=false: with it
lm-eval 0.4.13 gives a request the first logits of another one that ends in the same text with a longer continuation."""
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import make_tasks
import runs

HERE = pathlib.Path(__file__).parent


def evaluate(folder, run):
    out = folder / "out"
    length = f",max_length={run['max_length']}" if "max_length" in run else ""
    subprocess.run([sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={folder}/model,dtype=float32,softmax_dtype=float64,logits_cache=false{length}",
                    "--device", "cpu", "--batch_size", "1", "--tasks", run["tasks"], "--include_path", str(folder / "tasks"), "--output_path", str(out), "--log_samples",
                    *run.get("options", [])], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")})
    return {"samples": runs.samples(out), "table": runs.table(out)}


def main():
    path = HERE / "golden.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for name in sys.argv[1:] or runs.RUNS:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            make_tasks.make_tasks(folder / "tasks")
            make_tasks.make_model(folder / "model")
            golden[name] = evaluate(folder, runs.RUNS[name])
    golden["made with"] = {name: importlib.metadata.version(name) for name in ("lm_eval", "transformers", "torch")}
    path.write_text(json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
