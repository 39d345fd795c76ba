"""Argument checks: an error names the argument, the rule, what was given, and the remedy.

Shapes, dtypes and options are known while a program is traced, and are checked in every call; the
values of arrays are checked where they are concrete, which they are not under `jit` and `vmap`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Shaped

from softmax_jax import host
from softmax_jax.hyperparameters import nearest

_Array = Shaped[Array | np.ndarray, "..."]  # of any shape and dtype: they are what is checked
Given: TypeAlias = ArrayLike | Sequence  # what a caller gives: what is wrong with it, a check says
Values: TypeAlias = _Array | np.generic  # an array of JAX or NumPy, or a number of NumPy

_SUM_TOLERANCE = 1e-3  # of a row of probabilities: those printed with four digits pass
_LEAST = -1e-6  # a probability that rounding has made negative passes
WRONG, IGNORED = -1, -2  # what `as_words` makes of a label that is no word


def named_keywords(name: str) -> Callable[[Callable], Callable]:
    """Decorates a function: an unknown keyword raises TypeError with the nearest argument's name.

    Args:
      name: of the function, as its users call it.

    >>> @named_keywords("sweep.fit")
    ... def fit(*, num_epochs): ...
    >>> fit(max_epochs=1)
    Traceback (most recent call last):
    TypeError: sweep.fit() has no argument 'max_epochs'; did you mean num_epochs?
    """

    def decorate(function):
        known = tuple(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*args, **kwargs):
            for given in kwargs:
                if given not in known:
                    near = nearest(given, known)
                    hint = f"did you mean {near}?" if near else f"there are: {', '.join(known)}."
                    raise TypeError(f"{name}() has no argument {given!r}; {hint}")
            return function(*args, **kwargs)

        return checked

    return decorate


def as_arrays(*arrays: Any) -> list[Array]:
    """The same as JAX arrays."""
    return [jnp.asarray(array) for array in arrays]


def as_optional_arrays(*arrays: Any) -> list[Array | None]:
    """The same as JAX arrays; None stays None."""
    return [None if array is None else jnp.asarray(array) for array in arrays]


def known(*arrays: Any) -> bool:
    """Whether the values of all of them can be read now: none is traced, or on another host."""
    return all(
        not isinstance(array, jax.core.Tracer) and getattr(array, "is_fully_addressable", True)
        for array in arrays
    )


def namespace(*arrays: Any) -> ModuleType:
    """`jax.numpy` if one of them is an array of JAX, else `numpy`, which keeps float64."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def as_array(values: Any) -> _Array:
    """An array of JAX stays; anything else becomes one of NumPy."""
    return values if isinstance(values, jax.Array) else np.asarray(values)


def as_floats(name: str, values: Any) -> _Array:
    """Real numbers as a floating-point array: whole numbers are converted, other types refused.

    >>> as_floats("logits", [[1, 2]]).dtype.name
    'float64'

    Raises:
      ValueError: they are not numbers, or complex, or booleans.
    """
    array = as_array(values)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.result_type(float) if isinstance(array, jax.Array) else float)
    raise ValueError(f"{name} must be real numbers; they are {array.dtype} {shape_of(array)}.")


def as_probabilities(probabilities: Any, ndim: int | None = None) -> _Array:
    """Probabilities [..., C] as an array, NumPy's or JAX's as they came.

    Each must lie in 0..1 and each row sum to 1, to within 0.001 (or the rounding of a narrower
    type). ndim: how many axes they must have (None: one or more).

    >>> as_probabilities([[2.0, -1.0]])
    Traceback (most recent call last):
    ...
    ValueError: probabilities must lie in 0..1; 2 do not, the first at [0, 0]: 2.0. Of logits take \
losses.softmax first.

    Raises:
      ValueError: they have another number of axes, are not real numbers, or break a rule above.
    """
    p = as_floats("probabilities", probabilities)
    if p.ndim != (ndim or p.ndim) or p.ndim == 0 or p.shape[-1] == 0:
        form = "[N, C]" if ndim == 2 else "[..., C]"
        raise ValueError(
            f"probabilities must be {form}, with a column for each class; they are {shape_of(p)}. "
            "(Of two classes give both columns, 1 - p and p.)"
        )
    if known(p):
        _check_probabilities(np.asarray(p))
    return p


