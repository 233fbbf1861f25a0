"""Part 4: the whole model with dummy weights in the layouts side by side, each machine full (tests/bench/gpu says how that is measured)."""
import json
import os
import subprocess
import tempfile
import types

from machine import REPO, Failure, Layout, OutOfTime, load_script

# As in tests/bench/gpu: input tokens, output tokens, seconds (none: decode steps at the mean length).
WORKLOADS = {"1024/128": (1024, 128, 35), "128/2048": (128, 2048, None)}
CPU_WORKLOADS = {"24/4": (24, 4, 6), "8/72": (8, 72, None)}
CPU_AT_ONCE = 4  # sequences in a group
RUN_S = 150  # a run that takes longer hangs


def layouts(machine):
    n = machine.ranks
    wanted = [machine.reference(), Layout(1, n), Layout(n, 1), Layout(1, 1, n)]
    return list(dict.fromkeys(wanted))


def ceilings_of(machine, until, given):
    if given:
        read, rate = map(float, given.split(","))
        return {"device": "given", "read_gb_s": read, "matmul_tflop_s": rate}
    program = machine.helper("ceilings")
    if program is None:
        return None
    # In a bundle, the CUDA libraries may lie beside the programs.
    libraries = f"{program.parent.parent / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    done = subprocess.run([program], check=True, capture_output=True, text=True, timeout=until.left(),
                          env={**os.environ, "LD_LIBRARY_PATH": libraries})
    return json.loads(done.stdout)


def measure(machine, until, out, given_ceilings=None):
    bench = load_script(REPO / "tests/bench/gpu")
    out["ceilings"] = ceilings_of(machine, until, given_ceilings) if machine.on_gpus else None
    out["runs"] = []
    read, rate = (out["ceilings"][k] for k in ("read_gb_s", "matmul_tflop_s")) if out["ceilings"] else (0, 0)
    workloads = WORKLOADS if machine.on_gpus else CPU_WORKLOADS
    args = types.SimpleNamespace(
        model="data/qwen3-30b-a3b" if machine.on_gpus else "data/tiny-moe", device=machine.device, memory=0.97, build=machine.program.parent,
        mpirun=" ".join(machine.mpirun), step_tokens=8192 if machine.on_gpus else 64, workloads=workloads, read=read * 1e9, flop=rate * 1e12,
        format="16-bit", keys_values="auto", profile=None, seconds=None, at_once=None if machine.on_gpus else CPU_AT_ONCE,
        gpu_bytes=machine.gpus[0]["memory_mib"] * 2**20 if machine.on_gpus else 0)
    faults, missing = [], 0
    for name in workloads:
        for layout in layouts(machine):
            run = {"layout": str(layout), "workload": name}
            out["runs"].append(run)
            try:
                args.ranks, args.set, args.timeout = layout.ranks, layout.overrides(), min(until.left(), RUN_S)
                with tempfile.TemporaryDirectory() as folder:
                    row, report = bench.measure_workload(args, name, folder, (layout.tensor, layout.data, layout.replicas))
                run.update(row, **figures(row, report, layout))
            except (OutOfTime, subprocess.TimeoutExpired):
                run["error"] = "not finished: out of time" if until.over() else f"not done in {RUN_S} s"
                missing += until.over()
                if not until.over():
                    faults.append(f"{name}, {layout}: {run['error']}")
                machine.reap()
            except SystemExit as fault:  # the bench's way to say what went wrong
                run["error"] = str(fault)[-1500:]
                faults.append(run["error"])
                machine.reap()
    if faults:
        raise Failure("\n".join(faults))
    if missing:
        raise OutOfTime(f"{missing} of {len(out['runs'])} runs were not finished")


def figures(row, report, layout):
    times = report["step_time_s"]
    whole = sum(times.values())
    return {"tokens_per_s_a_rank": row["tokens_per_s"] / layout.ranks,
            # Without a figure of its own, the exchange is within compute (it was recorded in graphs).
            "step_time_percent": {what: 100 * seconds / whole for what, seconds in times.items()},
            "all_to_all": report["all_to_all"]["used"], "busiest_rank_over_mean": report["expert_load"]["max_over_mean_of_ranks"]}


def lines(out):
    if out.get("ceilings"):
        c = out["ceilings"]
        yield f"ceilings of a GPU ({c['device']}): reads {c['read_gb_s']:.0f} GB/s, bf16 {c['matmul_tflop_s']:.0f} TFLOP/s"
    else:
        yield "no ceilings were measured or given: no percent of bound"
    yield (f"{'tokens in/out':<15}{'layout':<32}{'at once':>8}{'load s':>7}{'tok/s a rank':>13}{'of bound':>9}{'step ms':>9}  step time")
    for run in out.get("runs", []):
        head = f"{run['workload']:<15}{run['layout']:<32}"
        if "error" in run:
            yield f"{head}  {run['error'].splitlines()[-1]}"
            continue
        of_bound = f"{run['percent_of_bound']:.1f}%" if "percent_of_bound" in run else "-"
        split = ", ".join(f"{percent:.0f}% {what}" for what, percent in run["step_time_percent"].items())
        yield (f"{head}{run['at_once']:>8}{run['load_s']:>7.1f}{run['tokens_per_s_a_rank']:>13,.0f}"
               f"{of_bound:>9}{run['step_ms']:>9.2f}  {split} ({run['all_to_all']})")
