"""SIGTERM and SIGINT: the first ends the job in good order, the second at once.

    with signals.handled() as stop:
        ...                          # here a signal raises `Stopped`
        with stop.deferred():        # here it sets `stop.requested`, and is raised at the end
            for span in spans:
                if stop.requested:
                    break            # once everything is saved

`Stopped` carries the exit code.
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator

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
def handled() -> Iterator[Stop]:
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
