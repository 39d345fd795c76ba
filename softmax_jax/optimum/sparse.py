"""The certified optimum for sparse features, which stay as they are: on the host, in SciPy.

Weights of zero are a combination of the examples, and so are every gradient and every step of
L-BFGS: W = xᵀA with A [N, C]. Where N is far below D, as for words, the solver works on A alone.
All that it asks of x is K = xxᵀ times A, which are the logits and, with another A, all inner
products: the pairs of L-BFGS take N · C numbers each instead of D · C, and W itself is computed
once, at the end. Where D is the smaller, it works on W, with each feature in units of its
curvature.

Centring needs no dense copy, either: (x - 1μ)W = xW - 1(μᵀW).

A product with all trials that run at the same time reads x once. The line search needs none, as
the logits and their change along a direction are known.

Source: Chen, Wang and Zhou, *Large-scale L-BFGS using MapReduce*, NIPS 2014 (the two loops on inner
products alone); Kimeldorf and Wahba, *Some results on Tchebycheffian spline functions*, 1971 (the
optimum is a combination of the examples).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

MEMORY = 20  # pairs of L-BFGS, or fewer where they would take more than x and W
_FEWEST_FEATURES = 64  # for the coordinates of the examples: with fewer there is little to gain
_FEWEST_PAIRS = 5
_SMALL = 2**26  # bytes that pairs may always take
_BLOCK = 2**23  # bytes of xᵀ times the residuals of a trial that are held at a time
_SUFFICIENT, _CURVATURE, _MOST_TRIES, _ROUNDING = 1e-4, 0.9, 30, 4  # see `lbfgs`
_POWERS = 20  # steps of the power iteration
_MOST_STEPS = 20  # of Newton's method for the bias
_TINY = np.finfo(np.float64).tiny


class Sparse(NamedTuple):
    """A problem with sparse features, checked: see `problem.prepare`.

    blocks: xᵀ as CSR matrices [n, N] of some features each, which together are all D · y [N] ·
    weights [N]: float64 · resamples [N, R] or None · priors [C]: the fractions of the weight in
    each class, or 1/C without a bias · fit_bias.
    """

    blocks: tuple[Any, ...]
    y: Int[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]
    resamples: Num[np.ndarray, "N R"] | None
    priors: Float[np.ndarray, " C"]
    fit_bias: bool

    @property
    def dtype(self) -> np.dtype:
        """That of the features and of W; the solver's own numbers are float64."""
        return self.blocks[0].dtype

    @property
    def num_features(self) -> int:
        """D."""
        return sum(block.shape[0] for block in self.blocks)

    @property
    def mean(self) -> Float[np.ndarray, " D"]:
        """What has been subtracted from x: nothing."""
        return np.zeros(self.num_features)

    @property
    def by_examples(self) -> bool:
        """Whether the solver works on A [N, C], with two arrays to a vector, and not on W."""
        return max(2 * len(self.y), _FEWEST_FEATURES) < self.num_features

    def fractions(self, column: int | np.integer) -> Float[np.ndarray, " N"]:
        """The weights of the examples for a column of the resamples, scaled to sum 1."""
        weights = self.weights
        if self.resamples is not None:
            weights = weights * self.resamples[:, column]
        return weights / weights.sum()

    def transposed(self, columns: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "D K"]:
        """xᵀ · columns."""
        columns = columns.astype(self.dtype, copy=False)
        return np.concatenate([block @ columns for block in self.blocks])

    def scores(self, weights: Float[np.ndarray, "D K"]) -> Float[np.ndarray, "N K"]:
        """x · weights."""
        found, start = np.zeros((len(self.y), weights.shape[1])), 0
        for block in self.blocks:
            stop = start + block.shape[0]
            found += block.T @ weights[start:stop].astype(self.dtype, copy=False)
            start = stop
        return found

    def kernel(
        self, columns: Float[np.ndarray, "N K"]
    ) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, " K"]]:
        """x xᵀ · columns, and the squared norms of xᵀ · columns, of which a block is held."""
        columns = columns.astype(self.dtype, copy=False)
        found, squares = np.zeros(columns.shape), np.zeros(columns.shape[1])
        for block in self.blocks:
            image = block @ columns
            squares += np.einsum("dk,dk->k", image, image, dtype=np.float64)
            found += block.T @ image
        return found, squares

    def spread(self) -> tuple[float, float, float]:
        """What `problem.l2_path` goes by, under the weights of the problem.

        Returns:
          The largest eigenvalue of the covariance, its trace, and the norm of ∂loss/∂W at W = 0 and
          the best bias there.
        """
        f, fits = (self.weights / self.weights.sum())[:, None], float(self.fit_bias)
        residuals = f * (self.priors - (np.arange(len(self.priors)) == self.y[:, None]))
        gradient = self.kernel(residuals - fits * f * residuals.sum(0))[1].sum()
        rows, largest = f * np.random.default_rng(0).normal(size=f.shape), 0.0
        for _ in range(_POWERS):
            scores, squares = self.kernel(rows - fits * f * rows.sum(0))
            rows = f * (scores - fits * (f * scores).sum(0))
            if not squares[0] > 0 or not rows.any():
                break
            largest = float((rows**2 / np.maximum(f, _TINY)).sum() / squares[0])
            rows /= np.linalg.norm(rows)
        mean = fits * self.transposed(f)[:, 0].astype(np.float64)
        return largest, float((self.mean_squares(f[:, 0]) - mean**2).sum()), float(gradient**0.5)

    def dense_rows(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "D1 n"]:
        """Some examples as columns of a dense array, with a row of ones if there is a bias."""
        found, start = np.zeros((self.num_features + 1, len(rows))), 0
        for block in self.blocks:
            own = block[:, rows].tocoo()
            found[start + own.row, own.col] = own.data
            start += block.shape[0]
        found[-1] = self.fit_bias
        return found

    def mean_squares(self, fractions: Float[np.ndarray, " N"]) -> Float[np.ndarray, " D"]:
        """Σ fractions · x² of each feature."""
        squares = [
            np.add.reduceat(
                np.append(block.data.astype(np.float64) ** 2 * fractions[block.indices], 0),
                block.indptr[:-1],
            )
            * (np.diff(block.indptr) > 0)
            for block in self.blocks
        ]
        return np.concatenate(squares)


