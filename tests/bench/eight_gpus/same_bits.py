"""Part 1: the tiny model's answers in every layout and over every exchange have the bits of one rank's."""
import json
import subprocess
import time

from machine import REPO, Failure, Layout, OutOfTime, load_script

CPU_ROWS, CPU_TOKENS = 12, 8  # of 256 rows and 48 tokens, so that a dry run is short
RUN_S = 60  # a run that takes longer hangs


def measure(machine, until, out):
    golden = load_script(REPO / "tests/gpu/golden")
    dtype = "bfloat16" if machine.on_gpus else "float32"
    prompts = golden.SameBits(str(machine.program), dtype).prompts
    if not machine.on_gpus:
        rows = [json.loads(line) for line in prompts.read_text().splitlines()[:CPU_ROWS]]
        prompts.write_text("".join(json.dumps({**row, "max_tokens": CPU_TOKENS}) + "\n" for row in rows))
    common = [f"device={machine.device}", "parallel.allow_shared_gpu=false", "memory.gpu_memory_utilization=0.8"]

    def answers(layout, all_to_all):
        return golden.answers(str(machine.program), prompts, dtype, layout.tensor, layout.data,
                              [*common, f"parallel.all_to_all={all_to_all}"], layout.replicas, timeout=min(until.left(), RUN_S))

    if machine.on_gpus:
        out["against_transformers"] = golden.error_against_golden(str(machine.program), dtype)
    expected, _ = answers(Layout(1, 1), "auto")
    out["rows"] = len(expected)
    out["dtype"] = dtype
    out["runs"] = []
    backends = ["p2p", "nccl", "mpi"] if machine.on_gpus else ["mpi"]
    # A layout with one rank an engine exchanges nothing. Those with several engines of several ranks come last: they are the most, and the
    # least new.
    layouts = machine.layouts()
    one_engine, mixed = ([layout for layout in layouts if layout.engine > 1 and (layout.replicas > 1) == several] for several in (False, True))
    wanted = [(layout, backend) for backend in backends for layout in one_engine]
    wanted += [(layout, "auto") for layout in layouts if layout.engine == 1]
    wanted += [(layout, backend) for backend in backends for layout in mixed]
    for layout, backend in wanted:
        run = {"layout": str(layout), "all_to_all": backend}
        out["runs"].append(run)
        began = time.monotonic()
        try:
            rows, report = answers(layout, backend)
            run["used"] = report["all_to_all"]["used"]
            run["rows_with_other_bits"] = sum(a != b for a, b in zip(expected, rows)) + abs(len(expected) - len(rows))
            run["ok"] = run["rows_with_other_bits"] == 0 and (backend == "auto" or run["used"] == backend)
        except (OutOfTime, subprocess.TimeoutExpired):
            run.update({"error": "not run: out of time"} if until.over() else {"ok": False, "error": f"not done in {RUN_S} s"})
            machine.reap()
        except (golden.Failure, OSError) as fault:
            run.update(ok=False, error=str(fault)[-1500:])
            machine.reap()
        run["seconds"] = time.monotonic() - began
    faults = [f"{run['layout']}, {run['all_to_all']}" for run in out["runs"] if run.get("ok") is False]
    if faults:
        raise Failure("not the bits of one rank: " + "; ".join(faults))
    if missing := [run for run in out["runs"] if "ok" not in run]:
        raise OutOfTime(f"{len(missing)} of {len(out['runs'])} runs were not made")


def lines(out):
    if "against_transformers" in out:
        yield f"one GPU against transformers: {out['against_transformers']}"
    yield f"{'layout':<36}{'exchange':<10}{'rows':>6}{'other bits':>26}{'s':>7}"
    for run in out.get("runs", []):
        result = run.get("error", "").splitlines()[-1:] or [str(run.get("rows_with_other_bits", "-"))]
        yield f"{run['layout']:<36}{run.get('used', run['all_to_all']):<10}{out['rows']:>6}{result[0]:>26}{run['seconds']:>7.1f}"