def _check_probabilities(p):
    tolerance = max(_SUM_TOLERANCE, 4 * float(jnp.finfo(p.dtype).eps))
    remedy = "Of logits take losses.softmax first."
    wrong = ~((p >= _LEAST) & (p <= 1 + tolerance))  # NaN, too
    if wrong.any():
        raise ValueError(f"probabilities must lie in 0..1; {_first(wrong, p)}. {remedy}")
    sums = p.sum(-1, dtype=np.float64)
    wrong = ~(abs(sums - 1) <= tolerance)
    if wrong.any():
        found = _first(wrong, sums)
        raise ValueError(f"the probabilities of each row must sum to 1; {found}. {remedy}")


def as_labels(labels: Any, num_rows: int, num_classes: int, classes: Any = None) -> _Array:
    """Labels [N] as numbers of columns, integers in 0..C-1.

    classes: None, if they are such numbers already; or what the labels are called, [C], in the
    order of the columns (`classes_` of an estimator): numbers, or names.

    >>> as_labels(["cat", "dog", "cat"], 3, 2, classes=["cat", "dog"]).tolist()
    [0, 1, 0]

    Raises:
      ValueError: another shape or type; where they are known, a label that is not in the range or
        not among the classes; classes that are not C different ones.
    """
    labels = as_array(labels)
    if labels.shape != (num_rows,):
        raise ValueError(
            f"labels must be [N] = [{num_rows}], one for each row; they are {shape_of(labels)}."
        )
    if classes is not None:
        return _positions(labels, _as_classes(classes, num_classes))
    check_integers(labels)
    check_range(labels, num_classes)
    return widened(labels)


def check_soft_labels(y: _Array, first: int = 0) -> None:
    """Raises ValueError unless y [N, C] has a distribution over the classes in each row.

    Its numbers must be finite, of 0 or greater, and sum to 1 up to the rounding of their type.
    first: the number of the first row, for the message.
    """
    if not (jnp.issubdtype(y.dtype, jnp.floating) or y.dtype.kind in "biu"):
        raise ValueError(f"Soft labels y [N, C] must be real numbers; they are {y.dtype}.")
    eps = float(jnp.finfo(y.dtype).eps) if jnp.issubdtype(y.dtype, jnp.floating) else 0.0
    sums = y.sum(1, dtype=np.float64)
    right = np.isfinite(sums) & (y >= 0).all(1) & (abs(sums - 1) <= max(1e-5, y.shape[1] * eps))
    if not right.all():
        row = int(right.argmin())
        raise ValueError(
            "Soft labels y [N, C] must be finite, of 0 or greater, and sum to 1 in each row; of "
            f"{len(y):,} rows {int((~right).sum()):,} are not so, the first row {first + row}: "
            f"{host.brief(y[row].tolist())}. Divide each row by its sum, or give labels [N]."
        )


def counted(weights: Any, *arrays: _Array) -> tuple:
    """(*arrays, weights) of the examples that count; without weights as they are, and None.

    Where the weights are known, the examples of weight 0 are taken out, whatever they hold.

    >>> counted([2, 0], np.array([5, 6]))
    (array([5]), array([2.]))

    Raises:
      ValueError: not a finite number of at least 0 for each row, or all of them 0.
    """
    if weights is None:
        return *arrays, None
    weights = as_floats("weights", weights)
    if weights.ndim != 1 or any(a.ndim < 1 or len(a) != len(weights) for a in arrays):
        shapes = ", ".join(str(shape_of(array)) for array in arrays)
        raise ValueError(
            f"weights must be [N], one for each example; they are {shape_of(weights)}, of {shapes}."
        )
    if not known(weights):
        return *arrays, weights
    check_number("weights", weights, 0, remedy="They say how often an example counts.")
    weights = np.asarray(weights, np.float64)
    if not weights.any():
        raise ValueError("weights must not be all 0: no example counts.")
    if weights.all():
        return *arrays, weights
    return *(array[weights > 0] for array in arrays), weights[weights > 0]


