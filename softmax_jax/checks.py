"""Argument validation: an error names the argument, the rule, and what was given.

Shapes, dtypes and options are known while a program is traced, and are checked in every call. The
values of labels are checked where they are concrete, which they are not under `jit`.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from softmax_jax.hyperparameters import nearest

_Array = Shaped[Array | np.ndarray, "..."]  # of any shape and dtype: they are what is checked


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


def as_arrays(*arrays: Any) -> list[Array | None]:
    """The same as JAX arrays; None stays None."""
    return [None if array is None else jnp.asarray(array) for array in arrays]


def check_layer(x: _Array, W: _Array, bias: _Array | None) -> None:
    """Raises ValueError unless x is [N, D], W [D, V] and bias [V] or None: floats, none empty."""
    if x.ndim != 2 or W.ndim != 2 or x.shape[1] != W.shape[0] or not (x.size and W.size):
        raise ValueError(
            "x must be [N, D] and W [D, V], with the same D and nothing empty; "
            f"they are {_shape(x)} and {_shape(W)}. (The bias is a separate argument.)"
        )
    if bias is not None and bias.shape != W.shape[1:]:
        raise ValueError(f"bias must be [V] = [{W.shape[1]}]; it is {_shape(bias)}.")
    for name, array in (("x", x), ("W", W), ("bias", bias)):
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floats; it is {array.dtype}. Convert it first.")


def check_labels(
    labels: _Array, num_rows: int, vocabulary_size: int, ignore_index: int | None = None
) -> None:
    """Raises ValueError unless labels are integers [N], each in 0..V-1 or the ignore index.

    Inside `jit` only shape and dtype are checked; call this on the host first, to check the values.
    """
    if labels.shape != (num_rows,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be integers [N] = [{num_rows}]; they are {labels.dtype} {_shape(labels)}."
        )
    if isinstance(labels, jax.core.Tracer):
        return
    values = np.asarray(labels)
    wrong = (values < 0) | (values >= vocabulary_size)
    if ignore_index is not None:
        wrong &= values != ignore_index
    if wrong.any():
        row = int(wrong.argmax())
        other = "" if ignore_index is None else f" or the ignore index {ignore_index}"
        raise ValueError(
            f"labels must lie in 0..{vocabulary_size - 1}{other}; {int(wrong.sum())} do not, "
            f"the first in row {row}: {values[row]}. Correct it, or pass it as ignore_index."
        )


def check_weights(example_weights: _Array | None, num_rows: int) -> None:
    """Raises ValueError unless the weights are None or [N]."""
    if example_weights is not None and example_weights.shape != (num_rows,):
        shape = _shape(example_weights)
        raise ValueError(f"example_weights must be [N] = [{num_rows}]; they are {shape}.")


def check_number(
    name: str,
    value: Any,
    low: int | float,
    high: int | float = math.inf,
    *,
    low_allowed: bool = True,
) -> None:
    """Raises ValueError unless the value is a concrete number in [low, high), or (low, high)."""
    is_number = isinstance(value, numbers.Real)
    inside = is_number and (low < value or low_allowed and value == low)
    if not inside or not value < high:
        above = f"{'of at least' if low_allowed else 'above'} {low:g}"
        below = f" and below {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be a finite number {above}{below}; it is {value!r}.")


def check_count(name: str, value: Any, high: int | float = math.inf) -> None:
    """Raises ValueError unless the value is a whole number in 1..high."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not 1 <= value <= high:
        limit = "of at least 1" if high == math.inf else f"from 1 to {high}"
        raise ValueError(f"{name} must be a whole number {limit}; it is {value!r}.")


def check_blocks(row_block: Any, vocabulary_block: Any) -> None:
    """Raises ValueError unless both are None or whole numbers of at least 1."""
    for name, block in (("row_block", row_block), ("vocabulary_block", vocabulary_block)):
        if block is not None:
            check_count(name, block)


def _shape(array):
    return list(array.shape)
