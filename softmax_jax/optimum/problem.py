"""The problem of one dataset: checked, centred, with the spectrum of its features and a path of l2.

With many classes the solver works on one tile of the examples at a time: elementwise work on
[C, N] scores makes many passes over them, and a processor's caches cannot hold them all. Measured
on 2 CPU cores with 1,000 classes and 50,000 examples: in tiles, a try of the line search takes a
tenth of the time, the gradient a third, and the whole solution a half. With few classes there is
nothing to gain: the matrix products of a tile would be too thin.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from softmax_jax import checks, host, metrics
from softmax_jax.optimum import sparse
from softmax_jax.optimum.sparse import Sparse

_Tree = TypeVar("_Tree")
_TILE_SCORES = 2**17  # scores of one trial in a tile
_FEWEST_EXAMPLES = 256  # examples in a tile
_MANY_CLASSES = 256


def num_tiles(num_classes: int, num_examples: int) -> int:
    """The number of equal tiles of the examples: a power of two that divides their number.

    It is 1 on accelerators, and with several devices, which divide the examples in other ways.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return 1
    tiles = wanted_tiles(num_classes, num_examples)
    while num_examples % tiles:
        tiles //= 2
    return tiles


def wanted_tiles(num_classes: int, num_examples: int) -> int:
    """`num_tiles`, if the number of examples were a multiple of it.

    >>> wanted_tiles(10, 60_000), wanted_tiles(1000, 200), wanted_tiles(1000, 50_000)
    (1, 1, 128)
    """
    if num_classes < _MANY_CLASSES:
        return 1
    most = min(num_classes * num_examples // _TILE_SCORES, num_examples // _FEWEST_EXAMPLES)
    return 1 << max(most, 1).bit_length() - 1


def map_tiles(function: Callable, logits: Float[Array, "C N"], *arrays: Num[Array, "... N"]) -> Any:
    """Applies function(logits [C, B], *arrays [..., B]) -> leaves [B] to every tile.

    Returns:
      The leaves of all tiles, concatenated: [N].
    """
    tiles = num_tiles(*logits.shape)
    if tiles == 1:
        return function(logits, *arrays)
    found = lax.map(lambda k: function(*_tile(k, tiles, logits, *arrays)), jnp.arange(tiles))
    return jax.tree.map(jnp.ravel, found)


def sum_tiles(function: Callable, logits: Float[Array, "C N"], *arrays: Num[Array, "... N"]) -> Any:
    """The sum of function(logits [C, B], *arrays [..., B]) over the tiles."""
    tiles = num_tiles(*logits.shape)
    if tiles == 1:
        return function(logits, *arrays)

    def add(so_far, k):
        more = function(*_tile(k, tiles, logits, *arrays))
        return jax.tree.map(jnp.add, so_far, more), None

    first = function(*_tile(0, tiles, logits, *arrays))
    return lax.scan(add, first, jnp.arange(1, tiles))[0]


def _tile(k, tiles, *arrays):
    size = arrays[0].shape[-1] // tiles
    return [lax.dynamic_slice_in_dim(array, k * size, size, -1) for array in arrays]


# With more features than this, the spectrum is estimated from this many examples: the full
# eigendecomposition would cost more than the iterations that it saves.
_MOST_DIRECTIONS = 1024
_POWERS = 20  # steps of the power iteration, from the largest direction of the spectrum


class Problem(NamedTuple):
    """A dataset: x [N, D] float, y [N] int in 0..C-1, weights [N] (None: ones).

    x may also be mapped from a file, or a sequence of shards [n, D]: `minimise` passes over it.

    y may also be soft labels [N, C], of 0 or greater and of sum 1: a distribution over the classes
    for each example, such as votes or the probabilities of a teacher. One is the same as C copies
    of the example, one of each class, with the weights that it says.

    x may be a sparse matrix or array of SciPy, of any format, which stays sparse; its labels are
    whole numbers.
    resamples: None, or [N, R] counts: in resample r, each example's weight is multiplied by its
    count. num_classes: C, where y may lack a class (None: the largest label + 1).
    fit_bias: False keeps the bias at zero.
    """

    x: Any
    y: ArrayLike
    weights: ArrayLike | None = None
    resamples: ArrayLike | None = None
    num_classes: int | None = None
    fit_bias: bool = True


class Prepared(NamedTuple):
    """A problem on the device, in the coordinates of the solver.

    features [D + 1, N]: x - mean, transposed, and a row of ones, for the bias · y [N], or soft
    labels [C, N] · weights [N]
    · resamples [N, R] or None; mean [D] · priors [C]: the probabilities at zero weights and the
    best bias, which are the fractions of the weight in each class · directions [D, K],
    eigenvalues [K]: eigenvectors and eigenvalues of the covariance of x · sample [n]: the rows that
    the spectrum is computed from · squares [K, n]: their squared features along the directions ·
    fit_bias: whether there is a bias.

    A few examples of weight zero at the end make N divisible into equal tiles.

    Centring changes only the bias, which absorbs it. It removes the mean, usually by far the
    largest direction, from the condition number. Without a bias nothing can absorb it: then the
    mean and the last row of the features are zero, and the priors are 1/C.
    """

    features: Float[Array, "D+1 N"]
    y: Int[Array, " N"] | Float[Array, "C N"]
    weights: Float[Array, " N"]
    resamples: Num[Array, "N R"] | None
    mean: Float[Array, " D"]
    priors: Float[Array, " C"]
    directions: Float[Array, "D K"]
    eigenvalues: Float[Array, " K"]
    sample: Int[Array, " n"]
    squares: Float[Array, "K n"]
    fit_bias: Bool[Array, ""]


def prepare(problem: Problem) -> Prepared | Sparse:
    """Checks, centres and decomposes a problem: once, for every l2 and every resample.

    x of float64 stays float64 where `jax_enable_x64` is set; any other type becomes float32. Where
    that would round away the differences between the examples of an array of NumPy, a shift is
    subtracted in float64 before (and W and b of the optima are float64, lest their rounding be
    multiplied by x). The cost is one copy of x, and an eigendecomposition of at most 1024 × 1024
    from at most 8 examples per feature. The spectrum serves the preconditioner alone: an inaccurate
    one costs iterations, never correctness.

    Sparse features are copied once, as they are: float64 stays float64, and so do whole numbers;
    narrower floats become float32.

    Raises:
      ValueError: for shapes that do not fit, NaN or infinity, labels outside 0..C-1, soft labels
        that are no distributions, weights that are negative or all zero, in a resample, too, and
        for types that are not these numbers.
    """
    host.begin()
    if host.is_sparse(problem.x):
        return _prepare_sparse(problem)
    x, y = checks.as_array(problem.x), np.asarray(problem.y)
    check_type(x)
    x, shift = _shifted(x, problem.fit_bias)
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        x = x.astype(dtype_of(x.dtype), copy=False)
    num_classes = check_labels(x.shape, y, problem.num_classes, problem.fit_bias)
    _check_finite(x)
    weights = check_weights(problem.weights, len(y))
    check_resamples(problem.resamples, weights.astype(x.dtype))
    y = label_columns(y, weights, x.dtype)
    priors = class_sums(y, weights, num_classes) / weights.sum()
    priors = priors if problem.fit_bias else np.full(num_classes, 1 / num_classes)
    missing = -len(y) % wanted_tiles(num_classes, len(y)) if jax.device_count() == 1 else 0
    sample = sample_rows(weights, x.shape[1])
    roots = np.sqrt(weights[sample] / weights[sample].sum())
    fractions, roots = (weights / weights.sum()).astype(x.dtype), roots.astype(x.dtype)
    resamples, own = problem.resamples, (x, fractions, problem.fit_bias, sample, roots, missing)
    features, mean, basis = _decompose(*own)
    directions, eigenvalues, squares = basis
    mean = mean if shift is None else np.asarray(mean, np.float64) + shift
    if resamples is not None and missing:
        resamples = np.pad(np.asarray(resamples), ((0, missing), (0, 0)))
    return Prepared(
        features=features,
        y=jnp.asarray(np.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, missing)])),
        weights=jnp.asarray(np.pad(weights, (0, missing)).astype(x.dtype)),
        resamples=None if resamples is None else jnp.asarray(resamples),
        mean=mean,
        priors=jnp.asarray(priors.astype(x.dtype)),
        directions=directions,
        eigenvalues=eigenvalues,
        sample=jnp.asarray(sample),
        squares=squares,
        fit_bias=jnp.asarray(np.bool_(problem.fit_bias)),
    )


