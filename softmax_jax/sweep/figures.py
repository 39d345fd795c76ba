"""The figures of trials on the device: taken over a feed, named, brought to the host."""

import jax

from softmax_jax.sweep import program

_CACHED = 640_000  # scores of a block of 1,000 examples that are at hand when they are used again


def evaluate(states, feed):
    """The figures {name: [S, K]} of every metric over a feed."""
    total, placement = None, feed.placement
    one_processor = placement.mesh is None and jax.default_backend() == "cpu"
    num_trials, num_classes = states.step.shape[1], feed.dataset.num_classes
    at_once = trials_at_once(num_trials, num_classes) if one_processor else None
    for _, data in feed.parts():
        sums = program.evaluate(states, data, placement.by_examples, at_once)
        total = sums if total is None else program.add(total, sums)
    return program.values(states, total)


def trials_at_once(num_trials, num_classes):
    """How many trials a processor should evaluate at once: their scores stay in its caches.

    A divisor of their number, so that all portions have one shape; None: all. Measured on 256
    trials of 10 classes: a third less time.

    >>> [trials_at_once(num_trials, 10) for num_trials in (64, 256, 1000, 1009)]
    [None, 64, 50, None]
    """
    fewest = min(-(-num_trials * num_classes * 1000 // _CACHED), num_trials)
    portions = range(fewest, 2 * fewest)
    return next((num_trials // n for n in portions if n > 1 and num_trials % n == 0), None)


def named(prefix, figures):
    """{'train_loss': ...} of {'loss': ...}: the loss first."""
    names = sorted(figures, key=lambda name: name != "loss")
    return {f"{prefix}_{name}": figures[name] for name in names}


def fetch(figures, placement):
    """The figures on the host, in their order (that of a jitted function is the alphabet's)."""
    return dict(zip(figures, placement.fetch(list(figures.values())), strict=True))
