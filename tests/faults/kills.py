"""kill -9 at random moments, each followed by the same command, until the job is finished."""
import collections
import json
import pathlib
import random
import re
import signal
import time

from job import GONE_WITHIN, REPOSITORY, Job, Running, expect, send

# Layouts and schedules that change from run to run: no byte of the output may depend on them.
LAYOUTS = [(1, ["parallel.tensor=1", "parallel.data=1"]), (2, ["parallel.tensor=2", "parallel.data=1"]),
           (2, ["parallel.tensor=1", "parallel.data=2"]), (4, ["parallel.tensor=2", "parallel.data=2"]),
           (4, ["parallel.tensor=2", "parallel.data=1", "parallel.replicas=2"])]
SCHEDULES = {2: [], 5: ["scheduler.max_num_batched_tokens=48"], 8: ["memory.block_size=16"]}  # by scheduler.max_num_seqs
TRUNCATION = ["model.max_model_len=340", "input.truncate_prompt=left"]
SAMPLING = ["sampling.max_tokens=40", "sampling.temperature=0.8", "sampling.seed=3", "sampling.logprobs=2",
            "sampling.prompt_logprobs=true"]
# Results are sealed every five seconds; jobs shorter than that see it only when something breaks.
SIZES = {"long": (64, 8), "short": (24, 3)}  # rows, and seconds that they take on the null device
DEVICES = {"cpu": ["device=cpu", *TRUNCATION, *SAMPLING],
           # No arithmetic, a pretended step time.
           "null": ["device=null", *TRUNCATION, "sampling.max_tokens=40", "sampling.logprobs=0"]}

# The phase that a kill is aimed at: how often, and how long after its beginning (seconds, at most).
AIMS = {"start-up": (2, 0.8), "load": (2, 0.15), "run": (7, 3.0), "sealing": (3, 0.01), "merge": (5, 0.01), "end": (1, 0.1)}
VICTIMS = {"one rank": 10, "rank 0": 3, "all ranks": 3, "mpirun": 3, "everything": 3, "mpirun by TERM, then everything": 2}


def draw_run(random_, device, rows, seconds):
    """Ranks and options of a run; on the null device, one of so many seconds."""
    ranks, layout = random_.choice(LAYOUTS)
    seqs, schedule = random_.choice(list(SCHEDULES.items()))
    options = [*layout, *schedule, f"scheduler.max_num_seqs={seqs}"]
    if device == "null":
        at_once = seqs * max(int(key[-1]) for key in layout if "tensor" not in key)
        options.append(f"null_step_ms={1000 * seconds / (rows * 30 / at_once):.1f}")  # answers have 30 tokens or so
    return ranks, options


def expect_only_the_rest(said, rows, sealed):
    """A run to the end has answered no row that was sealed before; a segment that never reached the ledger may count too."""
    now = re.search(rf"^moerun: {rows} of {rows} rows answered \((\d+) in this run", said, re.M)
    resumed = re.search(rf"^moerun: Resuming .*: (\d+) of {rows} rows are answered", said, re.M)
    already = int(resumed[1]) if resumed else 0
    expect(now and already >= sealed and int(now[1]) == rows - already, f"{sealed} rows were sealed before:\n{said}")


