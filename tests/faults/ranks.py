"""Each rank in turn is killed and stopped while four ranks of the real program compute."""
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from job import FAULT, GONE_WITHIN, Job, Undisturbed, expect, send, wait_until
from kills import SAMPLING

HERE = pathlib.Path(__file__).parent
RANKS = 4
OPTIONS = ["device=cpu", *SAMPLING, "sampling.max_tokens=160", "sampling.ignore_eos=true"]
SLOW = ["scheduler.max_num_seqs=2"]  # it must not be over when its first rows are answered


def reads(pid, path):
    """Whether a process has the file open."""
    try:
        return any(os.readlink(entry.path) == str(path) for entry in os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def stopped_in_start_up(program, folder):
    """A rank stops while rank 0 reads an input of some seconds: the others wait for rank 0, and for this one."""
    rows = pathlib.Path(folder) / "many-rows.jsonl"
    with open(rows, "w") as out:
        out.writelines(f'{{"id": {i}, "prompt": "Once upon a time"}}\n' for i in range(400_000))
    job = Job(program, folder, "start-up", ["device=null", f"input.path={rows}"])
    running = job.start(RANKS)
    try:
        wait_until("rank 0 reads the input", lambda: reads(running.ranks().get(0), rows), 30)
        pid = running.ranks()[3]
        send(pid, signal.SIGSTOP)
        running.wait_gone(GONE_WITHIN)
        expect_blamed(running, 3, pid, "start")
    finally:
        running.end()
    return f"all gone after {running.gone_after:.1f} s"


def expect_blamed(running, rank, pid, phase):
    """One line names the rank, its host and process, and where it was."""
    blamed = [line for line in running.lines() if line.startswith("moerun: rank ")]
    expect(len(blamed) == 1, f"{len(blamed)} lines instead of one:\n{running.said()}")
    want = rf"moerun: rank {rank} \(host {re.escape(socket.gethostname())}, pid {pid}\) .*; phase {phase}, step \d+"
    expect(re.fullmatch(want, blamed[0]), blamed[0])


def strike(program, folder, reference, rank, number):
    job = Job(program, folder, f"{number.name}-{rank}", OPTIONS)
    running = job.start(RANKS, SLOW)
    try:
        answered = running.wait_answering()
        pids, sealed = running.ranks(), sum(job.sealed())
        expect(sorted(pids) == list(range(RANKS)), f"ranks {pids}")
        began = time.monotonic()
        send(pids[rank], number)
        running.wait_gone(GONE_WITHIN)
        gone = time.monotonic() - began
        # mpirun reports a child's signal by itself.
        codes = (FAULT, 128 + signal.SIGKILL) if number == signal.SIGKILL else (FAULT,)
        expect(running.code in codes, f"exit code {running.code}\n{running.said()}")
        expect_blamed(running, rank, pids[rank], "run")
        # Rank 0 seals what is answered, unless it is the one that is gone.
        least = answered if rank != 0 else sealed
        expect(sum(job.sealed()) >= least, f"{sum(job.sealed())} rows are sealed, and {least} were answered")
    finally:
        running.end()
    job.finish(ranks=RANKS, options=())
    job.expect_same_output(reference())
    return f"all gone after {gone:.1f} s"


def throws(program, folder, reference, rank):
    """The engine thread of a rank throws while the others wait for it: its message, once, and everyone is gone."""
    library = pathlib.Path(folder) / "faulty_allgather.so"
    subprocess.run(["mpicxx", "-shared", "-fPIC", "-DOMPI_SKIP_MPICXX", str(HERE / "faulty_allgather.cpp"), "-o", str(library)], check=True)
    job = Job(program, folder, f"throws-{rank}", OPTIONS)
    running = job.start(RANKS, SLOW, environment={"LD_PRELOAD": str(library), "FAULTY_RANK": str(rank)})
    try:
        running.wait_for("run")
        running.wait_gone(GONE_WITHIN)
        expect(running.code == FAULT, f"exit code {running.code}\n{running.said()}")
        said = [line for line in running.lines() if line.startswith("moerun: rank ")]
        want = rf"moerun: rank {rank} \(host {re.escape(socket.gethostname())}, pid \d+\), phase run, step \d+: MPI: .*MPI_Allgather.*"
        expect(len(said) == 1 and re.fullmatch(want, said[0]), running.said())
    finally:
        running.end()
    job.finish(ranks=RANKS, options=())
    job.expect_same_output(reference())
    return f"all gone after {running.gone_after:.1f} s"


def rank_tests(program, folder):
    reference = Undisturbed(program, folder, "undisturbed-ranks", OPTIONS)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        for rank in range(RANKS):
            yield (f"kill -{number.name[3:]} of rank {rank} of {RANKS}, computing",
                   lambda rank=rank, number=number: strike(program, folder, reference, rank, number), True)
    for rank in (0, 2):
        yield f"the engine thread of rank {rank} of {RANKS} throws", lambda rank=rank: throws(program, folder, reference, rank), rank != 0
    yield "kill -STOP of rank 3 while rank 0 reads the input", lambda: stopped_in_start_up(program, folder), True
