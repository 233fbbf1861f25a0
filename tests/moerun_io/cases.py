#!/usr/bin/env python3
"""python/moerun_io, as installed: tables become inputs that moerun takes, answers come back beside them. Usage: cases.py MOERUN"""
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import moerun_io
from moerun_io.tables import Table

MOERUN = pathlib.Path(sys.argv[1]).resolve()
TINY = pathlib.Path(__file__).resolve().parents[2] / "data/tiny-moe"
ROWS = int(os.environ.get("MOERUN_IO_ROWS", "100000"))
CHAT = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Count to {i}.\u2028\"é"}] for i in range(5)]


def fails(words, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except moerun_io.InputError as error:
        missing = [word for word in words if word not in str(error)]
        return f"the message {str(error)!r} lacks {missing}" if missing else None
    return "no error"


def run(folder, source, device="null", output=(), **sampling):
    job = {"model": {"path": str(TINY)}, "device": device, "input": {"path": str(source)}, "output": {"path": str(folder / "answers.h5"), **dict(output)},
           "sampling": {"max_tokens": 6, **sampling}}
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run([MOERUN, str(folder / "job.json"), "--fresh"], capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    return done.stderr[-800:] if done.returncode else None


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_text_and_ids(folder):
    table = pa.table({"question": ["a", "b\nc", "ü" * 1000], "key": pa.array([2**64 - 1, 0, 5], pa.uint64()), "t": [0.5, None, 1.0]})
    for name in ("q.parquet", "q.arrow", "q.arrows", "q.feather"):
        with moerun_io.tables.table_writer(str(folder / name), table.schema) as writer:
            for batch in table.to_batches():
                writer.write_batch(batch)
        moerun_io.to_input(folder / name, folder / "q.jsonl", prompt="question", id="key", sampling={"temperature": "t"}, overwrite=True)
        expected = [{"id": 2**64 - 1, "prompt": "a", "temperature": 0.5}, {"id": 0, "prompt": "b\nc"}, {"id": 5, "prompt": "ü" * 1000, "temperature": 1.0}]
        if lines(folder / "q.jsonl") != expected:
            return f"{name}: {lines(folder / 'q.jsonl')}"
    moerun_io.to_input(folder / "q.parquet", folder / "q.h5", prompt="question", id="key")
    with h5py.File(folder / "q.h5") as f:
        if f["prompts/id"].dtype != np.uint64 or f["prompts/text"].asstr()[1] != "b\nc":
            return "HDF5 text"
    return run(folder, folder / "q.jsonl") or run(folder, folder / "q.h5")


def test_sampling_in_hdf5(folder):
    """What a row of an .h5 input asks is what it is answered."""
    table = pa.table({"prompt": ["a", "b", "c"], "m": [1, None, 3], "s": pa.array([["\n"], None, None], pa.list_(pa.string()))})
    pq.write_table(table, folder / "t.parquet")
    moerun_io.to_input(folder / "t.parquet", folder / "t.h5", sampling={"max_tokens": "m", "stop": "s"})
    with h5py.File(folder / "t.h5") as f:
        if f["prompts/sampling"].asstr()[:].tolist() != ['{"max_tokens": 1, "stop": ["\\n"]}', "", '{"max_tokens": 3}']:
            return str(f["prompts/sampling"].asstr()[:])
    if wrong := run(folder, folder / "t.h5", ignore_eos=True):
        return wrong
    lengths = [len(ids) for ids in moerun_io.read(folder / "answers.h5")["token_ids"].to_pylist()]
    return None if lengths == [1, 6, 3] else str(lengths)


def test_csv_keeps_texts(folder):
    (folder / "q.csv").write_text('prompt,id,n\n007,x1,3\n"a,""b""\nc",01,4\n,last,5\n')
    moerun_io.to_input(folder / "q.csv", folder / "q.jsonl", sampling={"max_tokens": "n"})
    expected = [{"id": "x1", "prompt": "007", "max_tokens": 3}, {"id": "01", "prompt": 'a,"b"\nc', "max_tokens": 4}, {"id": "last", "prompt": "", "max_tokens": 5}]
    return None if lines(folder / "q.jsonl") == expected else str(lines(folder / "q.jsonl"))


def test_messages(folder):
    tool = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}]
    pq.write_table(pa.table({"messages": CHAT}), folder / "a.parquet")
    pq.write_table(pa.table({"messages": [json.dumps(m) for m in CHAT] + [json.dumps(tool)]}), folder / "b.parquet")
    pq.write_table(pa.table({"messages": [*CHAT, tool]}), folder / "c.parquet")
    expected = [{"messages": m} for m in CHAT]
    for name, wanted in (("a", expected), ("b", [*expected, {"messages": tool}]), ("c", [*expected, {"messages": tool}])):
        moerun_io.to_input(folder / f"{name}.parquet", folder / f"{name}.jsonl")
        if lines(folder / f"{name}.jsonl") != wanted:
            return f"{name}: {lines(folder / f'{name}.jsonl')}"
    return None


