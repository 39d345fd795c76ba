"""The commands for finished runs: `python -m softmax_jax report` and `predict`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from softmax_jax.data import DataError
from softmax_jax.host import DONE, INTERRUPTED, USAGE, JobError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an error is one message on stderr.

    Args:
      arguments: those of the command line by default.

    Returns:
      The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        print(options.command(options))
        return DONE
    except (JobError, DataError) as error:
        print(f"softmax_jax: {error}", file=sys.stderr)
        return getattr(error, "exit_code", USAGE)
    except KeyboardInterrupt:
        print("softmax_jax: interrupted.", file=sys.stderr)
        return INTERRUPTED


def _report(options: argparse.Namespace) -> str:
    from softmax_jax.report import report

    report(options.workdir, options.output)
    return f"Written to {options.output}."


def _predict(options: argparse.Namespace) -> str:
    from softmax_jax import host
    from softmax_jax.predict import predict

    host.use_compilation_cache()
    count = predict(options.workdir, options.input, options.output)
    return f"{count:,} examples: the predictions are in {options.output}."


class Parser(argparse.ArgumentParser):
    """Prints its whole help with an error, and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints the help and the message, and ends the program."""
        self.print_help(sys.stderr)
        self.exit(USAGE, f"\n{self.prog}: {message}\n")


def _parser() -> Parser:
    parser = Parser(prog="python -m softmax_jax", description="Commands for finished runs.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    report = commands.add_parser(
        "report",
        help="one HTML page about one run, or several side by side",
        description="One self-contained HTML page about one run, or several side by side.",
    )
    report.add_argument("workdir", type=Path, nargs="+", help="folder of a run, finished or not")
    report.add_argument(
        "--output", type=Path, default=Path("report.html"), help="default: %(default)s"
    )
    report.set_defaults(command=_report)
    predict = commands.add_parser(
        "predict",
        help="classes and probabilities for features or images in a file",
        description="Classes and probabilities from the model of a finished run.",
    )
    predict.add_argument("workdir", type=Path, help="folder of a finished run")
    predict.add_argument(
        "--input",
        type=Path,
        required=True,
        help=".npy, or .npz with an array x: features or images [N, ...] as in training, raw",
    )
    predict.add_argument("--output", type=Path, required=True, help=".npz or .csv")
    predict.set_defaults(command=_predict)
    return parser


if __name__ == "__main__":
    sys.exit(main())
