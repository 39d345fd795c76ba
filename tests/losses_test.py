import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

from softmax_jax import losses

pytestmark = pytest.mark.numerical

DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
SIZES = pytest.mark.parametrize("size", [1.0, 50.0, 1e4])
LABELS = np.array([0, 3, 4, 2, 2, 1, 0, 4])


def logits_of(size, dtype):
    """Logits [8, 5] up to ±size, as the dtype has them, and the same numbers in float64."""
    drawn = np.random.default_rng(0).uniform(-size, size, (8, 5))
    drawn[0], drawn[1] = [size, -size, size, 0, -size], size
    logits = jnp.asarray(drawn, dtype)
    return logits, np.asarray(logits, np.float64)


def soft_labels(dtype):
    """Distributions [8, 5] with some zeros, as the dtype has them, and in float64."""
    drawn = np.random.default_rng(1).dirichlet(np.ones(5), 8)
    drawn[:4, 0] = 0
    y = jnp.asarray(drawn / drawn.sum(1, keepdims=True), dtype)
    return y, np.asarray(y, np.float64)


def close(actual, expected, dtype):
    tolerance = 8 * float(jnp.finfo(dtype).eps)
    assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance)


def sum_of(loss, *arguments):
    return loss(*arguments).sum()


# In the scores: of a loss, at (scores, labels).
gradient_of = jax.jit(jax.grad(sum_of, 1), static_argnums=0)
value_and_gradient_of = jax.jit(jax.value_and_grad(sum_of, 1), static_argnums=0)


@DTYPES
@SIZES
def test_softmax_and_log_softmax_equal_scipy(size, dtype):
    logits, exact = logits_of(size, dtype)
    assert losses.softmax(logits).dtype == losses.log_softmax(logits).dtype == dtype
    close(losses.softmax(logits), special.softmax(exact, -1), dtype)
    close(losses.log_softmax(logits), special.log_softmax(exact, -1), dtype)


@DTYPES
@SIZES
def test_cross_entropy_of_integer_labels_is_logsumexp_minus_the_labels_logit(size, dtype):
    logits, exact = logits_of(size, dtype)
    expected = special.logsumexp(exact, -1) - exact[np.arange(8), LABELS]
    close(losses.cross_entropy(logits, jnp.asarray(LABELS)), expected, dtype)


@DTYPES
@SIZES
def test_cross_entropy_of_soft_labels_is_minus_the_sum_of_y_log_softmax(size, dtype):
    logits, exact = logits_of(size, dtype)
    y, exact_y = soft_labels(dtype)
    expected = -(exact_y * special.log_softmax(exact, -1)).sum(-1)
    close(losses.cross_entropy(logits, y), expected, dtype)


@DTYPES
@SIZES
def test_gradient_of_cross_entropy_is_softmax_minus_y(size, dtype):
    """For soft labels, which may sum to a little more or less than one, it is Σy · softmax - y."""
    logits, exact = logits_of(size, dtype)
    gradient = gradient_of(losses.cross_entropy, logits, jnp.asarray(LABELS))
    close(gradient, special.softmax(exact, -1) - np.eye(5)[LABELS], dtype)
    y, exact_y = soft_labels(dtype)
    gradient = gradient_of(losses.cross_entropy, logits, y)
    close(gradient, exact_y.sum(-1, keepdims=True) * special.softmax(exact, -1) - exact_y, dtype)


@SIZES
def test_gradient_of_softmax_is_its_jacobian(size):
    logits, exact = logits_of(size, jnp.float32)
    p = special.softmax(exact[2])
    jacobian = jax.jit(lambda o: [jax.jacobian(f)(o) for f in (losses.softmax, losses.log_softmax)])
    of_softmax, of_log_softmax = jacobian(logits[2])
    close(of_softmax, np.diag(p) - np.outer(p, p), jnp.float32)
    close(of_log_softmax, np.eye(5) - p, jnp.float32)


@SIZES
def test_gradient_equals_central_differences_of_the_definition_in_float64(size):
    """Independent of the formula softmax - y: the loss itself, moved a little each way."""
    logits, exact = logits_of(size, jnp.float32)
    gradient = gradient_of(losses.cross_entropy, logits, jnp.asarray(LABELS))

    def loss(o):
        return (special.logsumexp(o, -1) - o[np.arange(8), LABELS]).sum()

    step = 1e-3
    for index in np.ndindex(exact.shape):
        move = np.zeros_like(exact)
        move[index] = step
        slope = (loss(exact + move) - loss(exact - move)) / (2 * step)
        assert abs(gradient[index] - slope) < 1e-5


