"""Softmax regression from the command line: python main.py --config=configs/default.py"""

from absl import app, flags
from ml_collections import config_flags

from softmax_jax.job import config, run

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, or one of yours.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder for the results; '': a new one in runs/.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the job that --workdir holds.")
_MODE = flags.DEFINE_enum("mode", "run", ["run", "check"], "'check' says what 'run' would do.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes of a cluster.")


def main(_):
    options = {"overwrite": _OVERWRITE.value, "mode": _MODE.value}
    options["distributed"] = _DISTRIBUTED.value
    return run.main(_CONFIG.value, _WORKDIR.value, **options)


if __name__ == "__main__":
    app.run(main, flags_parser=config.parse_flags)
