import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from examples import survey
from examples.survey import NOT_FINITE, RIGHT, WRONG
from softmax_jax import losses

STABLE = ("softmax", "log_softmax", "cross_entropy")
NAIVE = ("naive_softmax", "cross_entropy_from_probabilities", "cross_entropy_by_definition")
FORMATS = pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
ON_CPU = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="other backends may keep subnormal numbers, or divide"
)
LOG_SUM = np.log(np.exp(survey.BELOW).sum())  # of the exponentials, where m is 0


@pytest.fixture(scope="module")
def found():
    return survey.survey(survey.SWEEPS)


def first_at(runs, verdict, above):
    """The m nearest to zero on one side of it that has the verdict."""
    ends = [abs(end) for run in runs if run.verdict == verdict for end in (run.first, run.last)]
    signs = [np.sign(run.last) for run in runs if run.verdict == verdict for _ in range(2)]
    return min(end for end, sign in zip(ends, signs, strict=True) if (sign > 0) == above)


@pytest.mark.parametrize("dtype", survey.SWEEPS)
@pytest.mark.parametrize("name", STABLE)
def test_the_stable_forms_are_right_everywhere(found, dtype, name):
    ends = survey.SWEEPS[dtype][[0, -1]]
    assert found[dtype, name] == ([(RIGHT, *ends)], [(RIGHT, *ends)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STABLE)
def test_the_stable_forms_are_right_to_a_few_units_in_the_last_place(dtype, name):
    value, gradient = survey.outputs(survey.FORMS[name], dtype, [-1e4, -100.0, 0.0, 100.0, 1e4])
    tolerance = 8 * float(jnp.finfo(dtype).eps)
    assert_allclose(value, np.broadcast_to(survey.exact(name)[0], value.shape), rtol=tolerance)
    assert_allclose(
        gradient, np.broadcast_to(survey.exact(name)[1], gradient.shape), rtol=tolerance
    )


@ON_CPU
@FORMATS
def test_naive_softmax_is_silently_wrong_before_it_is_nan_on_either_side(found, dtype):
    values, _ = found[dtype, "naive_softmax"]
    assert [run.verdict for run in values] == [NOT_FINITE, WRONG, RIGHT, WRONG, NOT_FINITE]
    assert values[2].first < 0 < values[2].last


@ON_CPU
@FORMATS
def test_naive_softmax_fails_where_the_reciprocal_of_the_sum_is_subnormal(found, dtype):
    """And where the smallest, then the largest exponential is; an infinite one is not needed."""
    values, _ = found[dtype, "naive_softmax"]
    step, tiny = np.diff(survey.SWEEPS[dtype])[0], float(np.log(jnp.finfo(dtype).tiny))
    within = {"rtol": 0, "atol": 1.01 * step}
    assert_allclose(first_at(values, WRONG, above=True), -tiny - LOG_SUM, **within)
    assert_allclose(first_at(values, WRONG, above=False), -(tiny - survey.BELOW[0]), **within)
    assert_allclose(first_at(values, NOT_FINITE, above=False), -tiny, **within)
    largest = float(np.log(np.float64(jnp.finfo(dtype).max)))
    assert_allclose(first_at(values, NOT_FINITE, above=True), largest, **within)


@ON_CPU
@FORMATS
@pytest.mark.parametrize("name", NAIVE)
def test_naive_gradients_fail_at_half_the_logit(found, dtype, name):
    """The derivative of a / s is -a · s⁻²: the power is subnormal, or that of a subnormal."""
    values, gradients = found[dtype, name]
    step, tiny = np.diff(survey.SWEEPS[dtype])[0], float(np.log(jnp.finfo(dtype).tiny))
    within = {"rtol": 0, "atol": 1.01 * step}
    assert [run.verdict for run in gradients] == [NOT_FINITE, RIGHT, WRONG, NOT_FINITE]
    assert_allclose(first_at(gradients, WRONG, above=True), -tiny / 2 - LOG_SUM, **within)
    assert_allclose(first_at(gradients, NOT_FINITE, above=False), -tiny / 2 + LOG_SUM, **within)
    right = next(run for run in values if run.verdict == RIGHT)
    assert right.last > first_at(gradients, WRONG, above=True) + 40


def test_float16_ends_earlier(found):
    values, gradients = found["float16", "naive_softmax"]
    assert first_at(values, NOT_FINITE, above=True) == pytest.approx(np.log(65504), abs=0.125)
    assert first_at(gradients, WRONG, above=True) < 6


@ON_CPU
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_logit_of_100_and_logits_below_minus_100_are_nan(dtype):
    for largest in 100.0, -101.0:
        value, _ = survey.outputs(survey.FORMS["naive_softmax"], dtype, [largest])
        assert np.isnan(value).all() if largest < 0 else np.isnan(value[0, 2])


@ON_CPU
def test_the_sum_is_finite_where_naive_softmax_is_zero():
    """It is multiplied with the reciprocal of the sum; a true division would still be right."""
    logits = jnp.array([86.0, 87.0, 88.0])
    exponentials = jnp.exp(logits)
    total = exponentials.sum()
    assert np.isfinite(total)
    assert_array_equal(losses.naive_softmax(logits), 0)
    divided = exponentials / jnp.full(3, total)
    assert_allclose(divided, survey.exact("softmax")[0], rtol=1e-5)


@ON_CPU
@pytest.mark.parametrize("axis", [0, 1])
def test_the_loss_is_right_where_its_gradient_lacks_the_push_on_the_other_classes(axis):
    """Of a batch, with the classes last or, as in a sweep, first."""
    logits = jnp.tile(jnp.asarray(60 + survey.BELOW, jnp.float32), (8, 1))
    labels, loss = jnp.full(8, survey.LABEL), losses.FROM_LOGITS[NAIVE[1]]
    logits = logits.T if axis == 0 else logits

    def total(o):
        return loss(o, labels, axis).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(logits)
    assert_allclose(value / 8, survey.exact(NAIVE[1])[0], rtol=1e-5)
    expected = np.broadcast_to([0.0, 0.0, -1.0], (8, 3))
    assert_allclose(gradient.T if axis == 0 else gradient, expected, atol=1e-6)


def test_verdicts_go_by_the_worst_number():
    values = np.array([[1.0, 2.0], [1.05, 2.0], [1.0, 2.3], [0.0, 2.0], [1.0, np.nan], [9, np.inf]])
    expected = [RIGHT, RIGHT, WRONG, WRONG, NOT_FINITE, NOT_FINITE]
    assert_array_equal(survey.verdicts(values, [1.0, 2.0]), expected)


def test_spans_are_runs_of_equal_verdicts():
    runs = survey.spans(np.arange(5.0), np.array([RIGHT, WRONG, WRONG, RIGHT, RIGHT]))
    assert runs == [(RIGHT, 0, 0), (WRONG, 1, 2), (RIGHT, 3, 4)]
