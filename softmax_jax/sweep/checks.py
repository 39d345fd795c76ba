"""The checks of a sweep's options: at the edge, before anything is compiled."""

from softmax_jax import metrics
from softmax_jax.sweep import resampling, selection


def options(train, val, num_epochs, sizes, seeds, resamples, best_by, chunk):
    """Raises one ValueError that names every option of `sweep.epochs` that is out of range."""
    num_examples = len(train.y)
    wrong = {
        f"num_epochs must be a whole number from 1; it is {num_epochs}": not _whole(num_epochs, 1),
        f"batch_size must be from 1 to the {num_examples} training examples; it is {sizes}": (
            not sizes or not all(_whole(size, 1, num_examples) for size in sizes)
        ),
        f"batch_size has a value twice: {sizes}": len(set(sizes)) < len(sizes),
        f"seeds must be distinct whole numbers from 0; they are {seeds}": not _are_seeds(seeds),
        f"chunk must be a whole number from 0; it is {chunk}": not _whole(chunk, 0),
        f"best_by must be one of {', '.join(figures())}; it is {best_by!r}": (
            best_by not in figures()
        ),
        "resamples hold out their own examples: val must be None": (
            val is not None and resamples is not None
        ),
    }
    problems = [text for text, is_wrong in wrong.items() if is_wrong]
    if problems:
        raise ValueError("; ".join(problems) + ".")
    if resamples is not None:
        resampling.check(resamples, num_examples)


def choice(metric, epoch, rule):
    """Raises ValueError for what `Result.best` will not take: before the training, not after."""
    if metric not in figures():
        raise ValueError(f"No metric {metric!r}; there are: {', '.join(figures())}.")
    if epoch not in ("last", "best"):
        raise ValueError(f"The epoch must be 'last' or 'best'; it is {epoch!r}.")
    if rule not in selection.RULES:
        raise ValueError(f"The rule must be one of {selection.RULES}; it is {rule!r}.")


def figures():
    """The names of the validation figures."""
    return [f"val_{name}" for name in ("loss", *metrics.METRICS)]


def _whole(value, low, high=2**63):
    return isinstance(value, int) and low <= value <= high


def _are_seeds(seeds):
    if not hasattr(seeds, "__len__"):
        return False
    seeds = [getattr(seed, "item", lambda seed=seed: seed)() for seed in seeds]
    return 0 < len(seeds) == len(set(seeds)) and all(_whole(s, 0, 2**32 - 1) for s in seeds)
