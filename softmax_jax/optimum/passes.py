"""The optimum without the logits: each iteration passes once over the examples, tile by tile.

The first way (`minimise.advance`) holds the logits of all examples and their change along a
direction, so that a try of the line search costs no product with x. Here a pass computes the loss
and the gradient at one point of every trial, from tiles of x that are read one after the other: the
memory is a tile, its scores, and the pairs of L-BFGS. t = 1 is nearly always accepted; more tries
cost more passes.

A trial is a small machine whose state says what it asks of the next pass: a point on its line, the
Hessian in the bias, or the loss at a better bias. So trials at different stages share every pass.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from softmax_jax import checks, host, losses
from softmax_jax.optimum import certificate, lbfgs, problem
from softmax_jax.optimum.certificate import State
from softmax_jax.optimum.problem import Prepared, Problem, choose, held, product

_SCORES = {"cpu": 2**21}  # of all trials in a tile
_ACCELERATOR_SCORES = 2**28
_TILE_NUMBERS, _FEWEST_ROWS = 2**24, 256  # of x in a tile
_SHARE = 0.4  # of the memory that the first way may take
_REFRESH = 20  # passes after which the curvature is estimated anew, and at first more often
_POLISHES = 20
# What a trial asks of the next pass.
_SEARCH, _MOMENTS, _POLISH, _START = range(4)


class Table(NamedTuple):
    """Features [N, D] in shards [n, D], of which rows are read when they are asked for."""

    shards: tuple[Any, ...]
    first: Int[np.ndarray, " shards+1"]  # the number of each shard's first row, and N

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return int(self.first[-1]), self.shards[0].shape[1]

    @property
    def dtype(self) -> np.dtype:
        """The one type that holds the numbers of all shards."""
        return functools.reduce(np.promote_types, {np.dtype(one.dtype) for one in self.shards})

    def rows(self, start: int, stop: int) -> Shaped[Array | np.ndarray, "B D"]:
        """A copy of the rows from start to below stop; of an array of JAX, on its device."""
        if len(self.shards) == 1 and isinstance(self.shards[0], jax.Array):
            return lax.dynamic_slice_in_dim(self.shards[0], start, stop - start)
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        for number in range(*self._range(start, stop)):
            low, high = self.first[number], self.first[number + 1]
            a, b = max(start, low), min(stop, high)
            out[a - start : b - start] = self.shards[number][a - low : b - low]
        return out

    def take(self, rows: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, "n D"]:
        """A copy of some rows, in ascending order."""
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        shard = np.searchsorted(self.first, rows, "right") - 1
        for number in np.unique(shard):
            own = shard == number
            out[own] = np.asarray(self.shards[number][rows[own] - self.first[number]])
        return out

    def _range(self, start, stop):
        ends = np.searchsorted(self.first, (start, stop - 1), "right")
        return int(ends[0]) - 1, int(ends[1])


def is_in_shards(x: Any) -> bool:
    """Whether x is a sequence of arrays [n, D], and not one array or numbers in lists."""
    return isinstance(x, list | tuple) and any(hasattr(one, "dtype") and np.ndim(one) for one in x)


def wanted(given: Problem, num_trials: int, tile_rows: int | None) -> bool:
    """Whether the trials of a problem are to be solved in passes.

    They are where tile_rows says so, for x that is mapped into memory or comes in shards, and where
    the logits and their change would take too much of the memory.
    """
    if tile_rows is not None:
        checks.check_whole("tile_rows", tile_rows, 1)
        return True
    if is_in_shards(given.x) or isinstance(given.x, np.memmap):
        return True
    shape = np.shape(given.x)
    if len(shape) != 2 or not np.size(given.y):
        return False  # what is wrong, `prepare` says
    y = np.asarray(given.y)
    largest = int(y.max()) + 1 if y.ndim == 1 and y.dtype.kind in "iu" else 2
    num_classes = y.shape[1] if y.ndim == 2 else given.num_classes or largest
    return resident_bytes(shape[0], shape[1], num_classes, num_trials) > _SHARE * _memory()


def resident_bytes(num_examples: int, num_features: int, num_classes: int, num_trials: int) -> int:
    """What the first way takes: a copy of x, the logits of all examples, and the pairs."""
    by_trial = num_classes * (8 * num_examples + 40 * num_features)
    return 4 * (num_examples * num_features + num_trials * by_trial)


def passing_bytes(tile_rows: int, num_features: int, num_classes: int, num_trials: int) -> int:
    """What passes take: four tiles of x, the scores of one, and the pairs."""
    by_trial = num_classes * (6 * tile_rows + 100 * num_features)
    return 4 * (4 * tile_rows * num_features + num_trials * by_trial)


def choose_tile_rows(num_trials: int, num_classes: int, num_features: int) -> int:
    """Rows of a tile: as many as give products of a good size, and scores that a cache holds.

    >>> choose_tile_rows(1, 10, 784), choose_tile_rows(45, 1000, 768)
    (21399, 256)
    """
    scores = _SCORES.get(jax.default_backend(), _ACCELERATOR_SCORES)
    most = min(scores // (num_trials * num_classes), _TILE_NUMBERS // num_features)
    return max(most, _FEWEST_ROWS)


def _memory():
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    return (stats or {}).get("bytes_limit") or host.available_memory()


class Passing(NamedTuple):
    """A problem that is read in passes.

    table, y [N] or [N, C], weights [N], resamples [N, R] or None: on the host · totals [R]: the sum
    of the weights in each resample · priors [R, C]: the fractions of them in each class · wide:
    whether the mean is subtracted on the host, in a type that the device has not · sample: a sample
    of the rows as a problem of its own, with the mean, the priors and the spectrum that `Prepared`
    has · tile_rows: examples in a tile.
    """

    table: Table
    y: Shaped[np.ndarray, "..."]
    weights: Float[np.ndarray, " N"]
    resamples: Num[np.ndarray, "N R"] | None
    totals: Float[np.ndarray, " R"]
    priors: Float[np.ndarray, "R C"]
    wide: bool
    sample: Prepared
    tile_rows: int


def prepare(given: Problem, num_trials: int = 1, tile_rows: int | None = None) -> Passing:
    """Checks a problem in one pass over it, and takes the spectrum of a sample.

    Args:
      given: its x may be an array, one that is mapped into memory, or a sequence of either.
      num_trials: how many share a pass, for the size of a tile.
      tile_rows: examples in a tile; None: chosen.

    Raises:
      ValueError: what `problem.prepare` refuses, and shards that are not [n, D] of one D.
    """
    host.begin()
    table, y = _as_table(given.x), np.asarray(given.y)
    problem.check_type(table)
    num_classes = problem.check_labels(table.shape, y, given.num_classes, given.fit_bias)
    weights = problem.check_weights(given.weights, len(y))
    dtype = problem.dtype_of(table.dtype)
    problem.check_resamples(given.resamples, weights.astype(dtype))
    resamples = None if given.resamples is None else np.asarray(given.resamples)
    rows = tile_rows or choose_tile_rows(num_trials, num_classes, table.shape[1])
    rows = min(rows, len(y))
    narrow = jnp.issubdtype(table.dtype, jnp.floating) or table.dtype.itemsize <= 2
    wide = not (narrow and table.dtype.itemsize <= np.dtype(dtype).itemsize)
    unknown = cast(Prepared, None)  # until the mean is known
    own = Passing(table, y, weights, resamples, np.ones(1), np.ones((1, 1)), wide, unknown, rows)
    mean, sums = _moments(own, num_classes, dtype)
    totals = sums.sum(1)
    fractions = sums / totals[:, None]
    if not given.fit_bias:
        mean, fractions = np.zeros_like(mean), np.full_like(fractions, 1 / num_classes)
    own = own._replace(totals=totals, priors=fractions)
    return own._replace(sample=_prepare_sample(own, mean, given.fit_bias, dtype))


def _as_table(x):
    shards = tuple(x) if is_in_shards(x) else (x,)
    shards = tuple(one if hasattr(one, "dtype") else np.asarray(one) for one in shards)
    shapes = [tuple(np.shape(one)) for one in shards]
    if any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) > 1:
        raise ValueError(
            f"x must be [N, D], or shards [n, D] of one D; they are {host.brief(shapes)}."
        )
    first = np.cumsum([0, *(shape[0] for shape in shapes)])
    return Table(tuple(one for one in shards if len(one)) or shards[:1], np.unique(first))


def _tiles(own: Passing, mean=None) -> Iterator[tuple]:
    """(x [B, D], y, weights [B], first row) of all tiles; in the last, some rows count nothing.

    The last tile ends with the data: what it repeats of the one before has no weight.
    """
    num_examples, size = len(own.y), own.tile_rows
    for start in range(0, num_examples, size):
        at = min(start, num_examples - size)
        rows = slice(at, at + size)
        weights = own.weights[rows].copy()
        weights[: start - at] = 0
        x = own.table.rows(at, at + size)
        if mean is not None and own.wide:
            x = x - mean
        yield x, own.y[rows], weights, rows


def _moments(own, num_classes, dtype):
    """(mean [D], the weight of each class in each resample [R, C]) from one pass, in float64."""
    first = np.asarray(own.table.rows(0, 1)[0]).astype(np.float64)
    total, sums = np.zeros(len(first)), 0.0
    for x, y, weights, rows in _tiles(own):
        # Relative to the first example, so that a constant column becomes exactly zero.
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused
            x = (x - first if own.wide else x).astype(dtype if own.wide else x.dtype, copy=False)
        origin = (np.zeros_like(first) if own.wide else first).astype(dtype)
        shifted, finite = _shifted_sum(x, origin, weights.astype(dtype))
        if not finite:
            raise ValueError("The features hold NaN or infinity.")
        total += np.asarray(shifted, np.float64)
        columns = _columns(own, weights, rows)
        if y.ndim == 2:
            counted = np.where(weights[:, None] > 0, y, 1 / num_classes)
            checks.check_soft_labels(counted, rows.start)
            sums = sums + columns @ counted
        else:
            sums = sums + np.stack([np.bincount(y, one, num_classes) for one in columns])
    mean = first + total / own.weights.sum()
    return (mean if own.wide else mean.astype(dtype)), sums


@jax.jit
def _shifted_sum(x, first, weights):
    x = x.astype(first.dtype)
    return product(weights, x - first), jnp.isfinite(x).all()


def _columns(own, weights, rows):
    """The weights of the examples of a tile in each resample: [R, B]."""
    return weights[None] if own.resamples is None else weights * own.resamples[rows].T


_spectrum = jax.jit(problem.spectrum)


def _prepare_sample(own, mean, fit_bias, dtype):
    """A sample of the rows as a `Prepared`, with the spectrum of their features."""
    rows = problem.sample_rows(own.weights, own.table.shape[1])
    x = (own.table.take(rows).astype(np.float64) - mean).astype(dtype)
    weights = own.weights[rows]
    ones = np.full((1, len(x)), fit_bias, dtype)
    roots = np.sqrt(weights / weights.sum()).astype(dtype)
    directions, eigenvalues, squares = _spectrum(x.T, roots)
    y = problem.label_columns(own.y[rows], weights, dtype)
    return Prepared(
        features=jnp.asarray(np.append(x.T, ones, 0)),
        y=jnp.asarray(y),
        weights=jnp.asarray(weights.astype(dtype)),
        resamples=None if own.resamples is None else jnp.asarray(own.resamples[rows]),
        mean=mean,
        priors=jnp.asarray(own.priors[0].astype(dtype)),
        directions=directions,
        eigenvalues=eigenvalues,
        sample=jnp.arange(len(rows)),
        squares=squares,
        fit_bias=jnp.asarray(np.bool_(fit_bias)),
    )


class Sums(NamedTuple):
    """What a pass finds at the points of K trials; means and second are empty unless asked for.

    gradient [K, C, D + 1] and loss [K]: of the mean loss · worst [K]: the largest loss of any
    example · means [K, C], second [K, C, C]: of the probabilities and of their products.
    """

    gradient: Float[Array, "K C D+1"]
    loss: Float[Array | np.ndarray, " K"]
    worst: Float[Array, " K"]
    means: Float[Array, "..."]
    second: Float[Array, "..."]


def pass_over(
    own: Passing,
    points: Float[Array, "K C D1"],
    columns: Int[np.ndarray, " K"],
    moments: bool = False,
) -> Sums:
    """One pass: losses and gradients at the points, each for its column of the resamples."""
    mean, dtype = own.sample.mean, points.dtype
    device_mean = jnp.asarray(np.zeros_like(mean) if own.wide else mean, dtype)
    K, C, _ = points.shape
    size = C if moments else 0
    nothing = jnp.zeros((K,), dtype), jnp.zeros((K, size), dtype), jnp.zeros((K, size, size), dtype)
    sums, tile_losses, columns = (jnp.zeros_like(points), *nothing), [], jnp.asarray(columns)
    for x, y, weights, rows in _tiles(own, mean):
        x = x.astype(dtype) if own.wide else x
        fractions = (_columns(own, weights, rows) / own.totals[:, None]).astype(dtype)
        labels = problem.label_columns(y, weights, dtype)
        *sums, loss = _add_tile(
            points, columns, device_mean, own.sample.fit_bias, x, labels, fractions, tuple(sums)
        )
        tile_losses.append(loss)
        if len(tile_losses) > 2:  # so that no more than two tiles wait for their turn
            tile_losses[-3] = np.asarray(tile_losses[-3])
    gradient, worst, means, second = sums
    loss = np.sum([np.asarray(loss, np.float64) for loss in tile_losses], 0)
    return Sums(gradient, loss.astype(dtype), worst, means, second)


@functools.partial(jax.jit, donate_argnames="sums")
def _add_tile(points, columns, mean, fit_bias, x, y, fractions, sums):
    ones = jnp.full((1, len(x)), fit_bias, points.dtype)
    features = jnp.concatenate([(x.astype(points.dtype) - mean).T, ones])

    def of_trial(params, column):
        own, logits = fractions[column], product(params, features)
        loss, p = losses.cross_entropy(logits, y, axis=0), losses.softmax(logits, axis=0)
        gradient = product(problem.residual(p, y) * own, features.T)
        wrong = jnp.where(own > 0, problem.undecided_as_wrong(y, loss), 0).max()
        if not sums[2].size:
            return gradient, wrong, jnp.zeros(0, p.dtype), jnp.zeros((0, 0), p.dtype), own @ loss
        weighted = p * own
        return gradient, wrong, weighted.sum(1), product(weighted, p.T), own @ loss

    *more, loss = jax.vmap(of_trial)(points, columns)
    gradient, worst, means, second = sums
    worst = jnp.maximum(worst, more[1])
    return gradient + more[0], worst, means + more[2], second + more[3], loss


class Trial(NamedTuple):
    """A trial between two passes: its next point is state.params + t · d. Leaves have a first axis.

    state: at the last accepted point · curvature: that preconditions · d, slope: a direction and
    the objective's derivative along it at t = 0 · t: the step to try · low, high: (t, slope) at the
    ends of the bracket · tries: points evaluated · phase: what is asked of the next pass · means,
    second: of the probabilities, for Newton's method in the bias · finished: whether the last
    certificate is there · passes: how many it took part in.
    """

    state: State
    curvature: lbfgs.Curvature
    d: Float[Array, "*T C D+1"]
    slope: Float[Array, "*T"]
    t: Float[Array, "*T"]
    low: tuple[Array, Array]
    high: tuple[Array, Array]
    tries: Int[Array, "*T"]
    phase: Int[Array, "*T"]
    means: Float[Array, "*T C"]
    second: Float[Array, "*T C C"]
    finished: Bool[Array, "*T"]
    passes: Int[Array, "*T"]


def start(
    own: Passing,
    l2: Float[np.ndarray, " T"],
    columns: Int[np.ndarray, " T"],
    params: Float[np.ndarray, "T C D1"] | None,
    tolerance: float | int,
    max_iterations: int,
) -> Trial:
    """The trials before their first iteration, after a pass at zero weights.

    Args: as those of `minimise.start`, and the limits of `iterate`.
    """
    dtype, (C, D) = own.sample.features.dtype, (own.priors.shape[1], own.table.shape[1])
    bias = np.log(np.maximum(own.priors[columns], problem.LEAST_PRIOR)) * bool(own.sample.fit_bias)
    zero = np.concatenate([np.zeros((len(l2), C, D)), bias[:, :, None]], 2).astype(dtype)
    at_zero = pass_over(own, jnp.asarray(zero), columns)
    own_params = jnp.asarray(zero if params is None else params)
    trials = _begin(own.sample, own_params, l2, columns, at_zero.gradient)
    if params is not None:
        return trials._replace(passes=trials.passes + 1)
    return _advance(own.sample, trials, at_zero, *_limits(own, tolerance, max_iterations))


def blank(own: Passing, l2: Float[np.ndarray, " T"], columns: Int[np.ndarray, " T"]) -> Trial:
    """Trials of the form that `start` gives them, without a pass."""
    shape = len(l2), own.priors.shape[1], own.table.shape[1] + 1
    zero = jnp.zeros(shape, own.sample.features.dtype)
    return _begin(own.sample, zero, l2, columns, zero)


def _limits(own, tolerance, max_iterations):
    return np.asarray(tolerance, own.sample.features.dtype), np.int32(max_iterations)


@jax.jit
def _begin(sample, params, l2, columns, at_zero):
    """Trials that have asked for the pass at their parameters."""

    def one(params, l2, column, gradient):
        false, nothing = jnp.zeros((), bool), jnp.zeros((), params.dtype)
        state = State(
            params=params,
            gradient=gradient,
            memory=lbfgs.empty_memory(params),
            l2=l2,
            column=column,
            reference=jnp.linalg.norm(gradient[:, :-1]),
            **dict.fromkeys(("objective", "loss", "gradient_norm", "gap_bound"), nothing),
            iterations=jnp.zeros((), jnp.int32),
            **dict.fromkeys(("converged", "separable", "stalled"), false),
        )
        C = len(params)
        return Trial(
            state=state,
            curvature=_curvature(sample, state),
            d=jnp.zeros_like(params),
            slope=nothing,
            t=nothing,
            low=(nothing, nothing),
            high=(nothing, nothing),
            tries=jnp.int32(0),
            phase=jnp.int32(_START),
            means=jnp.zeros(C, params.dtype),
            second=jnp.zeros((C, C), params.dtype),
            finished=false,
            passes=jnp.int32(0),
        )

    return jax.vmap(one)(params, l2, columns, at_zero)


def _curvature(sample, state):
    fractions = sample.weights
    if sample.resamples is not None:
        fractions = fractions * sample.resamples[:, state.column]
    return lbfgs.estimate_curvature(sample, fractions, product(state.params, sample.features))


@jax.jit
def _refreshed(sample, trials):
    return trials._replace(curvature=jax.vmap(functools.partial(_curvature, sample))(trials.state))


def on_line(trials: Trial) -> Bool[Array, " T"]:
    """Which trials try a step, so that their last point is an iteration, and not the last one."""
    return trials.phase == _SEARCH


def iterate(
    own: Passing, trials: Trial, *, tolerance: float | int, max_iterations: int
) -> Iterator[Trial]:
    """Yields the trials after every pass, until all have their certificates."""
    limits = _limits(own, tolerance, max_iterations)
    total, columns = int(np.max(trials.passes)), np.asarray(trials.state.column)
    while not (finished := np.asarray(trials.finished)).all():
        rows = _active(~finished)
        part = trials if len(rows) == len(finished) else _chosen(trials, rows)
        if total in (3, 8) or total % _REFRESH == 0:
            part = _refreshed(own.sample, part)
        moments = bool((np.asarray(part.phase) == _MOMENTS).any())
        sums = pass_over(own, _points(part), columns[rows], moments)
        part = _advance(own.sample, part, sums, *limits)
        trials = part if len(rows) == len(finished) else _put(trials, part, rows)
        total += 1
        yield trials


def _active(unfinished):
    """The trials of a pass: the unfinished ones, padded to a power of two with the last of them.

    Each number is a program of its own.
    """
    rows = np.flatnonzero(unfinished)
    size = min(1 << (len(rows) - 1).bit_length(), len(unfinished))
    return (
        np.arange(size) if size == len(unfinished) else np.pad(rows, (0, size - len(rows)), "edge")
    )


@jax.jit
def _chosen(trials, rows):
    return jax.tree.map(lambda leaf: leaf[rows], trials)


@functools.partial(jax.jit, donate_argnames="trials")
def _put(trials, part, rows):
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), trials, part)


@jax.jit
def _points(trials):
    return trials.state.params + trials.t[:, None, None] * trials.d


@functools.partial(jax.jit, donate_argnames="trials")
def _advance(sample, trials, sums, tolerance, max_iterations):
    """What the trials make of a pass: see `_advance_one`."""
    one = functools.partial(_advance_one, sample, tolerance, max_iterations)
    new = jax.vmap(one)(trials, sums)
    return jax.vmap(choose)(trials.finished, trials, new)


def _advance_one(sample, tolerance, max_iterations, trial, sums):
    """Accepts the point or not, and asks for the next one."""
    old, phase = trial.state, trial.phase
    means, second = sums[3:] if sums.second.size else (trial.means, trial.second)
    worst, one = sums.worst[None], jnp.ones(1, sums.worst.dtype)
    at = _measured(old, old.params + trial.t * trial.d, sums)
    searching, polishing = phase == _SEARCH, phase == _POLISH

    searched, good, exhausted = _search(trial, at)
    better = (at.loss <= old.loss) | (_bias_error(at) < _bias_error(old) / 2)
    stays = jnp.where(searching, ~good, polishing & ~better)
    accepted = at._replace(
        memory=choose(
            searching,
            lbfgs.remember(old.memory, trial.t * trial.d, at.gradient - old.gradient),
            old.memory,
        )
    )
    no_memory = jax.tree.map(jnp.zeros_like, old.memory)
    failed = old._replace(memory=no_memory, stalled=~old.memory.rho.any())
    state = choose(stays, choose(searching & exhausted, failed, old), accepted)
    stepped = searching & (good | exhausted)
    state = state._replace(iterations=old.iterations + stepped)

    # A certificate is due where it looks as if it held, and at the end; it needs the best bias.
    hopeful = certificate.promising(state, worst, one, tolerance)
    due = (stepped | (phase == _START)) & (state.iterations >= max_iterations)
    due |= (stepped & hopeful) | (searching & exhausted & state.stalled)
    rough = sample.fit_bias & (_bias_error(state) > 10 * jnp.finfo(one.dtype).eps)
    rough &= ~certificate.separates(state, worst, one)
    # Newton's method in the bias: with the same Hessian while it makes the error a tenth, else with
    # a new one; where the loss rises, with a shorter step, unless only rounding is left.
    error = _bias_error(state)
    exact = error <= jnp.sqrt(jnp.finfo(one.dtype).eps) / 10
    tries = jnp.where(polishing, trial.tries + 1, jnp.where(phase == _MOMENTS, trial.tries, 0))
    going = polishing & rough & (tries < _POLISHES)
    fast = error < _bias_error(old) / 10
    ask_polish = (phase == _MOMENTS) | (going & better & fast)
    ask_moments = (due & rough) | (going & better & ~fast & ~exact)
    shorter = going & ~better & ~exact
    proved = certificate.proven(state, worst, one, tolerance)
    judged = (due & ~rough) | (polishing & ~ask_polish & ~ask_moments & ~shorter)
    state = choose(judged, proved, state)
    ended = judged & (state.done | (state.iterations >= max_iterations))

    shift = -certificate.newton_step(means, second, state.gradient[:, -1])
    polish = trial._replace(
        state=state,
        d=jnp.zeros_like(trial.d).at[:, -1].set(shift),
        t=jnp.ones_like(trial.t),
        tries=tries,
        phase=jnp.int32(_POLISH),
        means=means,
        second=second,
    )
    ask = trial._replace(
        state=state, t=jnp.zeros_like(trial.t), phase=jnp.int32(_MOMENTS), tries=tries
    )
    fresh = _directed(sample, trial._replace(state=state))
    new = choose(searching & ~stepped, searched, fresh)
    new = choose(ask_polish, polish, choose(ask_moments, ask, new))
    new = choose(shorter, trial._replace(t=trial.t / 4, tries=tries), new)
    new = choose(ended, trial._replace(state=state), new)
    return new._replace(finished=ended, passes=trial.passes + 1)


def _bias_error(state):
    return abs(state.gradient[:, -1]).max()


def _measured(state, params, sums):
    """The state at a point, with the gradient and the metrics that a pass has found."""
    penalised = params.at[:, -1].set(0)
    gradient = held(sums.gradient + state.l2 * penalised, state.l2)
    norm = jnp.linalg.norm(gradient[:, :-1])
    return state._replace(
        params=params,
        gradient=gradient,
        loss=sums.loss,
        objective=sums.loss + state.l2 / 2 * jnp.vdot(penalised, penalised),
        gradient_norm=norm,
        gap_bound=jnp.where(state.l2 > 0, norm**2 / (2 * state.l2), jnp.inf),
    )


def _search(trial, at):
    """(the trial with its next step, whether this one is good, whether there is no other)."""
    old, t = trial.state, trial.t
    W, d = old.params[:, :-1], trial.d[:, :-1]
    slope = jnp.vdot(trial.d, at.gradient)
    rise = at.loss - old.loss
    rise += t * old.l2 * (jnp.vdot(W, d) + t / 2 * jnp.vdot(d, d))
    good = lbfgs.accepts(rise, slope, t, trial.slope, lbfgs.rounding(old.loss))
    low, high = lbfgs.bracket(t, slope, trial.low, trial.high)
    tries = trial.tries + 1
    exhausted = ~good & ((tries >= lbfgs.MOST_TRIES) | (trial.slope >= 0))
    next_t = lbfgs.next_step(low, high, trial.slope)
    return trial._replace(t=next_t, low=low, high=high, tries=tries), good, exhausted


def _directed(sample, trial):
    """The trial at the beginning of its next line."""
    state = trial.state
    precondition = functools.partial(
        lbfgs.precondition, curvature=trial.curvature, l2=state.l2, directions=sample.directions
    )
    d = lbfgs.direction(state.gradient, state.memory, precondition)
    d = jnp.where(jnp.vdot(d, state.gradient) < 0, d, -precondition(state.gradient))
    slope, zero = jnp.vdot(d, state.gradient), jnp.zeros_like(trial.t)
    return trial._replace(
        d=d,
        slope=slope,
        t=zero + 1,
        low=(zero, slope),
        high=(zero + jnp.inf, zero),
        tries=jnp.int32(0),
        phase=jnp.int32(_SEARCH),
    )