def test_token_ids_to_answers_and_back(folder):
    ids = [[1, 2, 3], [4], [5, 6]] * 50
    for of in (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.uint16())):
        table = pa.table({"prompt_token_ids": pa.array(ids, of), "who": [f"w{i}" for i in range(len(ids))]})
        pq.write_table(table, folder / "t.parquet", row_group_size=7)
        moerun_io.to_input(folder / "t.parquet", folder / "t.h5", id="who", overwrite=True)
        with h5py.File(folder / "t.h5") as f:
            offsets, tokens = f["prompts/offsets"][:], f["prompts/tokens"][:]
            if [tokens[a:b].tolist() for a, b in zip(offsets, offsets[1:])] != ids:
                return f"{of}: tokens differ"
    if wrong := run(folder, folder / "t.h5", device="cpu", logprobs=2, prompt_logprobs=3):
        return wrong
    moerun_io.join(folder / "t.parquet", folder / "answers.h5", folder / "out.parquet", id="who")
    out = pq.read_table(folder / "out.parquet")
    with h5py.File(folder / "answers.h5") as f:
        r = f["results"]
        tokens, ends, text, text_ends = r["tokens"][:], r["offsets"][:], r["text"][:].tobytes(), r["text_offsets"][:]
        top, prompt, prompt_ends = r["top_tokens"][:], r["prompt_logprobs"][:], r["prompt_offsets"][:]
        prompt_top, reasons = r["prompt_top_tokens"][:], r["finish_reason"].asstr()[:]
    for i, row in enumerate(out.to_pylist()):
        right = (row["who"] == f"w{i}" and row["token_ids"] == tokens[ends[i]:ends[i + 1]].tolist() and row["error"] is None
                 and row["text"] == text[text_ends[i]:text_ends[i + 1]].decode() and row["top_tokens"] == top[ends[i]:ends[i + 1]].tolist()
                 and row["finish_reason"] == reasons[i] and len(row["logprobs"]) == len(row["token_ids"])
                 and np.array_equal(np.array(row["prompt_logprobs"], np.float32), prompt[prompt_ends[i]:prompt_ends[i + 1]], equal_nan=True)
                 and row["prompt_top_tokens"] == prompt_top[prompt_ends[i]:prompt_ends[i + 1]].tolist() and len(row["prompt_top_logprobs"][0]) == 3)
        if not right:
            return f"row {i}: {row}"
    frame = moerun_io.read(folder / "answers.h5", "pandas")
    if not isinstance(frame, pd.DataFrame) or len(frame) != len(ids) or moerun_io.read(folder / "answers.h5").num_rows != len(ids):
        return "read"
    moerun_io.join(folder / "t.parquet", folder / "answers.h5", folder / "out.csv", columns=["text", "token_ids"], prefix="answer_")
    back = pa.csv.read_csv(folder / "out.csv", parse_options=pa.csv.ParseOptions(newlines_in_values=True))
    if json.loads(back["answer_token_ids"][2].as_py()) != tokens[ends[2]:ends[3]].tolist():
        return f"csv: {back['answer_token_ids'][2]}"
    return None