def _prepare_sparse(problem):
    """As `prepare`: one copy of x, feature by feature."""
    x, y = problem.x, np.asarray(problem.y)
    check_type(x)
    if y.ndim > 1:
        raise ValueError("With sparse x, y must be labels [N]: of soft labels give x.toarray().")
    num_classes = check_labels(x.shape, y, problem.num_classes, problem.fit_bias)
    narrow = x.dtype.kind == "f" and x.dtype.itemsize <= 4
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            blocks = sparse.make_blocks(x, np.float32 if narrow else np.float64, num_classes)
    except (ValueError, IndexError) as error:
        raise ValueError(f"x is no valid sparse matrix: {error}") from error
    with np.errstate(over="ignore"):
        for block in blocks:
            _check_finite(block.data)
            if not np.isfinite(np.vdot(block.data, block.data)):
                raise ValueError("The squares of the features overflow: scale them.")
    weights = check_weights(problem.weights, len(y))
    check_resamples(problem.resamples, weights)
    priors = np.bincount(y, weights, minlength=num_classes) / weights.sum()
    priors = priors if problem.fit_bias else np.full(num_classes, 1 / num_classes)
    resamples = None if problem.resamples is None else np.asarray(problem.resamples)
    return Sparse(blocks, y.astype(np.int64), weights, resamples, priors, bool(problem.fit_bias))


