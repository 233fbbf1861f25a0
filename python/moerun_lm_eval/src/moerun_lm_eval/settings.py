"""What an evaluation is told beside its tasks: the model's folder, the job's keys, how to start moerun. All of it is checked here, before
tasks are loaded."""
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil

import yaml

from moerun_lm_eval.errors import MoerunError

# Keys that the package itself writes, and what to give instead.
OWN = {"input": "the tasks", "output": "--runs", "sampling": "the tasks and --gen_kwargs", "report": "--runs", "model.path": "--model-folder",
       "model.max_model_len": "--max-length"}
# Keys that change no answer: a run goes on with others.
FREE = ("parallel", "scheduler", "limits", "enforce_eager", "null_step_ms", "model.verify_weights", "model.path", "memory.gpu_memory_utilization",
        "memory.block_size", "memory.num_blocks", "memory.cpu_kv_gib", "memory.swap_space_gib")
# Files of a model's folder whose contents say what the model is; weights are told by size and time.
TEXTS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "model.safetensors.index.json")


class Yaml12(yaml.SafeLoader):
    """YAML as moerun reads it: PyYAML's own takes `off` for false and 4:00:00 for a number."""

    yaml_implicit_resolvers = {}


for tag, pattern, first in (("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"), ("null", r"null|Null|NULL|~|", "nN~"), ("int", r"[-+]?[0-9]+", "-+0123456789"),
                            ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789")):
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), [*first, *([""] if tag == "null" else [])])


def from_yaml(text):
    return yaml.load(text, Loader=Yaml12)  # noqa: S506, a SafeLoader


@dataclasses.dataclass
class Settings:
    """`keys`: {"parallel.tensor": 4, ...}; `command`: what starts moerun, without its arguments; `slurm`: options for sbatch, or None."""

    folder: pathlib.Path
    runs: pathlib.Path
    moerun: str
    launcher: list
    slurm: list | None
    keys: dict
    fresh: bool

    @classmethod
    def read(cls, folder, runs, moerun=None, launcher=None, slurm=None, job=None, keys=(), fresh=False):
        refuse_many_tasks()
        folder = pathlib.Path(folder)
        if not (folder / "config.json").is_file():
            raise MoerunError(f"{folder}: there is no config.json; --model-folder names a model's folder as downloaded")
        words = _words(launcher, "launcher") if launcher else (["srun", "-K1", "--mpi=pmix"] if slurm is not None else [])
        if slurm is None:
            if words and not shutil.which(words[0]):
                raise MoerunError(f"the launcher {words[0]!r} is not found: load its module, or give another --launcher")
        elif not shutil.which("sbatch"):
            raise MoerunError("sbatch is not found: --slurm needs a machine that submits to Slurm; leave it out to start moerun with --launcher")
        return cls(folder=folder.resolve(), runs=pathlib.Path(runs).absolute(), moerun=find_moerun(moerun), launcher=words,
                   slurm=None if slurm is None else _words(slurm, "slurm"), keys=read_keys(job, keys), fresh=bool(fresh))

    def identity(self):
        """What the answers depend on beside the requests."""
        kept = {key: value for key, value in self.keys.items() if not any(key == free or key.startswith(free + ".") for free in FREE)}
        model = {name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in TEXTS if (self.folder / name).is_file()}
        for path in sorted(self.folder.glob("*.safetensors")):
            status = path.stat()
            model[path.name] = [status.st_size, status.st_mtime_ns]
        return {"keys": kept, "model": model}


def _words(text, what):
    try:
        words = shlex.split(str(text))
    except ValueError as error:
        raise MoerunError(f"--{what} {text!r}: {error}") from error
    return words


def find_moerun(given):
    name = given or os.environ.get("MOERUN") or "moerun"
    found = shutil.which(name)
    if not found:
        where = "--moerun" if given else "the variable MOERUN" if os.environ.get("MOERUN") else "the PATH"
        raise MoerunError(f"moerun is not found as {name!r} (from {where}): give the program's path with --moerun or in the variable MOERUN")
    return os.path.abspath(found)


def refuse_many_tasks():
    """One process asks; the ranks are started by it."""
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        if os.environ.get(name, "1") not in ("", "1"):
            raise MoerunError(f"this is one of {os.environ[name]} tasks ({name}): start the evaluation once, and let it start the ranks: "
                              "python -m moerun_lm_eval --launcher 'mpirun -n 8' ...")


def _flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name), value


def read_keys(job, pairs):
    """The keys of the YAML file `job` (or None), and over them those of `pairs`: ["parallel.tensor=4", ...]."""
    keys = {}
    if job:
        try:
            tree = from_yaml(pathlib.Path(job).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise MoerunError(f"{job}: cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(tree, dict):
            raise MoerunError(f"{job}: a job is a YAML mapping, such as parallel: {{tensor: 4}}")
        keys.update(_flat(tree))
    for pair in pairs:
        key, is_there, text = str(pair).partition("=")
        if not key or not is_there:
            raise MoerunError(f"--set {pair}: give KEY=VALUE, such as parallel.tensor=4")
        try:
            value = from_yaml(text)
        except yaml.YAMLError as error:
            raise MoerunError(f"--set {pair}: the value is no YAML") from error
        keys.update(_flat({key: value}))
    for key in keys:
        for own, instead in OWN.items():
            if key == own or key.startswith(own + "."):
                raise MoerunError(f"the job's key {key} is the evaluation's own affair: leave it out, and give {instead}")
    return keys


def tree_of(keys):
    """{"a.b": 1} → {"a": {"b": 1}}"""
    tree = {}
    for key, value in keys.items():
        *parents, last = key.split(".")
        at = tree
        for name in parents:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise MoerunError(f"the job's key {key} contradicts {name}, which has a value of its own")
        at[last] = value
    return tree


def dumped(value):
    return json.dumps(value, sort_keys=True, default=str)
