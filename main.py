"""Softmax regression from the command line: python main.py --config=configs/default.py"""

import sys

from absl import app, flags
from ml_collections import config_flags

from softmax_jax import host

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, or one of yours.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder for the results; '': a new one in runs/.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the job that --workdir holds.")
_MODE = flags.DEFINE_enum("mode", "run", ["run", "check"], "'check' says what 'run' would do.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes of a cluster.")


def parse(argv):
    host.import_jax()  # first of all: what is wrong with the environment is one message, too
    from softmax_jax.job import config

    return config.parse_flags(argv)


def main(_):
    from softmax_jax.job import run

    options = {"overwrite": _OVERWRITE.value, "mode": _MODE.value}
    options["distributed"] = _DISTRIBUTED.value
    return run.main(_CONFIG.value, _WORKDIR.value, **options)


def start():
    """The program; its exit code, unless it has left with one already."""
    host.start_program()
    return host.guarded("main.py", lambda: app.run(main, flags_parser=parse))


if __name__ == "__main__":
    sys.exit(start())