def check_integers(labels: _Array, name: str = "labels") -> None:
    """Raises ValueError unless the type of the labels is an integer type; NaN is named first."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return
    remedy = f"Convert them: {name}.astype(int)."
    if jnp.issubdtype(labels.dtype, jnp.floating) and known(labels):
        values = np.asarray(labels)
        if not np.isfinite(values).all():
            found = _first(~np.isfinite(values), values)
            raise ValueError(f"{name} must be integers; {found}. Leave these examples out.")
        if (values % 1 != 0).any():
            remedy = f"{_first(values % 1 != 0, values)}."
    elif labels.dtype.kind in "USO":
        remedy = "Pass classes=, the names of the columns, where the function takes it."
    raise ValueError(f"{name} must be integers; they are {labels.dtype}. {remedy}")


def check_range(
    labels: _Array,
    num_classes: int,
    ignored: _Array | None = None,
    remedy: str | None = None,
    name: str = "labels",
) -> None:
    """Raises ValueError unless all labels are known to be in 0..C-1, or traced.

    ignored: a mask of the labels that do not count. remedy: the last sentence of the error.
    """
    if not known(labels, ignored):
        return
    values = np.asarray(labels)
    wrong = (values < 0) | (values > num_classes - 1)
    if ignored is not None:
        wrong &= ~np.asarray(ignored)
    if wrong.any():
        remedy = remedy or "Number them by column, or pass classes=, what the columns are called."
        raise ValueError(
            f"{name} must lie in 0..{num_classes - 1}; {_first(wrong, values)}. {remedy}"
        )


def widened(labels: _Array) -> _Array:
    """Integer labels in a type that no comparison wraps: those below 32 bits become int32."""
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def equal(labels: _Array, number: int) -> _Array:
    """Which labels equal a whole number that their type may not hold: booleans [...]."""
    limits = jnp.iinfo(labels.dtype)
    if not limits.min <= number <= limits.max:
        return namespace(labels).zeros(labels.shape, bool)
    return labels == number


def check_number(
    name: str,
    value: Any,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    ends: tuple[bool, bool] = (True, True),
    remedy: str = "",
) -> None:
    """Raises ValueError unless the numbers are finite and in the range, whose ends may not belong.

    A number, or an array of them; what is traced passes.

    >>> check_number("alpha", 2, 0, 1, ends=(False, False), remedy="0.1 promises 90 %.")
    Traceback (most recent call last):
    ...
    ValueError: alpha must be above 0 and below 1; it is 2. 0.1 promises 90 %.
    """
    if not known(value):
        return
    numbers = np.asarray(value)
    real = jnp.issubdtype(numbers.dtype, jnp.floating) or jnp.issubdtype(numbers.dtype, jnp.integer)
    if real:
        above = (numbers >= low) if ends[0] else (numbers > low)
        below = (numbers <= high) if ends[1] else (numbers < high)
        if (above & below & np.isfinite(numbers)).all():
            return
    limits = [f"{'at least' if ends[0] else 'above'} {low:g}"] if low > -np.inf else []
    limits += [f"{'at most' if ends[1] else 'below'} {high:g}"] if high < np.inf else []
    rule = " and ".join(limits) if limits else "finite"
    shown = value if numbers.ndim == 0 else numbers.ravel().tolist()
    raise ValueError(f"{name} must be {rule}; it is {shown}.{' ' * bool(remedy)}{remedy}")


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raises ValueError unless it is a whole number from low to high; what is traced passes."""
    if not known(value):
        return
    number = np.asarray(value)
    whole = number.ndim == 0 and jnp.issubdtype(number.dtype, jnp.integer)
    if not whole or number < low or (high is not None and number > high):
        limit = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {limit}; it is {value!r}.")


def shape_of(array: _Array) -> list[int]:
    """The shape as the messages write it: [N, C]."""
    return list(array.shape)


def check_layer(x: _Array, W: _Array, bias: _Array | None) -> None:
    """Raises ValueError unless x is [N, D], W [D, V] and bias [V] or None: floats, none empty."""
    if x.ndim != 2 or W.ndim != 2 or x.shape[1] != W.shape[0] or not (x.size and W.size):
        raise ValueError(
            "x must be [N, D] and W [D, V], with the same D and nothing empty; "
            f"they are {shape_of(x)} and {shape_of(W)}. (The bias is a separate argument.)"
        )
    if bias is not None and bias.shape != W.shape[1:]:
        raise ValueError(f"bias must be [V] = [{W.shape[1]}]; it is {shape_of(bias)}.")
    for name, array in (("x", x), ("W", W), ("bias", bias)):
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floats; it is {array.dtype}. Convert it first.")