def check_type(x: Any) -> None:
    """Raises ValueError unless x has a type of real numbers."""
    if x.dtype.kind in "cOSUMm":
        raise ValueError(f"x must be real numbers; it is {x.dtype} {list(x.shape)}.")


def _check_finite(values):
    if not checks.namespace(values).isfinite(values).all():
        raise ValueError("The features hold NaN or infinity.")


def dtype_of(given: Any) -> np.dtype:
    """The type in which features of a type are computed with."""
    dtype = jax.dtypes.canonicalize_dtype(given)
    wide = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4
    return np.dtype(dtype if wide else np.float32)


# The best bias of a class without examples is -inf; the logarithm of this has the same effect.
LEAST_PRIOR = 1e-35
_KEPT = 1e-5  # of a column's standard deviation: what float32 may round away
_SHIFTED_BY = 4096  # examples that tell where a column lies


def _shifted(x, fit_bias):
    """x less a shift [D], in float64, where float32 would round away too much; and the shift."""
    wide = isinstance(x, np.ndarray) and x.dtype.itemsize > 2 and x.dtype != np.float32
    narrows = jax.dtypes.canonicalize_dtype(np.float64) != np.float64
    if not (wide and narrows and fit_bias and x.ndim == 2 and len(x)):
        return x, None
    sample = x[:: len(x) // _SHIFTED_BY + 1].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused elsewhere
        mean, deviation = sample.mean(0), sample.std(0)
        rounded = np.finfo(np.float32).eps * np.abs(mean) > _KEPT * deviation
    rounded &= deviation > 0
    if not rounded.any():
        return x, None
    shift = np.where(rounded, mean, 0)
    return x - shift, shift


def product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """The matrix product ab, in the precision of its inputs on every backend."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def choose(condition: Bool[Array, ""], a: _Tree, b: _Tree) -> _Tree:
    """a where the condition holds, b elsewhere, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), a, b)


