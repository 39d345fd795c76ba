"""The exercise: the logarithm is defined for positive numbers. What does each form do elsewhere?

    python -m examples.logarithm

From the root of the repository; takes 2 s. Prints two Markdown tables: what each form makes of
given probabilities, among them zeros and numbers that are no probabilities; and what each remedy
makes of logits whose softmax has a zero in float32, value and gradient in the logits.
"""

import jax
import jax.numpy as jnp
import numpy as np

from examples import output
from softmax_jax import losses

SMALL = 1e-7  # what the two remedies allow at least

# Name: (probabilities, soft label).
PROBABILITIES = {
    "0 on the label": ([0.0, 0.5, 0.5], [1.0, 0.0, 0.0]),
    "0 elsewhere": ([0.5, 0.5, 0.0], [1.0, 0.0, 0.0]),
    "0 on a part of a soft label": ([1.0, 0.0, 0.0], [0.5, 0.5, 0.0]),
    "negative on the label": ([-0.1, 0.6, 0.5], [1.0, 0.0, 0.0]),
    "negative elsewhere": ([0.5, 0.7, -0.2], [1.0, 0.0, 0.0]),
    "above 1 on the label": ([2.0, 0.5, 0.5], [1.0, 0.0, 0.0]),
}
# Name: logits. The label is the first; the softmax of -200 beside 0 is zero in float32.
LOGITS = {"0 on the label": [-200.0, 0.0, 0.0], "0 elsewhere": [0.0, 0.0, -200.0]}


def as_written(p, y):
    """-Σ y log ŷ, without a thought for 0 · log 0."""
    return -(y * jnp.log(p)).sum(-1)


def by_indexing(p, y):
    """-log ŷ[label], which needs a label that is one class."""
    return losses.cross_entropy_from_probabilities(p, y.argmax(-1))


def clipped(p, y):
    """-Σ y log max(ŷ, small)."""
    return as_written(jnp.maximum(p, SMALL), y)


def shifted(p, y):
    """-Σ y log(ŷ + small)."""
    return as_written(p + SMALL, y)


FORMS = {
    "Σ y log ŷ as written": as_written,
    "`cross_entropy_by_definition`": losses.cross_entropy_by_definition,
    "`cross_entropy_from_probabilities`": by_indexing,
    f"Σ y log max(ŷ, {SMALL:g})": clipped,
    f"Σ y log(ŷ + {SMALL:g})": shifted,
}


def of_probabilities(form, p, y):
    """(value, gradient in ŷ) of a form at probabilities and a soft label [C]."""
    value, gradient = jax.value_and_grad(FORMS[form])(jnp.array(p), jnp.array(y))
    return float(value), np.asarray(gradient)


def of_logits(form, logits):
    """(value, gradient in the logits) of a form on the stable softmax, or of `cross_entropy`."""
    loss = losses.cross_entropy if form == "`cross_entropy`" else _on_softmax(FORMS[form])
    value, gradient = jax.value_and_grad(loss)(jnp.array(logits), jnp.array([1.0, 0.0, 0.0]))
    return float(value), np.asarray(gradient)


def _on_softmax(loss):
    return lambda logits, y: loss(losses.softmax(logits), y)


def table_of_probabilities():
    """A row for each case, a column for each form that is no remedy: value; gradient."""
    forms = list(FORMS)[:3]
    rows = [
        (f"{name}: ŷ = {_text(p)}, y = {_text(y)}", *(_given(form, p, y) for form in forms))
        for name, (p, y) in PROBABILITIES.items()
    ]
    return output.markdown(("", *forms), rows)


def table_of_logits():
    """A row for each form, a column for each of the LOGITS: value; gradient."""
    heading = ("on softmax(o)", *(f"{name}: o = {_text(o)}" for name, o in LOGITS.items()))
    forms = [*FORMS, "`cross_entropy`"]
    rows = [(form, *(_both(of_logits(form, o)) for o in LOGITS.values())) for form in forms]
    return output.markdown(heading, rows)


def _given(form, p, y):
    if FORMS[form] is by_indexing and max(y) < 1:
        return "–"
    return _both(of_probabilities(form, p, y))


def _both(outcome):
    value, gradient = outcome
    return f"{value:.3g}; {_text(gradient)}"


def _text(numbers):
    return "[" + ", ".join(f"{number + 0.0:.3g}" for number in numbers) + "]"  # -0 + 0 is 0


def main():
    """Prints."""
    print("Given ŷ: value; gradient in ŷ\n")
    print(table_of_probabilities())
    print("\nGiven logits o: value; gradient in o\n")
    print(table_of_logits())


if __name__ == "__main__":
    main()