@DTYPES
def test_forms_on_probabilities_equal_numpy(dtype):
    p, exact = soft_labels(dtype)
    p, exact, labels = p[4:], exact[4:], LABELS[4:]  # the rows without zeros
    expected = -np.log(exact[np.arange(4), labels])
    for form in losses.cross_entropy_from_probabilities, losses.cross_entropy_by_definition:
        close(form(p, jnp.asarray(labels)), expected, dtype)
        gradient = gradient_of(form, p, jnp.asarray(labels))
        close(gradient, -np.eye(5)[labels] / exact, dtype)
    y, exact_y = soft_labels(dtype)
    expected = -(exact_y[:4] * np.log(exact)).sum(-1)
    close(losses.cross_entropy_by_definition(p, y[:4]), expected, dtype)


def test_zero_times_log_zero_is_zero_and_so_is_its_gradient():
    y = p = jnp.array([[0.5, 0.5, 0.0]])
    assert_allclose(losses.cross_entropy_by_definition(p, y), np.log(2), rtol=1e-6)
    gradient = gradient_of(losses.cross_entropy_by_definition, p, y)
    assert_allclose(gradient, [[-1, -1, 0]])


def test_a_class_of_logit_minus_infinity_costs_nothing_where_the_label_is_another():
    logits, y = jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.array([[0.5, 0.5, 0.0]])
    for labels in y, jnp.array([1]):
        value, gradient = value_and_gradient_of(losses.cross_entropy, logits, labels)
        assert_allclose(value, np.log(2), rtol=1e-6)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_gradient_is_finite_wherever_the_loss_is(size):
    logits = jnp.array([[size, -size, 0.0], [-size, -size, -size], [size, size, 0.0]])
    for label in range(3):
        labels = jnp.full(3, label)
        finite = np.isfinite(losses.cross_entropy(logits, labels))
        gradient = gradient_of(losses.cross_entropy, logits, labels)
        assert np.isfinite(gradient[finite]).all()
        assert finite.all() or size == 3e38  # where even the difference of two logits overflows


def test_integer_labels_stand_for_their_one_hot_vectors():
    logits, _ = logits_of(5.0, jnp.float32)
    labels, one_hot = jnp.asarray(LABELS), jnp.asarray(np.eye(5, dtype=np.float32)[LABELS])
    for loss in losses.cross_entropy, losses.FROM_LOGITS["cross_entropy_by_definition"]:
        assert_allclose(loss(logits, labels), loss(logits, one_hot), rtol=1e-6)


@SIZES
def test_cross_entropy_equals_that_of_optax(size):
    """Which is what the concise chapter trains with, values and gradients.

    To within the rounding of the logits themselves: optax adds their maximum back before it
    subtracts the label's logit, and so loses the digits that ours keeps (log 2 is .69336 at 1e4).
    """
    logits, _ = logits_of(size, jnp.float32)
    y, _ = soft_labels(jnp.float32)
    for theirs, labels in (
        (optax.softmax_cross_entropy_with_integer_labels, jnp.asarray(LABELS)),
        (optax.softmax_cross_entropy, y),
    ):
        ours, rounding = losses.cross_entropy, size * float(jnp.finfo(jnp.float32).eps)
        assert_allclose(ours(logits, labels), theirs(logits, labels), rtol=1e-6, atol=rounding)
        gradients = (gradient_of(loss, logits, labels) for loss in (ours, theirs))
        assert_allclose(next(gradients), next(gradients), rtol=1e-6, atol=max(rounding, 1e-6))


def test_adding_a_constant_to_all_logits_changes_nothing():
    """Exactly nothing, where the sum is exact: integers and a power of two."""
    logits = jnp.asarray(np.random.default_rng(0).integers(-8, 9, (8, 5)), jnp.float32)
    for function in losses.softmax, losses.log_softmax:
        assert_array_equal(function(logits + 4096), function(logits))
    labels = jnp.asarray(LABELS)
    assert_array_equal(
        gradient_of(losses.cross_entropy, logits - 4096, labels),
        gradient_of(losses.cross_entropy, logits, labels),
    )


