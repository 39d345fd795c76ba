"""The first signal ends a job cleanly, the second at once; the exit code names the signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softmax_jax.job import processes

SIGNALS = pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
ROOT = Path(__file__).parents[1]


def send(number):
    os.kill(os.getpid(), number)


@SIGNALS
def test_signal_outside_the_loop_is_raised(number, code):
    with pytest.raises(processes.Stopped) as stopped, processes.handled_signals():
        send(number)
        raise AssertionError("not reached")
    assert stopped.value.exit_code == code
    assert str(stopped.value) == f"stopped by {signal.Signals(number).name}"


@SIGNALS
def test_signal_inside_the_loop_waits_for_its_end(number, code):
    steps = []
    with pytest.raises(processes.Stopped) as stopped, processes.handled_signals() as stop:
        with stop.deferred():
            for step in range(5):
                if step == 2:
                    send(number)
                steps.append(step)
                if stop.requested:
                    break
            steps.append("saved")
        raise AssertionError("not reached")
    assert steps == [0, 1, 2, "saved"] and stopped.value.exit_code == code


def test_handlers_are_restored_without_a_signal():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with processes.handled_signals() as stop, stop.deferred():
        inside = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert stop.requested == 0 and set(inside).isdisjoint(before)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_error_in_the_loop_is_not_hidden_by_a_signal():
    with pytest.raises(ZeroDivisionError), processes.handled_signals() as stop, stop.deferred():
        send(signal.SIGTERM)
        print(1 / 0)
    assert stop.requested == signal.SIGTERM


def test_signal_whose_exception_was_swallowed_is_raised_at_the_loop():
    with pytest.raises(processes.Stopped), processes.handled_signals() as stop:
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt:
            pass  # as in a callback of a library
        with stop.deferred():
            raise AssertionError("not reached")
    assert stop.requested == signal.SIGINT


LOOP = """
import sys, time
from softmax_jax.job import processes
try:
    with processes.handled_signals() as stop, stop.deferred():
        print("ready", flush=True)
        started = time.monotonic()
        while not stop.requested or time.monotonic() < started + float(sys.argv[1]):
            BUSY
        print("saved", flush=True)
except processes.Stopped as stopped:
    sys.exit(stopped.exit_code)
"""


def start(seconds, busy="time.sleep(0.01)"):
    """A loop that ends `seconds` after its start, if a signal has come."""
    command = [sys.executable, "-c", LOOP.replace("BUSY", busy), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@SIGNALS
def test_first_signal_lets_the_process_save(number, code):
    with start(0) as process:
        process.send_signal(number)
        assert process.stdout.read() == "saved\n"
    assert process.returncode == code


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@SIGNALS
def test_second_signal_ends_the_process_at_once(first, number, code):
    with start(30) as process:
        process.send_signal(first)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(5) == code
        assert process.stdout.read() == ""


def test_second_signal_does_not_wait_for_compiled_code():
    """Code that lets other threads run, as the compiler and its programs do."""
    busy = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 30_000_000)"
    with start(30, busy) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 143


def test_signals_at_the_same_time_count_once():
    with start(1) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "saved\n"
    assert process.returncode in (143, 130)  # either may come first
