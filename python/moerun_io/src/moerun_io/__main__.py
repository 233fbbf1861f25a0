"""python -m moerun_io to-input | join"""
import argparse
import sys

from moerun_io.errors import InputError
from moerun_io.join import join
from moerun_io.to_input import parse_sampling, to_input


def parser():
    top = argparse.ArgumentParser(prog="moerun_io", description="Tables (Parquet, Arrow, CSV) in and out of moerun.")
    commands = top.add_subparsers(dest="command", required=True)
    make = commands.add_parser("to-input", help="a table becomes moerun's input (.jsonl or .h5)")
    make.add_argument("table")
    make.add_argument("out")
    make.add_argument("--prompt", metavar="COLUMN", help="texts (default: prompt)")
    make.add_argument("--token-ids", metavar="COLUMN", help="lists of token ids (default: prompt_token_ids)")
    make.add_argument("--messages", metavar="COLUMN", help="conversations (default: messages)")
    make.add_argument("--id", metavar="COLUMN", help="what comes back with the answer (default: id, where there is one)")
    make.add_argument("--tools", metavar="COLUMN", help="the row's tools")
    make.add_argument("--sampling", metavar="NAME[=COLUMN]", action="append", default=[], help="sampling of the row; null: the job's")
    back = commands.add_parser("join", help="answers become columns beside the table's own")
    back.add_argument("table")
    back.add_argument("answers", help="moerun's output (.h5)")
    back.add_argument("out")
    back.add_argument("--columns", metavar="A,B", help="of the answers (default: all)")
    back.add_argument("--prefix", default="", help="before the answers' names")
    back.add_argument("--id", metavar="COLUMN", help="of the table, to be checked against the answers' ids")
    for command in (make, back):
        command.add_argument("--overwrite", action="store_true", help="replace OUT when it is there")
    return top


def main(arguments=None):
    args = parser().parse_args(arguments)
    try:
        if args.command == "to-input":
            count = to_input(args.table, args.out, prompt=args.prompt, token_ids=args.token_ids, messages=args.messages, id=args.id,
                             tools=args.tools, sampling=parse_sampling(args.sampling), overwrite=args.overwrite)
        else:
            columns = args.columns.split(",") if args.columns else None
            count = join(args.table, args.answers, args.out, columns=columns, prefix=args.prefix, id=args.id, overwrite=args.overwrite)
    except InputError as error:
        print(f"moerun_io: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {count} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
