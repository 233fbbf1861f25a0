"""The k-th call of a run that changes a file fails, for every k, in each way that a disk has, at each stage of a job."""
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess

from job import REPOSITORY, STOPPED, Job, Running, expect, hdf5_difference, send

OPTIONS = ["device=null", "sampling.max_tokens=40", "sampling.logprobs=1", "sampling.prompt_logprobs=true", "input.limit=12",
           "parallel.tensor=1", "parallel.data=1"]
MODES = ("ENOSPC", "EIO", "EDQUOT", "EINTR", "short", "kill", "half-kill")
WRITES = ("write", "pwrite", "writev", "pwritev")
# What a run may end with: finished, a fault, another's output or a directory that cannot be made, stopped.
MAY_END_WITH = {0: "finished", 1: "fault", 2: "refused", STOPPED: "stopped", -signal.SIGKILL: "killed"}


class Alone(Job):
    """A job of one rank without a launcher, with reports: it starts in a tenth of a second."""

    def __init__(self, program, folder, options=()):
        super().__init__(program, folder, "out", [*OPTIONS, *options])
        self.reports = [self.folder / "out.report.json", self.folder / "out.report.html"]

    def command(self, ranks, options):
        return [self.program, "jobs/demo.yaml", f"output.path={self.hdf5}", f"output.jsonl={self.jsonl}",
                f"report.path={self.reports[0]}", f"report.html={self.reports[1]}", *self.options, *options]

    def now(self, options=(), environment=None):
        """Runs it; returns the exit code and what was said."""
        done = subprocess.run(self.command(1, options), cwd=REPOSITORY, capture_output=True, text=True, errors="replace",
                              timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})})
        return done.returncode, done.stdout + done.stderr

    def expect_same_answers(self, reference):
        expect(self.jsonl.read_bytes() == reference.jsonl.read_bytes(), f"{self.jsonl} differs from an undisturbed run's")
        difference = self.difference(reference)
        expect(not difference, f"{self.hdf5} differs from an undisturbed run's: {difference}")

    def difference(self, reference):
        return hdf5_difference(self.hdf5, reference.hdf5)

    def expect_whole(self, reference):
        """The output is an undisturbed run's, the reports are there, and nothing else."""
        self.expect_same_answers(reference)
        left = sorted(path.name for path in self.folder.iterdir())
        want = sorted(path.name for path in (self.hdf5, self.jsonl, *self.reports))
        expect(left == want, f"there is {left} instead of {want}")
        report = json.loads(self.reports[0].read_text())
        expect(report["complete"] is True and report["rows"]["total"] == 12, f"the report says {report}")
        expect("</html>" in self.reports[1].read_text(), f"{self.reports[1]} is no whole page")


