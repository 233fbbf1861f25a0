"""Starts moerun on a job and waits for it: a command of the user's, or a Slurm script that is written and submitted."""
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

from moerun_lm_eval.errors import MoerunError

SOONEST, LATEST = 2, 15  # seconds between questions to Slurm, at first and later
SHARED_DISK_SECONDS = 10  # until a file that a node wrote is seen here

SCRIPT = """#!/bin/bash
# Written by moerun_lm_eval.
#SBATCH --job-name=moerun-lm-eval
#SBATCH --signal=USR1@300
{options}
rm -f {code}
code=0
{command} || code=$?
echo $code > {code}.partial && mv {code}.partial {code}
exit $code
"""


class Follower:
    """Copies what is added to a file to this process's standard error, and remembers the last of it."""

    def __init__(self, path):
        self._path, self._at = path, path.stat().st_size if path.exists() else 0
        self._tail, self._end = "", threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def last_words(self, lines=8):
        return [line for line in self._tail.splitlines() if line.strip()][-lines:]

    def _run(self):
        while not self._end.wait(0.2):
            self._copy()
        self._copy()

    def _copy(self):
        with contextlib.suppress(OSError):
            with open(self._path, "rb") as file:
                file.seek(self._at)
                new = file.read()
            self._at += len(new)
            text = new.decode(errors="replace")
            self._tail = (self._tail + text)[-8192:]
            sys.stderr.write(text)
            sys.stderr.flush()


def run_command(command, log, lock):
    """The command's exit code and last words. Its output goes to the file `log`, which is copied to standard error: a command that outlives
    this process has somewhere to write. It inherits the descriptor `lock`, and runs in a session of its own, so that it gets signals from here alone, once, and ends by itself."""
    with open(log, "ab") as out, Follower(log) as follower:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                                     pass_fds=(lock,))
        except OSError as error:
            raise MoerunError(f"{command[0]} cannot be started: {error.strerror}") from error
        with passed_on(child) as passed:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                print("moerun_lm_eval: waiting until what is answered is sealed; Ctrl-C again to go without", file=sys.stderr)
                child.terminate()
                passed.append(signal.SIGINT)
                try:
                    code = child.wait()
                except KeyboardInterrupt:
                    child.kill()
                    code = child.wait()
    if passed and code:  # a launcher that is told to end has codes of its own
        raise MoerunError(f"stopped by {passed[0].name}; what was answered is kept, and the same command goes on", 75)
    return code, follower.last_words()


@contextlib.contextmanager
def passed_on(child):
    """Signals that end an evaluation go to the child; yields those that came. Elsewhere than in the main thread Python allows no handlers."""
    passed = []

    def pass_on(number, _):
        passed.append(signal.Signals(number))
        child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    if threading.current_thread() is not threading.main_thread():
        yield passed
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_slurm(options, command, folder):
    """Submits the command as a Slurm job, or finds the one that an earlier start submitted, and waits for it."""
    script, log, code, number = (folder / name for name in ("job.sbatch", "moerun.log", "exit-code", "slurm-job"))
    job = number.read_text().strip() if number.exists() else ""
    if job and state_of(job):
        print(f"moerun_lm_eval: waiting for Slurm job {job}, which an earlier start submitted", file=sys.stderr)
    else:
        q = shlex.quote
        script.write_text(SCRIPT.format(options="\n".join(f"#SBATCH {q(option)}" for option in options), code=q(str(code)), command=shlex.join(command)))
        code.unlink(missing_ok=True)
        done = subprocess.run(["sbatch", "--parsable", f"--output={log}", "--open-mode=append", str(script)], capture_output=True, text=True)
        if done.returncode:
            raise MoerunError(f"sbatch refused {script}: {' '.join(done.stderr.split())}")
        job = done.stdout.strip().split(";")[0]
        number.write_text(job + "\n")
        print(f"moerun_lm_eval: submitted Slurm job {job}; its output: {log}", file=sys.stderr)
    with Follower(log) as follower:
        try:
            wait, gone_since = SOONEST, None
            while not seen(code) and (gone_since is None or time.monotonic() < gone_since + SHARED_DISK_SECONDS):
                time.sleep(SOONEST if gone_since else wait)
                wait = min(LATEST, wait * 1.1)
                if gone_since is None and not state_of(job):
                    gone_since = time.monotonic()
        except KeyboardInterrupt:
            raise MoerunError(f"Slurm job {job} goes on; the same command waits for it again, and `scancel {job}` ends it", 75) from None
    number.unlink(missing_ok=True)
    if not code.exists():  # cancelled, or a node lost: the script did not come to its end
        raise MoerunError(f"Slurm job {job} ended before moerun did (`sacct -j {job}`, {log}); what was answered is kept, and the same command goes on", 75)
    return int(code.read_text()), follower.last_words()


def seen(path):
    """Whether the file is there; listing its folder makes a network's file system look."""
    return path.name in os.listdir(path.parent)


def state_of(job):
    """Empty when Slurm has no such job that waits or runs. A controller that does not answer is asked again."""
    told = False
    while True:
        done = subprocess.run(["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True)
        if done.returncode == 0:
            state = done.stdout.strip()
            return "" if re.fullmatch(r"|COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|PREEMPTED|OUT_OF_MEMORY|BOOT_FAIL|DEADLINE", state) else state
        if "Invalid job id" in done.stderr:
            return ""
        if not told:
            print(f"moerun_lm_eval: squeue: {' '.join(done.stderr.split())}; asking again", file=sys.stderr)
            told = True
        time.sleep(LATEST)