class Kills:
    """Chains of kills; counts what was struck, and where."""

    def __init__(self, program, folder, seed, size):
        self.program, self.folder, self.seed = program, folder, seed
        self.rows, self.seconds = SIZES[size]
        self.references = {}
        self.struck = collections.Counter()  # (device, phase)
        self.victims = collections.Counter()
        self.chains = self.longest = 0
        self.slowest = 0.0

    def job(self, device, name):
        return Job(self.program, self.folder, name, [*DEVICES[device], f"input.path={self.prompts()}", f"input.limit={self.rows}"])

    def prompts(self):
        """The demo's prompts, eight behind the same beginning each; every third row has three answers. Of six rows the second repeats
        the first, greedily, and the fifth the fourth, by a seed of their own; the third and the sixth have the same prompts, and draw.
        """
        path = pathlib.Path(self.folder) / "alike.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [json.loads(line) for line in open(REPOSITORY / "data/prompts.jsonl")]
            begins = [" ".join(row["prompt"] for row in rows[i:i + 8]) for i in range(0, len(rows), 8)]
            asked = [{"prompt": f"{begins[(i - i % 3) % len(begins)]} {rows[i - i % 3]['prompt']}", **({"n": 3, "max_tokens": 14} if i % 3 == 0 else {}),
                      **({"temperature": 0} if i % 6 == 0 else {"temperature": 0.8, "seed": 9} if i % 6 == 3 else {})} for i, row in enumerate(rows)]
            path.write_text("".join(json.dumps({"id": row["id"], **asked[i - 1 if i % 6 in (1, 4) else i]}) + "\n" for i, row in enumerate(rows)))
        return path

    def reference(self, device):
        if device not in self.references:
            job = self.job(device, f"undisturbed-{device}")
            said = job.finish()
            for part in ("prefixes", "repeated", "truncated"):
                expect(f"\n  {part} " in said, f"nothing is {part}:\n{said}")
            self.references[device] = job
        return self.references[device]

    def chain(self, device, number, most):
        """One job, killed until it ends by itself or was killed `most` times; then it is finished. Returns the kills."""
        reference = self.reference(device)
        job = self.job(device, f"chain-{number}")
        random_ = random.Random(f"{self.seed} {number}")
        kills = 0
        while kills < most and not job.is_finished():
            running = job.start(*draw_run(random_, device, self.rows, self.seconds))
            try:
                if not self.kill(running, random_, device):
                    break
            finally:
                running.end()
            kills += 1
            self.expect_sound(job, reference, running)
        ranks, layout = random_.choice(LAYOUTS)
        sealed = sum(job.sealed())
        said = job.finish(ranks=ranks, options=layout)
        if "is finished already" not in said:
            expect_only_the_rest(said, self.rows, sealed)
        job.expect_same_output(reference)
        for path in (job.hdf5, job.jsonl):
            path.unlink()
        self.chains, self.longest = self.chains + 1, max(self.longest, kills)
        return kills

    def kill(self, running, random_, device):
        """False when the job ended before."""
        aim = random_.choices(list(AIMS), [weight for weight, _ in AIMS.values()])[0]
        victim = random_.choices(list(VICTIMS), VICTIMS.values())[0]
        moment, which, pause = random_.uniform(0, AIMS[aim][1]), random_.random(), random_.uniform(0, 0.2)
        if aim == "run":
            moment *= self.seconds / SIZES["long"][1]
        if aim == "start-up":
            time.sleep(moment)  # the moment is what is tested
            everything, ranks = running.processes()
        else:
            running.wait_for("load")
            everything, ranks = running.processes()  # to look for them takes longer than some phases
            running.wait_for(aim)
            time.sleep(moment)
        if not running.is_running():
            return self.expect_ended(running)
        if victim in ("one rank", "rank 0") and ranks:
            pids = [ranks[0] if victim == "rank 0" else ranks[int(which * len(ranks))]]
        elif victim == "all ranks" and ranks:
            pids = ranks
        elif victim == "everything" or victim.startswith("mpirun by TERM"):
            pids = everything
        else:
            victim, pids = "mpirun", [running.mpirun.pid]  # also where no rank is there yet
        if victim.startswith("mpirun by TERM"):
            send(running.mpirun.pid, signal.SIGTERM)
            time.sleep(pause)
        phase, self.sealed_before = running.phase(), sum(running.job.sealed())
        for pid in pids:
            send(pid, signal.SIGKILL)
        running.wait_gone(GONE_WITHIN)
        self.slowest = max(self.slowest, running.gone_after)
        self.struck[device, phase] += 1
        self.victims[victim] += 1
        return True

    @staticmethod
    def expect_ended(running):
        running.wait_gone()
        expect(running.code == 0, f"undisturbed, it ended with exit code {running.code}:\n{running.said()[-3000:]}")
        return False

    def expect_sound(self, job, reference, running):
        """What a kill may leave: nothing that was sealed is gone, and an output with its name is whole."""
        if job.hdf5.exists():
            expect(job.jsonl.read_bytes() == reference.jsonl.read_bytes(), "an output has its name and is not whole")
        else:
            now = sum(job.sealed())
            expect(now >= self.sealed_before, f"{self.sealed_before} rows were sealed before the kill, {now} after it")
        blamed = [line for line in running.lines() if line.startswith("moerun: rank ")]
        expect(len(blamed) <= 1, "several ranks are blamed:\n" + "\n".join(blamed))

    def summary(self):
        lines = []
        for device in self.references:
            counts = {phase: self.struck[device, phase] for phase in Running.PHASES}
            lines.append(f"{sum(counts.values())} kills on {device}: " + ", ".join(f"{n} in {phase}" for phase, n in counts.items()))
        lines.append("killed: " + ", ".join(f"{n} × {victim}" for victim, n in self.victims.most_common()))
        lines.append(f"{self.chains} jobs, up to {self.longest} kills before one was finished; nothing left running "
                     f"{self.slowest:.1f} s after a kill at the latest")
        return lines
