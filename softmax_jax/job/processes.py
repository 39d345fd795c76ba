"""Several processes that run one job: they join, agree, and leave together.

To JAX their devices are one machine, on which all of them start the same programs in the same
order. So none may turn off alone: what one process finds wrong ends all of them, and one that is
lost ends the others with an error, within a minute at most.
"""

import os
import sys

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from softmax_jax.data import DataError
from softmax_jax.job.errors import DIVERGED, DONE, LOST, USAGE, JobError

HEARTBEAT = 30  # seconds without a sign of life, after which a process counts as lost
_PATIENCE = 10  # seconds that a process which has failed waits for others that have, too
_END = 3600  # seconds that one which is done waits for the first process to write

_BY_HAND = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def join(folder):
    """Makes this process one of those of a cluster, before anything touches a device.

    JAX itself finds out which: from Slurm, Open MPI, a TPU pod or Kubernetes. Elsewhere three
    variables say it, JAX_COORDINATOR_ADDRESS (host:port of the first process), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID (from 0).

    Raises JobError (exit code 2) where there is no cluster, and for a job without a `folder`, which
    all processes must see.
    """
    if not folder:
        raise JobError("--distributed needs --workdir=DIR: a folder that all processes share.")
    jax.config.update("jax_enable_preemption_service", False)  # signals are for `agree_to_stop`
    try:
        jax.distributed.initialize(**_by_hand(), heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, RuntimeError) as error:
        raise JobError(
            f"--distributed found no cluster to join: {_first_line(error)} Start it by srun or "
            f"mpirun, on a TPU pod or in Kubernetes, or set {', '.join(_BY_HAND.values())}."
        ) from error


def are_several():
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first():
    """Whether this is the process that writes and speaks: of several, the first."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def agreed(function, *arguments):
    """function(*arguments), unless it fails in any of the processes: then it fails in all.

    With one exit code and one message, that of the first process that has failed.
    """
    if not are_several():
        return function(*arguments)
    result, error = _attempt(function, *arguments)
    _settle(error)
    return result


def led(function, *arguments):
    """`agreed`, with the first process ahead: the others find the files as it has left them."""
    if not are_several():
        return function(*arguments)
    result = error = None
    if is_first():
        result, error = _attempt(function, *arguments)
    _settle(error)
    return agreed(lambda: result if is_first() else function(*arguments))


def same(value: int, what):
    """Raises JobError in all processes if the value differs between them. value: below 2**31."""
    if are_several():
        values = multihost_utils.process_allgather(np.int32(value))
        odd = int((values != values[0]).argmax())
        if odd:
            text = f"Process 0 and process {odd} have not the same {what}."
            raise JobError(text if is_first() else "")


def agree(stop, due) -> tuple[int, bool]:
    """(the signal to stop that any process got, or 0; whether the first says that it is due)."""
    if not are_several():
        return stop, due
    everyone = multihost_utils.process_allgather(np.array([stop, due], np.int32))
    return int(everyone[:, 0].max()), bool(everyone[0, 1])


def is_loss(error):
    """Whether the error of a program comes, or may come, from the loss of another process."""
    failed = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
    return are_several() and failed


def leave(code) -> int:
    """The exit code, once all processes have come to an end; does not return if one does not.

    Then it leaves at once: what waits for this process notices, by its silence at the latest.
    """
    if not jax.distributed.is_initialized():
        return code
    if code != LOST:
        done = code in (DONE, DIVERGED)
        patience = _END if done else _PATIENCE
        try:
            distributed.global_state.client.wait_at_barrier("leave", 1000 * patience)
            jax.distributed.shutdown()
            return code
        except jax.errors.JaxRuntimeError:
            code = LOST if done else code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _by_hand():
    """What the environment says outright; {}: JAX has to find it out."""
    given = {name: os.environ.get(variable) for name, variable in _BY_HAND.items()}
    if not all(given.values()):
        return {}
    address, *numbers = given.values()
    known = dict(zip(given, (address, *map(int, numbers)), strict=True))
    return known | {"cluster_detection_method": "deactivate"}


def _attempt(function, *arguments):
    """(result, None) or (None, what it raised)."""
    try:
        return function(*arguments), None
    except (JobError, DataError) as error:
        return None, error


def _settle(error):
    """Ends all processes if one has an error: the first of these with its own."""
    own = 0 if error is None else getattr(error, "exit_code", USAGE)
    codes = multihost_utils.process_allgather(np.int32(own))
    if codes.any():
        first = int((codes > 0).argmax())
        raise error if first == jax.process_index() else JobError("", int(codes[first]))


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
