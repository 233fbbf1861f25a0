"""`python -m moerun_lm_eval`: lm-eval's command line with moerun as the model."""
import argparse
import os
import sys

from moerun_lm_eval.errors import MoerunError
from moerun_lm_eval.register import register

EPILOG = """All other options are lm-eval's own (`lm_eval run --help`): --num_fewshot, --limit, --apply_chat_template, --output_path, --log_samples,
--include_path, --gen_kwargs, ... The same command after a kill goes on where it was. Exit codes: 0; 2 bad options or input; 75 stopped, to be
started again; 1 a fault."""


def parser():
    parser = argparse.ArgumentParser(prog="python -m moerun_lm_eval", description="Runs lm-evaluation-harness' tasks with moerun.", epilog=EPILOG,
                                     allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model-folder", metavar="FOLDER", required=True, help="the model, as downloaded")
    add("--tasks", metavar="A,B", required=True, help="lm-eval's tasks (`lm_eval ls tasks` lists them)")
    add("--launcher", metavar="COMMAND", help="what starts the ranks, such as 'mpirun -n 8' or 'srun --mpi=pmix -n 8'; without it one rank runs here")
    add("--slurm", metavar="OPTIONS", help="write a Slurm script with these options of sbatch, submit it and wait: '--nodes=1 --ntasks-per-node=8 "
                                           "--gpus-per-node=8 --time=4:00:00'. In it --launcher is 'srun -K1 --mpi=pmix' unless given")
    add("--moerun", metavar="PATH", help="the program; default $MOERUN, or moerun on the PATH")
    add("--runs", metavar="FOLDER", help="where runs lie; default moerun-runs. Every node must see it")
    add("--job", metavar="FILE", help="YAML with keys of the job: parallel, memory, scheduler, limits, ...")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="a key of the job, such as parallel.tensor=4; may be given several times")
    add("--max-length", type=int, metavar="TOKENS", help="how many tokens the model looks at; default: its positions")
    add("--fresh", action="store_true", help="run again what is there already")
    return parser


def arguments_of(given):
    """The options that were given, by the names of Moerun's arguments."""
    named = {"pretrained": given.model_folder, "launcher": given.launcher, "slurm": given.slurm, "moerun": given.moerun, "runs": given.runs, "job": given.job,
             "set": given.set, "max_length": given.max_length, "fresh": given.fresh}
    return {name: value for name, value in named.items() if value not in (None, [], False)}


def main():
    given, others = parser().parse_known_args()
    try:
        run(given, others)
    except MoerunError as error:
        print(f"moerun_lm_eval: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("moerun_lm_eval: interrupted", file=sys.stderr)
        return 75
    return 0


def run(given, others):
    from moerun_lm_eval.settings import Settings

    arguments = arguments_of(given)
    # What is wrong is said before lm-eval and its tasks are loaded, which takes a while.
    Settings.read(given.model_folder, given.runs or "moerun-runs", given.moerun, given.launcher, given.slurm, given.job, given.set, given.fresh)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch, which nothing here needs
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    register()
    sys.argv = ["lm-eval", "run", "--model", "moerun", "--tasks", given.tasks, *others]
    harness = HarnessCLI()
    args = harness.parse_args()
    args.model_args = {**(getattr(args, "model_args", None) or {}), **arguments}
    harness.execute(args)


if __name__ == "__main__":
    sys.exit(main())