def test_several_answers(folder):
    """A row of the table for each of its answers, and what belongs to the row beside each."""
    pq.write_table(pa.table({"prompt_token_ids": [[1, 2, 3], [4], [5, 6]], "id": ["a", "b", "c"], "k": [3, 1, 2]}), folder / "t.parquet")
    moerun_io.to_input(folder / "t.parquet", folder / "t.jsonl", id="id", sampling={"n": "k"})
    if wrong := run(folder, folder / "t.jsonl", prompt_logprobs=True, temperature=1, logprobs=1):
        return wrong
    table = moerun_io.read(folder / "answers.h5").to_pydict()
    wanted = {"row": [0, 0, 0, 1, 2, 2], "answer_index": [0, 1, 2, 0, 0, 1], "id": list("aaabcc"), "prompt_length": [3, 3, 3, 1, 2, 2]}
    for name, values in wanted.items():
        if table[name] != values:
            return f"{name}: {table[name]}"
    if [len(v) for v in table["prompt_logprobs"]] != wanted["prompt_length"] or any(len(a) != len(b) for a, b in zip(table["token_ids"], table["logprobs"])):
        return f"{table}"
    moerun_io.join(folder / "t.parquet", folder / "answers.h5", folder / "out.parquet", id="id")
    out = pq.read_table(folder / "out.parquet").to_pydict()
    if out["id"] != list("aaabcc") or out["token_ids"] != table["token_ids"] or out["answer_index"] != wanted["answer_index"]:
        return f"join: {out}"
    return None


def test_routed_experts(folder):
    """A list of layers of a list of ids for each token, of prompts and of answers, through Parquet too."""
    (folder / "in.jsonl").write_text("".join(json.dumps({"prompt_token_ids": list(range(3, 5 + i)), "n": 1 + i % 2}) + "\n" for i in range(5)))
    if wrong := run(folder, folder / "in.jsonl", output={"routed_experts": True}, temperature=1):
        return wrong
    table = moerun_io.read(folder / "answers.h5")
    pq.write_table(table, folder / "out.parquet")
    rows = pq.read_table(folder / "out.parquet").to_pylist()
    with h5py.File(folder / "answers.h5") as f:
        r = f["results"]
        ids, ends, prompts, prompt_ends = r["routed_experts"][:], r["offsets"][:], r["prompt_routed_experts"][:], r["prompt_routed_offsets"][:]
    if ids.shape[1:] != (4, 8) or len(rows) != len(ends) - 1 or str(table.schema.field("routed_experts").type.value_type.value_type.value_type) != "uint8":
        return f"{ids.shape}, {table.schema}"
    for i, row in enumerate(rows):
        if (row["routed_experts"] != ids[ends[i]:ends[i + 1]].tolist() or len(row["routed_experts"]) != len(row["token_ids"])
                or row["prompt_routed_experts"] != prompts[prompt_ends[row["row"]]:prompt_ends[row["row"] + 1]].tolist()):
            return f"answer {i}: {row}"
    return None


