import jax
import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from softmax_jax import estimator
from softmax_jax.estimator import SoftmaxRegression


def test_weights_are_those_of_the_sample_times_those_of_the_class(three):
    x, y = three
    own = np.linspace(0, 2, 60)
    by_class = {"apple": 2.0, "pear": 3.0}
    examples = estimator.read_examples(SoftmaxRegression(class_weight=by_class), x, y, own)
    factors = [by_class.get(name, 1.0) for name in y]
    np.testing.assert_allclose(examples.weights, own * factors)
    np.testing.assert_array_equal(examples.classes[examples.labels], y)


def test_balanced_classes_weigh_the_same(three):
    x, y = three
    own = np.linspace(0, 3, 60)
    examples = estimator.read_examples(SoftmaxRegression(class_weight="balanced"), x, y, own)
    sums = np.bincount(examples.labels, examples.weights)
    np.testing.assert_allclose(sums, own.sum() / 3)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"sample_weight": np.full(60, -1.0)}, "(?i)negative"),
        ({"sample_weight": np.zeros(60)}, "zero"),
        ({"sample_weight": np.ones(59)}, "sample_weight"),
        ({"y": np.ones(60)}, "got 1 class"),
        ({"y": np.linspace(0, 1, 60)}, "continuous"),
        ({"X": np.full((60, 3), np.nan)}, "NaN"),
    ],
)
def test_data_that_cannot_be_are_refused(change, words, two):
    arguments = {"X": two[0], "y": two[1], "sample_weight": None} | change
    with pytest.raises(ValueError, match=words):
        estimator.read_examples(SoftmaxRegression(), **arguments)


def test_one_class_with_any_weight_is_refused(two):
    x, y = two
    with pytest.raises(ValueError, match="got 1 class"):
        estimator.read_examples(SoftmaxRegression(), x, y, y == 3)


def test_sizes_are_rounded_up_by_a_16th_at_most():
    for size in range(1, 3000):
        rounded = estimator._rounded_up(size, 1)
        assert size <= rounded <= size * 17 / 16
    sizes = {estimator._rounded_up(size, 1) for size in range(1024, 2049)}
    assert len(sizes) == 17
    assert estimator._rounded_up(3, 32) == 32


@pytest.mark.parametrize("kind", [np.array, sparse.csr_array])
def test_what_fills_the_shape_up_weighs_nothing(kind, monkeypatch, three):
    monkeypatch.setattr(estimator, "_SPARSE_ROWS", 7)
    x, y = three
    x = x + 1e6  # far from zero, where a row of zeros would give logits of any size
    examples = estimator.read_examples(SoftmaxRegression(), kind(x), y, None)
    prepared = estimator.prepare_problem(SoftmaxRegression(), examples)
    features = np.asarray(prepared.features)
    assert features.shape == (33, 256) and features.dtype == np.float64
    np.testing.assert_allclose(features[:3, :60].T, x - x.mean(0), atol=1e-8)
    assert not features[3:32].any() and not np.asarray(prepared.weights)[60:].any()
    np.testing.assert_array_equal(features[:, 60:], features[:, :1].repeat(196, 1))


def test_a_fit_leaves_the_precision_of_others_alone(fitted):
    assert fitted.coef_.dtype == np.float64
    assert jax.numpy.zeros(1).dtype == np.float32


def test_too_few_iterations_are_said_with_the_gap_reached(three):
    with pytest.warns(
        ConvergenceWarning, match="max_iter=2 .* gap of at most .* tol=1e-06"
    ) as seen:
        model = SoftmaxRegression(100.0, max_iter=2).fit(*three)
    assert seen[0].filename == __file__
    assert f"{model.gap_bound_ / model.objective_:.1e}" in str(seen[0].message)
    assert model.n_iter_.tolist() == [2]


def test_the_end_of_the_arithmetic_is_said(three):
    with pytest.warns(ConvergenceWarning, match="float32 arithmetic .* dtype='float64'"):
        SoftmaxRegression(tol=1e-30, dtype="float32").fit(*three)


def test_separable_classes_without_a_penalty_are_said(two):
    x, y = two
    apart = x + 10 * (y == 7)[:, None]
    with pytest.warns(ConvergenceWarning, match="separable"):
        model = SoftmaxRegression(C=np.inf).fit(apart, y)
    assert model.score(apart, y) == 1 and model.gap_bound_ == np.inf and model.l2_ == 0
