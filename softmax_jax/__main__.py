"""The commands `softmax-jax train`, `report`, `compare`, `predict`, `configs`, `export`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from softmax_jax import host
from softmax_jax.host import DONE, USAGE


def start() -> int:
    """The program `softmax-jax`; its exit code, unless it has left with one already."""
    host.start_program()
    return main()


def train(argv: Sequence[str]) -> int:
    """The program main.py, and the command `train`: the job of a config.

    Args:
      argv: the name of the program, and its flags.

    Returns:
      The exit code, unless it has left with one already.
    """
    host.start_program()

    def run():
        host.import_jax()  # first of all: what is wrong with the environment is one message, too
        from softmax_jax.job import run

        run.start([*argv])
        return DONE

    return host.guarded(host.program(), run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an error is one message on stderr.

    Args:
      arguments: those of the command line by default.

    Returns:
      The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:  # its flags are those of the config
        return train([sys.argv[0], *arguments[1:]])
    options = _parser().parse_args(arguments)
    named = getattr(options, "workdir", None)
    folder = named[0] if isinstance(named, list) else named

    def run():
        host.write_line(options.command(options), sys.stdout)
        return DONE

    return host.guarded("softmax_jax", run, folder and Path(folder))


def _configs(options: argparse.Namespace) -> str:
    host.import_jax()
    from softmax_jax.job import config

    if options.name:
        return config.describe_config(options.name)
    return (
        f"{config.list_configs()}\n\nsoftmax-jax configs NAME: its note, and its fields with their "
        "meaning\nsoftmax-jax train --config=NAME --config.FIELD=VALUE: trains it"
    )


def _report(options: argparse.Namespace) -> str:
    host.import_jax()
    from softmax_jax.report import report

    folders = [host.as_path(folder, "The folder") for folder in options.workdir]
    report(folders, host.as_path(options.output, "--output"))
    return f"Written to {options.output}."


def _compare(options: argparse.Namespace) -> str:
    host.import_jax()
    from softmax_jax.comparison import compare

    folders = [host.as_path(folder, "The folder") for folder in options.workdir]
    target = None if options.output is None else host.as_path(options.output, "--output")
    text = compare(folders, target, labels_alone=options.labels_alone)
    return f"{text}\nThe picture is in {target}." if target else text


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


def _export(options: argparse.Namespace) -> str:
    host.import_jax()
    from softmax_jax.classifier import load

    folder = host.as_path(options.workdir, "The folder")
    target = host.as_path(options.output, "--output")
    model = load(folder)
    try:
        model.save(target)
    except OSError as error:
        reason = f"{target} cannot be written: {error.strerror or error}."
        raise host.JobError(reason, host.WORKDIR) from error
    return f"Written to {options.output}."


class Parser(argparse.ArgumentParser):
    """Prints its whole help with an error, and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints the help and the message, and ends the program."""
        self.print_help(sys.stderr)
        self.exit(USAGE, f"\n{self.prog}: {host.message(message)}\n")


def _parser() -> Parser:
    name = "softmax-jax" if Path(sys.argv[0]).name == "softmax-jax" else "python -m softmax_jax"
    parser = Parser(prog=name, description="Softmax regression: training, and finished runs.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("train", help="train what a config says; --help lists its flags")
    configs = commands.add_parser(
        "configs",
        help="the configs that ship; the fields of one and their meaning",
        description="Without NAME a line for each config that ships.",
    )
    configs.add_argument("name", nargs="?", metavar="NAME", help="of a config, such as default")
    configs.set_defaults(command=_configs)
    report = commands.add_parser(
        "report",
        help="one HTML page about one run, or several side by side",
        description="One self-contained HTML page about one run, or several side by side.",
    )
    report.add_argument("workdir", nargs="+", help="folder of a run, finished or not")
    report.add_argument("--output", default="report.html", help="default: %(default)s")
    report.set_defaults(command=_report)
    compare = commands.add_parser(
        "compare",
        help="the test metrics of runs against each other, paired by example",
        description="Differences of test loss and accuracy between finished runs, paired by "
        "example, with 95 %% intervals and McNemar's test, corrected by Holm for several pairs. "
        "The runs need config.predictions=True and one test_split.",
    )
    compare.add_argument("workdir", nargs="+", help="folders of two finished runs or more")
    compare.add_argument("--output", help="a .png for the differences with their intervals")
    compare.add_argument(
        "--labels-alone",
        action="store_true",
        help="compare runs on other features of the same examples in the same order",
    )
    compare.set_defaults(command=_compare)
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
    export = commands.add_parser(
        "export",
        help="the model of a run as .onnx, .safetensors or .npz",
        description="Writes the model of a finished run into one file for other programs.",
    )
    export.add_argument("workdir", help="folder of a finished run, or its params.npz")
    export.add_argument("--output", required=True, help=".onnx, .safetensors or .npz")
    export.set_defaults(command=_export)
    return parser


if __name__ == "__main__":
    sys.exit(start())
