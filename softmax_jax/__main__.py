"""The commands for finished runs: `python -m softmax_jax report` and `predict`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from softmax_jax import host
from softmax_jax.host import DONE, USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an error is one message on stderr.

    Args:
      arguments: those of the command line by default.

    Returns:
      The exit code.
    """
    options = _parser().parse_args(arguments)
    named = options.workdir if isinstance(options.workdir, str) else options.workdir[0]

    def run():
        host.write_line(options.command(options), sys.stdout)
        return DONE

    return host.guarded("softmax_jax", run, Path(named))


def _report(options: argparse.Namespace) -> str:
    host.import_jax()
    from softmax_jax.report import report

    folders = [host.as_path(folder, "The folder") for folder in options.workdir]
    report(folders, host.as_path(options.output, "--output"))
    return f"Written to {options.output}."


def _predict(options: argparse.Namespace) -> str:
    host.import_jax()
    from softmax_jax.job import processes
    from softmax_jax.predict import predict

    if warning := host.use_compilation_cache():
        host.write_line(warning, sys.stderr)
    processes.start_devices()
    folder, target = (
        host.as_path(given, what)
        for given, what in ((options.workdir, "The folder"), (options.output, "--output"))
    )
    source = None if options.input == "-" else host.as_path(options.input, "--input")
    count = predict(folder, source, target, raw=options.raw)
    return f"{count:,} examples: the predictions are in {options.output}."


class Parser(argparse.ArgumentParser):
    """Prints its whole help with an error, and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints the help and the message, and ends the program."""
        self.print_help(sys.stderr)
        self.exit(USAGE, f"\n{self.prog}: {host.message(message)}\n")


def _parser() -> Parser:
    parser = Parser(prog="python -m softmax_jax", description="Commands for finished runs.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    report = commands.add_parser(
        "report",
        help="one HTML page about one run, or several side by side",
        description="One self-contained HTML page about one run, or several side by side.",
    )
    report.add_argument("workdir", nargs="+", help="folder of a run, finished or not")
    report.add_argument("--output", default="report.html", help="default: %(default)s")
    report.set_defaults(command=_report)
    predict = commands.add_parser(
        "predict",
        help="classes and probabilities for features or images in a file",
        description="Classes and probabilities from the model of a finished run.",
    )
    predict.add_argument("workdir", help="folder of a finished run")
    predict.add_argument(
        "--input",
        required=True,
        help=".npy, or .npz with an array x: features or images [N, ...] as in training, raw; or "
        ".csv, .tsv, .parquet with the columns of the training; '-' for the standard input",
    )
    predict.add_argument("--output", required=True, help=".npz or .csv")
    predict.add_argument(
        "--raw",
        action="store_true",
        help="leave names in a .csv as they are: else one that a spreadsheet would take for a "
        "formula (after = + - @ or a tab) gets an apostrophe before it",
    )
    predict.set_defaults(command=_predict)
    return parser


if __name__ == "__main__":
    host.start_program()
    sys.exit(main())
