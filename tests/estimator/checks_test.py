"""scikit-learn's own checks of an estimator, with no failure expected."""

import pytest
from sklearn.utils import estimator_checks

from softmax_jax.estimator import SoftmaxRegression, SoftmaxRegressionCV

# These compile shapes that no other test has.
WITH_SHAPES_OF_THEIR_OWN = {
    "check_classifiers_train",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
}
# Where a fold is short of a class, the splitter warns.
pytestmark = pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")


def name_of(check):
    return getattr(check, "func", check).__name__


def run(estimator):
    """{name: status} of every check; the first failure is raised."""
    results = estimator_checks.check_estimator(estimator, on_skip=None)
    return {result["check_name"]: result["status"] for result in results}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SoftmaxRegression, SoftmaxRegressionCV])
def test_all_checks_pass(kind):
    statuses = run(kind())
    assert len(statuses) > 50
    # Only what needs pandas, or an environment variable, may be left out.
    skipped = {name for name, status in statuses.items() if status != "passed"}
    assert skipped <= {
        "check_array_api_input",
        "check_classifier_data_not_an_array",
        "check_sample_weights_pandas_series",
    }


def test_the_quick_checks_pass():
    count = 0
    for estimator, check in estimator_checks.estimator_checks_generator(SoftmaxRegression()):
        if name_of(check) not in WITH_SHAPES_OF_THEIR_OWN:
            try:
                check(estimator)
            except estimator_checks.SkipTest:
                continue
            count += 1
    assert count > 45


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SoftmaxRegression, SoftmaxRegressionCV])
def test_the_check_of_linear_classifiers_passes(kind):
    check = estimator_checks.check_class_weight_balanced_linear_classifier
    assert check(kind.__name__, kind()) is None
