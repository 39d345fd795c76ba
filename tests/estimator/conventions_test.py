import numpy as np
import pytest

from softmax_jax import estimator


@pytest.mark.parametrize("num_classes, factor", [(2, 2), (3, 1), (10, 1)])
def test_C_and_l2_are_reciprocal(num_classes, factor):
    assert estimator.swap_C_and_l2(0.5, 40.0, num_classes) == pytest.approx(factor / 20)
    twice = estimator.swap_C_and_l2(0.05 * factor, 40.0, num_classes)
    assert twice == pytest.approx(0.5)
    assert estimator.swap_C_and_l2(np.inf, 40.0, num_classes) == 0
    assert estimator.swap_C_and_l2(0.0, 40.0, num_classes) == np.inf


@pytest.mark.parametrize("num_classes, rows", [(2, 1), (3, 3)])
def test_weights_in_both_conventions_give_the_same_probabilities(num_classes, rows):
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(4, num_classes)), rng.normal(size=num_classes)
    x = rng.normal(size=(5, 4))
    coef, intercept = estimator.to_scikit_learn(W, b)
    assert coef.shape == (rows, 4) and intercept.shape == (rows,)
    scores, logits = x @ coef.T + intercept, x @ W + b
    expected = logits - logits.mean(1, keepdims=True)
    expected = logits[:, 1:] - logits[:, :1] if rows == 1 else expected
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    W, b = estimator.from_scikit_learn(coef, intercept)
    again = x @ W + b
    np.testing.assert_allclose(again, logits - logits.mean(1, keepdims=True), atol=1e-12)
