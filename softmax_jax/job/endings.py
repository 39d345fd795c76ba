"""How a job ends that does not end well: what is said of it, and its exit code."""

import traceback

from softmax_jax import data
from softmax_jax.job import console, processes, signals
from softmax_jax.job.errors import LOST, USAGE, JobError


def told(error, workdir, folder) -> int:
    """Says what has ended the job, and returns its exit code.

    folder: what --workdir said. Raises the error again where it is nothing but a defect.
    """
    if isinstance(error, JobError | data.DataError):
        if str(error):  # else another process says it
            console.complain(f"main.py: {error}")
        return getattr(error, "exit_code", USAGE)
    way_on = _way_on(workdir, folder)
    if isinstance(error, signals.Stopped):
        if processes.is_first():
            console.complain(f"main.py: {error}{way_on}.")
        return error.exit_code
    if not processes.are_several():
        raise error
    if processes.is_loss(error):
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        console.complain(f"main.py: another process or a device is lost ({reason}){way_on}.")
        return LOST
    traceback.print_exception(error)
    return 1


def _way_on(workdir, folder):
    """How a job that was stopped is gone on with; nothing if it had no folder yet."""
    if folder:
        return "; the same command goes on from here"
    if workdir.path:
        return f"; the same command with --workdir={workdir.path} goes on from here"
    return ""
