"""How many trials fit on the devices at once."""

import functools
import math
import os

import jax
import numpy as np
from jax.experimental import multihost_utils

_ITEM = 4  # bytes of a float32
_PARAMETER_COPIES = 6  # parameters, momentum, average, gradient, best so far, update in flight
_SCORE_COPIES = 6  # logits and what the losses and metrics make of them
_EVALUATION_BLOCK = 1000
_OPTIMUM_PARAMETER_COPIES = 50  # 20 pairs of L-BFGS, and what is in flight
_OPTIMUM_SCORE_COPIES = 8  # logits, their change, probabilities, residuals
_TABLE_ROW = 100  # bytes of a trial in the table of trials
_SHARE = 0.6  # of the memory: the rest is for the data, the compiler and the neighbours


def bytes_per_trial(num_features, num_classes, batch_size):
    """Bytes that one more trial takes while it trains."""
    parameters = (num_features + 1) * num_classes
    scores = max(batch_size, _EVALUATION_BLOCK) * num_classes
    return _ITEM * (_PARAMETER_COPIES * parameters + _SCORE_COPIES * scores)


def full_batch_bytes(num_features, num_classes, num_examples):
    """Bytes that one more trial takes on its way to the optimum."""
    parameters, scores = (num_features + 1) * num_classes, num_examples * num_classes
    return _ITEM * (_OPTIMUM_PARAMETER_COPIES * parameters + _OPTIMUM_SCORE_COPIES * scores)


def without_logits_bytes(num_features, num_classes, _):
    """Bytes that one more trial takes with a loss that never holds the logits."""
    return _ITEM * (_PARAMETER_COPIES + 1) * (num_features + 1) * num_classes


def device_bytes():
    """The memory of a device: of an accelerator as it reports it, else its share of the machine's.

    Of several processes it is the smallest, so that all come to one plan; the first call is one
    that all of them make together.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    own = stats.get("bytes_limit") or _machine_bytes() // jax.local_device_count()
    return own if jax.process_count() == 1 else _least(own)


def check_table(num_trials):
    """Raises ValueError where so many trials cannot even be listed: before any list is made."""
    _require(num_trials * _TABLE_ROW, _machine_bytes(), f"A table of {num_trials:,} trials needs")


def check_counts(num_examples, num_resamples):
    """Raises ValueError where so many resamples cannot be held: here, and twice on the device."""
    what = f"{num_resamples:,} resamples of {num_examples:,} examples need"
    _require(3 * num_examples * num_resamples, _machine_bytes(), what)


def fitting_chunk(num_trials, num_features, num_classes, each, chunk=0, devices=1):
    """The number of trials of `each` so many bytes to run at once: `chunk`; if 0, what fits.

    devices: how many share the trials; a chunk is rounded up, to give each the same number.
    Raises ValueError, with the bytes, where not even one fits on each, or where the results of all
    (their last and their best parameters) cannot be held.
    """
    what = f"{num_trials:,} trials of {num_features} × {num_classes} parameters need"
    chunk = min(chunk, num_trials)
    here = max(math.ceil(chunk / devices), 1)
    _require(each * here, device_bytes(), f"{here:,} at once on a device of {what}")
    _require(2 * _ITEM * (num_features + 1) * num_classes * num_trials, _machine_bytes(), what)
    return devices * (here if chunk else max(1, int(_SHARE * device_bytes() // each)))


@functools.cache
def _least(own):
    mebibytes = multihost_utils.process_allgather(np.int32(own >> 20))
    return int(mebibytes.min()) << 20


def _machine_bytes():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _require(needed, there, what):
    if needed > _SHARE * there:
        raise ValueError(
            f"{what} {needed / 2**30:,.1f} GiB, more than the {_SHARE * there / 2**30:,.1f} GiB "
            "that can be had: take fewer settings, seeds or folds, or a smaller chunk."
        )