@DTYPES
@SIZES
def test_rows_sum_to_one(size, dtype):
    logits, _ = logits_of(size, dtype)
    close(losses.softmax(logits).astype(jnp.float32).sum(-1), 1, dtype)


@pytest.mark.parametrize("function", [losses.naive_softmax, losses.softmax, losses.log_softmax])
def test_softmax_over_the_first_axis_is_that_of_the_transpose(function):
    logits, _ = logits_of(5.0, jnp.float32)
    assert_allclose(function(logits.T, axis=0), function(logits).T, rtol=1e-6)


@pytest.mark.parametrize("name", losses.FROM_LOGITS)
def test_loss_over_the_first_axis_is_that_of_the_transpose(name):
    loss = losses.FROM_LOGITS[name]
    logits, _ = logits_of(5.0, jnp.float32)
    labels, (y, _) = jnp.asarray(LABELS), soft_labels(jnp.float32)
    assert_allclose(loss(logits.T, labels, axis=0), loss(logits, labels), rtol=1e-6)
    if name != "cross_entropy_from_probabilities":
        assert_allclose(loss(logits.T, y.T, axis=0), loss(logits, y), rtol=1e-6)


def test_the_losses_that_a_config_may_name_agree_on_moderate_logits():
    assert list(losses.FROM_LOGITS) == [
        "cross_entropy",
        "cross_entropy_from_probabilities",
        "cross_entropy_by_definition",
    ]
    logits, _ = logits_of(20.0, jnp.float32)
    of_name = {
        name: value_and_gradient_of(loss, logits, jnp.asarray(LABELS))
        for name, loss in losses.FROM_LOGITS.items()
    }
    for value, gradient in of_name.values():
        assert_allclose(value, of_name["cross_entropy"][0], rtol=1e-6)
        assert_allclose(gradient, of_name["cross_entropy"][1], atol=1e-6)


@pytest.mark.parametrize(
    "logits, naive",
    [
        ([80, 81, 82], [0.0900, 0.2447, 0.6652]),  # right
        ([86, 87, 88], [0, 0, 0]),  # their sum is finite; its reciprocal is subnormal: flushed
        ([87, 88, 89], [0, 0, np.nan]),  # now one exp is infinite, too
        ([-87, -86, -85], [0.0900, 0.2447, 0.6652]),  # right
        ([-89, -88, -87], [0, 0, 1]),  # below the smallest normal number: flushed to zero
        ([-102, -101, -100], [np.nan, np.nan, np.nan]),  # all of them are: 0 / 0
    ],
)
def test_naive_softmax_is_wrong_before_it_is_nan(logits, naive):
    """In float32 on XLA's CPU, which flushes subnormal numbers; the stable form is right."""
    if jax.default_backend() != "cpu":
        pytest.skip("other backends may keep subnormal numbers")
    logits = jnp.array(logits, jnp.float32)
    assert_allclose(losses.naive_softmax(logits), naive, atol=1e-4)
    assert_allclose(losses.softmax(logits), [0.0900, 0.2447, 0.6652], atol=1e-4)


# What every form must do with its labels, against NumPy in float64.

EVERY_LOSS = {
    "probabilities by indexing": losses.cross_entropy_from_probabilities,
    "probabilities by definition": losses.cross_entropy_by_definition,
    **losses.FROM_LOGITS,
}
EVERY_FORM = pytest.mark.parametrize("form", EVERY_LOSS.values(), ids=EVERY_LOSS)
LABEL_TYPES = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64]
PROPERTY = settings(max_examples=20, deadline=None, database=None)
COMPILED = {name: jax.jit(loss, static_argnums=2) for name, loss in losses.FROM_LOGITS.items()}


