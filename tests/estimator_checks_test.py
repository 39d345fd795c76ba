"""scikit-learn's own checks of both estimators, and the parameters that they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils import estimator_checks

from softmax_jax import estimator
from softmax_jax.estimator import SoftmaxRegression, SoftmaxRegressionCV
from tests.estimator_data import three_classes

# These compile shapes that no other test has.
WITH_SHAPES_OF_THEIR_OWN = {
    "check_classifiers_train",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
}
# Where a fold is short of a class, the splitter warns.
pytestmark = pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")


three = pytest.fixture(three_classes, scope="module")
KINDS = pytest.mark.parametrize("kind", [SoftmaxRegression, SoftmaxRegressionCV])


def name_of(check):
    return getattr(check, "func", check).__name__


def run(estimator):
    """{name: status} of every check; the first failure is raised."""
    results = estimator_checks.check_estimator(estimator, on_skip=None)
    return {result["check_name"]: result["status"] for result in results}


@pytest.mark.slow
@KINDS
def test_scikit_learn_checks_pass(kind):
    statuses = run(kind())
    assert len(statuses) > 50
    # Only what needs pandas, or an environment variable (below), may be left out.
    skipped = {name for name, status in statuses.items() if status != "passed"}
    assert skipped <= {
        "check_array_api_input",
        "check_array_api_mixed_inputs",
        "check_array_api_same_namespace",
        "check_classifier_data_not_an_array",
        "check_sample_weights_pandas_series",
    }


def test_quick_scikit_learn_checks_pass():
    count = 0
    for model, check in estimator_checks.estimator_checks_generator(SoftmaxRegression()):
        if name_of(check) not in WITH_SHAPES_OF_THEIR_OWN:
            try:
                check(model)
            except estimator_checks.SkipTest:
                continue
            count += 1
    assert count > 45


@pytest.mark.slow
@KINDS
def test_scikit_learn_check_of_linear_classifiers_passes(kind):
    check = estimator_checks.check_class_weight_balanced_linear_classifier
    assert check(kind.__name__, kind()) is None


@KINDS
def test_arrays_of_other_libraries_are_answered_in_kind(kind, monkeypatch):
    pytest.importorskip("array_api_strict")
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    passed = 0
    for check in estimator_checks._yield_array_api_checks(kind()):
        try:
            check(kind.__name__, kind())
        except estimator_checks.SkipTest:  # libraries that are not installed
            continue
        passed += 1
    assert passed >= 4


class Wrapped:
    """An array that is none of NumPy's, and says how to become one."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype, copy=copy)

    def __len__(self):
        return len(self.values)


@KINDS
@pytest.mark.parametrize("wrap", [Wrapped, jnp.asarray])
def test_other_arrays_are_taken_for_numpy_arrays_unless_told_otherwise(kind, wrap, three):
    x, y = three
    x, y = x.astype(np.float32), np.unique(y, return_inverse=True)[1]
    weights, expected = np.linspace(1, 2, 60, dtype=np.float32), kind(tol=1e-4)
    expected.fit(x, y, weights)
    model = kind(tol=1e-4).fit(wrap(x), wrap(y), wrap(weights))
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        found = getattr(model, method)(wrap(x))
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, getattr(expected, method)(x), rtol=1e-6)
    assert model.score(wrap(x), wrap(y)) == pytest.approx(expected.score(x, y))


def test_what_is_neither_true_nor_false_is_refused(three):
    with pytest.raises(ValueError, match="warm_start must be True or False"):
        SoftmaxRegression(warm_start="no").fit(*three)
    for Cs in (True, "x", [True], [1j]):
        with pytest.raises(ValueError, match="Cs must be"):
            SoftmaxRegressionCV(Cs=Cs).fit(*three)


@KINDS
@pytest.mark.parametrize(
    "name, value",
    [
        ("solver", "saga"),
        ("dtype", "float16"),
        ("dtype", np.float32),
        ("fit_intercept", "no"),
        ("fit_intercept", 1),
        ("tol", 0.0),
        ("tol", "1e-4"),
        ("tol", np.nan),
        ("max_iter", -1),
        ("max_iter", 10.0),
        ("class_weight", "even"),
    ],
)
def test_invalid_parameter_is_named(kind, name, value, three):
    with pytest.raises(ValueError, match=name):
        kind().set_params(**{name: value}).fit(*three)


PENALTIES = {
    SoftmaxRegression: {"C": (0.0, -1, np.nan, "1"), "l2": (-1e-3, np.inf)},
    SoftmaxRegressionCV: {"Cs": (0, [], [1, 0], [[1]]), "l2s": ([-1], 1)},
}


def test_refit_is_true_or_false(three):
    with pytest.raises(ValueError, match="refit must be True or False; got 'no'"):
        SoftmaxRegressionCV(refit="no").fit(*three)


@KINDS
def test_invalid_penalties_are_named(kind, three):
    for name, values in PENALTIES[kind].items():
        for value in values:
            with pytest.raises(ValueError, match=f"{name.removesuffix('s')}s? must be .* got"):
                kind().set_params(**{name: value}).fit(*three)


def test_two_names_for_one_penalty_are_refused(three):
    for model in (SoftmaxRegression(2.0, l2=0.1), SoftmaxRegressionCV([1.0], l2s=[0.1])):
        with pytest.raises(ValueError, match="one of them"):
            model.fit(*three)


def test_grids_are_given_or_made_from_their_size():
    Cs, none = estimator._check_penalties(3, None)
    np.testing.assert_allclose(Cs, [1e-4, 1, 1e4])
    assert none is None
    assert estimator._check_penalties([np.inf, 2], None)[0].tolist() == [np.inf, 2]
    none, l2s = estimator._check_penalties(10, (0, 0.5))
    assert none is None and l2s.tolist() == [0, 0.5]
