"""Part 4: the whole model with dummy weights in the layouts side by side."""
import json
import os
import subprocess
import tempfile
import types

from machine import REPO, Failure, Layout, OutOfTime, load_script

# name: input tokens, output tokens, prompts a rank (all of them run at once, as far as keys and values have room)
WORKLOADS = {"1024/128": (1024, 128, 256), "128/2048": (128, 2048, 128)}
CPU_WORKLOADS = {"24/8": (24, 8, 8)}
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
    model = "data/qwen3-30b-a3b" if machine.on_gpus else "data/tiny-moe"
    workloads = WORKLOADS if machine.on_gpus else CPU_WORKLOADS
    faults, missing = [], 0
    for name, (input_len, output_len, prompts_a_rank) in workloads.items():
        for layout in layouts(machine):
            groups = layout.data * layout.replicas
            run = {"layout": str(layout), "workload": name, "prompts": prompts_a_rank * layout.ranks}
            out["runs"].append(run)
            workload = (input_len, output_len, run["prompts"], run["prompts"] // groups)
            try:
                args = types.SimpleNamespace(model=model, device=machine.device, memory=0.95, ranks=layout.ranks, build=machine.program.parent,
                                             mpirun=" ".join(machine.mpirun), set=layout.overrides(), timeout=min(until.left(), RUN_S),
                                             step_tokens=8192 if machine.on_gpus else 64)
                with tempfile.TemporaryDirectory() as folder:
                    report = bench.run_workload(args, f"{name}, {layout}", workload, folder)
                run.update(figures(report, layout))
                if out["ceilings"]:
                    seconds = bound_seconds(machine, bench, args, out["ceilings"], layout, workload)
                    run["bound_tokens_per_s_a_rank"] = run["tokens"] / seconds / layout.ranks
                    run["percent_of_bound"] = 100 * run["tokens_per_s_a_rank"] / run["bound_tokens_per_s_a_rank"]
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


def figures(report, layout):
    tokens = report["tokens"]["prompt"] + report["tokens"]["output"]
    rate, times = report["throughput"]["total_tokens_per_s"], report["step_time_s"]
    whole = sum(times.values())
    return {"tokens": tokens, "seconds": tokens / rate, "load_s": report["time_s"]["load"], "tokens_per_s_a_rank": rate / layout.ranks,
            "output_tokens_per_s_a_rank": report["throughput"]["output_tokens_per_s"] / layout.ranks,
            "steps": report["ranks"][0]["steps"], "step_ms": 1e3 * tokens / rate / report["ranks"][0]["steps"],
            # Without a figure of its own, the exchange is within compute (it was recorded in graphs).
            "step_time_percent": {what: 100 * seconds / whole for what, seconds in times.items()},
            "all_to_all": report["all_to_all"]["used"], "busiest_rank_over_mean": report["expert_load"]["max_over_mean_of_ranks"],
            "preemptions": sum(rank.get("key_value", {}).get("preemptions", 0) for rank in report["ranks"])}


def bound_seconds(machine, bench, args, ceilings, layout, workload):
    """Of one engine, which has its replica's part of the prompts; tests/bench/gpu says how."""
    input_len, output_len, prompts, at_once = workload
    model = bench.Model(args.model, layout.tensor, layout.data)
    bound = bench.Bound(model, layout.engine * ceilings["read_gb_s"] * 1e9, layout.engine * ceilings["matmul_tflop_s"] * 1e12)
    room = layout.engine * machine.gpus[0]["memory_mib"] * 2**20 * args.memory - model.all_bytes
    fit = room / model.kv_bytes / (input_len + output_len / 2)  # sequences whose keys and values have room, on average
    return bound.of_run(input_len, output_len, prompts / layout.replicas, min(at_once * layout.data, fit), args.step_tokens * layout.data)


def lines(out):
    if out.get("ceilings"):
        c = out["ceilings"]
        yield f"ceilings of a GPU ({c['device']}): reads {c['read_gb_s']:.0f} GB/s, bf16 {c['matmul_tflop_s']:.0f} TFLOP/s"
    else:
        yield "no ceilings were measured or given: no percent of bound"
    yield (f"{'tokens in/out':<15}{'layout':<32}{'prompts':>8}{'run s':>7}{'load s':>7}{'tok/s a rank':>13}{'out tok/s':>10}{'of bound':>9}"
           f"{'step ms':>9}  step time")
    for run in out.get("runs", []):
        head = f"{run['workload']:<15}{run['layout']:<32}{run['prompts']:>8}"
        if "error" in run:
            yield f"{head}  {run['error'].splitlines()[-1]}"
            continue
        of_bound = f"{run['percent_of_bound']:.1f}%" if "percent_of_bound" in run else "-"
        split = ", ".join(f"{percent:.0f}% {what}" for what, percent in run["step_time_percent"].items())
        yield (f"{head}{run['seconds']:>7.1f}{run['load_s']:>7.1f}{run['tokens_per_s_a_rank']:>13,.0f}{run['output_tokens_per_s_a_rank']:>10,.0f}"
               f"{of_bound:>9}{run['step_ms']:>9.2f}  {split} ({run['all_to_all']})")
