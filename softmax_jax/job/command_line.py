"""Flags to a config: every mistake on the command line is one message and exit code 2."""

import difflib
import re
import sys
import traceback

from absl import flags
from ml_collections import ConfigDict

from softmax_jax.job import config as rules
from softmax_jax.job.errors import USAGE


def parse(argv):
    """Parses the flags, the config file among them; for `absl.app.run(flags_parser=parse)`."""
    try:
        _check_fields(argv)
        rest = flags.FLAGS(argv)
        if flags.FLAGS.config is None:
            _leave("--config is missing. Give one, as in --config=configs/default.py.")
        if len(rest) > 1:
            _leave(f"{rest[1]!r} is not a flag. Settings are given as --config.FIELD=VALUE.")
        list(flags.FLAGS.config)  # a file that could not be loaded raises its error here
        if not isinstance(flags.FLAGS.config, ConfigDict):
            _leave("The config file's get_config() must return an ml_collections ConfigDict.")
        return rest
    except flags.UnrecognizedFlagError as error:
        _leave(
            f"There is no flag --{error.flagname}. There are --config, --config.FIELD, --workdir."
        )
    except flags.Error as error:
        _leave(_in_config_file(error) if "config file" in str(error) else str(error))
    except Exception as error:  # a config file is a program: whatever it raises is the user's
        _leave(_in_config_file(error))


def _check_fields(argv):
    """Looks for misspelt fields before a library does: it knows the nearest right name."""
    fields = [*rules.RULES, *(f"sweep.{name}" for name in rules.AXES)]
    for argument in argv[1:]:
        match = re.match(r"--?config\.([\w.]+)", argument)
        if match and match[1] not in fields:
            _leave(_no_field(match[1], fields))


def _no_field(name, fields):
    near = difflib.get_close_matches(name, fields, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(fields)}."
    return f"The config has no field {name}. {hint}"


def _in_config_file(error):
    """What is wrong with the config file, and where, without the frames of the libraries."""
    chain = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for cause in chain:
        if isinstance(cause, OSError):
            return f"The config file cannot be read: {str(cause).splitlines()[-1].strip()}"
        if isinstance(cause, SyntaxError):
            where = f"{cause.filename}, line {cause.lineno}"
            return f"The config file has an error: {where}: {cause.msg}"
    # The library wraps what the file raised: the innermost error that passed through the file.
    located = [(cause, frame) for cause in chain if (frame := _frame_in_config(cause))]
    cause, frame = located[-1] if located else (error, None)
    at = f"{frame.filename}, line {frame.lineno}: " if frame else ""
    text = " ".join(str(cause).split()) or "no message"
    locked = re.search(r'Key "(\w+)" does not exist', text)
    if locked:
        text = _no_field(locked[1], [*rules.RULES, *rules.AXES])
    return f"The config file has an error: {at}{type(cause).__name__}: {text}"


def _frame_in_config(error):
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.name in ("get_config", "<module>") and not frame.filename.endswith("main.py")
    ]
    return frames[-1] if frames else None


def _leave(message):
    print(f"main.py: {message}", file=sys.stderr)
    sys.exit(USAGE)
