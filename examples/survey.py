"""Where each form of the softmax and its losses is right: by calling it along the number line."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from softmax_jax import losses

BELOW = np.array([-2.0, -1.0, 0.0])  # the logits, from the largest of them
LABEL = 2  # the largest
RIGHT, WRONG, NOT_FINITE = range(3)
VERDICTS = ("right", "silently wrong", "infinite or NaN")
_WRONG_FROM = 0.1  # relative error

# By number format: the largest logits m to try. Steps that the format can represent.
SWEEPS = {
    "float16": np.arange(-30, 30.1, 0.125),
    "bfloat16": np.arange(-120, 120.1, 0.5),
    "float32": np.arange(-120, 120.1, 0.125),
    "float64": np.arange(-800, 800.1, 0.5),
}
FORMS = {
    "naive_softmax": losses.naive_softmax,
    "softmax": losses.softmax,
    "log_softmax": losses.log_softmax,
} | {
    name: functools.partial(lambda loss, o: loss(o, jnp.array(LABEL)), loss)
    for name, loss in losses.FROM_LOGITS.items()
}


class Span(NamedTuple):
    """Neighbouring m, first and last included, with the same verdict."""

    verdict: int
    first: float
    last: float


def outputs(form, dtype, largest):
    """(values [n, ...], gradients [n, ..., C]) of a form at each m, as float64 NumPy arrays.

    The gradient of a vector is its Jacobian. In one compiled program, as in training.
    """
    with jax.enable_x64(dtype == "float64"):
        logits = jnp.asarray(np.asarray(largest)[:, None] + BELOW, dtype)
        both = jax.jit(lambda o: (jax.vmap(form)(o), jax.vmap(jax.jacobian(form))(o)))
        return tuple(np.asarray(array, np.float64) for array in both(logits))


def exact(name):
    """What a form should return at any m, and its gradient: (value, gradient) in float64."""
    p, eye = special.softmax(BELOW), np.eye(len(BELOW))
    if name in ("naive_softmax", "softmax"):
        return p, np.diag(p) - np.outer(p, p)
    if name == "log_softmax":
        return special.log_softmax(BELOW), eye - p
    return -special.log_softmax(BELOW)[LABEL], p - eye[LABEL]


def verdicts(values, expected):
    """RIGHT, WRONG or NOT_FINITE for each of n values [n, ...], by the worst of its numbers."""
    numbers = values.reshape(len(values), -1)
    error = abs(numbers / np.ravel(expected) - 1).max(1)
    result = np.where(error <= _WRONG_FROM, RIGHT, WRONG)
    return np.where(np.isfinite(numbers).all(1), result, NOT_FINITE)


def spans(largest, verdict):
    """The runs of equal verdicts, from the smallest m to the largest: a list of `Span`."""
    starts = np.flatnonzero(np.diff(verdict, prepend=-1))
    ends = np.append(starts[1:], len(verdict)) - 1
    return [
        Span(int(verdict[start]), float(largest[start]), float(largest[end]))
        for start, end in zip(starts, ends, strict=True)
    ]


def survey(sweeps):
    """{(format, form): (spans of the value, spans of the gradient)} for every form."""
    found = {}
    for dtype, largest in sweeps.items():
        for name, form in FORMS.items():
            both = zip(outputs(form, dtype, largest), exact(name), strict=True)
            found[dtype, name] = tuple(spans(largest, verdicts(*pair)) for pair in both)
    return found
