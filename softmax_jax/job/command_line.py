"""Flags to a config: every mistake on the command line is one message and exit code 2."""

import difflib
import sys
import traceback

from absl import flags

from softmax_jax.job import config as config_rules
from softmax_jax.job.errors import USAGE


def parse(argv):
    """Parses the flags, the config file among them; for `absl.app.run(flags_parser=parse)`."""
    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS.config is None:
            _leave("--config is missing. Give one, as in --config=configs/default.py.")
        if len(rest) > 1:
            _leave(f"{rest[1]!r} is not a flag. Settings are given as --config.FIELD=VALUE.")
        return rest
    except flags.UnrecognizedFlagError as error:
        _leave(_unknown_flag(error))
    except flags.Error as error:
        _leave(f"{error}".strip())
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        _leave(f"The config file cannot be read: {error}.")
    except Exception as error:  # a config file is a program: any error of it is the user's
        _leave(_in_config_file(error))


def _unknown_flag(error):
    name = error.flagname
    if not name.startswith("config."):
        return f"There is no flag --{name}. Settings are given as --config.FIELD=VALUE."
    return _no_field(name.removeprefix("config."))


def _no_field(field):
    fields = [*config_rules.RULES, *(f"sweep.{name}" for name in config_rules.AXES)]
    near = difflib.get_close_matches(field, fields, n=1)
    hint = f"Did you mean --config.{near[0]}?" if near else f"There are: {', '.join(fields)}."
    return f"The config has no field {field}. {hint}"


def _in_config_file(error):
    """Where in the config file it went wrong, without the frames of the libraries between."""
    if isinstance(error, SyntaxError):
        return f"The config file has an error: {error.filename}, line {error.lineno}: {error.msg}."
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "get_config" in frame.name or frame.name == "<module>"
    ]
    at = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    text = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    return f"The config file has an error: {at}{type(error).__name__}: {text}"


def _leave(message):
    print(f"main.py: {message}", file=sys.stderr)
    sys.exit(USAGE)
