"""Damage to the run directory, and disks that are full or read-only."""
import os
import pathlib
import re
import shutil
import subprocess

from job import STOPPED, Job, Undisturbed, expect

OPTIONS = ["device=null", "sampling.max_tokens=40", "sampling.logprobs=0"]
SLOW = ["null_step_ms=25", "scheduler.max_num_seqs=4"]  # about 8 s
BAD_INPUT = 2


class Unavailable(Exception):
    """The machine does not allow what the test needs."""


class Mount:
    """A file system of its own for a test."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.mount(*arguments, str(folder))

    @staticmethod
    def mount(*arguments):
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"nothing can be mounted here: {done.stderr.strip()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Disks:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.reference = Undisturbed(program, folder, "undisturbed-disks", OPTIONS)

    def job(self, name, segments=0, folder=None):
        job = Job(self.program, folder or self.folder, name, OPTIONS)
        job.partly(segments, SLOW)
        return job

    def goes_on(self, job, rows, words=None):
        """The same command finishes the job, with `rows` of it (a number, or least and most) answered already (none: it starts anew)."""
        said = job.finish()
        if rows is None:
            expect("Resuming" not in said, said)
        else:
            least, most = rows if isinstance(rows, tuple) else (rows, rows)
            found = re.search(rf"^moerun: Resuming {re.escape(str(job.directory))}: (\d+) of 64 rows are answered\.", said, re.M)
            expect(found and least <= int(found[1]) <= most, f"not {rows} rows: {said}")
        expect(words is None or words in said, f"'{words}' is not in: {said}")
        job.expect_same_output(self.reference())

    # --- damage

    def torn_ledger(self):
        """The segment whose line is torn is as good without it."""
        job = self.job("torn-ledger", segments=2)
        rows = sum(job.sealed())
        os.truncate(job.ledger, job.ledger.stat().st_size - 7)
        self.goes_on(job, rows, "is not named by the ledger, and is sound")

    def torn_segment(self):
        job = self.job("torn-segment", segments=2)
        segment = job.directory / "segment-000001"
        os.truncate(segment, segment.stat().st_size - 20)
        self.goes_on(job, sum(job.sealed()) - 1, f"moerun: Damaged: {segment} has ")

    def missing_segment(self):
        job = self.job("missing-segment", segments=2)
        segment = job.directory / "segment-000001"
        segment.unlink()
        self.goes_on(job, sum(job.sealed()[1:]), f"moerun: Damaged: cannot open {segment}: No such file or directory")

    def missing_ledger(self):
        job = self.job("missing-ledger", segments=1)
        rows = sum(job.sealed())
        job.ledger.unlink()
        self.goes_on(job, rows, f"moerun: Damaged: {job.ledger} is missing")

    def linked_directory(self):
        """A link in place of the run directory is refused, and what it leads to is left alone."""
        job = self.job("linked-directory", segments=1)
        moved = job.directory.rename(self.folder / "moved")
        job.directory.symlink_to(moved)
        before = {path.name: path.stat().st_mtime_ns for path in moved.iterdir()}
        code, said = job.run()
        expect(code == BAD_INPUT and f"{job.directory} is a symbolic link" in said, f"exit code {code}:\n{said}")
        expect(before == {path.name: path.stat().st_mtime_ns for path in moved.iterdir()}, "it wrote through the link")
        job.directory.unlink()
        moved.rename(job.directory)
        self.goes_on(job, sum(job.sealed()))

    def output_of_others(self):
        """What appears under the output's name while the job runs is not replaced; the answers stay."""
        job = self.job("others", segments=1)
        running = job.start(options=SLOW)
        try:
            running.wait_answering()
            job.hdf5.write_text("of another")
            running.wait_gone(60)
            said = running.said()
        finally:
            running.end()
        expect(running.code == STOPPED and f"{job.hdf5} appeared while the job ran and is not replaced" in said, f"exit code {running.code}:\n{said}")
        expect(job.hdf5.read_text() == "of another", "it was replaced")
        job.hdf5.unlink()
        self.goes_on(job, 64)

    def missing_directory(self):
        job = self.job("missing-directory", segments=1)
        shutil.rmtree(job.directory)
        self.goes_on(job, None)

    # --- disks

    def stops(self, job, words):
        """A run that stops by itself, and says why. Returns the line."""
        before = sum(job.sealed())
        code, said = job.run()
        expect(code == STOPPED, f"exit code {code} instead of {STOPPED}:\n{said}")
        lines = [line for line in said.splitlines() if words in line]
        expect(len(lines) == 1 and lines[0].startswith("moerun: "), f"'{words}' is not said once:\n{said}")
        expect("the same command" in said, f"it does not say how to go on:\n{said}")
        expect(not job.hdf5.exists(), "an output that is not whole has its name")
        expect(sum(job.sealed()) >= before, f"{before} rows were sealed before, {sum(job.sealed())} after it")
        return lines[0]

    def small_disk(self):
        """Room grows a little at a time: the disk is full at every stage of the job."""
        folder = self.folder / "small"
        with Mount(folder, "-t", "tmpfs", "-o", "size=16k", "none"):
            job = self.job("out", folder=folder)
            stopped_at, kib = [], 16
            while kib <= 4096:
                code, said = job.run()
                if code == 0:
                    break
                expect(code == STOPPED, f"exit code {code} with {kib} KiB:\n{said}")
                lines = [line for line in said.splitlines() if "No space left on device" in line]
                expect(len(lines) == 1 and "the same command" in said, said)
                expect(not job.hdf5.exists(), "an output that is not whole has its name")
                stopped_at.append(lines[0])
                kib += 8
                Mount.mount("-o", f"remount,size={kib}k", str(folder))
            for part in ("segment-", ".tmp"):
                expect(any(part in line for line in stopped_at), f"never stopped at {part}:\n" + "\n".join(stopped_at))
            job.expect_same_output(self.reference())
        return f"{len(stopped_at)} times full"

    def filling_disk(self):
        """Others fill the disk while the job runs."""
        folder = self.folder / "filling"
        with Mount(folder, "-t", "tmpfs", "-o", "size=2m", "none"):
            job = self.job("out", segments=1, folder=folder)
            running = job.start(options=SLOW)
            try:
                running.wait_answering()
                self.leave_room(folder, 0)
                before = sum(job.sealed())
                running.wait_gone(60)
                said = running.said()
            finally:
                running.end()
            expect(running.code == STOPPED, f"exit code {running.code}:\n{said}")
            refused = [line for line in said.splitlines() if "No space left on device" in line and "how the job stands" not in line]
            expect(len(refused) == 1 and "the same command" in said, said)
            expect(sum(job.sealed()) == before, "sealed results are gone")
            (folder / "ballast").unlink()
            self.goes_on(job, before)

    def room_for_the_rest(self):
        """A job that goes on needs no room for what it has sealed, and a finished one needs none."""
        folder = self.folder / "rest"
        long_answers = ["device=null", "sampling.max_tokens=400", "sampling.ignore_eos=true", "sampling.logprobs=0"]
        least = 2 * 64 * (64 + 400 * 12) + 64 * (64 + 400 * 26)  # estimate_output's: segments and HDF5, JSONL
        with Mount(folder, "-t", "tmpfs", "-o", "size=8m", "none"):
            job = Job(self.program, folder, "out", long_answers)
            job.partly(options=["null_step_ms=2", "scheduler.max_num_seqs=4"])
            sealed = sum(path.stat().st_size for path in job.directory.iterdir())
            expect(sealed > 30_000, f"too little is sealed for this test: {sealed} bytes")
            self.leave_room(folder, least - sealed // 2)
            code, said = Job(self.program, folder, "other", long_answers).run()
            expect(code == BAD_INPUT and "the 64 answers take at least 1.2 MiB" in said, said)
            expect("Resuming" in job.finish(), "it does not resume")
            self.leave_room(folder, 0)
            expect("is finished already" in job.finish(), "the finished job is not seen")

    @staticmethod
    def leave_room(folder, size):
        """Fills the file system, but for so many bytes."""
        ballast = folder / "ballast"
        ballast.unlink(missing_ok=True)
        with open(ballast, "wb") as out:
            while (more := os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - size) > 0:
                try:
                    os.posix_fallocate(out.fileno(), os.fstat(out.fileno()).st_size, more)
                except OSError:
                    continue  # a running job has taken some of it meanwhile

    def read_only_disk(self):
        """The run directory becomes read-only while the job runs; and is so when it starts."""
        folder = self.folder / "read-only"
        job = self.job("out", segments=1, folder=folder)
        running = job.start(options=SLOW)
        try:
            running.wait_answering()
            with Mount(job.directory, "--bind", str(job.directory)):
                Mount.mount("-o", "remount,bind,ro", str(job.directory))
                before = sum(job.sealed())
                running.wait_gone(60)
                said = running.said()
                expect(running.code == STOPPED, f"exit code {running.code}:\n{said}")
                expect(said.count("Read-only file system") == 1 and "the same command" in said, said)
                self.stops(job, "Read-only file system")
        finally:
            running.end()
        expect(sum(job.sealed()) == before, "sealed results are gone")
        with Mount(folder, "--bind", str(folder)):
            Mount.mount("-o", "remount,bind,ro", str(folder))
            code, said = job.run()
            expect(code == BAD_INPUT and f"output.path: {folder} cannot be written to: Read-only file system" in said, said)
        self.goes_on(job, before)


def disk_tests(program, folder):
    disks = Disks(program, pathlib.Path(folder) / "disks")
    yield "the last line of the ledger is torn", disks.torn_ledger, False
    yield "a segment is torn", disks.torn_segment, True
    yield "a segment is missing", disks.missing_segment, True
    yield "the ledger is missing", disks.missing_ledger, True
    yield "a link in place of the run directory", disks.linked_directory, True
    yield "a file of others under the output's name", disks.output_of_others, True
    yield "the run directory is missing", disks.missing_directory, True
    yield "a disk too small for each stage of the job", disks.small_disk, True
    yield "a disk that others fill", disks.filling_disk, False
    yield "a disk with room for the rest of a job alone", disks.room_for_the_rest, True
    yield "a disk that becomes read-only", disks.read_only_disk, True
