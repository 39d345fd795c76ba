"""The figures of trials on the device: taken over a feed, named, brought to the host."""

from softmax_jax.sweep import portions, program


def evaluate(states, feed):
    """The figures {name: [S, K]} of every metric over a feed."""
    total, placement = None, feed.placement
    at_once = portions.in_evaluation(placement, states.step.shape, feed.dataset.num_classes)
    for _, data in feed.parts():
        sums = program.evaluate(states, data, placement.by_examples, at_once)
        total = sums if total is None else program.add(total, sums)
    return program.values(states, total)


def named(prefix, figures):
    """{'train_loss': ...} of {'loss': ...}: the loss first."""
    names = sorted(figures, key=lambda name: name != "loss")
    return {f"{prefix}_{name}": figures[name] for name in names}


def fetch(figures, placement):
    """The figures on the host, in their order (that of a jitted function is the alphabet's)."""
    return dict(zip(figures, placement.fetch(list(figures.values())), strict=True))