def test_bad_tables(folder):
    pq.write_table(pa.table({"prompt": ["a", None], "id": [1, 2], "when": [datetime.date(2026, 1, 1)] * 2, "x": [1.0, float("nan")], "x_text": ["a", "b"]}), folder / "t.parquet")
    pq.write_table(pa.table({"ids": [[1, None]], "id": ["a"], "wide": [[2**31]], "text": ["a\0b"]}), folder / "u.parquet")
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    (folder / "there.jsonl").write_text("kept")
    t, out = folder / "t.parquet", folder / "o.jsonl"
    checks = [
        fails(["no column 'q'", "columns: prompt, id"], moerun_io.to_input, t, out, prompt="q"),
        fails(["row 1", "'prompt'", "null"], moerun_io.to_input, t, out),
        fails(["row 1", "'prompt'", "null"], moerun_io.to_input, t, folder / "o.h5"),
        fails(["'when'", "strings"], moerun_io.to_input, t, out, prompt="when"),
        fails(["'when'", "ids"], moerun_io.to_input, t, out, prompt="prompt", id="when"),
        fails(["exactly one"], moerun_io.to_input, t, out, prompt="prompt", messages="prompt"),
        fails(["ending"], moerun_io.to_input, t, folder / "o.txt"),
        fails(["ending"], moerun_io.to_input, folder / "x.xlsx", out),
        fails(["broken.parquet"], moerun_io.to_input, folder / "broken.parquet", out),
        fails(["absent.parquet"], moerun_io.to_input, folder / "absent.parquet", out),
        fails(["there already"], moerun_io.to_input, t, folder / "there.jsonl"),
        fails(["row 0", "token id is null"], moerun_io.to_input, folder / "u.parquet", out, token_ids="ids"),
        fails(["token id is null"], moerun_io.to_input, folder / "u.parquet", folder / "o.h5", token_ids="ids"),
        fails(["outside"], moerun_io.to_input, folder / "u.parquet", folder / "o.h5", token_ids="wide"),
        fails(["NUL"], moerun_io.to_input, folder / "u.parquet", folder / "o.h5", prompt="text"),
        fails([".jsonl"], moerun_io.to_input, folder / "u.parquet", folder / "o.h5", prompt="text", tools="id"),
        fails(["row 1", "'x'", "nan"], moerun_io.to_input, t, folder / "o.h5", token_ids=None, prompt="x_text", sampling={"temperature": "x"}),
        fails(["'prompt'", "no JSON"], moerun_io.to_input, t, out, messages="prompt"),
        fails(["answers.h5"], moerun_io.read, folder / "answers.h5"),
        fails(["no output of moerun"], moerun_io.read, _h5(folder / "else.h5")),
    ]
    left = sorted(p.name for p in folder.iterdir() if p.name not in ("t.parquet", "u.parquet", "broken.parquet", "there.jsonl", "else.h5"))
    wrong = [c for c in checks if c] + ([f"left behind: {left}"] if left else [])
    return "; ".join(wrong) or (None if (folder / "there.jsonl").read_text() == "kept" else "replaced silently")


def _h5(path):
    with h5py.File(path, "w") as f:
        f["x"] = 1
    return path


def test_bad_joins(folder):
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "id": ["x", "y", "z"], "text": ["1"] * 3}), folder / "t.parquet")
    pq.write_table(pa.table({"prompt": ["a", "b"], "id": ["x", "y"]}), folder / "two.parquet")
    pq.write_table(pa.table({"prompt": ["a", "b", "c", "d"], "id": list("xyzw")}), folder / "four.parquet")
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "id": ["x", "z", "y"]}), folder / "turned.parquet")
    moerun_io.to_input(folder / "t.parquet", folder / "t.jsonl")
    if wrong := run(folder, folder / "t.jsonl"):
        return wrong
    answers, out = folder / "answers.h5", folder / "o.parquet"
    checks = [
        fails(["'text' already", "--prefix"], moerun_io.join, folder / "t.parquet", answers, out),
        fails(["2 rows", "has 3"], moerun_io.join, folder / "two.parquet", answers, out),
        fails(["more rows"], moerun_io.join, folder / "four.parquet", answers, out),
        fails(["row 1", "'z'", "'y'"], moerun_io.join, folder / "turned.parquet", answers, out, id="id"),
        fails(["no column 'nothing'", "finish_reason"], moerun_io.join, folder / "t.parquet", answers, out, columns=["nothing"]),
    ]
    wrong = [c for c in checks if c]
    if out.exists() or list(folder.glob(".partial*")):
        wrong.append("left behind")
    return "; ".join(wrong) or None


def test_command_line(folder):
    pq.write_table(pa.table({"prompt": ["a", "b"]}), folder / "t.parquet")
    call = [sys.executable, "-m", "moerun_io"]
    made = subprocess.run([*call, "to-input", "t.parquet", "t.jsonl"], cwd=folder, capture_output=True, text=True)
    bad = subprocess.run([*call, "to-input", "t.parquet", "u.jsonl", "--prompt", "q"], cwd=folder, capture_output=True, text=True)
    again = subprocess.run([*call, "to-input", "t.parquet", "t.jsonl"], cwd=folder, capture_output=True, text=True)
    ok = made.returncode == 0 and "2 rows" in made.stdout and bad.returncode == 2 and bad.stderr.count("\n") == 1 and "'q'" in bad.stderr
    return None if ok and again.returncode == 2 and "--overwrite" in again.stderr else f"{made} {bad} {again}"


