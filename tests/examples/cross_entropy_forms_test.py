import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from examples import cross_entropy_forms as forms
from softmax_jax import losses

NUM_CLASSES, BATCH_SIZE = 2000, 8


@pytest.fixture(scope="module")
def rows():
    return forms.measure(NUM_CLASSES, BATCH_SIZE, repeats=1)


def extra(rows, given, form):
    """The memory beside scores and gradient, in units of the scores."""
    (row,) = (row for row in rows if (row.given, row.form) == (given, form))
    return row.extra_bytes / (4 * BATCH_SIZE * NUM_CLASSES)


def test_every_form_is_measured(rows):
    assert [row.form for row in rows] == [*forms.GIVEN_PROBABILITIES, *forms.GIVEN_LOGITS]
    assert all(row.seconds > 0 for row in rows)


@pytest.mark.parametrize("given", ["probabilities", "logits"])
def test_the_definition_needs_memory_as_large_as_the_scores(rows, given):
    """Whether the labels are integers or not."""
    for labels in "integer", "soft":
        assert extra(rows, given, f"definition, {labels} labels") > 0.9


def test_indexing_and_the_form_from_logits_do_not(rows):
    assert extra(rows, "probabilities", "indexing") < 0.1
    assert extra(rows, "logits", "from logits, integer labels") < 0.1
    assert extra(rows, "logits", "from logits, soft labels") > 0.9


def test_the_tables_have_a_row_for_each_form_and_a_column_for_each_size(rows):
    rows = [*rows, *(row._replace(num_classes=10) for row in rows)]
    lines = forms.table(rows, "logits", lambda row: f"{row.num_classes}").splitlines()
    assert lines[0] == "| given logits | C = 10 | C = 2,000 |"
    assert lines[2:] == [f"| {form} | 10 | 2000 |" for form in forms.GIVEN_LOGITS]


def test_the_picture_has_a_line_for_each_form(rows):
    seconds, memory = forms.picture(rows).axes
    assert len(seconds.get_lines()) == len(memory.get_lines()) == len(forms.GIVEN_LOGITS)
    unit = list(forms.GIVEN_LOGITS).index("from logits, integer labels")
    assert seconds.get_lines()[unit].get_ydata() == 1


def smoothed(labels, num_classes):
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), 0.1)


def distilled(labels, num_classes):
    teacher = jax.random.normal(jax.random.key(1), (len(labels), num_classes))
    return losses.softmax((teacher + 3 * jax.nn.one_hot(labels, num_classes)) / 2)


SUMS = (
    optax.softmax_cross_entropy,
    losses.cross_entropy,
    losses.FROM_LOGITS["cross_entropy_by_definition"],
)


@jax.jit
def of_each_sum(logits, y):
    """(value per example, gradient of their sum) of each form for soft labels."""
    return [
        (loss(logits, y), jax.grad(lambda o, loss=loss: loss(o, y).sum())(logits)) for loss in SUMS
    ]


@pytest.mark.parametrize("soften", [smoothed, distilled])
def test_soft_labels_need_the_sum_and_every_form_of_it_equals_that_of_optax(soften):
    logits = jax.random.normal(jax.random.key(0), (16, 10))
    y = soften(jnp.arange(16) % 10, 10)
    (expected, _), *ours = of_each_sum(logits, y)
    for value, gradient in ours:
        assert_allclose(value, expected, rtol=1e-6)
        assert_allclose(gradient, losses.softmax(logits) - y, atol=1e-6)
    by_index = losses.cross_entropy(logits, y.argmax(-1))
    assert np.abs(by_index - expected).max() > 0.1
