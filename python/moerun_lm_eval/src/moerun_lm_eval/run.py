"""A run: all requests of one type as one job of moerun, in a folder named by what it depends on."""
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import sys

import h5py
import numpy as np

from moerun_lm_eval import launch
from moerun_lm_eval.errors import MoerunError
from moerun_lm_eval.settings import dumped, tree_of

VERSION = 1  # of what a folder's name is made of


@dataclasses.dataclass
class Row:
    """`tokens`: the prompt's ids; `sampling`: the row's keys of `sampling`."""

    tokens: list
    sampling: dict


class Answers:
    """The columns of a finished output."""

    def __init__(self, path, columns):
        with h5py.File(path) as file:
            self.num_rows = int(file.attrs["num_rows"])
            self.program = file.attrs["program_version"]
            results = file["results"]
            self.errors = results["error"].asstr()[:] if int(file.attrs["num_row_errors"]) else None
            self._columns = {name: results[name][:] for name in columns}

    def rows(self, values, offsets):
        """A row's part of the column `values`, row after row."""
        ends = self._columns[offsets]
        return (self._columns[values][ends[i] : ends[i + 1]] for i in range(self.num_rows))


def run_rows(settings, kind, rows, columns):
    """The answers to the rows, from what is there or by running moerun. `kind` is a word for the folder's name."""
    tokens, offsets, sampling = columns_of(rows)
    folder = settings.runs / f"{kind}-{digest_of(settings, tokens, offsets, sampling)}"
    answers = folder / "answers.h5"
    with _sentences(folder):
        if settings.fresh or not answers.exists():  # what is finished needs no lock: it may lie on a disk that is read-only now
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder) as lock:
                if settings.fresh or not answers.exists():
                    write_input(folder / "input.h5", tokens, offsets, sampling)
                    longest = max(len(row.tokens) + row.sampling["max_tokens"] for row in rows)
                    write_job(folder, settings, longest)
                    _run(settings, folder, lock)
        else:
            print(f"moerun_lm_eval: {folder} has the answers already", file=sys.stderr)
        return read_answers(answers, len(rows), columns)


def columns_of(rows):
    """The input's: all token ids, where each row's begin, and each row's sampling as JSON."""
    tokens = np.concatenate([np.asarray(row.tokens, np.int32) for row in rows])
    offsets = np.concatenate([[0], np.cumsum([len(row.tokens) for row in rows])]).astype(np.uint64)
    return tokens, offsets, [json.dumps(row.sampling, sort_keys=True) for row in rows]


def digest_of(settings, tokens, offsets, sampling):
    """Of all that the answers depend on."""
    whole = hashlib.sha256()
    for part in (dumped([VERSION, settings.identity()]).encode(), tokens.tobytes(), offsets.tobytes(), dumped(sampling).encode()):
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


@contextlib.contextmanager
def _sentences(folder):
    try:
        yield
    except OSError as error:
        raise MoerunError(f"{error.filename or folder}: {error.strerror or error}; --runs names another place for runs") from error


@contextlib.contextmanager
def locked(folder):
    """Two evaluations that ask the same do not run it twice: the second one waits, and reads what the first one got. The lock's descriptor is
    yielded: what inherits it holds the lock on, so that a run is waited for whose evaluation was killed."""
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"moerun_lm_eval: another evaluation runs {folder}; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def write_input(path, tokens, offsets, sampling):
    """moerun's HDF5 input (docs/formats.md), under its name when it is whole."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        group = file.create_group("prompts")
        packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        group.create_dataset("tokens", data=tokens, **packed)
        group.create_dataset("offsets", data=offsets, **packed)
        group.create_dataset("sampling", data=np.array(sampling, object), dtype=h5py.string_dtype())
    os.replace(partial, path)


def write_job(folder, settings, max_model_len):
    """JSON is YAML. Room is asked for as the longest row needs it."""
    keys = {**settings.keys, "model.path": str(settings.folder), "model.max_model_len": max_model_len, "input.path": str(folder / "input.h5"),
            "output.path": str(folder / "answers.h5"), "report.path": str(folder / "report.json")}
    (folder / "job.yaml").write_text(json.dumps(tree_of(keys), indent=1) + "\n")


def _run(settings, folder, lock):
    command = [*settings.launcher, settings.moerun, str(folder / "job.yaml"), *(["--fresh"] if settings.fresh else [])]
    if settings.slurm is None:
        code, words = launch.run_command(command, folder / "moerun.log", lock)
    else:
        code, words = launch.run_slurm(settings.slurm, command, folder)
    if code in (0, 3):
        if not (folder / "answers.h5").exists():
            raise MoerunError(f"{command[0]!r} ended well and {folder}/answers.h5 is not there: does the launcher start moerun, and where this process sees its files?", 1)
        return
    said = "; it said: " + " | ".join(words) if words else ""
    if code == 75:
        raise MoerunError(f"moerun stopped early (a signal, a time limit or a full disk); what was answered is kept, and the same command goes on{said}", 75)
    what = f"moerun refused the job {folder}/job.yaml" if code == 2 else f"the command {' '.join(command)!r} failed with code {code}; what was answered is kept, and the same command goes on"
    raise MoerunError(what + said, 2 if code == 2 else 1)


def read_answers(path, rows, columns):
    try:
        answers = Answers(path, columns)
    except (OSError, KeyError) as error:
        raise MoerunError(f"{path}: cannot be read as moerun's output ({error}); move it away, and the same command makes it again", 1) from error
    if answers.num_rows != rows:
        raise MoerunError(f"{path}: it has {answers.num_rows} rows for {rows} requests; move it away, and the same command makes it again", 1)
    if answers.errors is not None:
        bad = [i for i, error in enumerate(answers.errors) if error]
        raise MoerunError(f"{path}: {len(bad)} of {rows} requests have no answer; request {bad[0]}: {answers.errors[bad[0]]}", 1)
    return answers