def make_blocks(x: Any, dtype: Any, num_classes: int) -> tuple[Any, ...]:
    """The transpose of a sparse matrix of SciPy, as `Sparse.blocks`: one copy of x.

    Indices are sorted and duplicates summed. That the products read xᵀ feature by feature, in both
    directions, takes half the time of rows: what they jump to and fro in is [N, C], not [D, C].
    """
    from scipy import sparse

    if x.format in ("csr", "csc", "bsr"):
        x = getattr(sparse, f"{x.format}_array")(x)  # shares memory, which is not changed
        x.check_format(full_check=True)
    columns = sparse.csc_array(x)
    if not columns.has_canonical_format:
        columns = columns.copy()
        columns.sum_duplicates()
    data = columns.data.astype(dtype, copy=False)
    num_examples, num_features = columns.shape
    step = max(1, _BLOCK // (8 * num_classes))
    blocks = []
    for start in range(0, max(num_features, 1), step):
        ends = columns.indptr[start : start + step + 1]
        first, last = int(ends[0]), int(ends[-1])
        own = data[first:last], columns.indices[first:last], ends - ends[0]
        blocks.append(sparse.csr_array(own, shape=(len(ends) - 1, num_examples), copy=False))
    return tuple(blocks)


class Found(NamedTuple):
    """A trial that is finished; the fields are those of `minimise.Optimum`, without the T."""

    W: Float[np.ndarray, "D C"]
    b: Float[np.ndarray, " C"]
    objective: float
    loss: float
    gradient_norm: float
    gap_bound: float
    iterations: int
    converged: bool
    separable: bool


def solve(
    prepared: Sparse,
    l2: Float[np.ndarray, " T"],
    columns: Int[np.ndarray, " T"],
    waves: list[list[tuple[int, int]]],
    tolerance: float | int,
    max_iterations: int,
    initial: Float[np.ndarray, "T D1 C"] | None = None,
) -> Iterator[tuple[int, Found]]:
    """Pairs (number of a trial, what was found), wave by wave.

    Args:
      prepared: the problem.
      l2, columns: of each trial, its penalty and its column of the resamples.
      waves: of pairs (trial, leader) that run at the same time; a trial starts from the optimum of
        its leader, which an earlier wave has had, or follows itself.
      tolerance, max_iterations: see `minimise.minimise`.
      initial: weights and, in the last row, biases to start from.
    """
    ends: dict[int, Any] = {}
    of_data = sum(block.data.nbytes + block.indices.nbytes for block in prepared.blocks)
    allowed = max(_SMALL, of_data + 8 * prepared.num_features * len(prepared.priors))
    for wave in waves:
        running = {}
        for trial, leader in wave:
            own = _Space(prepared, float(l2[trial]), prepared.fractions(columns[trial]))
            given = None if initial is None else initial[trial]
            steps = _trial(
                own, tolerance, max_iterations, allowed // len(wave), ends.pop(leader, None), given
            )
            running[trial] = steps
        for trial, (found, end) in _in_step(prepared, running).items():
            ends[trial] = end
            yield trial, found


def _in_step(prepared, running):
    """What the generators return, whose products are computed together: {trial: ...}."""
    asked, returned = {}, {}

    def go_on(trial, answer):
        try:
            asked[trial] = running[trial].send(answer)
        except StopIteration as stop:
            returned[trial] = stop.value

    for trial in running:
        go_on(trial, None)
    while asked:
        name = next(iter(asked.values()))[0]
        trials = [trial for trial, (wanted, _) in asked.items() if wanted == name]
        given = [asked.pop(trial)[1] for trial in trials]
        widths = [columns.shape[1] for columns in given]
        answers = getattr(prepared, name)(np.concatenate(given, 1))
        answers = answers if isinstance(answers, tuple) else (answers,)
        ends = np.cumsum(widths)[:-1]
        parts = [np.split(answer, ends, -1) for answer in answers]
        for trial, *answer in zip(trials, *parts, strict=True):
            go_on(trial, answer[0] if len(answer) == 1 else tuple(answer))
    return returned


class _Space:
    """The coordinates in which one trial is solved, and what they mean.

    v [P + 1, C]: A or W, where W is in units of 1 / `scale`; below A, where the trial starts from
    given weights, how much of these is in W; in the last row the bias, for the centred features, in
    units of 1 / `stiffness`, so that it is about as stiff as the weights. A vector's dual [P + 1,
    C] gives its inner products: ⟨a, b⟩ = Σ a · dual(b). With W as coordinates it is the vector.

    Methods that need a product with x are generators: they yield its name and argument.
    """

    def __init__(self, prepared, l2, fractions):
        self.prepared, self.l2, self.fractions = prepared, l2, fractions[:, None]
        self.by_examples, self.fits = prepared.by_examples, float(prepared.fit_bias)
        self.num_rows = len(prepared.y) if self.by_examples else prepared.num_features
        self.stiffness, self.scale, self.given, self.given_scores = 1.0, 1.0, None, None

    def measure(self, p, given):
        """Sets the mean, the scales and the given weights [D, C]."""
        self.mean = self.fits * (yield "transposed", self.fractions)[:, 0].astype(np.float64)
        curvature = float((self.fractions * p * (1 - p)).sum()) / p.shape[1]
        if not self.by_examples:
            variance = self.prepared.mean_squares(self.fractions[:, 0]) - self.mean**2
            curvatures = curvature * np.maximum(variance, 0) + self.l2
            curvatures = np.maximum(curvatures, max(curvatures.max() * 1e-12, _TINY))
            self.scale = 1 / np.sqrt(curvatures)[:, None]
        elif given is not None and given.any():
            self.given, self.given_norms = given, (given**2).sum(0)
            self.given_scores = self.centred((yield "scores", given))

    def adopt(self, other):
        """Takes the mean and the units of the trial that this one follows."""
        self.mean, self.stiffness, self.scale = other.mean, other.stiffness, other.scale
        if not self.by_examples:
            curvatures = 1 / other.scale**2 + (self.l2 - other.l2)
            self.scale = 1 / np.sqrt(np.maximum(curvatures, curvatures.max() * 1e-12))

    def centred(self, scores):
        return scores - self.fits * (self.fractions * scores).sum(0)

    def dual(self, v):
        """(the dual of v, the squared norm of its weights)."""
        own = v[:-1]
        if not self.by_examples:
            return v, float(((self.scale * own) ** 2).sum())
        rows = own[: self.num_rows]
        rows = rows - self.fits * self.fractions * rows.sum(0)
        scores, squares = yield "kernel", rows
        scores, squares = self.centred(scores), float(squares.sum())
        if self.given is None:
            return np.append(scores, v[-1:], 0), squares
        share, common = own[-1], (self.given_scores * rows).sum(0)
        scores += self.given_scores * share
        last = common + self.given_norms * share
        squares += float((share * (common + last)).sum())
        return np.concatenate([scores, [last], v[-1:]]), max(squares, 0.0)

    def scores(self, v, dual):
        """What v adds to the logits: [N, C]."""
        bias = self.stiffness * v[-1]
        if self.by_examples:
            return dual[: self.num_rows] + bias
        weights = self.scale * v[:-1]
        return (yield "scores", weights) - self.mean @ weights + bias

    def gradient(self, v, residuals):
        """(gradient, its dual, the norm of its weights) from weighted residuals [N, C]."""
        sums = self.fits * residuals.sum(0)
        bias = self.stiffness * sums[None]
        if self.by_examples:
            own = self.l2 * v[:-1]
            own[: self.num_rows] += residuals
            new = np.append(own, bias, 0)
            dual, squares = yield from self.dual(new)
            return new, dual, np.sqrt(squares)
        own = (yield "transposed", residuals) - self.mean[:, None] * sums
        own = own + self.l2 * self.scale * v[:-1]
        new = np.append(self.scale * own, bias, 0)
        return new, new, np.sqrt((own**2).sum())

    def inner(self, a, dual):
        """The inner product of the weights of two vectors, in the units of x."""
        return float(np.vdot(a[:-1], dual[:-1] if self.by_examples else self.scale**2 * dual[:-1]))

    def weights(self, v):
        """(W [D, C], b [C]) for the features as they are."""
        if self.by_examples:
            rows = v[: self.num_rows]
            W = yield "transposed", rows - self.fits * self.fractions * rows.sum(0)
            if self.given is not None:
                W = W + self.given * v[self.num_rows]
        else:
            W = self.scale * v[:-1]
        W = W.astype(self.prepared.dtype, copy=False)
        return W, (self.stiffness * v[-1] - self.mean @ W).astype(W.dtype)


class _Point(NamedTuple):
    """v and its dual; the logits [N, C], losses [N], probabilities [N, C]; the gradient likewise.

    exact: whether the bias is the best one, and the logits those of v without added rounding.
    """

    v: np.ndarray
    dual: np.ndarray
    logits: np.ndarray
    loss: np.ndarray
    p: np.ndarray
    gradient: np.ndarray
    gradient_dual: np.ndarray
    norm: float
    mean_loss: float
    objective: float
    exact: bool


class _End(NamedTuple):
    """Where a trial ended, for the one that follows it."""

    space: _Space
    v: np.ndarray
    dual: np.ndarray
    before: "_End | None"
    reference: float


def _trial(space, tolerance, max_iterations, allowed, leader, given):
    """The generator of a trial: returns (Found, _End)."""
    y = space.prepared.y
    labels = np.zeros((len(y), len(space.prepared.priors)))
    labels[np.arange(len(y)), y] = 1
    if leader is None:
        point, reference = yield from _begin(space, labels, given)
    else:
        point, reference = (yield from _follow(space, labels, leader)), leader.reference
    pairs = _Pairs(space, labels.shape[1], allowed)
    iterations, converged, separable, stalled = 0, False, False, False
    while iterations < max_iterations and not (converged or separable or stalled):
        new = yield from _step(space, labels, point, pairs)
        iterations += 1
        stalled = new is None and not pairs.slots
        pairs.slots = [] if new is None else pairs.slots
        point = point if new is None else new
        separable = _separates(space, point)
        if _close(space, point, tolerance, reference) and not separable:
            point = yield from _certify(space, labels, point)
            converged = _close(space, point, tolerance, reference)
    if not (point.exact or separable):
        point = yield from _certify(space, labels, point)
        converged |= iterations > 0 and _close(space, point, tolerance, reference)
    W, b = yield from space.weights(point.v)
    balanced = abs(point.gradient[-1]).max() <= 1e-9 * max(space.stiffness, _TINY)
    bound = point.norm**2 / (2 * space.l2) if space.l2 > 0 and balanced else np.inf
    end = _End(space, point.v, point.dual, leader and leader._replace(before=None), reference)
    metrics = float(point.objective), float(point.mean_loss), float(point.norm), float(bound)
    return Found(W, b, *metrics, iterations, converged and balanced, separable), end


def _begin(space, labels, given):
    """(the first point, the norm of the gradient at zero weights)."""
    f, bias = space.fractions, np.zeros(labels.shape[1])
    if space.fits:  # the best bias of a class without examples is -inf
        bias = np.log(np.maximum((f * labels).sum(0), 1e-35))
    p = np.broadcast_to(_softmax(bias[None]), labels.shape)
    yield from space.measure(p, None if given is None else given[:-1])
    v = np.zeros((space.num_rows + (space.given is not None) + 1, len(bias)))
    first, dual, reference = yield from space.gradient(v, f * (p - labels))
    along = yield from space.scores(first, dual)
    size, curved = space.inner(first, dual), _curvature(along, p, f)
    if space.by_examples and size > 0 and curved > 0:
        space.stiffness = np.sqrt(curved / (size * float((f * p * (1 - p)).mean(1).sum())))
    if given is not None:
        bias = given[-1] + space.mean @ given[:-1]
        if space.given is not None:
            v[-2] = 1
        elif not space.by_examples:
            v[:-1] = given[:-1] / space.scale
    v[-1] = bias / space.stiffness
    dual, _ = yield from space.dual(v)
    logits = yield from space.scores(v, dual)
    if given is not None:
        logits, v, dual = _best_bias(space, labels, logits, v, dual)
    point = yield from _point(space, labels, v, dual, logits, exact=True)
    return point, reference


def _follow(space, labels, leader):
    """The first point of a trial, extrapolated in log l2 from the optima of two before it."""
    near, far = leader, leader.before or leader
    space.adopt(near.space)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.log(space.l2 / near.space.l2) / np.log(near.space.l2 / far.space.l2)
    step = 0.0 if np.isnan(step) else float(np.clip(step, 0, 1))

    def here(end, vector):  # in the units of this trial
        unit = np.broadcast_to(end.space.scale / space.scale, (len(vector) - 1, 1))
        return vector * np.append(unit, [[end.space.stiffness / space.stiffness]], 0)

    v = (1 + step) * here(near, near.v) - step * here(far, far.v)
    dual = v
    if space.by_examples:
        dual = (1 + step) * here(near, near.dual) - step * here(far, far.dual)
    logits = yield from space.scores(v, dual)
    return (yield from _point(space, labels, v, dual, logits))


def _point(space, labels, v, dual, logits, exact=False, at_step=None):
    """at_step: the losses and probabilities, where they are known."""
    loss, p = at_step or _losses(logits, space)
    gradient, gradient_dual, norm = yield from space.gradient(v, space.fractions * (p - labels))
    mean_loss = float(space.fractions[:, 0] @ loss)
    objective = mean_loss + space.l2 / 2 * space.inner(v, dual)
    at_v = v, dual, logits, loss, p, gradient, gradient_dual, norm
    return _Point(*at_v, mean_loss, objective, exact)


def _step(space, labels, point, pairs):
    """The point after one iteration, or None where no step was found."""
    pairs.set_gradient(point.gradient, point.gradient_dual)
    d, dual, slope = pairs.direction()
    along = yield from space.scores(d, dual)
    if not pairs.slots:  # the step that is best by the curvature along the gradient
        curved = _curvature(along, point.p, space.fractions) + space.l2 * space.inner(d, dual)
        t = -slope / curved if curved > 0 else 1.0
        d, slope, along = t * d, t * slope, t * along
        dual = t * dual
    penalty = space.l2 * space.inner(point.v, dual), space.l2 * space.inner(d, dual)
    found = _line_search(space, point, along, slope, penalty)
    if found is None:
        return None
    t, *at_step = found
    v, logits = point.v + t * d, point.logits + t * along
    new_dual = v if point.dual is point.v else point.dual + t * dual
    new = yield from _point(space, labels, v, new_dual, logits, at_step=tuple(at_step))
    pairs.remember(t * d, t * dual, new, point)
    return new


def _certify(space, labels, point):
    """The point with the best bias, and with logits that no steps have rounded: `certificate`."""
    dual, _ = yield from space.dual(point.v)
    logits = yield from space.scores(point.v, dual)
    logits, v, dual = _best_bias(space, labels, logits, point.v, dual)
    return (yield from _point(space, labels, v, dual, logits, exact=True))


def _close(space, point, tolerance, reference):
    if space.l2 > 0:
        return bool(point.norm**2 / (2 * space.l2) <= tolerance * point.objective)
    return bool(point.norm <= tolerance * reference)


def _separates(space, point):
    if space.l2 > 0:
        return False
    return bool(np.where(space.fractions[:, 0] > 0, point.loss, 0).max() < np.log(2))


class _Pairs:
    """The memory of L-BFGS: pairs (s, y), the gradient, and all their inner products.

    vectors, duals [2M + 1, (P + 1) · C]: steps, changes of the gradient, the gradient; slots: those
    in use, the oldest first.
    """

    def __init__(self, space, num_classes, allowed):
        rows = space.num_rows + (space.given is not None) + 1
        pair = 16 * rows * num_classes * (1 + space.by_examples)
        self.size = int(np.clip(allowed // pair, _FEWEST_PAIRS, MEMORY))
        self.slots = []
        self.vectors = np.zeros((2 * self.size + 1, rows * num_classes))
        self.duals = np.zeros_like(self.vectors) if space.by_examples else self.vectors
        self.products = np.zeros((len(self.vectors), len(self.vectors)))
        self.shape = rows, num_classes

    def set_gradient(self, gradient, dual):
        self._set({-1: (gradient, dual)})

    def _set(self, rows):
        for row, (vector, dual) in rows.items():
            self.vectors[row] = vector.ravel()
            self.duals[row] = dual.ravel()
        rows = list(rows)
        found = self.duals @ self.vectors[rows].T
        self.products[:, rows], self.products[rows] = found, found.T

    def remember(self, s, s_dual, new, old):
        """Replaces the oldest pair; one without positive curvature does not count."""
        free = [slot for slot in range(self.size) if slot not in self.slots]
        slot = free[0] if free else self.slots.pop(0)
        change = new.gradient - old.gradient, new.gradient_dual - old.gradient_dual
        self._set({slot: (s, s_dual), self.size + slot: change})
        curvature, square = self.products[[slot, self.size + slot], self.size + slot]
        if curvature > np.finfo(np.float64).eps * square:
            self.slots.append(slot)

    def direction(self):
        """(direction, its dual, its product with the gradient), by the two loops of L-BFGS."""
        products, M = self.products, self.size
        r, alphas = np.zeros(len(products)), {}
        r[-1] = 1
        for slot in self.slots[::-1]:
            alphas[slot] = products[slot] @ r / products[slot, M + slot]
            r[M + slot] -= alphas[slot]
        if self.slots:
            newest = self.slots[-1]
            r *= products[newest, M + newest] / products[M + newest, M + newest]
        for slot in self.slots:
            beta = products[M + slot] @ r / products[slot, M + slot]
            r[slot] += alphas[slot] - beta
        slope = -float(products[-1] @ r)
        if slope >= 0 and self.slots:  # rounding may leave a direction that does not descend
            self.slots = []
            return self.direction()
        d = -(r @ self.vectors).reshape(self.shape)
        dual = d if self.duals is self.vectors else -(r @ self.duals).reshape(self.shape)
        return d, dual, slope


def _softmax(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def _losses(logits, space):
    """(cross-entropies [N], probabilities [N, C])."""
    shifted = logits - logits.max(1, keepdims=True)
    p = np.exp(shifted)
    sums = p.sum(1, keepdims=True)
    p /= sums
    return np.log(sums[:, 0]) - shifted[np.arange(len(p)), space.prepared.y], p


def _curvature(along, p, f):
    """The second derivative of the loss along a direction of the logits."""
    mean = (p * along).sum(1)
    return float((f[:, 0] * ((p * along**2).sum(1) - mean**2)).sum())


def _line_search(space, point, along, slope, penalty):
    """(t, losses, probabilities) at a step as in `lbfgs.line_search`, or None where there is none.

    penalty: its first and second derivative along the line at t = 0.
    """
    f = space.fractions[:, 0]
    own = along[np.arange(len(along)), space.prepared.y]
    noise = _ROUNDING * np.finfo(np.float64).eps * point.mean_loss
    low, high, t = (0.0, slope), (np.inf, 0.0), 1.0
    for _ in range(_MOST_TRIES if slope < 0 else 0):
        loss, p = _losses(point.logits + t * along, space)
        change = float(f @ ((p * along).sum(1) - own)) + penalty[0] + t * penalty[1]
        rise = float(f @ (loss - point.loss)) + t * (penalty[0] + t / 2 * penalty[1])
        wanted = _SUFFICIENT * t * slope
        if rise <= (wanted if -wanted > noise else noise) and abs(change) <= -_CURVATURE * slope:
            return t, loss, p
        low, high = ((t, change), high) if change < 0 else (low, (t, change))
        (a, slope_a), (b, slope_b) = low, high
        if np.isinf(b):
            t = float(np.clip(a * slope / min(slope - slope_a, -1e-30), 2 * a, 10 * a))
        else:
            t = a + (b - a) * float(np.clip(slope_a / (slope_a - slope_b), 0.1, 0.9))
    return None


def _best_bias(space, labels, logits, v, dual):
    """(logits, v, dual) with the bias that minimises the loss, by Newton's method.

    The Hessian is singular along the vector of ones, which changes no probability.
    """
    if not space.fits:
        return logits, v, dual
    f, shift, scale = space.fractions, np.zeros(labels.shape[1]), 1.0
    loss, p = _losses(logits, space)
    gradient = (f * (p - labels)).sum(0)
    for _ in range(_MOST_STEPS):
        if abs(gradient).max() <= 10 * np.finfo(np.float64).eps or scale < 1e-3:
            break
        root = np.sqrt(np.maximum((f * p).sum(0), _TINY))
        hessian = np.eye(len(root)) * (1 + 1e-9) - (p.T @ (f * p)) / root[:, None] / root
        step = np.linalg.solve(hessian + np.outer(root, root), gradient / root) / root
        new_shift = shift - scale * step * min(1, 2 / max(abs(step).max(), 1e-30))
        new_loss, new_p = _losses(logits + new_shift, space)
        new_gradient = (f * (new_p - labels)).sum(0)
        falls = float(f[:, 0] @ (new_loss - loss)) <= 0
        if falls or abs(new_gradient).max() < abs(gradient).max() / 2:
            shift, loss, p, gradient, scale = new_shift, new_loss, new_p, new_gradient, 1.0
        else:
            scale /= 4
    last = np.zeros_like(v)
    last[-1] = shift / space.stiffness
    return logits + shift, v + last, dual + last
