"""From a problem to its optima: segments of iterations under `jax.vmap`, and the loop on the host.

Along a path of penalties each trial starts from the optima of those before it (warm starts).

Source of the path: Friedman, Hastie and Tibshirani, "Regularization Paths for Generalized Linear
Models via Coordinate Descent" (2010), section 2.6.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num

from softmax_jax import checks, host
from softmax_jax.optimum import certificate, lbfgs, passes
from softmax_jax.optimum import l1 as lasso
from softmax_jax.optimum.certificate import State
from softmax_jax.optimum.problem import (
    LEAST_PRIOR,
    Prepared,
    Problem,
    as_distributions,
    choose,
    prepare,
    product,
    undecided_as_wrong,
    weight_fractions,
)
from softmax_jax.optimum.sparse import Sparse, solve


@jax.jit
def start(
    prepared: Prepared,
    l2: Num[Array | np.ndarray, " T"],
    columns: Int[Array | np.ndarray, " T"],
    params: Float[Array | np.ndarray, "T C D1"] | None = None,
) -> State:
    """The trials at their first point.

    Args:
      prepared: the problem.
      l2, columns: of each trial, its penalty and its column of the resamples.
      params: [T, C, D + 1] in centred coordinates; None: zero weights and the best bias for them.
        Without a bias the last column must be zero, and stays so.
    """
    return jax.vmap(_start, in_axes=(None, 0, 0, 0))(prepared, l2, columns, params)


@functools.partial(jax.jit, donate_argnames="state")
def advance(
    prepared: Prepared,
    state: State,
    rows: Int[Array | np.ndarray, " K"],
    tolerance: ArrayLike,
    max_iterations: ArrayLike,
    segment: ArrayLike,
) -> State:
    """At most `segment` iterations of the trials in `rows`, then their certificates.

    A segment ends early once every trial looks done. It costs two matrix products
    [K·C, D] × [D, N] per iteration and two more per segment. The state given is consumed.
    """
    part = jax.tree.map(lambda leaf: leaf[rows], state)
    segment = functools.partial(_segment, prepared, tolerance, max_iterations, segment)
    part = jax.vmap(segment)(part)
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), state, part)


def _start(prepared, l2, column, params):
    fractions, y = weight_fractions(prepared, column), prepared.y
    num_classes, dtype = len(prepared.priors), fractions.dtype
    labels = as_distributions(y, num_classes, dtype)
    priors = jnp.where(prepared.fit_bias, (labels * fractions).sum(1), 1 / num_classes)
    bias = jnp.where(prepared.fit_bias, jnp.log(jnp.maximum(priors, LEAST_PRIOR)), 0)
    zero = jnp.zeros((num_classes, len(prepared.features)), dtype).at[:, -1].set(bias)
    at_zero = product((priors[:, None] - labels) * fractions, prepared.features.T)
    false, unknown = jnp.zeros((), bool), jnp.zeros((), dtype)
    state = State(
        params=zero if params is None else params.astype(dtype),
        gradient=at_zero,
        memory=lbfgs.empty_memory(zero),
        l2=l2.astype(dtype),
        column=column,
        reference=jnp.linalg.norm(at_zero[:, :-1]),
        **dict.fromkeys(("objective", "loss", "gradient_norm", "gap_bound"), unknown),
        iterations=jnp.zeros((), jnp.int32),
        **dict.fromkeys(("converged", "separable", "stalled"), false),
    )
    logits = product(state.params, prepared.features)
    loss = certificate.each_loss(logits, y)
    if params is not None:
        return certificate.certify(prepared, state, logits, loss, fractions, -1.0)
    state = certificate.measure(prepared, fractions, state, state.params, loss, logits)
    return certificate.proven(state, undecided_as_wrong(y, loss), fractions, -1.0)


def _segment(prepared, tolerance, max_iterations, segment, trial):
    fractions = weight_fractions(prepared, trial.column)
    logits = product(trial.params, prepared.features)
    loss = certificate.each_loss(logits, prepared.y)
    curvature = lbfgs.estimate_curvature(prepared, fractions, logits)
    limit = jnp.minimum(max_iterations, trial.iterations + segment)

    def running(carry):
        trial, _, _, hopeful = carry
        return ~hopeful & ~trial.done & (trial.iterations < limit)

    def step(carry):
        trial, logits, loss, _ = carry
        trial, logits, loss = _step(prepared, fractions, curvature, trial, logits, loss)
        wrong = undecided_as_wrong(prepared.y, loss)
        return trial, logits, loss, certificate.promising(trial, wrong, fractions, tolerance)

    new, logits, loss, _ = lax.while_loop(running, step, (trial, logits, loss, jnp.bool_(False)))
    new = certificate.certify(prepared, new, logits, loss, fractions, tolerance)
    return choose(trial.done, trial, new)


def _step(prepared, fractions, curvature, trial, logits, loss):
    """One iteration: (trial, logits, loss) -> the same, one step further or stalled."""
    precondition = functools.partial(
        lbfgs.precondition,
        curvature=curvature,
        l2=trial.l2,
        directions=prepared.directions,
    )
    d = lbfgs.direction(trial.gradient, trial.memory, precondition)
    # Rounding may leave a direction that does not descend; the preconditioned gradient does.
    d = jnp.where(jnp.vdot(d, trial.gradient) < 0, d, -precondition(trial.gradient))
    slope = jnp.vdot(d, trial.gradient)
    along = product(d, prepared.features)
    weights, change = trial.params[:, :-1], d[:, :-1]
    penalty = trial.l2 * jnp.vdot(weights, change), trial.l2 * jnp.vdot(change, change)
    point = lbfgs.line_search(logits, along, prepared.y, fractions, loss, slope, penalty)
    t = jnp.where(point.good, point.t, 0)
    logits = logits + t * along
    at_point = trial.params + t * d, point.loss, logits, point.probabilities
    new = certificate.measure(prepared, fractions, trial, *at_point)
    memory = lbfgs.remember(trial.memory, t * d, new.gradient - trial.gradient)
    # Without a good step, retry without the memory; if that was empty, precision is exhausted.
    no_memory = jax.tree.map(jnp.zeros_like, trial.memory)
    failed = trial._replace(memory=no_memory, stalled=~trial.memory.rho.any())
    new = choose(point.good, new._replace(memory=memory), failed)
    new = new._replace(iterations=trial.iterations + 1)
    return new, logits, jnp.where(point.good, point.loss, loss)


def leaders(
    l2: Num[Array | np.ndarray, " T"], columns: Int[Array | np.ndarray, " T"]
) -> Int[np.ndarray, "T 2"]:
    """For each trial, the two of its column with the next greater l2, the nearer one first.

    Without a second, the nearer one is repeated; a trial that leads its column follows itself.
    """
    order = np.lexsort((-np.asarray(l2), columns))
    found = np.tile(np.arange(len(order), dtype=np.int32)[:, None], 2)
    for before, trial in zip(order[:-1], order[1:], strict=True):
        if columns[before] == columns[trial]:
            found[trial] = before, found[before, 0]
    return found


def ready(
    unfinished: Bool[np.ndarray, " T"], leaders: Int[np.ndarray, "T 2"]
) -> Bool[np.ndarray, " T"]:
    """Which of the unfinished trials need not wait for their leader."""
    nearest = leaders[:, 0]
    return unfinished & ((nearest == np.arange(len(unfinished))) | ~unfinished[nearest])


def next_rows(
    ready: Bool[np.ndarray, " T"], leaders: Int[np.ndarray, "T 2"], small: bool
) -> Int[np.ndarray, " K"]:
    """The trials to compute: all that are ready, padded with repetitions of the last.

    K is a power of two, because each size is compiled separately, and at most the number of
    columns. For a small problem, where compiling costs more than computing, it is always that
    number.
    """
    found = np.flatnonzero(ready).astype(np.int32)
    most = int((leaders[:, 0] == np.arange(len(leaders))).sum())
    size = most if small else min(1 << (len(found) - 1).bit_length(), most)
    return np.pad(found, (0, size - len(found)), mode="edge")


@functools.partial(jax.jit, donate_argnames="state")
def follow(
    prepared: Prepared,
    state: State,
    rows: Int[Array | np.ndarray, " K"],
    leaders: Int[Array | np.ndarray, "K 2"],
) -> State:
    """Starts the trials in `rows` that have not begun from the optima of their leaders.

    The weights are extrapolated linearly in log l2 through both optima; the L-BFGS memory is that
    of the nearer leader, under the new penalty. A trial that has begun, leads itself, or already
    has a lower objective stays as it is. Costs two matrix products [K·C, D] × [D, N]. The state
    given is consumed.
    """
    own, near, far = (
        jax.tree.map(lambda leaf, which=which: leaf[which], state)
        for which in (rows, leaders[:, 0], leaders[:, 1])
    )
    new = jax.vmap(functools.partial(_follow, prepared))(own, near, far)
    new = jax.vmap(choose)((own.iterations == 0) & (rows != leaders[:, 0]), new, own)
    return jax.tree.map(lambda leaf, part: leaf.at[rows].set(part), state, new)


def _follow(prepared, trial, near, far):
    # No further than the last step: l2 may be spaced unevenly, or end at 0.
    step = jnp.log(trial.l2 / near.l2) / jnp.log(near.l2 / far.l2)
    step = jnp.where(jnp.isnan(step), 0, jnp.clip(step, 0, 1))
    params = near.params + step * (near.params - far.params)
    logits, fractions = product(params, prepared.features), weight_fractions(prepared, trial.column)
    loss = certificate.each_loss(logits, prepared.y)
    new = certificate.measure(prepared, fractions, trial, params, loss, logits)
    memory = lbfgs.transfer(near.memory, trial.l2 - near.l2)
    new = new._replace(memory=memory, gap_bound=jnp.full_like(new.gap_bound, jnp.inf))
    return choose(new.objective < trial.objective, new, trial)


SEGMENT = 20
# From this many multiplications per iteration it pays to compile anew for fewer trials.
_WORTH_COMPILING = 1e9


class Optimum(NamedTuple):
    """The optima of T trials, in the coordinates of x: logits = x @ W[t] + b[t].

    W [T, D, C] · b [T, C] · objective = loss + l2/2 · ‖W‖² and loss: means over the weighted
    examples, in nats · gradient_norm: ‖∂objective/∂W‖ with the best bias for W · gap_bound: the
    objective is at most this far above its minimum · iterations · converged: the certificate holds
    · separable: l2 is 0, and growing weights lower the loss forever, as they classify every example
    right, or separate some and leave the others alone: the optimum is at infinity · passes: over
    x, tile by tile; 0 where the logits of all examples were held. All [T], NumPy.
    """

    W: Float[np.ndarray, "T D C"]
    b: Float[np.ndarray, "T C"]
    objective: Float[np.ndarray, " T"]
    loss: Float[np.ndarray, " T"]
    gradient_norm: Float[np.ndarray, " T"]
    gap_bound: Float[np.ndarray, " T"]
    iterations: Int[np.ndarray, " T"]
    converged: Bool[np.ndarray, " T"]
    separable: Bool[np.ndarray, " T"]
    passes: Int[np.ndarray, " T"]


def minimise(
    problem: Problem | Prepared | Sparse,
    l2: ArrayLike | Sequence,
    *,
    l1: ArrayLike | Sequence = 0.0,
    l1_group: ArrayLike | Sequence = 0.0,
    columns: ArrayLike | Sequence | None = None,
    tolerance: float | int = 1e-4,
    max_iterations: int = 1000,
    initial: tuple[ArrayLike, ArrayLike] | None = None,
    tile_rows: int | None = None,
) -> Optimum:
    """The minimum of Σ w CE(xW + b, y) / Σ w + l2/2 · ‖W‖² for each of T trials.

    With l1 or l1_group above zero the objective has l1 ‖W‖₁ + l1_group Σ_d ‖W_d‖₂ besides, where
    W_d are the weights of feature d in all classes, and many weights are exactly zero: of single
    classes, or of all for a feature. Such trials are solved by `optimum.l1`, along the path from
    the strongest penalty down, and stop when the duality gap is `tolerance` · objective; a step on
    all examples counts as an iteration. Give max_iterations room: weak penalties of features that
    are nearly collinear take thousands.

    A trial with l2 > 0 stops when gap_bound ≤ tolerance · objective, which proves its gap. With
    l2 = 0 there is no such proof (gap_bound is inf): a trial stops when the norm of its gradient is
    `tolerance` times that at zero weights, or when the data prove to be separable. Where only a
    part of them can be separated, the gradient decides when to stop, and a linear programme whether
    the trial is `separable` and not `converged`; one of more than 4 million numbers is not tried.
    A trial that ran for max_iterations, or exhausted float precision, is not `converged`.

    float32 has a floor, higher for smaller l2 and for worse conditioned features. Relative bounds
    reached on a Zen 4, the worst of several orders of the examples: 1e-11 on Fashion-MNIST (one
    order), 3e-10 on standardised digits and 1e-6 on wine at l2 = 1e-4, 2e-7 on features whose
    covariance has a condition of 1e8 at l2 = 1e-3; at l2 = 0 gradients of 1e-7 to 1e-5 times that
    at zero weights (AVX2 and AVX-512 round alike there; without fused multiply-add, by
    `--xla_cpu_max_isa=AVX`, one of the latter rises from 7e-7 to 2e-6). Ask for ten times these
    values: other machines round differently. A smaller tolerance may cost all max_iterations, and
    `objective` itself has a relative rounding error of 1e-6. float64 (features of float64 under
    `jax_enable_x64`) reaches 1e-10. Memory: about 8 arrays [T, C, N] and 40 [T, C, D] beside one
    copy of x.

    There is a second way, of the same method and certificate, which holds no logits: each iteration
    passes once over x in tiles of rows, for all trials at once. It is taken for x that is mapped
    into memory (`np.load(..., mmap_mode="r")`) or a sequence of arrays [n, D], which are never
    copied whole; where the first way would take more than two fifths of the memory; and where
    `tile_rows` says so. `passes` counts them: one to prepare, one for each try of a line search
    (nearly always one an iteration), and for a certificate some two more. A trial begins at zero
    there, and not at its neighbour's optimum, and for l2 = 0 separation in part is not sought.
    Memory: four tiles [tile_rows, D], 6 arrays [T, C, tile_rows] and 100 [T, C, D].

    Method: L-BFGS with 20 pairs, preconditioned by the diagonal of the Hessian in the eigenvectors
    of the covariance (Nocedal and Wright, *Numerical Optimization*, chapter 7).

    Sparse features are never made dense, and their solver computes on the host: see `sparse`.
    Memory beside W: one copy of x, and for the trials of different columns that run at the same
    time as much as x and one W together (at least 64 MB).

    Args:
      problem: a problem, or the result of `prepare`, which may be used for several runs.
      l2: [T], of 0 or greater.
      l1, l1_group: of 0 or greater, one for all trials or [T].
      columns: [T], each trial's column of `problem.resamples`; None: the first.
      tolerance: the relative gap.
      max_iterations: of each trial; with 0 it stays where it begins.
      initial: (W [T, D, C], b [T, C]) to start from; None: zero weights.
      tile_rows: examples in a tile of the second way; None: the way, and the size, are chosen.

    Raises:
      ValueError: for what `prepare` refuses, for penalties, columns or initial values that do not
        fit, for a tolerance that is not above 0, for max_iterations that are not a whole number
        from 0, and for tile_rows that are not one from 1, or go with what `prepare` has made.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> optimum = minimise(Problem(x, np.array([0, 1, 0, 1])), [0.1])
    >>> optimum.converged.tolist(), (x @ optimum.W[0] + optimum.b[0]).argmax(1).tolist()
    ([True], [0, 0, 1, 1])
    """
    _check_limits(tolerance, max_iterations)
    limits: dict[str, Any] = {"tolerance": tolerance, "max_iterations": max_iterations}
    resident = isinstance(problem, Prepared | Sparse) or host.is_sparse(problem.x)
    if resident and tile_rows is not None:
        raise ValueError("tile_rows is for dense x of a Problem: what is prepared is in memory.")
    if isinstance(problem, Prepared | Sparse):
        prepared = problem
    elif not resident and passes.wanted(problem, np.size(l2), tile_rows):
        own = passes.prepare(problem, max(np.size(l2), 1), tile_rows)
        l2, columns, params = check_trials(own.sample, l2, columns, initial)
        penalty = lasso.check_penalty(l2, l1, l1_group)
        if (penalty.l1 + penalty.l1_group).any():
            raise ValueError(
                "l1 and l1_group need all examples in memory: give x as one array that fits, "
                "without tile_rows, or leave them at 0."
            )
        trials = passes.start(own, l2, columns, params, **limits)
        for further in passes.iterate(own, trials, **limits):
            trials = further
        return _report(own.sample, trials.state, 1 + np.asarray(trials.passes))
    else:
        prepared = prepare(problem)
    l2, columns, params = check_trials(prepared, l2, columns, initial)
    penalty = lasso.check_penalty(l2, l1, l1_group)
    if isinstance(prepared, Sparse):
        if np.any(penalty.l1) or np.any(penalty.l1_group):
            raise ValueError("With l1 or l1_group x must be dense: give x.toarray().")
        return _minimise_sparse(prepared, l2, columns, params, tolerance, max_iterations)
    zeros = (penalty.l1 + penalty.l1_group) > 0
    if zeros.any() and prepared.y.ndim == 2:
        raise ValueError("With soft labels y [N, C] there is no l1 or l1_group: leave them at 0.")
    parts = []
    for rows in (np.flatnonzero(~zeros), np.flatnonzero(zeros)):
        if rows.size:
            own, initial = columns[rows], None if params is None else params[rows]
            if zeros[rows[0]]:
                chosen = lasso.Penalty(*(number[rows] for number in penalty))
                state = lasso.start(prepared, chosen, own, initial)
                states = lasso.iterate(prepared, state, **limits)
            else:
                state = start(prepared, l2[rows], own, initial)
                states = iterate(prepared, state, **limits)
            for reached in states:
                state = reached
            parts.append(report(prepared, state))
    order = np.argsort(np.argsort(zeros, kind="stable"), kind="stable")
    return Optimum(*(np.concatenate(leaves)[order] for leaves in zip(*parts, strict=True)))


def _minimise_sparse(prepared, l2, columns, initial, tolerance, max_iterations):
    order = leaders(l2, columns)[:, 0]
    order = order if initial is None else np.arange(len(order))
    weights = None if initial is None else initial.swapaxes(1, 2)
    limits = tolerance, max_iterations, weights
    shape = len(l2), prepared.num_features, len(prepared.priors)
    W, found = np.empty(shape, prepared.dtype), {}
    for trial, one in solve(prepared, l2, columns, waves(order), *limits):
        W[trial] = one.W
        found[trial] = one[1:]
    others = map(np.array, zip(*(found[trial] for trial in range(len(l2))), strict=True))
    leaves = [W, *others, np.zeros(len(l2), np.int32)]  # x is in memory: no passes
    return _with_separation(Optimum(*leaves), prepared, l2 == 0, columns)


def waves(leaders: Int[np.ndarray, " T"]) -> list[list[tuple[int, int]]]:
    """Pairs (trial, its leader), after those of its leader.

    >>> waves(np.array([0, 0, 2, 1]))
    [[(0, 0), (2, 2)], [(1, 0)], [(3, 1)]]
    """
    found, pending = [], set(range(len(leaders)))
    while pending:
        wave = [trial for trial in sorted(pending) if leaders[trial] not in pending - {trial}]
        pending -= set(wave)
        found.append([(trial, int(leaders[trial])) for trial in wave])
    return found


def iterate(
    prepared: Prepared,
    state: State,
    *,
    tolerance: float | int = 1e-4,
    max_iterations: int = 1000,
    segment: int = SEGMENT,
) -> Iterator[State]:
    """Yields the trials after every segment of at most `segment` iterations, until all are done.

    The state given and each state yielded are valid until the next step, which reuses their
    memory. A state that is saved between two segments and passed again with the same `segment`
    resumes bit for bit. Its gap_bound always holds. A segment of 1 costs about twice as much per
    iteration.

    Raises:
      ValueError: at the first step, as `minimise`, and for a segment that is not a whole number
        from 1.
    """
    _check_limits(tolerance, max_iterations, segment)
    dtype = state.params.dtype
    limits = np.asarray(tolerance, dtype), np.int32(max_iterations), np.int32(segment)
    order = leaders(np.asarray(state.l2), np.asarray(state.column))
    cost = state.params[0].size * len(prepared.weights) * 2 * len(order)
    small = cost < _WORTH_COMPILING
    while True:
        unfinished = unfinished_trials(state, max_iterations)
        if not unfinished.any():
            return
        chosen = next_rows(ready(unfinished, order), order, small)
        begin = np.asarray(state.iterations)[chosen] == 0
        if (begin & (order[chosen, 0] != chosen)).any():
            state = follow(prepared, state, chosen, order[chosen])
        state = advance(prepared, state, chosen, *limits)
        yield state


def report(prepared: Prepared, state: State | lasso.State) -> Optimum:
    """The current trials, in the coordinates of x; for l2 = 0, also what is separable in part."""
    found = _report(prepared, state, np.zeros(len(state.column), np.int32))
    return _with_separation(found, prepared, state.free, np.asarray(state.column))


def _with_separation(found, prepared, free, columns):
    """The optima, with those that are `free` of a penalty and separable in part found out."""
    in_part = separable_in_part(prepared, free & ~found.separable, columns)
    separable, converged = found.separable | in_part, found.converged & ~in_part
    return found._replace(separable=separable, converged=converged)


def _report(prepared, state, num_passes):
    params = np.asarray(state.params)
    W = np.ascontiguousarray(params[:, :, :-1].swapaxes(1, 2))
    W = W.astype(np.promote_types(W.dtype, prepared.mean.dtype), copy=False)
    shift = np.asarray(prepared.mean, np.float64) @ W.astype(np.float64)
    metrics = {name: np.asarray(getattr(state, name)) for name in Optimum._fields[2:-1]}
    return Optimum(W, (params[:, :, -1] - shift).astype(W.dtype), **metrics, passes=num_passes)


def separable_in_part(
    prepared: Prepared | Sparse, free: Bool[np.ndarray, " T"], columns: Int[np.ndarray, " T"]
) -> Bool[np.ndarray, " T"]:
    """Which of the trials that are `free` of a penalty a part of the examples sends to infinity.

    One linear programme for each column of the resamples: see `certificate.recedes`.
    """
    found = {column: certificate.recedes(prepared, column) for column in set(columns[free])}
    return free & np.array([found.get(column, False) for column in columns], bool)


def check_trials(
    prepared: Prepared | Sparse,
    l2: ArrayLike | Sequence,
    columns: ArrayLike | Sequence | None = None,
    initial: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[Float[np.ndarray, " T"], Int[np.ndarray, " T"], Float[np.ndarray, "T C D1"] | None]:
    """Validates the arguments of `start` after the problem: (l2, columns, params).

    Raises:
      ValueError: for l2, columns or initial values that do not fit; see `minimise`.
    """
    dtype = np.dtype(np.float64) if isinstance(prepared, Sparse) else prepared.features.dtype
    l2 = np.atleast_1d(np.asarray(l2))
    if l2.ndim != 1 or not l2.size:
        raise ValueError(f"l2 must be numbers, one per trial; its shape is {list(l2.shape)}.")
    checks.check_number("l2", l2, 0, float(jnp.finfo(dtype).max))
    columns = np.zeros(len(l2), np.int32) if columns is None else np.asarray(columns)
    most = 1 if prepared.resamples is None else prepared.resamples.shape[1]
    whole = columns.shape == l2.shape and np.issubdtype(columns.dtype, np.integer)
    if not whole or columns.min() < 0 or columns.max() >= most:
        raise ValueError(
            f"columns must be {len(l2)} whole numbers from 0 to {most - 1}; got {columns}."
        )
    params = None if initial is None else _centred(prepared, *initial, len(l2)).astype(dtype)
    return l2.astype(dtype), columns.astype(np.int32), params


def _check_limits(tolerance, max_iterations, segment=SEGMENT):
    if np.ndim(tolerance):
        raise ValueError(f"tolerance must be one number; it is {tolerance!r}.")
    checks.check_number("tolerance", tolerance, 0, ends=(False, True))
    checks.check_whole("max_iterations", max_iterations, 0, 2**31 - 1)
    checks.check_whole("segment", segment, 1, 2**31 - 1)


def _centred(prepared, W, b, num_trials):
    checks.check_number("initial W", W)
    checks.check_number("initial b", b)
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    num_features, num_classes = len(prepared.mean), len(prepared.priors)
    if W.shape != (num_trials, num_features, num_classes) or b.shape != (num_trials, num_classes):
        raise ValueError(
            f"initial must be W [{num_trials}, {num_features}, {num_classes}] and "
            f"b [{num_trials}, {num_classes}]; got {W.shape} and {b.shape}."
        )
    if b.any() and not prepared.fit_bias:
        raise ValueError("initial has a bias, but the problem says fit_bias=False: give zeros.")
    b = b + np.asarray(prepared.mean, np.float64) @ W
    return np.concatenate([W.swapaxes(1, 2), b[:, :, None]], 2)


def unfinished_trials(state: State, max_iterations: int) -> Bool[np.ndarray, "*T"]:
    """Which trials are neither done nor out of iterations."""
    # In NumPy: `state.done` would be a program for each operation.
    converged, separable, stalled = map(
        np.asarray, (state.converged, state.separable, state.stalled)
    )
    done = converged | separable | stalled
    return ~done & (np.asarray(state.iterations) < max_iterations)


def unfinished_rows(
    unfinished: Bool[np.ndarray, "*batch T"], cost: float | int
) -> Int[np.ndarray, "*batch K"]:
    """The trials to compute: all that are unfinished.

    They are padded to a power of two, because each size is compiled separately, with finished
    trials, which stay as they are.

    Args:
      unfinished: whether each trial is; trials are along the last axis.
      cost: multiplications per iteration of one trial.
    """
    num_trials = unfinished.shape[-1]
    size = min(1 << int(unfinished.sum(-1).max() - 1).bit_length(), num_trials)
    if num_trials * cost < _WORTH_COMPILING:
        size = num_trials
    chosen = np.argsort(~unfinished, axis=-1, kind="stable")[..., :size]
    return np.sort(chosen, axis=-1).astype(np.int32)