def weight_fractions(prepared: Prepared, column: Int[Array, ""]) -> Float[Array, " N"]:
    """The weights of the examples for a column of the resamples, scaled to sum 1."""
    weights = prepared.weights
    if prepared.resamples is not None:
        weights = weights * prepared.resamples[:, column]
    return weights / jnp.maximum(metrics.total(weights), jnp.finfo(weights.dtype).tiny)


def residual(p: Float[Array, "C N"], y: Num[Array, "*C N"]) -> Float[Array, "C N"]:
    """p - Y for probabilities p and the one-hot vectors Y of the labels y, or soft labels Y = y."""
    return p - (y if y.ndim == 2 else (jnp.arange(len(p))[:, None] == y))


def held(gradient: Float[Array, "C D1"], l2: Float[Array, ""]) -> Float[Array, "C D1"]:
    """The gradient; without a penalty, less what all classes share.

    That part is zero up to rounding, and nothing but a penalty holds the weights along it.
    """
    return gradient - jnp.where(l2 > 0, 0, gradient.mean(0))


def as_distributions(y: Num[Array, "*C N"], num_classes: int, dtype: Any) -> Float[Array, "C N"]:
    """The one-hot vectors of labels [N]; soft labels [C, N] as they are."""
    return y if y.ndim == 2 else jax.nn.one_hot(y, num_classes, axis=0, dtype=dtype)


def undecided_as_wrong(y: Num[Array, "*C N"], loss: Float[Array, " N"]) -> Float[Array, " N"]:
    """The losses, infinite where a soft label has more than one class: no weights separate it."""
    return loss if y.ndim == 1 else jnp.where(y.max(0) == 1, loss, jnp.inf)


def label_columns(
    y: Shaped[np.ndarray, "N ..."], weights: Float[np.ndarray, " N"], dtype: Any
) -> Num[np.ndarray, "*C N"]:
    """Labels as the programs take them: int32 [N]; soft ones [C, N], of sum 1 up to rounding."""
    if y.ndim == 1:
        return y.astype(np.int32)
    y = np.where(weights[:, None] > 0, y, 1 / y.shape[1])  # what counts nothing may be anything
    checks.check_soft_labels(y)
    return np.ascontiguousarray((y / y.sum(1, keepdims=True, dtype=np.float64)).T.astype(dtype))


def class_sums(
    y: Num[np.ndarray, "*C N"], weights: Float[np.ndarray, " N"], num_classes: int
) -> Float[np.ndarray, " C"]:
    """The weight that each class has."""
    return y @ weights if y.ndim == 2 else np.bincount(y, weights, minlength=num_classes)


def check_labels(
    shape: tuple[int, ...],
    y: Shaped[np.ndarray, "..."],
    num_classes: Any,
    fit_bias: Any,
) -> int:
    """The number of classes, of features [N, D] and labels whose shapes and types are right."""
    if len(shape) != 2 or y.ndim not in (1, 2) or y.shape[:1] != shape[:1] or 0 in shape:
        raise ValueError(
            "x must be [N, D] and y [N], or soft labels [N, C], with an example and a feature; got "
            f"{shape}, {y.shape}."
        )
    if not isinstance(fit_bias, bool | np.bool_):
        raise ValueError(f"fit_bias must be True or False; it is {fit_bias!r}.")
    if num_classes is not None:
        checks.check_whole("num_classes", num_classes, 2)
    if y.ndim == 2:
        if y.shape[1] < 2 or num_classes not in (None, y.shape[1]):
            wanted = "2 columns or more" if num_classes is None else f"{num_classes} columns"
            raise ValueError(
                f"Soft labels y [N, C] must have {wanted}, one for each class; they are {y.shape}."
            )
        return y.shape[1]
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError("Labels must be integers of 0 or greater.")
    largest = int(y.max())  # one more may not fit in the type of y
    num_classes = largest + 1 if num_classes is None else int(num_classes)
    if num_classes < max(2, largest + 1):
        raise ValueError(f"{num_classes} classes do not fit labels from {y.min()} to {largest}.")
    return num_classes


