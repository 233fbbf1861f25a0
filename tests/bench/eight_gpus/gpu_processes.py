"""Part 2: while the reference layout runs, each GPU carries one process, its rank's, and the same memory."""
import json
import pathlib
import subprocess
import tempfile
import time

from machine import expect, rank_processes, write_job

LEVEL_MIB = 64


def compute_processes():
    """[(GPU's UUID, process id, MiB)], as nvidia-smi lists them."""
    done = subprocess.run(["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits"],
                          capture_output=True, text=True, timeout=60, check=True)
    found = []
    for line in done.stdout.splitlines():
        uuid, pid, used = (cell.strip() for cell in line.split(","))
        found.append((uuid, int(pid), int(used) if used.isdigit() else None))
    return found


def used_memory():
    """{GPU's UUID: MiB in use}"""
    done = subprocess.run(["nvidia-smi", "--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits"],
                          capture_output=True, text=True, timeout=60, check=True)
    return {uuid.strip(): int(used) for uuid, used in (line.split(",") for line in done.stdout.splitlines())}


def job_of(machine, folder):
    prompts, lengths = (64 * machine.ranks, (512, 128)) if machine.on_gpus else (16, (16, 8))
    return {"model": {"path": "data/qwen3-30b-a3b" if machine.on_gpus else "data/tiny-moe", "load_format": "dummy", "max_model_len": sum(lengths)},
            "device": machine.device, "input": {"random": {"num_prompts": prompts, "input_len": lengths[0], "output_len": lengths[1]}},
            "output": {"path": f"{folder}/out.h5"}, "report": {"path": f"{folder}/report.json"}}


def measure(machine, until, out):
    layout = machine.reference()
    out["layout"] = str(layout)
    others = {pid for _, pid, _ in compute_processes()} if machine.on_gpus else set()
    before = used_memory() if machine.on_gpus else {}
    out["processes_before"] = len(others)
    samples, ranks = [], {}
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/stderr", "w+") as stderr:
        command = [machine.program, write_job(folder, job_of(machine, folder)), *layout.overrides()]
        job = machine.launch(command, layout.ranks, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            while job.poll() is None:
                ranks.update(rank_processes())
                if machine.on_gpus:
                    samples.append({"processes": [p for p in compute_processes() if p[1] not in others],
                                    "used": {uuid: mib - before[uuid] for uuid, mib in used_memory().items()}})
                until.left()
                time.sleep(0.1)  # between two samples
        finally:
            machine.reap()
            job.wait()
        stderr.seek(0)
        expect(job.returncode == 0, f"moerun ended with {job.returncode}:\n{stderr.read()[-2000:]}")
        report = json.loads(pathlib.Path(f"{folder}/report.json").read_text())
    out["processes_of_the_job"] = len(ranks)
    expect(sorted(ranks) == list(range(layout.ranks)), f"ranks {sorted(ranks)} of {layout.ranks} were seen as processes")
    expect(all(ranks[r["rank"]] == r["pid"] for r in report["ranks"]), "a rank's process id is not the one in its report")
    if machine.on_gpus:
        check_gpus(machine, report, samples, out)


def check_gpus(machine, report, samples, out):
    gpu_of_rank = {r["rank"]: r["gpu_uuid"] for r in report["ranks"]}
    rank_of_pid = {r["pid"]: r["rank"] for r in report["ranks"]}
    out["samples"] = len(samples)
    out["foreign_gpu_processes"] = report["foreign_gpu_processes"]
    full = [s for s in samples if {p[0] for p in s["processes"]} >= set(gpu_of_rank.values())]
    out["samples_with_every_rank"] = len(full)
    if not full:
        # Without the host's process ids nvidia-smi may list nobody; the memory says how level the GPUs are, and no more.
        out["used_mib"] = {uuid: max(s["used"].get(uuid, 0) for s in samples) for uuid in gpu_of_rank.values()} if samples else {}
        expect(False, "nvidia-smi listed no process for every GPU at any time (a container that hides process ids?)")
    last = max(full, key=lambda sample: sum(sample["used"].values()))  # weights, keys and values are there
    # nvidia-smi outside of this process-id namespace shows other numbers; then they are compared as counts.
    out["own_process_ids"] = {p[1] for p in last["processes"]} <= set(rank_of_pid)
    out["gpus"] = [{"gpu": uuid, "rank": rank, "used_mib": last["used"][uuid],
                    "processes": [{"pid": pid, "rank": rank_of_pid.get(pid), "mib": mib} for at, pid, mib in last["processes"] if at == uuid]}
                   for rank, uuid in sorted(gpu_of_rank.items())]
    out["most_processes_on_a_gpu"] = max(sum(p[0] == uuid for p in s["processes"]) for s in samples for uuid in gpu_of_rank.values())
    used = [gpu["used_mib"] for gpu in out["gpus"]]
    out["memory_differs_by_mib"] = max(used) - min(used)
    expect(out["most_processes_on_a_gpu"] == 1, f"a GPU carried {out['most_processes_on_a_gpu']} processes of the job")
    if out["own_process_ids"]:
        for sample in full:
            for uuid, pid, _ in sample["processes"]:
                expect(gpu_of_rank[rank_of_pid[pid]] == uuid, f"GPU {uuid} carries rank {rank_of_pid[pid]}, whose GPU is another")
    expect(not report["foreign_gpu_processes"], str(report["foreign_gpu_processes"]))
    expect(out["memory_differs_by_mib"] <= LEVEL_MIB, f"memory of the GPUs differs by {out['memory_differs_by_mib']} MiB")


def lines(out):
    yield f"{out.get('layout')}: {out.get('processes_of_the_job', '?')} processes in the job"
    for gpu in out.get("gpus", []):
        held = ", ".join(f"pid {p['pid']}" + ("" if p["rank"] is None else f" = rank {p['rank']}") + f", {p['mib']} MiB" for p in gpu["processes"])
        yield f"rank {gpu['rank']}  {gpu['gpu']}  {gpu['used_mib']} MiB in use  {held}"
    if "gpus" in out:
        yield (f"{out['most_processes_on_a_gpu']} process a GPU at most in {out['samples']} samples; memory differs by {out['memory_differs_by_mib']} MiB"
               + ("" if out["own_process_ids"] else "; process ids are of another namespace: their number alone was compared"))
