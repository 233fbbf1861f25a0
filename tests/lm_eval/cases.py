#!/usr/bin/env python3
"""python/moerun_lm_eval, as installed, against what lm-eval's hf backend gave (golden.json). Usage: cases.py MOERUN quick|all [NAME_FILTER]"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import make_tasks  # noqa: E402
import runs  # noqa: E402

MOERUN, ALL = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2] == "all"
FILTER = sys.argv[3] if len(sys.argv) > 3 else ""
GOLDEN = json.loads((HERE / "golden.json").read_text())
TOLERANCE = 1e-3  # of a sum of log-probabilities
WAITS = "another evaluation runs"
KILLED = "shape_hellaswag,shape_arc"
# Answers are sealed every five seconds: small steps make a job that lasts longer. The second start takes other ones, which change no bit.
SLOW = ["--max-length", "512", "--set", "scheduler.max_num_batched_tokens=4", "--set", "scheduler.max_num_seqs=2", "--set", "scheduler.prefix_sharing=off"]
ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
       "OMPI_MCA_mpi_yield_when_idle": "1", "MOERUN": str(MOERUN), "PYTHONUNBUFFERED": "1"}


class Failure(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Failure(what)


class Place:
    """The tasks and the model, made once; each test has a folder of its own below."""

    def __init__(self, folder):
        self.folder = folder
        make_tasks.make_tasks(folder / "tasks")
        make_tasks.make_model(folder / "model")
        ENV["HF_DATASETS_CACHE"] = str(folder / "cache")

    def command(self, at, tasks, *options, launcher=None, model=None):
        start = ["--launcher", launcher] if launcher else []
        return [sys.executable, "-m", "moerun_lm_eval", "--model-folder", str(model or self.folder / "model"), "--tasks", tasks, "--include_path", str(self.folder / "tasks"),
                "--runs", str(at / "runs"), "--output_path", str(at / "out"), "--log_samples", *start, *options]

    def start(self, command, log=None):
        out = open(log, "w") if log else subprocess.PIPE
        return subprocess.Popen(command, env=ENV, stdout=out, stderr=subprocess.STDOUT, text=True, errors="replace")

    def run(self, command, code=0, env=None, timeout=600):
        done = subprocess.run(command, env={**ENV, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout)
        expect(done.returncode == code, f"exit code {done.returncode}, not {code}: {done.stdout[-3000:]}")
        return done.stdout


def compare(out, golden, tasks=None):
    """Every response of the folder `out` against golden's, and the tables. Returns the greatest difference."""
    worst, found, count = 0.0, runs.samples(out), 0
    wanted = {task: documents for task, documents in golden["samples"].items() if tasks is None or task in tasks}
    expect(found.keys() == wanted.keys(), f"tasks {sorted(found)}, not {sorted(wanted)}")
    for task, documents in wanted.items():
        expect(found[task].keys() == documents.keys(), f"{task}: other documents")
        for document, responses in documents.items():
            for number, (theirs, ours) in enumerate(zip(responses, found[task][document], strict=True)):
                where = f"{task}, document {document}, request {number}: {ours}, not {theirs}"
                count += 1
                if task == "shape_gsm8k":
                    expect(ours == theirs, where)
                    continue
                if isinstance(theirs, list):  # (sum, is_greedy)
                    expect(ours[1] == theirs[1], where)
                    theirs, ours = theirs[0], ours[0]
                worst = max(worst, abs(float(ours) - float(theirs)))
                expect(worst <= TOLERANCE, where)
    for task, metrics in runs.table(out).items():
        for name, value in metrics.items():
            theirs = golden["table"][task][name]
            exact = name.split(",")[0] in ("acc", "acc_norm", "exact_match")
            expect(value == theirs if exact else abs(value - theirs) <= 1e-3 * theirs, f"{task}: {name} is {value}, not {theirs}")
    return f"{count} responses, sums within {worst:.1e}"


def test_figures_of_hf(place, at):
    said = place.run(place.command(at, runs.SHAPES, "--max-length", "512"))
    expect("requests are longer than the model takes" in said, "nothing is said of requests that are cut")
    result = compare(at / "out", GOLDEN["shapes"])
    # Again: read back without starting anything, also beside another task, also with a layout of its own.
    began = time.monotonic()
    said = place.run(place.command(at, runs.SHAPES, "--max-length", "512", "--set", "parallel.data=8", "--output_path", str(at / "again"), launcher="false"))
    expect(said.count("has the answers already") == 3, said[-2000:])
    expect(runs.table(at / "again") == runs.table(at / "out") and runs.samples(at / "again") == runs.samples(at / "out"), "read back: another table")
    return f"{result}; read back in {time.monotonic() - began:.1f} s"