def check_weights(weights: Any, num_examples: int) -> Float[np.ndarray, " N"]:
    """The weights [N] in float64, divided by the power of two below the largest.

    Only their ratios count, and an exact division rounds none: in float32, too, no sum of them
    overflows or vanishes, whatever their unit.
    """
    if weights is None:
        return np.ones(num_examples)
    weights = np.asarray(weights)
    if weights.shape != (num_examples,) or weights.dtype.kind not in "biuf":
        raise ValueError(
            f"weights must be numbers [N] = [{num_examples}]; they are {weights.dtype} "
            f"{checks.shape_of(weights)}."
        )
    weights = weights.astype(np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise ValueError("Weights must be finite, of 0 or greater, and not all zero.")
    return relative(weights)[0]


def relative(weights: Float[np.ndarray, " N"]) -> tuple[Float[np.ndarray, " N"], float]:
    """(weights / unit, unit), where unit is the power of two at or below the largest weight.

    >>> weights, unit = relative(np.array([0.0, 1.5e308, 6e307]))
    >>> bool(1 <= weights.max() < 2), bool((weights * unit == [0.0, 1.5e308, 6e307]).all())
    (True, True)
    """
    exponent = np.frexp(weights.max())[1] - 1
    return np.ldexp(weights, -exponent), float(np.ldexp(1.0, exponent))


def check_resamples(resamples: Any, weights: Float[np.ndarray, " N"]) -> None:
    """Raises ValueError unless they are counts [N, R] that leave every resample some weight."""
    if resamples is None:
        return
    counts = np.asarray(resamples)
    if counts.ndim != 2 or len(counts) != len(weights) or counts.dtype.kind not in "biuf":
        raise ValueError(
            f"resamples must be counts [N, R] = [{len(weights)}, R]; they are {counts.dtype} "
            f"{checks.shape_of(counts)}."
        )
    if counts.dtype.kind in "if" and not (counts >= 0).all() or not np.isfinite(counts).all():
        raise ValueError("The counts of resamples must be finite, of 0 or greater.")
    present = np.where(weights < np.finfo(weights.dtype).tiny, 0, weights)
    if not (present @ counts > 0).all():
        raise ValueError(
            "A resample leaves no example with any weight (that is not lost beside the largest "
            f"in {weights.dtype})."
        )


@functools.partial(jax.jit, static_argnames="missing")
def _decompose(x, fractions, fit_bias, sample, roots, missing):
    """(features, mean, spectrum of the sample): see `Prepared`. One program, as each takes time."""
    # Relative to the first example, so that a constant column becomes exactly zero.
    mean = jnp.where(fit_bias, x[0] + product(fractions, x - x[0]), 0)
    # With the examples last, a product with the weights is 1.5 times as fast, and one with
    # residuals equally fast.
    features = jnp.concatenate([(x - mean).T, jnp.full((1, len(x)), fit_bias, x.dtype)])
    basis = spectrum(features[:-1, sample], roots)
    return jnp.pad(features, ((0, 0), (0, missing))), mean, basis


def sample_rows(weights: Float[np.ndarray, " N"], num_features: int) -> Int[np.ndarray, " n"]:
    """All rows, or evenly spaced ones of positive weight; their number depends on the shape."""
    wanted = 8 * num_features if num_features <= _MOST_DIRECTIONS else _MOST_DIRECTIONS
    if len(weights) <= wanted:
        return np.arange(len(weights), dtype=np.int32)
    present = np.flatnonzero(weights).astype(np.int32)
    return present[np.linspace(0, len(present) - 1, wanted).round().astype(int)]


def spectrum(
    x: Float[Array, "D n"], roots: Float[Array, " n"]
) -> tuple[Float[Array, "D K"], Float[Array, " K"], Float[Array, "K n"]]:
    """Eigenvectors and eigenvalues, ascending, of x diag(roots²) xᵀ, and (directionsᵀ x)².

    A direction whose eigenvalue is mere rounding gets the values of the first sound direction: a
    curvature of zero would let the preconditioner amplify rounding without bound.
    """
    scaled = x * roots
    if x.shape[1] >= len(x):
        eigenvalues, directions = jnp.linalg.eigh(product(scaled, scaled.T))
    else:
        directions, singular, _ = jnp.linalg.svd(scaled, full_matrices=False)
        eigenvalues, directions = singular[::-1] ** 2, directions[:, ::-1]
    sound = eigenvalues > 10 * jnp.finfo(x.dtype).eps * eigenvalues[-1]
    place = jnp.maximum(jnp.arange(len(sound)), sound.argmax())
    eigenvalues = jnp.maximum(eigenvalues[place], jnp.finfo(x.dtype).tiny)
    return directions, eigenvalues, product(directions.T, x)[place] ** 2


def l2_path(
    prepared: Prepared | Sparse, num: int, total_weight: float | None = None
) -> Float[np.ndarray, " num"]:
    """Penalties in a geometric sequence, the largest first: float64.

    The largest gives almost zero weights. With g the gradient in W at W = 0 and the best bias there
    (the log of each class's fraction of the weight), the optimum has ‖W‖ ≤ ‖g‖ / l2. Its logits
    then differ from the bias by at most √λ₁ ‖g‖ / l2 in root mean square, where λ₁ is the largest
    eigenvalue of the covariance: 0.1 for the largest penalty. The smallest is too small to matter:
    as a prior, l2 is a normal distribution of each weight with variance 1 / (l2 · N), under which
    the logits have a standard deviation of 10 (tr Cov / (l2 · N) = 100).

    Args:
      prepared: the problem.
      num: how many penalties.
      total_weight: N, the sum of the weights where each says of how many copies an example stands
        for (`Prepared` knows only their ratios); None: the number of examples.

    Raises:
      ValueError: for num that is not a whole number from 1, and for features that are all constant.
    """
    checks.check_whole("num", num, 1)
    eigenvalue, variance, gradient = (
        prepared.spread() if isinstance(prepared, Sparse) else _spread(prepared)
    )
    largest = 10 * math.sqrt(eigenvalue) * gradient
    if not largest > 0:
        raise ValueError("The features do not predict the labels: there is no path of penalties.")
    N = len(prepared.weights) if total_weight is None else total_weight
    smallest = variance / (100 * N)
    return np.geomspace(largest, min(smallest, largest / 1000), num)


def _spread(prepared):
    """As `Sparse.spread`."""
    gradient = jnp.linalg.norm(gradient_at_zero(prepared))
    return (*map(float, (_largest_eigenvalue(prepared), _total_variance(prepared), gradient)),)


@jax.jit
def _largest_eigenvalue(prepared: Prepared) -> Float[Array, ""]:
    """That of the covariance of the features, under the weights of the problem.

    Of all examples, by as many steps of the power iteration as three digits need: the spectrum in
    `prepared` is that of a sample, which copies of examples change.
    """
    x, weights = prepared.features[:-1], prepared.weights / prepared.weights.sum()

    def step(_, direction):
        image = product(x, weights * product(direction, x))
        return image / jnp.maximum(jnp.linalg.norm(image), jnp.finfo(x.dtype).tiny)

    direction = lax.fori_loop(0, _POWERS, step, prepared.directions[:, -1])
    return weights @ product(direction, x) ** 2


@jax.jit
def _total_variance(prepared: Prepared) -> Float[Array, ""]:
    """tr Cov of the features, under the weights of the problem."""
    return prepared.weights @ (prepared.features[:-1] ** 2).sum(0) / prepared.weights.sum()


@jax.jit
def gradient_at_zero(prepared: Prepared) -> Float[Array, "C D"]:
    """∂loss/∂W at W = 0 and the best bias there, under the weights of the problem: [C, D]."""
    labels = as_distributions(prepared.y, len(prepared.priors), prepared.priors.dtype)
    residual = (prepared.priors[:, None] - labels) * (prepared.weights / prepared.weights.sum())
    return product(residual, prepared.features.T)[:, :-1]
