"""Part 5: one rank is killed while a job runs: how long until the job is gone, what was kept, and that the same command goes on."""
import json
import os
import pathlib
import signal
import tempfile
import time

from machine import environment_of, expect, rank_processes, write_job

GONE_WITHIN_S = 15


def job_of(machine, folder):
    # Lengths differ, so that answers come all the time.
    random = ({"num_prompts": 200 * machine.ranks, "input_len": 512, "output_len": 256, "range_ratio": 0.8} if machine.on_gpus else
              {"num_prompts": 3000, "input_len": 16, "output_len": 16, "range_ratio": 0.8})
    return {"model": {"path": "data/qwen3-30b-a3b" if machine.on_gpus else "data/tiny-moe", "load_format": "dummy", "max_model_len": 1600},
            "device": machine.device, "scheduler": {"max_num_seqs": 256 if machine.on_gpus else 32}, "input": {"random": random},
            "output": {"path": f"{folder}/out.h5", "jsonl": f"{folder}/out.jsonl"}, "report": {"path": f"{folder}/report.json"}}


def sealed_rows(folder):
    """Rows that the ledger names: they survive whatever ends the job."""
    ledger = pathlib.Path(folder) / "out.h5.run/ledger"
    rows = 0
    for line in ledger.read_text().splitlines() if ledger.exists() else []:
        try:
            rows += json.loads(line[9:])["rows"]
        except (ValueError, KeyError):  # torn: does not count
            pass
    return rows


def measure(machine, until, out):
    layout = machine.reference()
    victim = layout.ranks - 1
    out.update(layout=str(layout), killed_rank=victim)
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/messages", "w+") as messages:
        command = [machine.program, write_job(folder, job_of(machine, folder)), *layout.overrides()]
        job = machine.launch(command, layout.ranks, stdout=messages, stderr=messages)
        try:
            while sealed_rows(folder) == 0:
                expect(job.poll() is None, "the job ended before anything was sealed:\n" + pathlib.Path(f"{folder}/messages").read_text()[-2000:])
                until.left()
                time.sleep(0.05)
            ranks = rank_processes()
            expect(victim in ranks, f"rank {victim} is not among the processes {ranks}")
            out["sealed_before"] = sealed_rows(folder)
            began = time.monotonic()
            os.kill(ranks[victim], signal.SIGKILL)
            while job.poll() is None or any(environment_of(pid) for pid in ranks.values()):
                expect(time.monotonic() - began < 4 * GONE_WITHIN_S, f"the job is still there {4 * GONE_WITHIN_S} s after the kill")
                time.sleep(0.01)
            out["gone_after_s"] = time.monotonic() - began
        finally:
            machine.reap()
            job.wait()
        out["exit_code"] = job.returncode
        said = [line for line in pathlib.Path(f"{folder}/messages").read_text().splitlines() if f"rank {victim} " in line and "moerun:" in line]
        out["message"] = said[0] if said else None
        out["kept_rows"] = sealed_rows(folder)
        resume(machine, until, out, command, layout, folder)
    expect(out["gone_after_s"] <= GONE_WITHIN_S, f"the job was gone after {out['gone_after_s']:.1f} s, not within {GONE_WITHIN_S}")
    expect(out["message"], f"no message names rank {victim}")
    expect(out["exit_code"] != 0, "the job ended with exit code 0")


def resume(machine, until, out, command, layout, folder):
    """On the GPUs to the end; the CPUs of a dry run would take too long for that."""
    (pathlib.Path(folder) / "report.json").unlink(missing_ok=True)
    limits = [] if machine.on_gpus else ["limits.time=1", "limits.grace=0"]
    with open(f"{folder}/messages", "w+") as messages:
        job = machine.launch([*command, *limits], layout.ranks, stdout=messages, stderr=messages)
        job.wait(until.left())
    expect(job.returncode == (0 if machine.on_gpus else 75),
           f"the same command ended with {job.returncode}:\n" + pathlib.Path(f"{folder}/messages").read_text()[-2000:])
    report = json.loads((pathlib.Path(folder) / "report.json").read_text())
    rows = report["rows"]
    out["resumed"] = {"rows": rows, "complete": report["complete"]}
    expect(rows["answered"] - rows["answered_now"] == out["kept_rows"],
           f"{rows['answered'] - rows['answered_now']} rows were there when it went on, {out['kept_rows']} were sealed")
    if machine.on_gpus:
        answers = [json.loads(line)["row"] for line in (pathlib.Path(folder) / "out.jsonl").read_text().splitlines()]
        expect(answers == list(range(rows["total"])), "not every row is answered once, in order")


def lines(out):
    yield f"{out.get('layout')}: rank {out.get('killed_rank')} was killed with SIGKILL"
    if "gone_after_s" in out:
        yield f"the job was gone after {out['gone_after_s']:.2f} s, exit code {out.get('exit_code')}; it said: {out.get('message')}"
    if "kept_rows" in out:
        yield f"{out['kept_rows']} rows were kept ({out['sealed_before']} were sealed before the kill)"
    if "resumed" in out:
        rows = out["resumed"]["rows"]
        yield f"the same command went on: {rows['answered_now']} more rows, {rows['answered']} of {rows['total']}"
