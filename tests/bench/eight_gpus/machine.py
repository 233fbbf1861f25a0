"""The machine that a run measures: its GPUs, how jobs are started on it, and which processes are theirs."""
import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shlex
import signal
import subprocess
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[3]
MARK = "MOERUN_EIGHT_GPUS"  # in the environment of every process that is started here


class Failure(Exception):
    """Something was measured and is not as it should be."""


class OutOfTime(Exception):
    """The part's time is over."""


def expect(condition, what):
    if not condition:
        raise Failure(what)


def load_script(path):
    """A program of this repository that has no .py in its name, as a module."""
    loader = importlib.machinery.SourceFileLoader(path.name, str(path))
    spec = importlib.util.spec_from_loader(path.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Until:
    """The end of a part's time."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        """Seconds, more than 1; raises OutOfTime."""
        seconds = self.end - time.monotonic()
        if seconds < 1:
            raise OutOfTime("out of time")
        return seconds

    def over(self):
        return self.end - time.monotonic() < 1


@dataclasses.dataclass(frozen=True)
class Layout:
    tensor: int
    data: int
    replicas: int = 1

    @property
    def ranks(self):
        return self.tensor * self.data * self.replicas

    @property
    def engine(self):
        """Ranks that share the experts."""
        return self.tensor * self.data

    def overrides(self):
        return [f"parallel.tensor={self.tensor}", f"parallel.data={self.data}", f"parallel.replicas={self.replicas}"]

    def __str__(self):
        return f"tensor {self.tensor} × data {self.data}" + (f" × replicas {self.replicas}" if self.replicas > 1 else "")


class Machine:
    def __init__(self, program, device):
        self.program, self.device = program.resolve(), device
        self.gpus = visible_gpus() if device == "cuda" else []
        # Two CPU ranks are enough to try the machinery; layouts are of a power of two of GPUs, at most eight.
        found = len(self.gpus) if device == "cuda" else 2
        self.ranks = next((n for n in (8, 4, 2) if n <= found), found)
        self.mpirun = shlex.split(os.environ["MPIRUN"])
        os.environ[MARK] = str(os.getpid())

    @property
    def on_gpus(self):
        return self.device == "cuda"

    def reference(self):
        """Tensor 4 × data 2 on eight GPUs; with fewer, data 2 stays: it is what makes several data-parallel groups."""
        return Layout(self.ranks // 2, 2)

    def layouts(self):
        """Every way to lay the ranks out, the reference first."""
        sizes = [2**i for i in range(self.ranks.bit_length())]
        every = [Layout(t, d, self.ranks // (t * d)) for t in sizes for d in sizes if self.ranks % (t * d) == 0]
        return sorted(every, key=lambda layout: (layout != self.reference(), layout.replicas, layout.tensor))

    def helper(self, name):
        """A program that is built or shipped beside moerun; None when it is not there."""
        places = [self.program.parent / name, self.program.parent / "tests" / name, REPO / "build/tests" / name]
        return next((place for place in places if os.access(place, os.X_OK)), None)

    def launch(self, command, ranks, **options):
        return subprocess.Popen([*self.mpirun, "-n", str(ranks), *map(str, command)], cwd=REPO, text=True, **options)

    def run(self, command, ranks, until):
        """Runs a program on `ranks` ranks; returns its output (both streams). Raises Failure, OutOfTime."""
        with tempfile.TemporaryFile("w+") as output:
            process = self.launch(command, ranks, stdout=output, stderr=subprocess.STDOUT)
            try:
                process.wait(until.left())
            except subprocess.TimeoutExpired:
                self.reap()
                process.wait()
                raise OutOfTime(f"out of time in: {' '.join(map(str, command))}") from None
            output.seek(0)
            text = output.read()
        expect(process.returncode == 0, f"{pathlib.Path(command[0]).name} ended with {process.returncode}:\n{text[-2000:]}")
        return text

    def reap(self):
        """Ends what was started here and is still there; returns when it is gone."""
        end = time.monotonic() + 20
        while (left := processes()) and time.monotonic() < end:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)


def visible_gpus():
    """[{uuid, name, memory_mib}] of the GPUs that a rank would see."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 3]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        names = [name.strip() for name in shown.split(",")]
        rows = [row for row in rows if row[0] in names or any(name and row[1].startswith(name) for name in names)]
    return [{"uuid": row[1], "name": row[2], "memory_mib": int(row[3])} for row in rows]


def environment_of(pid):
    try:
        pairs = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return {}
    return {} if state in "ZX" else dict(pair.decode(errors="replace").split("=", 1) for pair in pairs if b"=" in pair)


def processes():
    """{process id: its environment} of all that was started here and lives, this process left out."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            environment = environment_of(entry.name)
            if environment.get(MARK) == str(os.getpid()):
                found[int(entry.name)] = environment
    return found


def rank_processes():
    """{rank: process id} of the job that runs."""
    return {int(environment[variable]): pid for pid, environment in processes().items()
            for variable in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK") if environment.get(variable, "").isdigit()}


def write_job(folder, job):
    path = pathlib.Path(folder) / "job.yaml"
    path.write_text(json.dumps(job))
    return path