def check_labels(
    labels: _Array, num_rows: int, vocabulary_size: int, ignore_index: int | None = None
) -> None:
    """Raises ValueError unless labels are integers [N], each in 0..V-1 or the ignore index.

    Inside `jit` only shape and dtype are checked; call this on the host first, to check the values.
    """
    if labels.shape != (num_rows,):
        raise ValueError(f"labels must be [N] = [{num_rows}]; they are {shape_of(labels)}.")
    check_integers(labels)
    if ignore_index is not None:
        check_whole("ignore_index", ignore_index, -(2**63))
    ignored = None if ignore_index is None else equal(labels, ignore_index)
    remedy = "Correct them, or pass the number that marks absent ones as ignore_index."
    if ignore_index is not None:
        remedy = f"Only the ignore_index, {ignore_index}, may lie outside."
    check_range(labels, vocabulary_size, ignored, remedy)


def as_words(
    labels: Any, num_rows: int, vocabulary_size: int, ignore_index: int | None = None
) -> Int[Array, " N"]:
    """Labels [N] of any integer type as int32 of JAX: 0..V-1, WRONG or IGNORED.

    Compared and cast in this type, no label wraps, and none is taken for the ignore index.

    Raises:
      ValueError: as `check_labels`.
    """
    labels = as_array(labels)
    check_labels(labels, num_rows, vocabulary_size, ignore_index)
    wide, xp = widened(labels), namespace(labels)
    inside = (wide >= 0) & (wide < vocabulary_size)
    words = xp.where(inside, wide.astype(np.int32), WRONG)
    if ignore_index is not None:
        words = xp.where(equal(labels, ignore_index), IGNORED, words)
    return jnp.asarray(words, jnp.int32)


def check_weights(example_weights: _Array | None, num_rows: int) -> None:
    """Raises ValueError unless the weights are None or [N]."""
    if example_weights is not None and example_weights.shape != (num_rows,):
        shape = shape_of(example_weights)
        raise ValueError(f"example_weights must be [N] = [{num_rows}]; they are {shape}.")


def check_blocks(row_block: Any, vocabulary_block: Any) -> None:
    """Raises ValueError unless both are None or whole numbers of at least 1."""
    for name, block in (("row_block", row_block), ("vocabulary_block", vocabulary_block)):
        if block is not None:
            check_whole(name, block, 1)


def _as_classes(classes, num_classes):
    classes = np.asarray(classes)
    if classes.dtype == object:
        classes = np.asarray(classes.tolist())
    if classes.shape != (num_classes,) or len(np.unique(classes)) != num_classes:
        raise ValueError(
            f"classes must be {num_classes} different ones, one for each column; "
            f"they are {classes.tolist()}."
        )
    return classes


def _positions(labels, classes):
    """Where in the classes each label is; of traced labels, -1 for one that is not there."""
    if not known(labels):
        same = labels[:, None] == jnp.asarray(classes)
        return jnp.where(same.any(-1), same.argmax(-1), -1)
    values = np.asarray(labels)
    if values.dtype == object:
        values = np.asarray(values.tolist())
    if _kind(values) != _kind(classes):
        raise ValueError(
            f"labels and classes must be of one kind, numbers or names; "
            f"they are {values.dtype} and {classes.dtype}."
        )
    order = np.argsort(classes)
    place = order[np.searchsorted(classes[order], values).clip(max=len(classes) - 1)]
    wrong = classes[place] != values
    if wrong.any():
        raise ValueError(
            f"labels must be among the classes {classes.tolist()}; {_first(wrong, values)}."
        )
    return place


def _kind(array):
    return array.dtype.kind if array.dtype.kind in "US" else "number"


def _first(wrong, values):
    """'3 do not, the first at [4]: 12', for the message."""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    count = int(wrong.sum())
    verb = "does not" if count == 1 else "do not"
    value = values[at]
    shown = value.item() if hasattr(value, "item") else value
    return f"{count:,} {verb}, the first at {list(at)}: {shown!r}"
