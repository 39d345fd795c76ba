"""What is done with finished runs: python -m softmax_jax COMMAND"""

import argparse
import sys
from pathlib import Path

from softmax_jax.data import DataError
from softmax_jax.host import DONE, INTERRUPTED, USAGE, JobError


class Parser(argparse.ArgumentParser):
    """Shows all of its help with an error, and leaves with exit code 2."""

    def error(self, message):
        """Ends the program."""
        self.print_help(sys.stderr)
        self.exit(USAGE, f"\n{self.prog}: {message}\n")


def main(arguments=None) -> int:
    """Runs one command and returns its exit code; an error is one message on stderr."""
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


def _report(options):
    from softmax_jax.report import report

    report(options.workdir, options.output)
    return f"Written to {options.output}."


def _predict(options):
    from softmax_jax import host
    from softmax_jax.predict import predict

    host.use_compilation_cache()
    count = predict(options.workdir, options.input, options.output)
    return f"{count:,} examples: the predictions are in {options.output}."


def _parser():
    parser = Parser(prog="python -m softmax_jax", description="What is done with finished runs.")
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
        description="Classes and probabilities, by the model of a finished run.",
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
