"""Signals, time limits, --fresh, changed jobs, jobs that are finished or running already: as a user meets them."""
import json
import pathlib
import re
import shutil
import signal
import socket
import time

from job import FAULT, ONE_RANK, REPOSITORY, STOPPED, Job, Undisturbed, expect, send

OPTIONS = ["device=null", "sampling.max_tokens=40", "sampling.logprobs=0"]
SLOW = ["null_step_ms=25", "scheduler.max_num_seqs=4"]  # about 8 s
# Sequences that would run for minutes.
ENDLESS = ["device=null", "sampling.max_tokens=1500", "sampling.ignore_eos=true"]
BAD_INPUT, ROW_ERRORS = 2, 3


def other_weights(data):
    """A safetensors file with other values in its last tensor."""
    length = int.from_bytes(data[:8], "little")
    entries = [entry for name, entry in json.loads(data[8:8 + length]).items() if name != "__metadata__"]
    begin, end = (8 + length + at for at in max(entry["data_offsets"] for entry in entries))
    return data[:begin] + bytes(byte ^ 1 for byte in data[begin:end]) + data[end:]


class Stops:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.reference = Undisturbed(program, folder, "undisturbed-stops", OPTIONS)

    def stopped(self, running, why, seconds, code=STOPPED):
        """Waits for the end of a run that was told to stop; returns the rows that it says are sealed."""
        running.wait_gone(seconds)
        said = running.said()
        expect(running.code == code, f"exit code {running.code}:\n{said}")
        found = re.findall(rf"^moerun: stopped by {why}: (\d+) rows are sealed, and the same command", said, re.M)
        expect(len(found) == 1, f"'stopped by {why}' is not said once:\n{said}")
        expect(int(found[0]) == sum(running.job.sealed()), f"{running.job.sealed()} rows are sealed:\n{said}")
        return int(found[0])

    def signalled(self, number, victim):
        """`victim`: a rank, or none for mpirun."""
        job = Job(self.program, self.folder, f"{number.name}-{victim}", OPTIONS)
        running = job.start(options=SLOW)
        try:
            running.wait_answering()
            send(running.mpirun.pid if victim is None else running.ranks()[victim], number)
            # Open MPI's mpirun, told to end, returns its own code, not the ranks'.
            code = FAULT if victim is None and number != signal.SIGUSR1 else STOPPED
            rows = self.stopped(running, number.name + (f" at rank {victim}" if victim else ""), 30, code)
        finally:
            running.end()
        expect(0 < rows < 64, f"{rows} rows are sealed")
        expect(f"{rows} of 64 rows are answered" in job.finish(), "it does not resume")
        job.expect_same_output(self.reference())
        return f"gone after {running.gone_after:.1f} s"

    def second_signal(self):
        job = Job(self.program, self.folder, "second", ENDLESS)
        running = job.start(options=[*SLOW, "limits.grace=600"])
        try:
            running.wait_computing()
            send(running.mpirun.pid, signal.SIGUSR1)
            time.sleep(3)  # it must not end by this
            expect(running.is_running(), f"the first signal ended it:\n{running.said()}")
            send(running.mpirun.pid, signal.SIGUSR1)
            self.stopped(running, "SIGUSR1", 10)
        finally:
            running.end()
        return f"gone {running.gone_after:.1f} s after the second"

    def time_limit(self):
        job = Job(self.program, self.folder, "limit", ENDLESS)
        began = time.monotonic()
        running = job.start(options=[*SLOW, "limits.time=4", "limits.grace=2"])
        try:
            self.stopped(running, "the time limit of 0:00:04", 40)
            took = time.monotonic() - began
        finally:
            running.end()
        expect(took >= 6, f"it ended after {took:.1f} s, before limit and grace")
        return f"limit 4 s + grace 2 s: gone {took:.1f} s after its start"

    def fresh(self):
        job = Job(self.program, self.folder, "fresh", OPTIONS)
        job.partly(options=SLOW)
        rows = sum(job.sealed())
        said = job.finish(options=[*ONE_RANK, "--fresh"])
        expect(f"moerun: Discarded {rows} sealed answers in {job.directory}." in said and "Resuming" not in said, said)
        said = job.finish(options=[*ONE_RANK, "--fresh"])
        expect(f"moerun: Discarded the finished output {job.hdf5}." in said, said)
        expect(f"moerun: Discarded the finished output {job.jsonl}." in said, said)
        job.expect_same_output(self.reference())

    def changed(self):
        """Whatever can change an answer and has changed is refused, and named; then the unchanged job goes on."""
        model, rows = self.folder / "model", self.folder / "rows.jsonl"
        shutil.copytree(REPOSITORY / "data/tiny-moe", model)
        text = (REPOSITORY / "data/prompts.jsonl").read_text()
        rows.write_text(text)
        job = Job(self.program, self.folder, "changed", ["device=cpu", f"model.path={model}", f"input.path={rows}",
                                                         "sampling.max_tokens=160", "sampling.ignore_eos=true"])
        job.partly(options=["scheduler.max_num_seqs=2"])  # it must not be over when its first rows are answered
        before = job.sealed()

        def refused(what, options=()):
            code, said = job.run(options=[*ONE_RANK, *options])
            expect(code == BAD_INPUT, f"{what}: exit code {code}:\n{said}")
            expect(f"moerun: {job.directory} holds the answers of another job: " in said and "--fresh" in said, f"{what}: {said}")
            expect(re.search(rf"[:;] {re.escape(what)} was .* and is now ", said), f"{what} is not named:\n{said}")
            expect(job.sealed() == before, f"{what}: the sealed results are gone")

        for option, value in [("temperature", 0.5), ("top_k", 3), ("max_tokens", 41), ("seed", 1), ("logprobs", 1),
                              ("stop", '["a"]'), ("repetition_penalty", 1.1), ("ignore_eos", "false")]:
            refused(f"sampling.{option}", [f"sampling.{option}={value}"])
        refused("model.max_model_len", ["model.max_model_len=1024"])
        refused("device", ["device=null"])
        refused("input rows", ["input.limit=63"])

        def edited(path, edit, what):
            saved = path.read_bytes()
            path.write_bytes(edit(saved))
            refused(what)
            path.write_bytes(saved)

        edited(rows, lambda data: data.replace(b"a", b"e", 1), "input")
        edited(model / "config.json", lambda data: json.dumps({**json.loads(data), "rope_theta": 5e5}).encode(), "model config")
        edited(model / "tokenizer.json", lambda data: data + b"\n", "tokenizer")
        edited(sorted(model.glob("*.safetensors"))[1], other_weights, "model weights")
        expect("Resuming" in job.finish(), "it does not resume")

    def finished_again(self):
        job = Job(self.program, self.folder, "again", OPTIONS)
        job.finish()
        stamps = [path.stat().st_mtime_ns for path in (job.hdf5, job.jsonl)]
        said = job.finish(ranks=2, options=["parallel.data=1"])
        expect(said.strip() == f"moerun: {job.hdf5} is finished already: nothing to do.", said)
        expect(stamps == [path.stat().st_mtime_ns for path in (job.hdf5, job.jsonl)], "the output was written again")
        bad = self.folder / "bad.jsonl"
        bad.write_text('{"prompt": "Once"}\n{"prompt": 1}\n')
        job = Job(self.program, self.folder, "again-errors", [*OPTIONS, f"input.path={bad}", "input.on_error=row"])
        for _ in range(2):
            code, said = job.run()
            expect(code == ROW_ERRORS, f"exit code {code}:\n{said}")
        expect("is finished already" in said, said)

    def running_already(self):
        job = Job(self.program, self.folder, "locked", OPTIONS)
        running = job.start(options=SLOW)
        try:
            running.wait_computing()
            holder = running.ranks()[0]
            for options in ([], ["--fresh"]):
                code, said = job.run(options=[*ONE_RANK, *options])
                expect(code == BAD_INPUT, f"exit code {code}:\n{said}")
                want = (f"moerun: another job is writing this output: {job.directory} is locked by process {holder} on "
                        f"{socket.gethostname()}; wait for it, or give this job another output.path")
                expect(want in said, said)
            running.wait_gone(120)
            expect(running.code == 0, f"the running job was disturbed: {running.said()}")
        finally:
            running.end()
        job.expect_same_output(self.reference())


def stop_tests(program, folder):
    stops = Stops(program, pathlib.Path(folder) / "stops")
    yield "USR1 to mpirun: running sequences end", lambda: stops.signalled(signal.SIGUSR1, None), True
    yield "USR1 to rank 2", lambda: stops.signalled(signal.SIGUSR1, 2), True
    yield "INT to rank 0", lambda: stops.signalled(signal.SIGINT, 0), True
    yield "TERM to rank 3", lambda: stops.signalled(signal.SIGTERM, 3), False
    yield "TERM to mpirun", lambda: stops.signalled(signal.SIGTERM, None), True
    yield "a second USR1 stops harder", stops.second_signal, True
    yield "limits.time and limits.grace", stops.time_limit, True
    yield "--fresh says what it discards", stops.fresh, True
    yield "a changed job is refused, with what differs", stops.changed, True
    yield "a finished job says so", stops.finished_again, True
    yield "an output that a running job writes", stops.running_already, True