class Calls:
    def __init__(self, program, folder, library, share, seed):
        self.program, self.folder, self.library = program, pathlib.Path(folder), library
        self.share, self.random = share, random.Random(seed)
        self.ended = collections.Counter()
        self.runs = 0
        self.templates = {}  # of a stage: a folder
        self.calls_of = {}  # of a stage: the calls of an undisturbed run

    def environment(self, job, **what):
        return {"LD_PRELOAD": str(self.library), "FAULTY_ROOT": str(job.folder), "FAULTY_CALL": "0", **what}

    def job(self):
        return Alone(self.program, self.folder / "job")

    def clear(self, job):
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)

    # --- what a run begins with

    def template(self, name):
        """A copy of the job's folder as a run of the stage finds it."""
        if name not in self.templates:
            job = self.job()
            self.clear(job)
            getattr(self, f"make_{name}")(job)
            self.templates[name] = self.folder / f"template-{name}"
            shutil.copytree(job.folder, self.templates[name])
        return self.templates[name]

    def make_fresh(self, job):
        pass

    def seal_some(self, job):
        """Some more answers are sealed: a slow run is told to stop when it has answered."""
        before = sum(job.sealed())
        slow = Running(job, 1, ["null_step_ms=40", "scheduler.max_num_seqs=2"], {})
        try:
            slow.wait_answering()
            send(slow.mpirun.pid, signal.SIGTERM)
            slow.wait_gone(30)
        finally:
            slow.end()
        expect(slow.code == STOPPED and before < sum(job.sealed()) < 12, f"{job.sealed()}: exit code {slow.code}\n{slow.said()}")

    def make_resumed(self, job):
        self.seal_some(job)
        self.seal_some(job)

    def make_merge(self, job):
        """All is sealed, and nothing is merged."""
        self.clear(job)
        names = self.names(job)
        first = names.index(("open", f"{job.hdf5}.tmp")) + 1
        self.clear(job)
        code, said = job.now(environment=self.environment(job, FAULTY_CALL=str(first), FAULTY_MODE="kill"))
        expect(code == -signal.SIGKILL and sum(job.sealed()) == 12, f"{job.sealed()}: exit code {code}\n{said}")

    def make_damaged(self, job):
        """A segment is cut short, and the ledger does not name the other."""
        self.make_resumed(job)
        segments = sorted(job.directory.glob("segment-*"))
        os.truncate(segments[0], segments[0].stat().st_size - 20)
        job.ledger.write_text(job.ledger.read_text().split("\n")[0] + "\n")

    def make_named(self, job):
        """The JSONL file has its name, the HDF5 file has not."""
        self.clear(job)
        names = self.names(job)
        last = names.index(("rename", str(job.hdf5))) + 1
        self.clear(job)
        code, said = job.now(environment=self.environment(job, FAULTY_CALL=str(last), FAULTY_MODE="kill"))
        expect(code == -signal.SIGKILL and job.jsonl.exists() and not job.hdf5.exists(), f"exit code {code}\n{said}")

    def make_anew(self, job):
        self.clear(job)
        code, said = job.now()
        expect(code == 0, said)

    # --- the test

    def names(self, job, options=()):
        """The calls of an undisturbed run: (call, path)."""
        log = self.folder / "calls"
        log.unlink(missing_ok=True)
        code, said = job.now(options, self.environment(job, FAULTY_LOG=str(log)))
        expect(code == 0, f"undisturbed, it ended with exit code {code}:\n{said}")
        return [tuple(line.split(" ", 1)) for line in log.read_text().splitlines()]

    def begin(self, job, stage):
        template = self.template(stage)
        shutil.rmtree(job.folder)
        shutil.copytree(template, job.folder)

    def reference(self):
        job = Alone(self.program, self.folder / "reference")
        if not job.hdf5.exists():
            code, said = job.now()
            expect(code == 0, said)
        return job

    def stage(self, stage, mode):
        """Every k (or a share of them) of a stage, in one mode. Returns what there is to say."""
        job, options = self.job(), ["--fresh"] if stage == "anew" else []
        if stage not in self.calls_of:
            self.begin(job, stage)
            self.calls_of[stage] = self.names(job, options)
            job.expect_whole(self.reference())
        names = self.calls_of[stage]
        ks = [k for k, (name, _) in enumerate(names, 1) if name in WRITES or mode not in ("short", "half-kill")]
        if self.share:
            ks = sorted(self.random.sample(ks, min(self.share, len(ks))))
        ended = collections.Counter()
        for k in ks:
            self.begin(job, stage)
            code, said = job.now(options, self.environment(job, FAULTY_CALL=str(k), FAULTY_MODE=mode))
            what = f"{stage}, {mode}, call {k} of {len(names)} ({' '.join(names[k - 1])})"
            try:
                self.expect_sound(job, options, code, said)
            except (AssertionError, OSError, ValueError, KeyError) as fault:
                raise AssertionError(f"{what}: exit code {code}: {fault}\n{said[-2000:]}") from None
            ended[MAY_END_WITH[code]] += 1
            self.runs += 1
        self.ended += ended
        return f"{len(ks)} of {len(names)} calls: " + ", ".join(f"{n} {how}" for how, n in ended.most_common())

    def expect_sound(self, job, options, code, said):
        reference = self.reference()
        expect(code in MAY_END_WITH, "it ended in no way that it may")
        expect(code in (0, -signal.SIGKILL) or "moerun: " in said, "it does not say why")
        if code == 0:
            job.expect_same_answers(reference)
        if job.hdf5.exists() and not options:
            expect(not job.difference(reference), "an output that is not whole has its name")
        again, said_again = job.now(options)
        expect(again == 0, f"the same command ends with exit code {again}:\n{said_again}")
        job.expect_whole(reference)


    def report_in_the_way(self):
        """Reports that cannot be written change no exit code; the same command writes them, with what was measured."""
        job = self.job()
        self.clear(job)
        in_the_way = [path.with_name(path.name + ".tmp") for path in job.reports]
        for path in in_the_way:
            path.mkdir()
        for again in range(2):
            code, said = job.now()
            expect(code == 0, f"exit code {code} instead of 0:\n{said}")
            lines = [line for line in said.splitlines() if "not written" in line and "the same command writes it" in line]
            expect(len(lines) == 2, f"it does not say twice that a report is not written:\n{said}")
            job.expect_same_answers(self.reference())
            expect(job.directory.exists() and not any(path.exists() for path in job.reports), "the reports are not kept")
        for path in in_the_way:
            path.rmdir()
        code, said = job.now()
        expect(code == 0 and said.count("is written\n") == 2, f"exit code {code}:\n{said}")
        job.expect_whole(self.reference())
        expect("throughput" in json.loads(job.reports[0].read_text()), "what was measured is lost")

    def killed_before_the_report(self):
        """A run that dies between its output's name and its report: the next one writes what the output says."""
        job = self.job()
        self.clear(job)
        names = self.names(job)
        first = next(k for k, (_, path) in enumerate(names, 1) if path.startswith(str(job.reports[0])))
        self.clear(job)
        job.reports[0].write_text('{\n  "program": "moerun of before"\n}\n')
        code, said = job.now(environment=self.environment(job, FAULTY_CALL=str(first), FAULTY_MODE="kill"))
        expect(code == -signal.SIGKILL and job.hdf5.exists(), f"exit code {code}:\n{said}")
        code, said = job.now()
        expect(code == 0 and "without what the run measured" in said, f"exit code {code}:\n{said}")
        job.expect_whole(self.reference())
        written = job.reports[0].read_text()
        code, said = job.now()
        expect(code == 0 and "report" not in said and job.reports[0].read_text() == written, f"it was written again:\n{said}")


STAGES = ("fresh", "resumed", "merge", "damaged", "named", "anew")


def call_tests(program, folder, share, seed):
    library = pathlib.Path(program).parent / "tests/faulty_calls.so"
    calls = Calls(program, pathlib.Path(folder) / "calls", library, share, seed)
    yield "reports that cannot be written", calls.report_in_the_way
    yield "a death before the report", calls.killed_before_the_report
    for stage in STAGES:
        for mode in MODES:
            yield f"a call that fails, {stage}: {mode}", lambda stage=stage, mode=mode: calls.stage(stage, mode)