def _peak_mb(code):
    done = subprocess.run([sys.executable, "-c", code + "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"],
                          capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else (_ for _ in ()).throw(RuntimeError(done.stderr))


def _answers_like(path, rows):
    """An output of `rows` rows in moerun's format, written in pieces."""
    with h5py.File(path, "w") as f:
        r = f.create_group("results")
        for begin in range(0, rows, 1 << 16):
            n = min(rows, begin + (1 << 16)) - begin
            pieces = {"tokens": np.arange(4 * n, dtype=np.int32), "text": np.frombuffer(b"ab" * n, np.uint8), "prompt_length": np.full(n, 3, np.int32),
                      "id": np.array([f"r{begin + i}" for i in range(n)], object), "finish_reason": np.array(["stop"] * n, object),
                      "error": np.array([""] * n, object),
                      "offsets": np.arange(4 * begin if begin == 0 else 4 * begin + 4, 4 * (begin + n) + 1, 4, dtype=np.uint64),
                      "text_offsets": np.arange(2 * begin if begin == 0 else 2 * begin + 2, 2 * (begin + n) + 1, 2, dtype=np.uint64)}
            for name, values in pieces.items():
                dtype = h5py.string_dtype() if values.dtype == object else values.dtype
                if begin == 0:
                    r.create_dataset(name, data=values, dtype=dtype, maxshape=(None,), chunks=(1 << 14,))
                else:
                    at = len(r[name])
                    r[name].resize(at + len(values), axis=0)
                    r[name][at:] = values


def test_what_was_read_is_let_go(folder):
    """Of a Parquet file of 64 MiB that does not compress, pieces of 1 MiB are in memory one after the other."""
    schema = pa.schema([("prompt", pa.binary())])
    with pq.ParquetWriter(folder / "t.parquet", schema) as writer:
        for _ in range(64):
            writer.write_table(pa.table({"prompt": [os.urandom(1 << 10) for _ in range(1 << 10)]}, schema=schema))
    before, most = pa.total_allocated_bytes(), 0
    with Table(folder / "t.parquet") as rows:
        for batch in rows.batches():
            most = max(most, pa.total_allocated_bytes() - before)
    return f"{most >> 20} MiB were held" if most > 24 << 20 else None


def test_flat_memory(folder):
    """Both ways, with a fifth of the rows and with all: the peak must not follow."""
    peaks = {}
    for rows in (ROWS // 5, ROWS):
        with pq.ParquetWriter(folder / "t.parquet", pa.schema([("prompt", pa.string()), ("id", pa.int64())])) as writer:
            for begin in range(0, rows, 100000):
                n = min(rows, begin + 100000) - begin
                writer.write_table(pa.table({"prompt": [f"question {begin + i} of a few more words" for i in range(n)], "id": range(begin, begin + n)}), row_group_size=10000)
        _answers_like(folder / "a.h5", rows)
        begin = "import moerun_io; "
        calls = {"jsonl": f"moerun_io.to_input('{folder}/t.parquet', '{folder}/t.jsonl', overwrite=True)",
                 "h5": f"moerun_io.to_input('{folder}/t.parquet', '{folder}/t.h5', overwrite=True)",
                 "join": f"moerun_io.join('{folder}/t.parquet', '{folder}/a.h5', '{folder}/o.parquet', overwrite=True)"}
        for name, call in calls.items():
            peaks.setdefault(name, []).append(_peak_mb(begin + call))
        with open(folder / "t.jsonl") as f:
            if sum(1 for _ in f) != rows or pq.ParquetFile(folder / "o.parquet").metadata.num_rows != rows:
                return "rows were lost"
    print(f"peak MiB with {ROWS // 5:,} and {ROWS:,} rows: {peaks}")
    grown = {name: pair for name, pair in peaks.items() if pair[1] > pair[0] + 80}
    return f"memory grows: {grown}" if grown else None


def main():
    passed = failed = 0
    for name, test in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong = test(pathlib.Path(folder))
            except Exception as error:  # a test that breaks is a failed one
                wrong = f"{type(error).__name__}: {error}"
        print(f"{'ok' if wrong is None else 'FAILED'} {name}" + (f": {wrong}" if wrong else ""), flush=True)
        passed, failed = passed + (wrong is None), failed + (wrong is not None)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
