"""The processes and devices of a job: how they start, agree, are stopped by signals, and leave.

To JAX the devices of several processes are one machine, on which all of them start the same
programs in the same order. So none may stop alone: what one process finds wrong ends all of them,
and one that is lost ends the others with an error, within a minute at most.

    with handled_signals() as stop:
        ...                          # here a signal raises `Stopped`
        with stop.deferred():        # here it sets `stop.requested`, and is raised at the end
            for segment in segments:
                if stop.requested:
                    break            # once everything is saved

`Stopped` carries the exit code.
"""

import contextlib
import importlib.metadata
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from softmax_jax.data import DataError
from softmax_jax.host import DIVERGED, DONE, LOST, USAGE, JobError
from softmax_jax.sweep import mesh
from softmax_jax.sweep.mesh import AXES, place

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def use_precision(precision):
    """float64 has to be switched on before the first array is made."""
    jax.config.update("jax_enable_x64", precision == "float64")


def start_devices():
    """Starts the devices. Raises JobError (exit code 2) for devices that were not found.

    Of several processes all do so together: here they agree on the memory that they plan with.
    """
    try:
        jax.devices()
        mesh.device_bytes()
    except (RuntimeError, AssertionError) as error:  # the latter without a plugin for the platform
        wanted = jax.config.jax_platforms or ""
        reason = (str(error).splitlines() or ["it knows none of that kind"])[0].rstrip(".")
        raise JobError(
            f"JAX has no device for JAX_PLATFORMS={wanted}: {reason}. See whether the machine has "
            "one, and whether the JAX for it is installed."
        ) from error


def mesh_sizes(config) -> dict:
    """{'trials': 8, 'batch': 1}: how many devices share what. Raises JobError (exit code 2).

    'classes' only where devices share them.
    """
    try:
        placement = place(**config.mesh)
    except ValueError as error:
        raise JobError(f"The config cannot be run on these devices: {error}") from error
    sizes = {axis: placement.size(axis) for axis in AXES}
    return {axis: size for axis, size in sizes.items() if axis != "classes" or size > 1}


def devices() -> dict:
    """Backend, kind and number of the devices."""
    return {
        "backend": jax.default_backend(),
        "device_kind": jax.local_devices()[0].device_kind,
        "device_count": jax.device_count(),
    }


def versions() -> dict:
    """{package: version} of what the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ECHO = 0.1  # seconds: a launcher may pass on what the terminal has sent to all of its programs


class Stopped(KeyboardInterrupt):
    """A signal that ends the job, with the `exit_code` that says which: 143 or 130."""

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = _exit_code(number)


class Stop:
    """What signals do, in two states: usually they raise `Stopped`; within `deferred`, they wait.

    requested: the first signal that came, 0 before.
    """

    def __init__(self):
        self.requested = 0
        self._is_deferred = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """In this block a signal only sets `requested`; the end of the block raises `Stopped`."""
        self._is_deferred = True
        try:
            self._raise_if_requested()
            yield
        finally:
            self._is_deferred = False
        self._raise_if_requested()

    def handle(self, number, _):
        """The handler of the signals."""
        if not self.requested:
            self.requested = number
            if not self._is_deferred:
                self._raise_if_requested()

    def _raise_if_requested(self):
        if self.requested:
            raise Stopped(self.requested)


@contextlib.contextmanager
def handled_signals() -> Iterator[Stop]:
    """Handles SIGTERM and SIGINT during the block; afterwards they do what they did before.

    A handler runs between two instructions of Python, so it waits for a program that is being
    compiled or run. A second signal does not wait: a thread watches for it, and ends the process
    with the exit code of that signal. (Two within 0.1 s are one.) To be entered in the main thread.
    """
    stop = Stop()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    wakeup_before = signal.set_wakeup_fd(writer)
    watcher = threading.Thread(target=_leave_at_second, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # ends the watcher
        watcher.join()
        os.close(reader)


def _leave_at_second(reader):
    """Reads the numbers of the signals as they arrive; leaves at a second one of ours."""
    first = math.inf
    while number := os.read(reader, 1):
        if number[0] in _SIGNALS:
            now = time.monotonic()
            if now - first > _ECHO:
                os._exit(_exit_code(number[0]))
            first = min(first, now)


def _exit_code(number):
    return 128 + number


HEARTBEAT = 30  # seconds without a sign of life, after which a process counts as lost
_PATIENCE = 10  # seconds that a process which has failed waits for others that have, too
_END = 3600  # seconds that one which is done waits for the first process to write

_BY_HAND = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def join_cluster(folder):
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
    """The exit code, once all processes have ended; does not return if one does not.

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
