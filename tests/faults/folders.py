"""The model's folder differs between hosts, or changes while a job runs: its files are read by every rank, some of them again and again."""
import json
import os
import pathlib
import re
import shutil
import subprocess

from job import FAULT, MPIRUN, REPOSITORY, Job, expect

TINY = REPOSITORY / "data/tiny-moe"
ANSWERS = ["device=cpu", "sampling.max_tokens=24", "sampling.ignore_eos=true"]


def edit(path, change):
    text = json.loads(path.read_text())
    change(text)
    path.write_text(json.dumps(text))


# File → how a second host's differs (weights: weight_hash_test), and what is said of it (none: it does not matter there).
TEXTS = r"model: this rank reads another tokenizer or chat template than rank 0 checked"
DIFFERS = {
    "config.json": (lambda path: edit(path, lambda it: it.update(rope_theta=12345.0)), r"model: this rank reads another configuration than rank 0 did"),
    "tokenizer.json": (lambda path: path.write_text(path.read_text() + "\n"), TEXTS),
    "tokenizer_config.json": (lambda path: edit(path, lambda it: it.update(chat_template="{{ messages[0].content }}")), TEXTS),
    "generation_config.json": (lambda path: edit(path, lambda it: it.update(eos_token_id=[3])), None),
}


def two_hosts(program, folder, name, change, message):
    """Two ranks, each with a folder of its own under the same name."""
    hosts = [pathlib.Path(folder) / f"host-{i}-{name}" for i in range(2)]
    for host in hosts:
        shutil.copytree(TINY, host / "model")
    command = [program, str(REPOSITORY / "jobs/demo.yaml"), "model.path=model", f"input.path={REPOSITORY}/data/prompts.jsonl", "output.path=out.h5",
               "output.jsonl=out.jsonl", "report.path=null", "device=cpu", "sampling.max_tokens=8", "parallel.data=2", "parallel.tensor=1"]
    run = lambda: subprocess.run([*MPIRUN, "-n", "1", "-wdir", str(hosts[0]), *command, ":", "-n", "1", "-wdir", str(hosts[1]), *command],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    done = run()
    expect(done.returncode == 0, f"equal folders: exit code {done.returncode}\n{done.stdout[-2000:]}")
    answers = (hosts[0] / "out.jsonl").read_bytes()
    change(hosts[1] / "model" / name)
    for left in hosts[0].glob("out.*"):
        left.unlink()
    done = run()
    if message is None:
        expect(done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-2000:]}")
        expect((hosts[0] / "out.jsonl").read_bytes() == answers, "other answers")
        return "the same answers"
    expect(done.returncode != 0 and re.search(message, done.stdout), f"exit code {done.returncode}\n{done.stdout[-2000:]}")
    expect(not (hosts[0] / "out.h5").exists(), "an output was written")
    return f"exit code {done.returncode}"


def weights_change(program, folder):
    """Copies of experts are read while the job runs: not of another model's."""
    model = pathlib.Path(folder) / "changing" / "model"
    shutil.copytree(TINY, model)
    options = [*ANSWERS, f"model.path={model}", "input.path=null", "input.random={num_prompts: 200, input_len: 64, output_len: 16}",
               "parallel.tensor=1", "parallel.data=2", "parallel.redundant_experts=4", "scheduler.max_num_seqs=4"]
    job = Job(program, folder, "weights-change", options)
    weights = sorted(model.glob("*.safetensors"))[1]
    as_it_was = weights.stat()
    running = job.start(2)
    try:
        running.wait_computing()
        os.utime(weights)
        running.wait_gone(120)
        expect(running.code == FAULT, f"exit code {running.code}\n{running.said()[-3000:]}")
        expect("the weights were written to or replaced while this job ran" in running.said(), running.said()[-3000:])
    finally:
        running.end()
    os.utime(weights, ns=(as_it_was.st_atime_ns, as_it_was.st_mtime_ns))
    job.finish(ranks=2, options=())


def tokenizer_changes(program, folder):
    """An OpenAI line holds texts of tokens: `moerun results` writes none with another tokenizer than the one that made them."""
    base = pathlib.Path(folder) / "openai-texts"
    model, rows = base / "model", base / "rows.jsonl"
    shutil.copytree(TINY, model)
    rows.write_text("".join(json.dumps({"custom_id": f"c{i}", "method": "POST", "url": "/v1/completions", "body": {
        "model": "model", "prompt": f"Once upon a time {i}", "max_tokens": 80, "logprobs": 1}}) + "\n" for i in range(12)))
    job = Job(program, folder, "openai-texts", ["device=cpu", "sampling.ignore_eos=true", f"model.path={model}", f"input.path={rows}",
                                               "scheduler.max_num_seqs=2"])
    job.partly()
    results = lambda: subprocess.run([program, "results", str(job.directory)], capture_output=True, text=True, timeout=60)
    done = results()
    expect(done.returncode == 0 and '"tokens"' in done.stdout, f"exit code {done.returncode}: {done.stderr}")
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text + "\n")
    other = results()
    expect(other.returncode == FAULT and "tokenizer.json is not what it was when the job began" in other.stderr and not other.stdout,
           f"exit code {other.returncode}: {other.stderr}")
    (model / "tokenizer.json").write_text(text)
    expect(results().stdout == done.stdout, "other lines")
    job.finish()
    expect(len(job.jsonl.read_text().splitlines()) == 12, "not every line")


def folder_tests(program, folder):
    for name, (change, message) in DIFFERS.items():
        yield (f"another {name} on a second host", lambda name=name, change=change, message=message: two_hosts(program, folder, name, change, message),
               name == "config.json")
    yield "weights that change while experts are copied", lambda: weights_change(program, folder), False
    yield "a tokenizer that has changed when lines are written", lambda: tokenizer_changes(program, folder), False
