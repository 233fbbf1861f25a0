"""moerun status, moerun results and report.prometheus, while a job runs, after it died, and when it is finished."""
import os
import re
import signal
import subprocess
import time

from jobs import PROGRAM, TIMEOUT, completion, expect, job_file, moerun, read_lines

RUNNING, STOPPED = 4, 75


def start(job, *overrides):
    """A job on the null device that takes a while."""
    return subprocess.Popen([PROGRAM, str(job), *overrides], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    return None


def status(output):
    done = subprocess.run([PROGRAM, "status", str(output)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT)
    return done.returncode, done.stdout + done.stderr


def metrics(path):
    """A file of the text format, checked line by line: {name{labels}: value}."""
    found, typed, helped = {}, {}, set()
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"# HELP (moerun_[a-z_]+) \S.*", line):
            helped.add(match[1])
        elif match := re.fullmatch(r"# TYPE (moerun_[a-z_]+) (gauge|counter)", line):
            expect(match[1] not in typed and match[1] in helped, f"{line}: once, behind its help")
            typed[match[1]] = match[2]
        else:
            match = re.fullmatch(r'(moerun_[a-z_]+)(\{output="(?:[^"\\]|\\.)*"(?:,group="\d+")?\}) (-?[0-9.e+-]+)', line)
            expect(match and match[1] in typed, f"no sample of the text format: {line}")
            expect((typed[match[1]] == "counter") == match[1].endswith("_total"), f"{line}: counters and no others end in _total")
            expect(match[1] + match[2] not in found, f"{line} comes twice")
            found[match[1] + match[2]] = float(match[3])
    return found


def slow_job(work, rows=400):
    return job_file(work, [completion(f"r{i}", [i % 4000, 5, 6], max_tokens=20) for i in range(rows)], device="null", null_step_ms=30,
                    scheduler={"max_num_seqs": 8, "prefix_sharing": "off"}, sampling={"max_tokens": 20, "ignore_eos": True}, report={"prometheus": str(work / "job.prom")})


def value(found, name):
    values = [v for key, v in found.items() if key.startswith(f"moerun_{name}{{")]
    expect(len(values) == 1, f"{len(values)} values of {name}: {found}")
    return values[0]


def check_running(work, child):
    output = work / "out.h5"
    expect(wait_until(lambda: child.poll() is not None or status(output)[0] == RUNNING), f"no job is seen to run: {status(output)}")
    def far_enough():
        text = status(output)[1]
        return text if "rate" in text and " 0 of them sealed" not in text else None
    said = wait_until(far_enough)
    expect(said, f"it never says a rate and sealed rows: {status(output)}")
    for pattern in (r"state +running: process \d+ on ", r"rows +[1-9]\d* of 400 \(\d+\.\d%\) answered, [1-9]\d* of them sealed, 0 of those", r"rate +\d+\.\d\d rows/s, \d",
                    r"time left +\d+:\d\d", r"lately +[1-9]\d* output tokens/s, \d+ prompt tokens/s over the last 0:\d\d of it",
                    r"group 0 +8 sequences running, \d+ waiting, \d+ of \d+ key/value blocks in use \(\d+\.\d%\), step \d+; said 0:0\d before", r"updated +0:0\d ago, by process"):
        expect(re.search(pattern, said), f"{pattern} is not in:\n{said}")
    found = metrics(work / "job.prom")
    expect(value(found, "up") == 1 and value(found, "rows") == 400 and value(found, "sequences_running") == 8, f"{found}")
    expect(value(found, "rows_answered") > 0 and value(found, "seconds_left") > 0 and value(found, "kv_blocks") >= value(found, "kv_blocks_used") > 0, f"{found}")
    again = metrics(work / "job.prom") if wait_until(lambda: value(metrics(work / "job.prom"), "rows_answered_total") > value(found, "rows_answered_total"), 30) else {}
    expect(again, "the file is not written anew")
    expect(child.poll() is None, "the job ended too soon for this test")


def sealed_rows(work):
    return moerun("results", work / "out.h5.run").stdout.splitlines()


def test_watching(work):
    job, output = slow_job(work), work / "out.h5"
    expect(status(output)[0] == 2 and "there is no job: neither " in status(output)[1], f"{status(output)}")
    child = start(job)
    try:
        check_running(work, child)
        before = sorted(path.name for path in (work / "out.h5.run").iterdir())
        early = sealed_rows(work)
        expect(early and moerun("results", output).stdout.splitlines()[:1] == early[:1], "the output's name is as good as the directory's")
        expect(set(before) <= {path.name for path in (work / "out.h5.run").iterdir()}, "looking at it removes nothing")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    code, said = status(output)
    expect(code == STOPPED and "not running: it died" in said and "time left" not in said, f"{code}: {said}")
    listing = sorted((path.name, path.stat().st_mtime_ns) for path in (work / "out.h5.run").iterdir())
    late = sealed_rows(work)
    expect(len(late) >= len(early) and set(early) <= set(late), f"{len(early)} rows, then {len(late)}")
    expect(f"{len(late)} of them sealed" in said, f"{len(late)} lines: {said}")
    expect(listing == sorted((path.name, path.stat().st_mtime_ns) for path in (work / "out.h5.run").iterdir()), "looking changes nothing")
    rows = [int(line.split('"custom_id": "r')[1].split('"')[0]) for line in late]
    expect(rows == sorted(set(rows)), "lines are in row order, each once")
    child = start(job, "limits.time=2", "limits.grace=0")
    expect(child.wait(TIMEOUT) == STOPPED, child.stderr.read())
    code, said = status(output)
    expect(code == STOPPED and "not running: it stopped" in said, f"{code}: {said}")
    found = metrics(work / "job.prom")
    expect(value(found, "up") == 0 and value(found, "exit_code") == STOPPED, f"{found}")
    expect(not any("seconds_left" in name for name in found), f"{found}")
    moerun(job, "null_step_ms=0")
    final = (work / "out.jsonl").read_text().splitlines()
    expect(set(late) <= set(final), "sealed lines are those of the finished output")
    code, said = status(output)
    expect(code == 0 and re.search(r"rows +400 answered, 0 of them with an error", said), f"{code}: {said}")
    expect(status(work / "out.h5.run")[0] == 0, "the run directory's name is as good when it is gone")
    done = moerun("results", work / "out.h5.run", code=2)
    expect("is finished: its answers are there" in done.stderr, done.stderr)
    found = metrics(work / "job.prom")
    expect(value(found, "up") == 0 and value(found, "exit_code") == 0 and value(found, "rows_answered") == 400, f"{found}")
    expect(not list(work.glob("*.tmp")), "no temporary file stays")
    return f"{len(early)} rows while it ran, {len(late)} after it was killed, {len(final)} in the end"


def test_row_errors(work):
    job = job_file(work, [completion("a"), completion("b", [99999])], input={"on_error": "row"})
    moerun(job, code=3)
    code, said = status(work / "out.h5")
    expect(code == 3 and "2 answered, 1 of them with an error" in said, f"{code}: {said}")
    return "3"


def test_what_is_no_job(work):
    (work / "out.h5.run").mkdir()
    expect(status(work / "out.h5")[0] == 2, "an empty directory is no run")
    (work / "out.h5.run/manifest.json").write_text("{")
    code, said = status(work / "out.h5")
    expect(code == 2 and "manifest.json cannot be read" in said, f"{code}: {said}")
    (work / "out.h5").write_text("no HDF5")
    (work / "out.h5.run/manifest.json").unlink()
    code, said = status(work / "out.h5")
    expect(code != 0 and "out.h5" in said, f"{code}: {said}")
    expect(status(work / "none.h5")[0] == 2 and moerun("results", work / "none.h5", code=2), "nothing is there")
    (work / "out.h5").unlink()
    job = job_file(work, [completion("a")], report={"prometheus": str(work / "a.txt")})
    expect("report.prometheus must end in .prom" in moerun("check", job, code=2).stderr, "another ending")
    return "refused"


def test_unwritable_metrics(work):
    """What cannot be written is said once, and ends no job."""
    if os.geteuid() == 0:
        (work / "job.prom.tmp").mkdir()
        job = job_file(work, [completion("a")], report={"prometheus": str(work / "job.prom")})
        said = moerun(job).stderr
        expect(said.count("how the job stands is not written") == 1, said)
        expect(len(read_lines(work / "out.jsonl")) == 1, "the answer")
    return "said once"


TESTS = [("status, results, report.prometheus", test_watching), ("status of rows with errors", test_row_errors), ("status of what is no job", test_what_is_no_job),
         ("metrics that cannot be written", test_unwritable_metrics)]
