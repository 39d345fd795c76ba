"""Calls of `softmax_jax.sweep` with flat options, as tests write them: options grouped by name."""

from softmax_jax import sweep

_SGD = ("schedule", "num_samples", "best_by")
_OBJECTIVE = ("model", "loss", "class_weight", "standardize", "dtype")
_DEVICES = ("mesh", "chunk", "steps_per_call")


def grouped(options):
    """The same options as those of `sweep.epochs`: solver, objective and devices put together."""
    options = dict(options)

    def take(names):
        return {name: options.pop(name) for name in names if name in options}

    if options.pop("optimizer", "sgd") == "lbfgs":
        options["solver"] = sweep.LBFGS(**take(("tolerance", "best_by")))
        take(("batch_size",))
    else:
        options.pop("tolerance", None)
        options["solver"] = sweep.SGD(**take(_SGD))
    options["objective"] = sweep.Objective(**take(_OBJECTIVE))
    options["devices"] = sweep.Devices(**take(_DEVICES))
    return options


def _data(val, options):
    """The validation set, or the counts of the resamples."""
    counts = options.pop("resamples", None)
    return val if counts is None else counts


def fit(train, val, settings=None, **options):
    """`sweep.fit`."""
    return sweep.fit(train, _data(val, options), settings, **grouped(options))


def epochs(train, val, settings=None, **options):
    """`sweep.epochs`."""
    return sweep.epochs(train, _data(val, options), settings, **grouped(options))


def cross_validate(dataset, settings=None, **options):
    """`sweep.cross_validate`."""
    return sweep.cross_validate(dataset, settings, **_selected(options))


def bootstrap(dataset, settings=None, **options):
    """`sweep.bootstrap`."""
    return sweep.bootstrap(dataset, settings, **_selected(options))


def refit(dataset, result, selected, epoch="last", **options):
    """`sweep.refit`."""
    return sweep.refit(dataset, result, selected, epoch, **grouped(options))


def _selected(options):
    chosen = {name: options.pop(name) for name in sweep.Selection._fields if name in options}
    return grouped(options) | {"selection": sweep.Selection(**chosen)}
