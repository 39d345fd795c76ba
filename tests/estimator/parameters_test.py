import numpy as np
import pytest

from softmax_jax import estimator
from softmax_jax.estimator import SoftmaxRegression, SoftmaxRegressionCV


@pytest.mark.parametrize("kind", [SoftmaxRegression, SoftmaxRegressionCV])
@pytest.mark.parametrize(
    "name, value",
    [
        ("solver", "saga"),
        ("dtype", "float16"),
        ("dtype", np.float32),
        ("tol", 0.0),
        ("tol", "1e-4"),
        ("tol", np.nan),
        ("max_iter", 0),
        ("max_iter", 10.0),
        ("class_weight", "even"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(kind, name, value, three):
    with pytest.raises(ValueError, match=name):
        kind(**{name: value}).fit(*three)


@pytest.mark.parametrize(
    "name, value", [("C", 0.0), ("C", -1), ("C", np.nan), ("C", "1"), ("l2", -1e-3), ("l2", np.inf)]
)
def test_a_penalty_that_cannot_be_is_named(name, value, three):
    with pytest.raises(ValueError, match=f"{name} must be .* got"):
        SoftmaxRegression(**{name: value}).fit(*three)


@pytest.mark.parametrize(
    "name, value", [("Cs", 0), ("Cs", []), ("Cs", [1, 0]), ("Cs", [[1]]), ("l2s", [-1]), ("l2s", 1)]
)
def test_a_grid_that_cannot_be_is_named(name, value, three):
    with pytest.raises(ValueError, match=f"{name[:-1]}s? must be"):
        SoftmaxRegressionCV(**{name: value}).fit(*three)


def test_a_penalty_is_given_once(three):
    with pytest.raises(ValueError, match="one of them"):
        SoftmaxRegression(C=2.0, l2=0.1).fit(*three)
    with pytest.raises(ValueError, match="one of them"):
        SoftmaxRegressionCV(Cs=[1.0], l2s=[0.1]).fit(*three)


def test_the_grids():
    Cs, none = estimator.check_penalties(3, None)
    np.testing.assert_allclose(Cs, [1e-4, 1, 1e4])
    assert none is None
    assert estimator.check_penalties([np.inf, 2], None)[0].tolist() == [np.inf, 2]
    none, l2s = estimator.check_penalties(10, (0, 0.5))
    assert none is None and l2s.tolist() == [0, 0.5]
