"""The processes and devices of a job: how they start, agree, are stopped by signals, and exit.

To JAX the devices of several processes are one machine, on which all processes start the same
programs in the same order. So none may stop alone: an error in one process ends all of them, and
the loss of one ends the others with an error, within a minute at most.

    with handled_signals() as stop:
        ...                          # here a signal raises `Stopped`
        with stop.deferred():        # here it sets `stop.requested`; the end of the block raises it
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from softmax_jax.data import DataError
from softmax_jax.host import DIVERGED, DONE, LOST, USAGE, JobError
from softmax_jax.sweep import mesh
from softmax_jax.sweep.mesh import AXES, place

T = TypeVar("T")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def use_precision(precision: Any) -> None:
    """Enables float64 where it is asked for; to be called before the first array is made."""
    is_double = isinstance(precision, str) and precision == "float64"
    jax.config.update("jax_enable_x64", is_double)


def without_tensorfloat32(precision: Any) -> str:
    """What is to be said where the devices have no such products; '': nothing is."""
    asked = isinstance(precision, str) and precision == "tensorfloat32"
    if not asked or jax.default_backend() != "cpu":
        return ""
    return "precision = 'tensorfloat32' is for accelerators: on a CPU it is float32."


def start_devices() -> None:
    """Starts the devices. Several processes also agree here on the memory that they plan with.

    Raises:
      JobError: there is no such device (exit code 2).
    """
    try:
        jax.devices()
        mesh.device_bytes()
    except (RuntimeError, AssertionError) as error:  # the latter without a plugin for the platform
        wanted = jax.config.read("jax_platforms") or ""
        reason = (str(error).splitlines() or ["there is none of that kind"])[0].rstrip(".")
        raise JobError(
            f"JAX has no device for JAX_PLATFORMS={wanted}: {reason}. Check that the machine "
            "has one, and that the JAX for it is installed."
        ) from error


def mesh_sizes(config: ConfigDict) -> dict[str, int]:
    """{'trials': 8, 'batch': 1}: how many devices share what; 'classes' only where they do.

    Raises:
      JobError: config.mesh does not fit the devices (exit code 2).
    """
    try:
        placement = place(**config.mesh)
    except ValueError as error:
        raise JobError(f"The config cannot be run on these devices: {error}") from error
    sizes = {axis: placement.size(axis) for axis in AXES}
    return {axis: size for axis, size in sizes.items() if axis != "classes" or size > 1}


def devices() -> dict[str, str | int]:
    """Backend, kind and number of the devices."""
    return {
        "backend": jax.default_backend(),
        "device_kind": jax.local_devices()[0].device_kind,
        "device_count": jax.device_count(),
    }


def versions() -> dict[str, str]:
    """{package: version} of the packages that the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ECHO = 0.1  # seconds: a launcher may forward what the terminal has sent to all its programs


class Stopped(KeyboardInterrupt):
    """A signal that ends the job; `exit_code` is 143 for SIGTERM and 130 for SIGINT."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = _exit_code(number)


class Stop:
    """How signals are handled: they raise `Stopped`, or within `deferred` they wait.

    Attributes:
      requested: the first signal that came; 0: none yet.
    """

    def __init__(self):
        self.requested: int = 0
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

    def handle(self, number: int, _: Any) -> None:
        """The signal handler."""
        if not self.requested:
            self.requested = number
            if not self._is_deferred:
                self._raise_if_requested()

    def _raise_if_requested(self):
        if self.requested:
            raise Stopped(self.requested)


@contextlib.contextmanager
def handled_signals() -> Iterator[Stop]:
    """Handles SIGTERM and SIGINT during the block; afterwards restores the previous handlers.

    A handler runs between two instructions of Python, so it waits for a program that is being
    compiled or run. A second signal does not wait: a thread watches for it, and ends the process
    with the exit code of that signal. (Two within 0.1 s count as one.) To be entered in the main
    thread.
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
    """Reads the numbers of the signals as they arrive; exits at a second one of ours."""
    first = math.inf
    while number := os.read(reader, 1):
        if number[0] in _SIGNALS:
            now = time.monotonic()
            if now - first > _ECHO:
                os._exit(_exit_code(number[0]))
            first = min(first, now)


def _exit_code(number):
    return 128 + number


HEARTBEAT = 30  # seconds without a heartbeat after which a process counts as lost
_PATIENCE = 10  # seconds that a failed process waits for the others to fail, too
_END = 3600  # seconds that a finished process waits for the first one to write