@st.composite
def problems(draw, least=-20.0, most=20.0):
    """Logits [N, C] in float32, labels [N] of any integer type, and which examples count."""
    N, C = draw(st.sampled_from([(1, 1), (3, 4)]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    logits = rng.uniform(least, most, (N, C)).astype(np.float32)
    if draw(st.booleans()):
        logits = logits.round()  # ties
    labels = rng.integers(0, C, N).astype(draw(st.sampled_from(LABEL_TYPES)))
    return logits, labels, rng.random(N) > 0.3


def exact_losses(logits, labels):
    exact = logits.astype(np.float64)
    return -special.log_softmax(exact, -1)[np.arange(len(labels)), labels]


@PROPERTY
@given(problems(), st.booleans(), st.sampled_from([0, -1]))
def test_forms_agree_with_numpy_for_every_label_type_eager_and_compiled(problem, compiled, axis):
    logits, labels, _ = problem
    expected = exact_losses(logits, labels)
    one_hot = np.eye(logits.shape[1], dtype=np.float32)[labels]
    laid = logits if axis == -1 else logits.T
    soft = one_hot if axis == -1 else one_hot.T
    for name, loss in losses.FROM_LOGITS.items():
        for y in (labels, soft) if name != "cross_entropy_from_probabilities" else (labels,):
            call = COMPILED[name] if compiled else loss
            found = call(jnp.asarray(laid), y, axis)
            assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=name)


@functools.partial(jax.jit, static_argnums=(0, 1))
def masked(loss, ignore_index, logits, labels, where):
    """The losses, and the gradient of their sum."""

    def total(logits):
        each = loss(logits, labels, ignore_index=ignore_index, where=where)
        return each.sum(), each

    gradient, each = jax.grad(total, has_aux=True)(logits)
    return each, gradient


@PROPERTY
@given(problems(), st.sampled_from([np.nan, np.inf]))
def test_masked_examples_have_loss_and_gradient_zero_in_every_form(problem, junk):
    logits, labels, there = problem
    labels = labels.astype(np.int32)
    expected = np.where(there, exact_losses(logits, labels), 0)
    logits, ignored = np.where(there[:, None], logits, junk), np.where(there, labels, -100)
    plain = special.softmax(np.where(there[:, None], logits, 0), -1)
    right = there[:, None] * (plain - np.eye(plain.shape[1])[labels])
    for loss in losses.FROM_LOGITS.values():
        for ignore_index, y, where in (
            (-100, ignored, None),
            (None, ignored, there),
            (None, labels, there),
        ):
            each, gradient = masked(loss, ignore_index, logits, y, where)
            assert_allclose(each, expected, rtol=2e-5, atol=1e-6)
            assert_allclose(gradient, right, atol=2e-6)


@EVERY_FORM
def test_soft_labels_may_be_masked_and_hold_nan_there(form):
    if form in (
        EVERY_LOSS["probabilities by indexing"],
        losses.FROM_LOGITS["cross_entropy_from_probabilities"],
    ):
        pytest.skip("it takes no soft labels")
    y = jnp.array([[0.5, 0.5], [jnp.nan, 0.0]])
    p = jnp.array([[0.25, 0.75], [jnp.nan, 0.5]])
    first = functools.partial(form, where=np.array([True, False]))
    assert first(p, y)[1] == 0 and first(p, y)[0] == form(p[:1], y[:1])[0]
    for gradient in jax.jit(jax.grad(lambda *a: first(*a).sum(), (0, 1)))(p, y):
        assert np.isfinite(gradient).all() and (gradient[1] == 0).all()
    with pytest.raises(ValueError, match="ignore_index is for integer labels"):
        form(p, y, ignore_index=-1)


@EVERY_FORM
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 1), np.int32),  # it was taken for soft labels
        np.zeros((1, 4), np.int32),
        np.zeros((4, 3), np.int32),  # one-hot, but integers
        np.zeros((4, 1), np.float32),
        np.zeros((4, 2), np.float32),
        np.zeros(4, np.float32),
        np.zeros(4, bool),
        np.zeros(1, np.int32),
        np.zeros(3, np.int32),
        np.zeros((), np.int32),
    ],
    ids=lambda wrong: f"{wrong.dtype}{list(wrong.shape)}",
)
def test_labels_of_another_shape_or_type_are_refused_also_while_tracing(form, axis, wrong):
    scores = np.full((4, 3) if axis else (3, 4), 1 / 3, np.float32)
    for call in (form, jax.jit(form, static_argnums=2)):
        with pytest.raises(ValueError, match="labels .*must be integers"):
            call(scores, wrong, axis)