def test_all_positions(place, at):
    place.run(place.command(at, "shape_positions"))
    return compare(at / "out", GOLDEN["positions"])


def test_chat(place, at):
    place.run(place.command(at, "shape_gsm8k", *runs.RUNS["chat"]["options"]))
    return compare(at / "out", GOLDEN["chat"])


def test_by_lm_eval_itself(place, at):
    lm_eval = pathlib.Path(sys.executable).with_name("lm_eval")
    said = place.run([str(lm_eval), "--model", "moerun", "--model_args", f"pretrained={place.folder}/model,runs={at}/runs,launcher=mpirun --oversubscribe -n 2,set=parallel.tensor=2",
                      "--tasks", "shape_mmlu", "--limit", "2", "--include_path", str(place.folder / "tasks")])
    expect("|shape_mmlu|" in said and "tensor 2 × data 1" in said, said[-2000:])


def test_names_of_runs(place, at):
    """A folder's name follows what answers depend on, and nothing else."""
    from moerun_lm_eval.run import Row, columns_of, digest_of
    from moerun_lm_eval.settings import Settings

    model = at / "model"
    shutil.copytree(place.folder / "model", model)
    rows = [Row([1, 2, 3], {"max_tokens": 0}), Row([4], {"max_tokens": 5, "stop": ["x"]})]

    def name(rows=rows, keys=(), job=None):
        return digest_of(Settings.read(str(model), str(at), moerun=str(MOERUN), keys=list(keys), job=job), *columns_of(rows))

    (at / "free.yaml").write_text("parallel: {tensor: 4}\nscheduler: {prefix_sharing: off}\nlimits: {time: 1:30:00}\nmemory: {block_size: 16}\n")
    first = name()
    expect(name(keys=["parallel.data=2", "limits.grace=5"]) == first == name(job=str(at / "free.yaml")), "a layout, steps or limits change the name")
    others = {
        "the parts of tokens": name([Row([1, 2], {"max_tokens": 0}), Row([3, 4], {"max_tokens": 5, "stop": ["x"]})]),
        "a token": name([Row([1, 2, 9], {"max_tokens": 0}), rows[1]]),
        "a stop string": name([rows[0], Row([4], {"max_tokens": 5, "stop": ["y"]})]),
        "the dtype": name(keys=["model.dtype=bfloat16"]),
        "how keys and values are kept": name(keys=["memory.kv_cache_dtype=fp8"]),
        "the device": name(keys=["device=cpu"]),
    }
    config = model / "generation_config.json"
    config.write_text(config.read_text() + " ")
    others["a configuration"] = name()
    weights = next(model.glob("*.safetensors"))
    os.utime(weights, ns=(1, 1))
    others["weights written anew"] = name()
    names = [first, *others.values()]
    expect(len(set(names)) == len(names), f"names that are alike: {[what for what, it in others.items() if names.count(it) > 1]}")
    return f"{len(others)} kinds of change"


class Asked(Exception):
    """What a model would have run."""


