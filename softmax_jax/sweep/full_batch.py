"""The certified optimum of the trials of a sweep: L-BFGS on all trials of a piece at once.

An iteration over the full batch counts as an epoch; figures are taken after every span of them.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from softmax_jax import batches, models, optimum
from softmax_jax.sweep import program, shares, sources, tasks
from softmax_jax.sweep.epoch import Epoch
from softmax_jax.sweep.figures import evaluate, fetch, named
from softmax_jax.sweep.minibatch import create
from softmax_jax.sweep.placement import padded

# Whatever the model, its parameters are one matrix, as those of `optimum` are.
MODEL = models.augmented(models.scratch)
_TRAIN = ("loss", "accuracy")
_CERTIFICATE = ("objective", "gradient_norm", "gap_bound")
_FACTS = ("iterations", "converged", "separable")


def l2_path(train, num, *, class_weight=None, standardize=False, dtype=np.float32) -> tuple:
    """`num` penalties worth trying on this training set, the smallest first.

    From one too small to matter to one that gives (almost) zero weights: `optimum.l2_path`. Options
    as in `sweep.epochs`. Raises ValueError for num < 1 and for features that are all constant.
    """
    options = {"class_weight": class_weight, "standardize": standardize, "dtype": dtype}
    data, _, _ = sources.make(train, None, **options)
    path = optimum.l2_path(prepare(data.train), num)
    return tuple(float(f"{l2:.3g}") for l2 in path[::-1])


def prepare(feed) -> optimum.Prepared:
    """The data as the solver wants them: normalised, centred, with their spectrum.

    Each device has them as it has the feed; examples that only fill it up weigh nothing.
    """
    data, placement = feed.resident, feed.placement
    x = jax.jit(batches.normalise)(data, data.x)
    weights = feed.importance
    if weights is None and len(x) > len(feed.dataset.y):
        weights = np.ones(len(feed.dataset.y), feed.dtype)
    of_examples = np.asarray(feed.dataset.y), weights, feed.resamples
    of_examples = jax.tree.map(lambda array: padded(array, 0, len(x)), of_examples)
    problem = optimum.Problem(x, *of_examples, feed.dataset.num_classes)
    prepared = optimum.prepare(problem)._asdict()
    divided = {name: prepared.pop(name) for name in ("y", "weights", "resamples")}
    features = placement.examples(prepared.pop("features"), axis=1)
    whole = placement.everywhere(prepared)
    return optimum.Prepared(features=features, **placement.examples(divided), **whole)


def epochs(run, work, objective, source, tolerance) -> Iterator[Epoch]:
    """The spans of all tasks, one task after the other; the spectrum is found once a source."""
    prepared = None
    for number, task in enumerate(work):
        fold = int(run.trials.fold[task.piece.trials[0, 0]])
        if prepared is None or source.differ:
            feeds = source.of(fold)
            prepared = prepare(feeds[0])
        states = _spans(run, task, prepared, tolerance)
        yield from _piece_epochs(run, task, work[number + 1 :], objective, prepared, feeds, states)


def _piece_epochs(run, task, rest, objective, prepared, feeds, states) -> Iterator[Epoch]:
    """After every span, the figures of the trials that it moved."""
    piece, (feed, held_out) = task.piece, feeds
    template = create(run, piece, objective, feed)
    best = run.placement.trials(program.no_best(template))
    before = _iterations_of(task)
    for state, unfinished in states:
        names = (*_CERTIFICATE, *_FACTS)
        figures = fetch({name: getattr(state, name) for name in names}, run.placement)
        iterations = figures["iterations"][: piece.num_real]
        moved = np.flatnonzero(iterations > before)
        before = iterations
        trained = template.replace(params=_params(prepared, state))
        metrics = _figures(trained, moved, feed, held_out)
        yield Epoch(
            epoch=int(iterations.max()),
            trials=piece.trials[0, moved],
            reached=iterations[moved],
            metrics=metrics | {name: figures[name][moved] for name in _CERTIFICATE},
            facts={name: figures[name][moved] for name in _FACTS},
            states=trained,
            best=best,
            piece=piece,
            ends=not unfinished.any(),
            run=run,
            part=0,
            progress=jax.tree.map(lambda leaf: leaf[None], state._asdict()),
            rest=tuple(rest),
        )


def _spans(run, task, prepared, tolerance):
    """(state [K], which trials are unfinished [K]) after each span.

    Where nothing is to be done, the first state.
    """
    placement, most, dtype = run.placement, run.num_epochs, prepared.mean.dtype
    sharding = placement.sharding("trials")
    state = _start(run, task, prepared)
    limits = jnp.asarray(tolerance, dtype), jnp.int32(most), jnp.int32(optimum.SPAN)

    def unfinished():
        done, iterations = placement.fetch((state.done, state.iterations))
        real = np.arange(len(done)) < task.piece.num_real
        return ~done & (iterations < most) & real

    left = unfinished()
    if not left.any():
        yield state, left
    while left.any():
        rows = shares.rows(left, prepared.features.size * 20, placement)
        state = shares.advance(prepared, state, placement.rows(rows), limits, sharding)
        left = unfinished()
        yield state, left


def _start(run, task, prepared):
    trials, table, placement = task.piece.trials[0], run.trials, run.placement
    folds = np.maximum(table.fold[trials], 0)
    l2, columns, _ = optimum.check_trials(prepared, table.hyperparameters.l2[trials], folds)
    own = placement.rows(l2), placement.rows(columns)
    state = shares.start(prepared, *own, placement.sharding("trials"))
    if task.saved is None:
        return state
    like = jax.tree.map(lambda leaf: leaf[None], state._asdict())
    saved = jax.tree.map(lambda leaf: leaf[0], tasks.load(task, like))
    return placement.rows(type(state)(**saved))


def _iterations_of(task):
    """The iterations [K] that were reported already; -1: not even the first point."""
    if task.saved is None:
        return np.full(task.piece.num_real, -1)
    return task.saved["iterations"][0]


def _figures(states, moved, feed, held_out):
    """{name: [n]} of the trials that moved: a finished one costs nothing."""
    which, placement = np.isin(np.arange(states.step.shape[1]), moved), feed.placement
    rows = shares.rows(which, feed.resident.x.size * 10, placement)
    states = shares.chosen(states, placement.rows(rows))
    train = evaluate(states, feed)
    figures = named("train", {name: train[name] for name in _TRAIN})
    if held_out is not None:
        figures |= named("val", evaluate(states, held_out))
    figures = fetch(figures, placement)
    computed = np.take_along_axis(which.reshape(len(rows), -1), rows, 1).ravel()
    return {name: values[0][computed] for name, values in figures.items()}


@jax.jit
def _params(prepared, state):
    """The parameters [1, K, ...] of `MODEL`, from those of centred features."""
    shift = optimum.product(state.params[:, :, :-1], prepared.mean)
    return {"augmented": state.params.at[:, :, -1].add(-shift)[None]}