def test_the_error_for_wrong_labels_names_what_they_are_and_the_remedy():
    with pytest.raises(ValueError, match=r"integers \[2\].*int32 \[2, 1\].*reshape\(\(2,\)\)"):
        losses.cross_entropy(jnp.zeros((2, 3)), jnp.array([[0], [1]]))
    with pytest.raises(ValueError, match=r"labels must be integers; .*\[1\]: nan. Leave"):
        losses.cross_entropy(jnp.zeros((2, 3)), np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="one-hot vectors, convert them to floats"):
        losses.cross_entropy(jnp.zeros((2, 3)), jnp.eye(3, dtype=int)[:2])


OUT_OF_RANGE = [(-1, np.int8), (-300, np.int32), (3, np.uint8), (127, np.int8), (65535, np.uint16)]


@EVERY_FORM
@pytest.mark.parametrize("label, dtype", OUT_OF_RANGE)
def test_a_label_out_of_range_is_an_error_or_nan_and_spoils_no_other(form, label, dtype):
    p = jnp.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    labels = np.array([1, label], dtype)
    for known in labels, jnp.asarray(labels):
        with pytest.raises(ValueError, match=rf"0\.\.2; 1 does not, .*\[1\]: {label}\."):
            form(p, known)
    values, pullback = jax.vjp(jax.jit(lambda p, labels=labels: traced(form, p, labels)), p)
    (gradient,) = pullback(jnp.ones(2))
    assert np.isnan(values).tolist() == [False, True]
    assert np.isfinite(gradient[0]).all() and np.isnan(gradient[1]).any()
    assert_allclose(values[0], form(p, np.array([1, 1]))[0], rtol=1e-6)


def traced(form, scores, labels):
    """The form at labels whose values cannot be known while tracing."""
    return form(scores, jax.lax.optimization_barrier(jnp.asarray(labels)))


def test_labels_of_narrow_types_do_not_wrap():
    """In uint8, 156 is -100, and in int8 C = 200 is -56."""
    logits = np.zeros((2, 300), np.float32)
    for name, loss in losses.FROM_LOGITS.items():
        labels = jnp.array([156, 3], jnp.uint8)
        for call in (loss, jax.jit(loss, static_argnames="ignore_index")):
            found = call(logits, labels, ignore_index=-100)
            assert_allclose(found, np.log(300), rtol=1e-5, err_msg=name)
            found = call(logits[:, :200], jnp.array([100, 3], jnp.int8))
            assert_allclose(found, np.log(200), rtol=1e-5, err_msg=name)
    with pytest.raises(ValueError, match="4294967296"):  # which int32 would make 0
        losses.cross_entropy(logits, np.array([2**32, 0]))


def test_where_may_leave_out_classes_as_in_optax():
    logits, labels = jnp.asarray(logits_of(5.0, jnp.float32)[0]), jnp.asarray(LABELS)
    where = np.random.default_rng(0).random(logits.shape) > 0.4
    where[np.arange(8), LABELS] = True
    where[3] = False
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels, where=where)
    for loss in losses.FROM_LOGITS.values():
        assert_allclose(loss(logits, labels, where=where), expected, rtol=1e-5, atol=1e-6)
        assert_allclose(loss(logits.T, labels, 0, where=where.T), expected, rtol=1e-5, atol=1e-6)
    examples = where.any(1, keepdims=True)  # as a column, which optax broadcasts
    found = losses.cross_entropy(logits, labels, where=examples)
    assert_allclose(found, losses.cross_entropy(logits, labels, where=examples[:, 0]))


@pytest.mark.parametrize("where", [np.ones(3, bool), np.ones(2), np.ones((3, 2), bool)])
def test_a_mask_of_another_shape_or_type_is_refused(where):
    with pytest.raises(ValueError, match=r"where must be booleans \[2\], or \[2, 3\]"):
        losses.cross_entropy(np.zeros((2, 3)), np.zeros(2, int), where=where)


gradient_in_labels = jax.jit(jax.grad(sum_of, 2), static_argnums=0)


