"""Part 3: dispatch + combine of each exchange, against the cost model and all-gather + reduce-scatter."""
import json
import pathlib
import tempfile

from machine import Failure, OutOfTime, Until


def measure(machine, until, out):
    program = machine.helper("exchange_bench")
    if program is None:
        raise Failure("no exchange_bench beside the program (make bench-exchange, or make bundle)")
    # Through the host's memory, 8,192 tokens a rank take long and say little.
    wanted = [("p2p", "1,8,64,256,1024,4096,8192"), ("nccl", "1,8,64,256,1024,4096,8192"), ("mpi", "1,64,1024")]
    options = ["--device", "cuda"]
    if not machine.on_gpus:
        wanted, options = [("mpi", "1,8,64")], ["--device", "cpu", "--hidden", "256", "--num-experts", "32", "--rounds", "5"]
    out["rows"], faults = [], []
    with tempfile.TemporaryDirectory() as folder:
        for place, (exchange, tokens) in enumerate(wanted):
            file = pathlib.Path(folder) / exchange
            share = Until(until.left() / (len(wanted) - place))
            try:
                text = machine.run([program, *options, "--all-to-all", exchange, "--tokens", tokens, "--json", file], machine.ranks, share)
                out.setdefault("tables", []).append(text)
            except (Failure, OutOfTime) as fault:
                faults.append(f"{exchange}: {fault}")
            if file.exists():
                out["rows"] += [json.loads(line) for line in file.read_text().splitlines()]
    if faults:
        raise Failure("\n".join(faults))


def lines(out):
    for table in out.get("tables", []):
        yield from table.splitlines()
