import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
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
    gradient = jax.grad(sum_of, 1)(losses.cross_entropy, logits, jnp.asarray(LABELS))
    close(gradient, special.softmax(exact, -1) - np.eye(5)[LABELS], dtype)
    y, exact_y = soft_labels(dtype)
    gradient = jax.grad(sum_of, 1)(losses.cross_entropy, logits, y)
    close(gradient, exact_y.sum(-1, keepdims=True) * special.softmax(exact, -1) - exact_y, dtype)


@SIZES
def test_gradient_of_softmax_is_its_jacobian(size):
    logits, exact = logits_of(size, jnp.float32)
    p = special.softmax(exact[2])
    close(jax.jacobian(losses.softmax)(logits[2]), np.diag(p) - np.outer(p, p), jnp.float32)
    expected = np.eye(5) - p
    close(jax.jacobian(losses.log_softmax)(logits[2]), expected, jnp.float32)


@SIZES
def test_gradient_equals_central_differences_of_the_definition_in_float64(size):
    """Independent of the formula softmax - y: the loss itself, moved a little each way."""
    logits, exact = logits_of(size, jnp.float32)
    gradient = jax.grad(sum_of, 1)(losses.cross_entropy, logits, jnp.asarray(LABELS))

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
        gradient = jax.grad(sum_of, 1)(form, p, jnp.asarray(labels))
        close(gradient, -np.eye(5)[labels] / exact, dtype)
    y, exact_y = soft_labels(dtype)
    expected = -(exact_y[:4] * np.log(exact)).sum(-1)
    close(losses.cross_entropy_by_definition(p, y[:4]), expected, dtype)


def test_zero_times_log_zero_is_zero_and_so_is_its_gradient():
    y = p = jnp.array([[0.5, 0.5, 0.0]])
    assert_allclose(losses.cross_entropy_by_definition(p, y), np.log(2), rtol=1e-6)
    gradient = jax.grad(sum_of, 1)(losses.cross_entropy_by_definition, p, y)
    assert_allclose(gradient, [[-1, -1, 0]])


def test_a_class_of_logit_minus_infinity_costs_nothing_where_the_label_is_another():
    logits, y = jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.array([[0.5, 0.5, 0.0]])
    for labels in y, jnp.array([1]):
        value, gradient = jax.value_and_grad(sum_of, 1)(losses.cross_entropy, logits, labels)
        assert_allclose(value, np.log(2), rtol=1e-6)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_gradient_is_finite_wherever_the_loss_is(size):
    logits = jnp.array([[size, -size, 0.0], [-size, -size, -size], [size, size, 0.0]])
    for label in range(3):
        labels = jnp.full(3, label)
        finite = np.isfinite(losses.cross_entropy(logits, labels))
        gradient = jax.grad(sum_of, 1)(losses.cross_entropy, logits, labels)
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
        gradients = (jax.grad(sum_of, 1)(loss, logits, labels) for loss in (ours, theirs))
        assert_allclose(next(gradients), next(gradients), rtol=1e-6, atol=max(rounding, 1e-6))


def test_adding_a_constant_to_all_logits_changes_nothing():
    """Exactly nothing, where the sum is exact: integers and a power of two."""
    logits = jnp.asarray(np.random.default_rng(0).integers(-8, 9, (8, 5)), jnp.float32)
    for function in losses.softmax, losses.log_softmax:
        assert_array_equal(function(logits + 4096), function(logits))
    labels = jnp.asarray(LABELS)
    gradient = jax.grad(sum_of, 1)
    assert_array_equal(
        gradient(losses.cross_entropy, logits - 4096, labels),
        gradient(losses.cross_entropy, logits, labels),
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
        name: jax.value_and_grad(sum_of, 1)(loss, logits, jnp.asarray(LABELS))
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