@PROPERTY
@given(problems(least=-300.0, most=300.0), st.integers(0, 10**6))
def test_gradient_in_a_soft_label_is_minus_log_p_also_where_it_is_zero(problem, seed):
    logits, _, _ = problem
    rng = np.random.default_rng(seed)
    y = rng.dirichlet(np.ones(logits.shape[1]), len(logits)) * (rng.random(logits.shape) > 0.5)
    y, expected = y.astype(np.float32), -special.log_softmax(logits.astype(np.float64), -1)
    gradient = gradient_in_labels(losses.cross_entropy, logits, y)
    assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    p = special.softmax(logits.clip(-20, 20).astype(np.float64), -1).astype(np.float32)
    gradient = gradient_in_labels(losses.cross_entropy_by_definition, p, y)
    assert_allclose(gradient, -np.log(p.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_gradients_of_a_soft_label_of_zero_are_those_of_the_issue_and_stay_finite_beside_them():
    logits, y = jnp.array([10.0, 1.0, -2.0]), jnp.array([1.0, 0.0, 0.0])
    gradient = jax.grad(losses.cross_entropy, 1)(logits, y)
    assert_allclose(gradient, [1.2955e-4, 9.00013, 12.00013], rtol=1e-4)
    impossible = jnp.array([0.0, 0.0, -jnp.inf])
    both = jax.grad(losses.cross_entropy, (0, 1))(impossible, jnp.array([0.5, 0.5, 0.0]))
    assert_allclose(both[0], 0, atol=1e-7)
    assert_allclose(both[1], [np.log(2), np.log(2), np.inf], rtol=1e-6)


@PROPERTY
@given(st.floats(-85, -(2.0**-10), width=32), st.sampled_from([(1, 1), (1, 4), (2, 3), (3, 2)]))
def test_losses_far_below_one_keep_their_digits(below, sizes):
    """Of the largest logit, 0: log1p(rest) where it is alone, log(ties + rest) where it is not."""
    ties, others = sizes
    logits = np.array([0.0] * ties + [below] * others, np.float32)
    expected = np.log1p(ties - 1 + others * np.exp(np.float64(below)))
    for labels in 0, np.eye(len(logits), dtype=np.float32)[0]:
        assert_allclose(losses.cross_entropy(logits, labels), expected, rtol=3e-6)
        assert_allclose(COMPILED["cross_entropy"](logits, labels), expected, rtol=3e-6)
    rows = COMPILED["cross_entropy"](logits[None], np.array([0]), -1)
    assert_allclose(rows, expected, rtol=3e-6)
    assert_allclose(losses.log_softmax(logits)[0], -expected, rtol=3e-6)
    column = losses.cross_entropy(jnp.asarray(logits)[:, None], jnp.array([0]), axis=0)
    assert_allclose(column, expected, rtol=3e-6)


def test_second_derivatives_are_those_of_softmax():
    logits, labels = jnp.array([0.5, -1.0, 2.0]), jnp.array(1)
    p = special.softmax(np.asarray(logits, np.float64))
    for y in labels, jnp.array([0.25, 0.75, 0.0]):
        hessian = jax.jit(jax.hessian(losses.cross_entropy))(logits, y)
        assert_allclose(hessian, np.diag(p) - np.outer(p, p), atol=1e-6)


@EVERY_FORM
def test_masks_hold_for_traced_labels_too(form):
    """A label that is ignored, and NaN beside it, in a compiled program with its gradient."""
    p, labels = jnp.array([[0.25, 0.75], [jnp.nan, 0.5]]), np.array([1, -100])
    for options in {"ignore_index": -100}, {"where": np.array([True, False])}:
        call = jax.jit(jax.value_and_grad(lambda p, y, o=options: form(p, y, **o).sum()))
        value, gradient = call(p, labels)
        assert_allclose(value, form(p[:1], labels[:1])[0], rtol=1e-6)
        assert np.isfinite(gradient).all() and (gradient[1] == 0).all() and gradient[0].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_smoothed_labels_of_narrow_types_do_not_wrap(dtype):
    """Among 300 classes, a label below 44 is no other one 256 further."""
    labels = np.array([0, 43, 44, 200, 255])
    logits = np.random.default_rng(0).normal(size=(5, 300)).astype(np.float32)
    smooth = jax.jit(losses.smoothed(losses.cross_entropy, 0.25))
    soft = 0.75 * np.eye(300)[labels] + 0.25 / 300
    expected = -(soft * special.log_softmax(logits, -1)).sum(-1)
    assert_allclose(smooth(logits, labels.astype(dtype)), expected, rtol=1e-5)


def test_soft_labels_are_not_smoothed_again():
    with pytest.raises(ValueError, match="labels must be integers"):
        losses.smoothed(losses.cross_entropy, 0.1)(jnp.zeros((3, 3)), jnp.eye(3))
