import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from examples import logarithm

WRITTEN, DEFINITION, INDEXING, CLIPPED, SHIFTED = logarithm.FORMS
SUMS = pytest.mark.parametrize("form", [WRITTEN, DEFINITION, INDEXING])


def given(form, case):
    return logarithm.of_probabilities(form, *logarithm.PROBABILITIES[case])


@SUMS
def test_zero_on_the_label_costs_infinitely_much(form):
    value, gradient = given(form, "0 on the label")
    assert value == np.inf
    assert_array_equal(gradient, [-np.inf, 0, 0])


@pytest.mark.parametrize("case", ["0 elsewhere", "negative elsewhere"])
def test_the_sum_as_written_is_nan_where_another_class_has_no_logarithm(case):
    assert np.isnan(given(WRITTEN, case)[0])
    for form in DEFINITION, INDEXING:
        value, gradient = given(form, case)
        assert value == pytest.approx(np.log(2))
        assert_allclose(gradient, [-2, 0, 0])


def test_a_soft_label_on_a_class_of_probability_zero_costs_infinitely_much():
    value, gradient = given(DEFINITION, "0 on a part of a soft label")
    assert value == np.inf
    assert_array_equal(gradient, [-0.5, -np.inf, 0])


@SUMS
def test_what_is_no_probability_gives_nan_or_a_negative_loss(form):
    assert np.isnan(given(form, "negative on the label")[0])
    assert given(form, "above 1 on the label")[0] == pytest.approx(-np.log(2))


@SUMS
def test_a_probability_that_rounds_to_zero_leaves_no_gradient_to_learn_from(form):
    value, gradient = logarithm.of_logits(form, logarithm.LOGITS["0 on the label"])
    assert value == np.inf
    assert np.isnan(gradient).all()


@pytest.mark.parametrize("form", [CLIPPED, SHIFTED])
def test_the_remedies_make_the_loss_finite_and_its_gradient_zero(form):
    value, gradient = logarithm.of_logits(form, logarithm.LOGITS["0 on the label"])
    assert value == pytest.approx(-np.log(logarithm.SMALL))
    assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    "case, loss", [("0 on the label", 200 + np.log(2)), ("0 elsewhere", np.log(2))]
)
def test_the_form_from_logits_is_right_in_both(case, loss):
    value, gradient = logarithm.of_logits("`cross_entropy`", logarithm.LOGITS[case])
    assert value == pytest.approx(loss)
    logits = np.array(logarithm.LOGITS[case])
    p = np.exp(logits - logits.max())
    assert_allclose(gradient, p / p.sum() - [1, 0, 0], atol=1e-6)


def test_the_tables_say_so(capsys):
    logarithm.main()
    text = capsys.readouterr().out
    assert "| 0 elsewhere: ŷ = [0.5, 0.5, 0], y = [1, 0, 0] | nan; [-2, 0, nan] | 0.693;" in text
    assert "| `cross_entropy` | 201; [-1, 0.5, 0.5] | 0.693; [-0.5, 0.5, 0] |" in text
    assert " | – |" in text
