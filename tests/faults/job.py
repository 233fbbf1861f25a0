"""A job of the real program, seen from outside: its ranks, what it is doing, what it has sealed, and its output."""
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import tempfile
import time
import uuid

import h5py
import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MPIRUN = shlex.split(os.environ.get("MPIRUN", "mpirun --oversubscribe"))
TAG = "MOERUN_TEST_JOB"  # in the environment of everything that belongs to a job
FAULT, STOPPED, GONE_WITHIN = 1, 75, 15
ONE_RANK = ("parallel.tensor=1", "parallel.data=1")
# How the output came to be; all else in it must not depend on who was killed when, nor on layout and batch sizes.
PROVENANCE = {"job", "layout", "start", "end"}


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def processes_of(tag):
    """Process ids of everything that runs with this tag."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if f"{TAG}={tag}".encode() in (entry / "environ").read_bytes().split(b"\0") \
                    and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def rank_of(pid, program):
    """The rank that a process is; none for a launcher, and before it has become the program."""
    try:
        if os.readlink(f"/proc/{pid}/exe") != program:
            return None
        for item in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if item.startswith(b"OMPI_COMM_WORLD_RANK="):
                return int(item.split(b"=")[1])
    except OSError:
        return None


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def wait_until(what, condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Job:
    """A job: what is run, time after time, until it is finished."""

    def __init__(self, program, folder, name, options):
        self.program, self.name, self.options = program, name, options
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hdf5, self.jsonl = self.folder / f"{name}.h5", self.folder / f"{name}.jsonl"
        self.directory = self.folder / f"{name}.h5.run"
        self.ledger = self.directory / "ledger"

    def command(self, ranks, options):
        return [*MPIRUN, "-n", str(ranks), self.program, "jobs/demo.yaml", f"output.path={self.hdf5}",
                f"output.jsonl={self.jsonl}", "report.path=null", *self.options, *options]

    def start(self, ranks=4, options=(), environment=None):
        return Running(self, ranks, options, environment or {})

    def run(self, ranks=1, options=ONE_RANK, seconds=300):
        """Runs to the end, undisturbed. Returns the exit code and what was said."""
        running = self.start(ranks, options)
        try:
            running.wait_gone(seconds)
            return running.code, running.said()
        finally:
            running.end()

    def finish(self, **how):
        code, said = self.run(**how)
        expect(code == 0, f"exit code {code} instead of 0:\n{said[-3000:]}")
        return said

    def sealed(self):
        """Rows of each segment that the ledger names in a whole line."""
        try:
            lines = self.ledger.read_text().split("\n")[:-1]
        except OSError:
            return []
        return [json.loads(line[9:])["rows"] for line in lines]

    def is_finished(self):
        return self.hdf5.exists() and not self.directory.exists()

    def partly(self, segments=1, options=()):
        """Leaves this many sealed segments or more: a rank is killed after the first answers, and rank 0 seals them."""
        for already in range(segments):
            running = self.start(options=options)
            try:
                running.wait_answering()
                send(running.ranks()[3], signal.SIGKILL)
                running.wait_gone()
            finally:
                running.end()
            expect(len(self.sealed()) > already, f"sealed: {self.sealed()}\n{running.said()}")

    def expect_same_output(self, reference):
        """Every row once and in order, and each byte of the answers as in the reference."""
        lines = self.jsonl.read_bytes()
        rows = [json.loads(line)["row"] for line in lines.splitlines()]
        expect(rows == list(range(len(rows))), f"rows {rows}")
        expect(lines == reference.jsonl.read_bytes(), f"{self.jsonl} differs from an undisturbed run's")
        difference = hdf5_difference(self.hdf5, reference.hdf5)
        expect(not difference, f"{self.hdf5} differs from an undisturbed run's: {difference}")
        left = sorted(p.name for p in self.folder.glob(f"{self.name}.*"))
        expect(left == [f"{self.name}.h5", f"{self.name}.jsonl"], f"left behind: {left}")


class Undisturbed:
    """The same job without a fault, run when its output is first asked for."""

    def __init__(self, program, folder, name, options):
        self.arguments, self.finished = (program, folder, name, options), None

    def __call__(self):
        if not self.finished:
            self.finished = Job(*self.arguments)
            self.finished.finish()
        return self.finished


def attribute(file, name):
    value = file.attrs[name]
    if name == "fingerprint":  # it names the other output, and each job here has its own
        return [entry for entry in json.loads(value) if entry[0] != "output.jsonl"]
    return value


def hdf5_difference(path, reference):
    """The first dataset or attribute that differs; none when all bytes are the same."""
    with h5py.File(path) as a, h5py.File(reference) as b:
        datasets = {name: [] for name in ("a", "b")}
        for name, file in (("a", a), ("b", b)):
            file.visititems(lambda at, thing, to=datasets[name]: to.append(at) if isinstance(thing, h5py.Dataset) else None)
        if datasets["a"] != datasets["b"] or not datasets["a"]:
            return f"datasets {datasets}"
        for name in datasets["a"]:
            x, y = a[name], b[name]
            if x.dtype != y.dtype or x.shape != y.shape:
                return f"{name}: {x.dtype} {x.shape} and {y.dtype} {y.shape}"
            as_bytes = (lambda data: b"\0".join(data)) if x.dtype.kind == "O" else np.ndarray.tobytes
            if as_bytes(x[()]) != as_bytes(y[()]):
                return name
        if set(a.attrs) != set(b.attrs):
            return f"attributes {set(a.attrs) ^ set(b.attrs)}"
        for name in sorted(set(a.attrs) - PROVENANCE):
            if attribute(a, name) != attribute(b, name):
                return f"attribute {name}: {a.attrs[name]} and {b.attrs[name]}"
    return None


class Running:
    """One run of a job."""

    PHASES = ("start-up", "load", "run", "sealing", "merge", "end")

    def __init__(self, job, ranks, options, environment):
        self.job, self.num_ranks, self.tag = job, ranks, uuid.uuid4().hex
        self.log = pathlib.Path(tempfile.gettempdir()) / f"moerun-{self.tag}.log"  # not on the job's disk, which may be full
        self.began = time.time_ns()
        self.was_sealed = len(job.sealed())
        with open(self.log, "wb") as log:
            self.mpirun = subprocess.Popen(job.command(ranks, options), cwd=REPOSITORY, stdout=log, stderr=log,
                                           env={**os.environ, TAG: self.tag, "OMP_NUM_THREADS": "1", **environment})

    def said(self):
        return self.log.read_text(errors="replace")

    def lines(self):
        """What the program itself has said about faults and stops."""
        return [line for line in self.said().splitlines() if line.startswith("moerun: ")]

    def written(self):
        """Names of the files of this job that this run has written to; what an earlier one left says nothing."""
        found = set()
        for folder in (self.job.directory, self.job.folder):
            try:
                for entry in os.scandir(folder):
                    ours = folder == self.job.directory or entry.name.startswith(self.job.name + ".")
                    if ours and entry.stat().st_mtime_ns > self.began:
                        found.add(entry.name)
            except OSError:
                continue
        return found

    def phase(self):
        """What the job is doing, from what it has written and said. The null device loads nothing: its `load` is `run`."""
        new = self.written()
        if self.job.hdf5.name in new:
            return "end"
        if f"{self.job.name}.h5.tmp" in new or f"{self.job.name}.jsonl.tmp" in new:
            return "merge"
        segments = {name for name in new if name.startswith("segment-")}
        if any(name.endswith(".tmp") for name in segments) or len(segments) > len(self.job.sealed()) - self.was_sealed:
            return "sealing"
        said = self.said()
        if "moerun: memory of rank 0" in said:
            return "run"
        if "manifest.json" in new or "moerun: Resuming" in said:
            return "run" if "device=null" in self.job.options else "load"
        return "start-up"

    def is_running(self):
        return self.mpirun.poll() is None

    def wait_for(self, phase):
        """False when the job ended before."""
        order = self.PHASES.index
        while self.is_running():
            now = self.phase()
            # Sealing comes and goes; the other phases follow each other.
            if now == phase or (phase != "sealing" and order(now) >= order(phase)):
                return True
            if phase == "sealing" and order(now) > order(phase):
                return True
            time.sleep(0.001)
        return False

    def wait_for_progress(self, condition, what):
        """Until the last progress line (rows answered, sequences running) is as wanted; returns it."""
        shown = []

        def there():
            expect(self.is_running(), f"it ended before {what}:\n{self.said()[-3000:]}")
            for line in re.findall(r"^([\d,]+)/[\d,]+ rows .* ([\d,]+) running", self.said(), re.M):
                shown[:] = [int(n.replace(",", "")) for n in line]
            return shown and condition(*shown)
        wait_until(what, there, 120)
        return shown

    def wait_answering(self):
        """Until this run has answered rows; returns how many are answered in all."""
        before = sum(self.job.sealed())
        return self.wait_for_progress(lambda answered, _: answered > before, "rows are answered")[0]

    def wait_computing(self):
        self.wait_for_progress(lambda _, running: running > 0, "sequences run")

    def ranks(self):
        """Process id of each rank that is there."""
        found = {rank_of(pid, self.job.program): pid for pid in processes_of(self.tag)}
        return {rank: found[rank] for rank in sorted(r for r in found if r is not None)}

    def processes(self):
        """Process ids of all that belongs to the job, and of its ranks, in their order."""
        return processes_of(self.tag), list(self.ranks().values())

    def wait_gone(self, seconds=GONE_WITHIN):
        """Until nothing of the job runs any more; sets `code` and `gone_after`."""
        began = time.monotonic()
        try:
            self.code = self.mpirun.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"mpirun is still there after {seconds} s:\n{self.said()[-3000:]}") from None
        left = max(began + seconds - time.monotonic(), 1)
        wait_until(f"nothing of the job runs: {processes_of(self.tag)}", lambda: not processes_of(self.tag), left)
        self.gone_after = time.monotonic() - began

    def end(self):
        """Leaves nothing running, whatever has happened."""
        while found := processes_of(self.tag):
            for pid in found:
                send(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.mpirun.wait()
        self.text = self.said()
        self.log.unlink()
        self.said = lambda: self.text