_BY_HAND = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def join_cluster(folder: str | Path) -> None:
    """Joins the other processes of a cluster, before anything touches a device.

    JAX finds them by itself under Slurm, Open MPI, Kubernetes and on a TPU pod. Elsewhere three
    variables name them: JAX_COORDINATOR_ADDRESS (host:port of the first process),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0).

    Args:
      folder: the value of --workdir, which all processes must share.

    Raises:
      JobError: there is no cluster, or no folder (exit code 2).
    """
    if not folder:
        raise JobError("--distributed needs --workdir=DIR: a folder that all processes share.")
    jax.config.update("jax_enable_preemption_service", False)  # signals are handled here
    try:
        jax.distributed.initialize(
            **_by_hand(), heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=_END
        )
    except (ValueError, RuntimeError) as error:
        raise JobError(
            f"--distributed found no cluster to join: {_first_line(error)} Start it by srun or "
            f"mpirun, on a TPU pod or in Kubernetes, or set {', '.join(_BY_HAND.values())}."
        ) from error


def are_several() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes and prints: of several, only the first does."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def agreed(function: Callable[..., T], *arguments: Any) -> T:
    """function(*arguments), unless it fails in any of the processes: then it fails in all.

    All have the exit code of the first process that failed, which alone has the message.
    """
    if not are_several():
        return function(*arguments)
    result, error = _attempt(function, *arguments)
    _settle(error)
    return result


def led(function: Callable[..., T], *arguments: Any) -> T:
    """`agreed`, but the first process runs first: the others find the files that it has left."""
    if not are_several():
        return function(*arguments)
    result: Any = None
    error = None
    if is_first():
        result, error = _attempt(function, *arguments)
    _settle(error)
    return agreed(lambda: result if is_first() else function(*arguments))


def same(value: int, what: str) -> None:
    """Checks that a value (below 2**31) is the same in all processes.

    Raises:
      JobError: it is not, in all of them (exit code 2); the message calls the value `what`.
    """
    if are_several():
        values = multihost_utils.process_allgather(np.int32(value))
        odd = int((values != values[0]).argmax())
        if odd:
            text = f"Process 0 and process {odd} differ in their {what}."
            raise JobError(text if is_first() else "")


def agree(stop: int, due: bool) -> tuple[int, bool]:
    """(the signal to stop that any process got, or 0; whether it is due in the first process)."""
    if not are_several():
        return stop, due
    everyone = multihost_utils.process_allgather(np.array([stop, due], np.int32))
    return int(everyone[:, 0].max()), bool(everyone[0, 1])


def is_loss(error: BaseException) -> bool:
    """Whether the error of a program may be due to the loss of another process."""
    failed = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
    return are_several() and failed


def leave(code: int) -> int:
    """The exit code, once all processes have finished.

    If one does not finish, it does not return but ends the process at once: the others notice the
    missing heartbeat at the latest.
    """
    if not jax.distributed.is_initialized():
        return code
    if code != LOST:
        done = code in (DONE, DIVERGED)
        patience = _END if done else _PATIENCE
        closing = threading.Thread(target=_close, daemon=True)
        closing.start()
        closing.join(patience)
        if not jax.distributed.is_initialized():
            return code
        code = LOST if done else code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _close():
    """Waits for the other processes, and closes the connection to them unless one is lost."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        jax.distributed.shutdown()


def _by_hand():
    """The cluster as the environment names it; {}: JAX has to find it."""
    given = {name: os.environ.get(variable, "") for name, variable in _BY_HAND.items()}
    if not all(given.values()):
        return {}
    address, *numbers = given.values()
    known = dict(zip(given, (address, *map(int, numbers)), strict=True))
    return known | {"cluster_detection_method": "deactivate"}


def _attempt(function, *arguments):
    """(result, None), or (None, the error that it raised)."""
    try:
        return function(*arguments), None
    except (JobError, DataError) as error:
        return None, error


def _settle(error):
    """Raises in all processes if one has an error: the first of these raises its own."""
    own = 0 if error is None else getattr(error, "exit_code", USAGE)
    codes = multihost_utils.process_allgather(np.int32(own))
    if codes.any():
        first = int((codes > 0).argmax())
        raise error if first == jax.process_index() else JobError("", int(codes[first]))


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
