"""What one node's GPUs make of the layouts: same bits, processes a GPU, the exchange, throughput, a killed rank.

Started by jobs/eight-gpus.sh. Sizes itself to 8, 4 or 2 GPUs. Writes OUT.json after each part and OUT.txt for people. A part that fails or runs out of
time says so, and the others go on. Exit code 0: every part is ok.
"""
import argparse
import datetime
import json
import pathlib
import platform
import subprocess
import sys
import time
import traceback

import exchange
import gpu_processes
import killed_rank
import same_bits
import throughput
from machine import Failure, Machine, OutOfTime, Until

# name: module, title, part of the budget
PARTS = {
    "same_bits": (same_bits, "Same bits in every layout", 0.30),
    "gpu_processes": (gpu_processes, "Processes a GPU during the reference layout", 0.07),
    "exchange": (exchange, "Dispatch + combine", 0.12),
    "throughput": (throughput, "Whole model, dummy weights, random input", 0.40),
    "killed_rank": (killed_rank, "A rank is killed", 0.11),
}


def run_part(name, machine, seconds, options):
    result = {}
    began = time.monotonic()
    try:
        PARTS[name][0].measure(machine, Until(seconds), result, **options)
        status = "ok"
    except (OutOfTime, subprocess.TimeoutExpired) as fault:
        status, result["reason"] = "out of time", str(fault)
    except Failure as fault:
        status, result["reason"] = "failed", str(fault)
    except Exception:  # whatever it is, the other parts go on
        status, result["reason"] = "failed", traceback.format_exc()
    machine.reap()
    return {"status": status, "seconds": time.monotonic() - began, "limit_s": seconds, **result}


def summary(out):
    gpus = ", ".join(sorted({gpu["name"] for gpu in out["gpus"]}))
    yield f"{out['program']}, {out['host']}, {out['date']}: {out['ranks']} ranks on " + (
        f"{len(out['gpus'])} × {gpus}" if out["gpus"] else "CPUs")
    if out["dry_run"]:
        yield "DRY RUN of the measuring itself: CPU ranks, the tiny model, no GPU. No figure here says anything about a GPU or NVLink."
    for name, part in out["parts"].items():
        module, title, _ = PARTS[name]
        yield ""
        yield f"{list(PARTS).index(name) + 1}. {title}: {part['status']} ({part['seconds']:.0f} of {part['limit_s']:.0f} s)"
        if "reason" in part:
            yield from ("   ! " + line for line in part["reason"].splitlines()[-12:])
        if part["status"] != "not run":
            yield from ("   " + line for line in module.lines(part))


def write(out, path):
    for suffix, text in ((".json", json.dumps(out, indent=2)), (".txt", "\n".join(summary(out)))):
        new = path.with_suffix(suffix + ".new")
        new.write_text(text + "\n")
        new.replace(path.with_suffix(suffix))


def main():
    parser = argparse.ArgumentParser(prog="eight-gpus.sh", description="Measures a node of 8, 4 or 2 GPUs; see docs/eight-gpus.md")
    parser.add_argument("--program", type=pathlib.Path, required=True, help="moerun")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("eight-gpus"), help="OUT.json and OUT.txt are written")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ",".join(PARTS))
    parser.add_argument("--budget", type=float, default=570, metavar="SECONDS", help="for all parts together")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a dry run of the measuring, on two CPU ranks")
    parser.add_argument("--ceilings", metavar="GB/s,TFLOP/s", help="of one GPU, instead of measuring them with tests/ceilings")
    args = parser.parse_args()
    wanted = args.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"--parts {', '.join(unknown)}: not one of {', '.join(PARTS)}")

    machine = Machine(args.program, args.device)
    if machine.ranks < 2:
        sys.exit(f"eight-gpus: {len(machine.gpus)} GPU is visible here, and layouts need 2, 4 or 8 (--device cpu tries the measuring without)")
    version = subprocess.run([args.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    out = {"program": version, "host": platform.node(), "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
           "dry_run": not machine.on_gpus, "gpus": machine.gpus[:machine.ranks], "ranks": machine.ranks, "budget_s": args.budget,
           "parts": {name: {"status": "not run", "seconds": 0, "limit_s": 0,
                            "reason": "not reached" if name in wanted else "not asked for"} for name in PARTS}}
    end = time.monotonic() + args.budget
    weight = sum(PARTS[name][2] for name in wanted)
    for name in filter(wanted.__contains__, PARTS):
        # A part that ends early leaves its time to those after it.
        seconds = max(end - time.monotonic(), 0) * PARTS[name][2] / weight
        weight -= PARTS[name][2]
        print(f"eight-gpus: {name}, {seconds:.0f} s at most", file=sys.stderr, flush=True)
        options = {"given_ceilings": args.ceilings} if name == "throughput" else {}
        out["parts"][name] = run_part(name, machine, seconds, options)
        print(f"eight-gpus: {name}: {out['parts'][name]['status']}", file=sys.stderr, flush=True)
        write(out, args.out)
    print("\n".join(summary(out)))
    return 0 if all(out["parts"][name]["status"] == "ok" for name in wanted) else 1


sys.exit(main())
