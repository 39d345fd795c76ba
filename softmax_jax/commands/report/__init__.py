"""`python -m softmax_jax report`: one self-contained HTML page about one run or several."""

from pathlib import Path

from softmax_jax.commands import run
from softmax_jax.commands.report import page
from softmax_jax.host import WORKDIR, JobError, replacing


def report(folders: list[Path], target: Path) -> None:
    """Writes the page about the runs in `folders`, whole or not at all.

    Raises:
      DataError: a folder holds no run, or a file in it is damaged.
      JobError: `target` cannot be written (exit code 3).
    """
    content = page.render([run.read(folder) for folder in folders]).encode("utf-8", "replace")
    try:
        with replacing(target) as file:
            file.write(content)
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror or error}."
        raise JobError(message, WORKDIR) from error
