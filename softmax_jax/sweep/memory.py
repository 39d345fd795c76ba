"""How many trials fit on the device at once."""

import os

import jax

_ITEM = 4  # bytes of a float32
_PARAMETER_COPIES = 5  # parameters, momentum, gradient, best so far, and the update in flight
_SCORE_COPIES = 6  # logits and what the losses and metrics make of them
_EVALUATION_BLOCK = 1000
_SHARE = 0.6  # of the memory: the rest is for the data, the compiler and the neighbours


def bytes_per_trial(num_features, num_classes, batch_size):
    """Bytes that one more trial takes while it trains."""
    parameters = (num_features + 1) * num_classes
    scores = max(batch_size, _EVALUATION_BLOCK) * num_classes
    return _ITEM * (_PARAMETER_COPIES * parameters + _SCORE_COPIES * scores)


def device_bytes():
    """The memory of the device: of an accelerator as it reports it, else of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fitting_chunk(table, dataset, chunk=0):
    """The number of trials to run at once: `chunk`, or as many as fit if that is 0.

    Raises ValueError, with the bytes, where the results of all trials cannot be held at all.
    """
    features, classes = dataset.num_features, dataset.num_classes
    budget = _SHARE * device_bytes()
    each = bytes_per_trial(features, classes, int(table.batch_size.max()))
    num_trials = len(table.group)
    kept = 2 * _ITEM * (features + 1) * classes * num_trials
    if each > budget or kept > budget:
        raise ValueError(
            f"{num_trials:,} trials of {features} × {classes} parameters need "
            f"{max(each, kept) / 2**30:,.1f} GiB, more than the {budget / 2**30:,.1f} GiB that "
            "can be had: take fewer settings, seeds or folds."
        )
    return chunk or max(1, int(budget // each))