def test_rows_that_are_asked(place, at):
    """With a tokenizer that puts BOS before a text: which ids and which sampling a request becomes. Nothing is run."""
    import types

    import moerun_lm_eval.model as package

    folder = at / "llama"
    folder.mkdir()
    shutil.copy(HERE.parents[1] / "tests/golden/text/families/llama3/tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 8}))
    model = package.Moerun(str(folder), moerun=str(MOERUN))

    def rows(method, *arguments):
        def capture(settings, kind, rows, columns):
            raise Asked([(row.tokens, row.sampling) for row in rows])

        package.run_rows, before = capture, package.run_rows
        try:
            getattr(model, method)([types.SimpleNamespace(args=given, task_name="t", doc_id=i) for i, given in enumerate(arguments)], disable_tqdm=True)
        except Asked as asked:
            return asked.args[0]
        finally:
            package.run_rows = before
        raise Failure("nothing was asked")

    bos, ids = model.tokenizer.bos_token_id, lambda text: model.tokenizer.encode(text, add_special_tokens=False)
    scores = lambda start: {"max_tokens": 0, "prompt_logprobs": True, "prompt_is_greedy": True, "prompt_logprobs_start": start}
    checks = {
        "a trailing space goes with the continuation": (rows("loglikelihood", ("a ", "b")), [([bos, *ids("a b")], scores(1 + len(ids("a"))))]),
        "no context: BOS alone": (rows("loglikelihood", ("", "ab")), [([bos, *ids("ab")], scores(1))]),
        "a continuation that begins with BOS": (rows("loglikelihood", ("", "<|begin_of_text|>ab")), [([bos, *ids("ab")], scores(1))]),
        "BOS is there already": (rows("loglikelihood", ("<|begin_of_text|>a", " b")), [([bos, *ids("a b")], scores(1 + len(ids("a"))))]),
    }
    long = [bos, *ids("one two three four five six seven eight nine ten")]
    checks["a context that is cut"] = (rows("loglikelihood", ("one two three four five six seven eight nine", " ten")), [(long[-9:], scores(9 - len(ids(" ten"))))])
    tokens = [bos, *ids("one two three four five six seven eight nine")]  # as lm-eval's hf: the tokenizer's own BOS is a token of the text
    windows = rows("loglikelihood_rolling", ("one two three four five six seven eight nine",))
    parts = [row[start:] for row, start in ((row, sampling["prompt_logprobs_start"]) for row, sampling in windows)]
    checks["windows: each token once"] = (sum(parts, []), tokens)
    checks["windows: all but the first have one token more than positions"] = ({len(row) for row, _ in windows[1:]}, {9})
    expect(len(tokens) > 9 and windows[0][0][0] == bos, "the text is no longer than a window")
    (row, sampling), = rows("generate_until", ("one two three four five six", {"until": ["x", ""], "max_gen_toks": 3, "temperature": 0.5, "do_sample": True, "top_p": 0.9, "seed": 4}))
    checks["a prompt keeps its end"] = (row, [bos, *ids("one two three four five six")][-5:])
    checks["generation"] = (sampling, {"max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 4, "stop": ["x", "<|eot_id|>"], "stop_token_ids": [model.tokenizer.eos_token_id]})
    for what, (asked, wanted) in checks.items():
        expect(asked == wanted, f"{what}: {asked}, not {wanted}")
    return f"{len(checks)} kinds"


def wait_for(what, condition, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise Failure(f"not within {seconds} s: {what}")


def sealed(at, process):
    """Waits until a run below `at` has sealed answers and is not done; its folder."""
    def look():
        if process.poll() is not None:
            raise Failure(f"it ended before: {process.stdout.read()[-2000:]}")
        return [ledger.parents[1] for ledger in (at / "runs").glob("*/answers.h5.run/ledger") if ledger.read_bytes().count(b"\n") > 1]

    return wait_for("sealed answers", look)[0]


def held(at):
    """A launcher that waits for the file `go`."""
    script = at / "launcher"
    script.write_text(f'#!/bin/sh\ntouch "$(dirname "$2")/held"\nleft=3000\nwhile [ ! -e {at}/go ] && [ $left -gt 0 ]; do sleep 0.1; left=$((left - 1)); done\nexec "$@"\n')
    script.chmod(0o755)
    return str(script)


def slowed(at):
    """A launcher that lets a run have a third of the time, so that it is not done before it is killed, however fast the machine."""
    script = at / "slowed"
    script.write_text('#!/bin/sh\n"$@" &\nrun=$!\nwhile kill -STOP $run 2>/dev/null; do sleep 0.1; kill -CONT $run; sleep 0.05; done\nwait $run\n')
    script.chmod(0o755)
    return str(script)


def kill_tree(pid):
    """SIGKILL to a process and all below it."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    os.kill(pid, signal.SIGKILL)
    for child in children:
        kill_tree(int(child))


def resumed(place, at, command=None, env=None):
    """The same command once more: it goes on where it was, and its table is hf's."""
    said = place.run(command or place.command(at, KILLED, "--max-length", "512"), env=env)
    answered = re.findall(r"(\d+) of (\d+) rows answered \((\d+) in this run", said)
    expect(answered and int(answered[-1][2]) < int(answered[-1][1]), f"it began anew: {answered}")
    return compare(at / "out", GOLDEN["shapes"], KILLED.split(","))


def test_killed(place, at):
    process = place.start(place.command(at, KILLED, *SLOW, launcher=slowed(at)))
    folder = sealed(at, process)
    kill_tree(process.pid)
    process.wait()
    expect(not (folder / "answers.h5").exists(), "it was done before it was killed")
    return resumed(place, at)


def test_interrupted_and_orphaned(place, at):
    """Ctrl-C seals and says so; an evaluation that is killed alone leaves its run going on, and the next one waits for it."""
    process = place.start(place.command(at, KILLED, *SLOW))
    sealed(at, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=200)[0]
    expect(process.returncode == 75 and "the same command goes on" in said, f"{process.returncode}: {said[-2000:]}")
    resumed(place, at)
    orphan = [*place.command(at, KILLED, "--max-length", "512", launcher=held(at)), "--runs", str(at / "orphans"), "--output_path", str(at / "after")]
    process = place.start(orphan)
    wait_for("its run", lambda: list((at / "orphans").glob("*/held")))
    process.kill()
    process.wait()
    third = place.start(orphan, at / "third")
    wait_for("the third waits", lambda: WAITS in (at / "third").read_text())
    (at / "go").touch()
    expect(third.wait(300) == 0, (at / "third").read_text()[-2000:])
    expect("rows answered" not in (at / "third").read_text(), "it ran again")
    return compare(at / "after", GOLDEN["shapes"], KILLED.split(","))


def test_two_at_once(place, at):
    """The same tasks twice at once: one runs, the other waits and reads."""
    command = place.command(at, "shape_mmlu", "--limit", "4", launcher=held(at))
    both = [place.start([*command, "--output_path", str(at / name)], at / f"{name}.log") for name in ("first", "second")]
    said = lambda: "".join((at / f"{name}.log").read_text() for name in ("first", "second"))
    wait_for("one waits", lambda: WAITS in said())
    (at / "go").touch()
    expect([process.wait(300) for process in both] == [0, 0] and said().count("rows answered") == 1, said()[-3000:])
    expect(runs.samples(at / "first") == runs.samples(at / "second") and len(list((at / "runs").iterdir())) == 1, "they differ")


def test_bad_input(place, at):
    (at / "file").write_text("")
    (at / "empty").mkdir()
    (at / "own.yaml").write_text("parallel: {tensor: 2}\nsampling: {max_tokens: 3}\n")
    (at / "list.yaml").write_text("- 1\n")
    cases = [  # options, words, exit code
        (["--model-folder", str(at / "absent")], ["absent: there is no config.json"], 2),
        (["--model-folder", str(at / "empty")], ["empty: there is no config.json"], 2),
        (["--moerun", str(at / "no-moerun")], ["moerun is not found as", "no-moerun", "--moerun"], 2),
        (["--launcher", "mpirum -n 2"], ["the launcher 'mpirum' is not found"], 2),
        (["--launcher", "mpirun '-n"], ["--launcher", "No closing quotation"], 2),
        (["--job", str(at / "absent.yaml")], ["absent.yaml: cannot be read"], 2),
        (["--job", str(at / "list.yaml")], ["list.yaml: a job is a YAML mapping"], 2),
        (["--job", str(at / "own.yaml")], ["sampling.max_tokens is the evaluation's own affair"], 2),
        (["--set", "parallel.tensor"], ["--set parallel.tensor: give KEY=VALUE"], 2),
        (["--set", "output.path=x"], ["output.path is the evaluation's own affair"], 2),
    ]
    for options, words, code in cases:
        said = place.run([*place.command(at, "shape_mmlu"), *options], code)
        expect(all(word in said for word in words), f"{options}: {said[-800:]}")
        expect("Traceback" not in said, f"{options}: a traceback: {said[-1500:]}")
    said = place.run(place.command(at, "shape_mmlu"), 2, env={"OMPI_COMM_WORLD_SIZE": "8"})
    expect("this is one of 8 tasks" in said, said)
    expect(not (at / "runs").exists(), "something was written")
    return f"{len(cases) + 1} refused"


def test_runs_that_fail(place, at):
    """A launcher that fails, a job that moerun refuses, requests that have no room, a folder that cannot be written: nothing is lost."""
    limited = ["--limit", "2", "--include_path", str(place.folder / "tasks")]
    base = place.command(at, "shape_mmlu", *limited)
    said = place.run([*base, "--launcher", "false"], 1)
    expect("failed with code 1; what was answered is kept" in said and "Traceback" not in said, said[-1500:])
    said = place.run([*base, "--launcher", "true"], 1)
    expect("ended well and" in said and "answers.h5 is not there" in said, said[-1500:])
    said = place.run([*base, "--set", "parallel.tensr=2"], 2)
    expect("moerun refused the job" in said and "did you mean parallel.tensor" in said, said[-1500:])
    (at / "file").write_text("")
    said = place.run([*base, "--runs", str(at / "file" / "runs")], 2)
    expect("Not a directory; --runs names another place" in said, said[-1500:])
    generating = place.command(at, "shape_gsm8k", *limited, "--max-length", "20")
    said = place.run(generating, 2)
    expect("it may generate 24 tokens, and the model looks at 20" in said, said[-1500:])
    said = place.run([*place.command(at, "shape_gsm8k", *limited), "--gen_kwargs", "num_beams=4"], 2)
    expect("does not know the generation option num_beams=4" in said, said[-1500:])
    place.run(base)
    runs.table(at / "out")


def test_slurm(place, at):
    """A script of the package's own in a real Slurm: killed by Slurm in the middle, and started again; then jobs/lm-eval.sbatch."""
    sys.path.insert(0, str(HERE.parent / "slurm"))
    from cluster import Cluster, Unavailable

    try:
        cluster = Cluster()
    except Unavailable as error:
        print(f"SKIPPED Slurm cannot be started here: {error}")
        return
    try:
        slow = place.command(at, KILLED, *SLOW, "--slurm", "--nodes=1 --ntasks-per-node=2 --export=ALL")
        env = {name: cluster.env[name] for name in ("SLURM_CONF", "PATH")}
        process = subprocess.Popen(slow, env={**ENV, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        folder = sealed(at, process)
        job = (folder / "slurm-job").read_text().strip()
        cluster.run("scancel", "--signal=KILL", "--full", job)
        said = process.communicate(timeout=200)[0]
        expect(process.returncode in (1, 75) and "the same command goes on" in said, f"{process.returncode}: {said[-2000:]}")
        result = resumed(place, at, command=slow, env=env)
        script = ["sbatch", "--wait", "--ntasks-per-node=2", f"--output={at}/script.log", str(HERE.parents[1] / "jobs/lm-eval.sbatch")]
        done = cluster.run(*script, *place.command(at, "shape_mmlu", "--limit", "2")[3:], timeout=400, env={**ENV, **env, "PYTHON": sys.executable})
        expect(done.returncode == 0 and "|shape_mmlu|" in (at / "script.log").read_text(), f"{done.stderr} {(at / 'script.log').read_text()[-2000:]}")
        return result
    finally:
        cluster.end()


def test_example_of_the_docs(place, at):
    """The first commands of docs/evaluation.md as they stand there, with a small model and tasks in the large ones' place, in a virtual
    environment that they make themselves."""
    text = (HERE.parents[1] / "docs/evaluation.md").read_text()
    commands = re.search(r"```sh\n(.*?)```", text, re.S)[1]
    for there, here in (("/models/Qwen3-30B-A3B", f"{place.folder}/model"), ("mmlu,gsm8k --num_fewshot 5", f"shape_mmlu,shape_gsm8k --num_fewshot 3 --limit 2 --include_path {place.folder}/tasks"),
                        ("mpirun -n 8", "mpirun --oversubscribe -n 2")):
        expect(commands.count(there) == 1, f"docs/evaluation.md's commands have no {there!r}")
        commands = commands.replace(there, here)
    (at / "python").symlink_to(HERE.parents[1] / "python")
    (at / "build").symlink_to(MOERUN.parent)
    (at / "commands").write_text(f"set -e\ncd {at}\n{commands}")
    done = subprocess.run(["bash", str(at / "commands")], env={**ENV, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=1200)
    if "No matching distribution" in done.stdout or "Could not find a version" in done.stdout:
        print("SKIPPED the example of the docs: PyPI cannot be reached")
        return
    expect(done.returncode == 0 and "|shape_mmlu" in done.stdout and "|shape_gsm8k" in done.stdout, done.stdout[-3000:])
    expect(list((at / "scores").rglob("results_*.json")), "--output_path has no results")
    shutil.rmtree(at / "venv")


QUICK = [test_names_of_runs, test_rows_that_are_asked, test_figures_of_hf, test_bad_input, test_killed]
MORE = [test_chat, test_all_positions, test_by_lm_eval_itself, test_interrupted_and_orphaned, test_two_at_once, test_runs_that_fail, test_slurm, test_example_of_the_docs]


def main():
    tests = [test for test in [*QUICK, *(MORE if ALL else [])] if FILTER in test.__name__]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="moerun-lm-eval-") as folder:
        place = Place(pathlib.Path(folder))
        for test in tests:
            name, began = test.__name__.removeprefix("test_").replace("_", " "), time.monotonic()
            at = pathlib.Path(folder) / test.__name__
            at.mkdir()
            try:
                result = test(place, at)
                passed += 1
                print(f"ok      {name} ({time.monotonic() - began:.1f} s){': ' + result if result else ''}", flush=True)
            except (Failure, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
                failed += 1
                print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
