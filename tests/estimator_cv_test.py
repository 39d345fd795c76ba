"""SoftmaxRegressionCV: its scores, its choice, and the fit on all examples."""

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import accuracy_score, balanced_accuracy_score, make_scorer
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_val_score

from softmax_jax.estimator import SoftmaxRegression, SoftmaxRegressionCV
from tests.estimator_data import three_classes, two_classes

CS = [1e-3, 1.0, 1e3]
three = pytest.fixture(three_classes, scope="module")
two = pytest.fixture(two_classes, scope="module")


def theirs(**options):
    """scikit-learn's estimator, with the attributes that it has from 1.10 on."""
    more = {"tol": 1e-10, "max_iter": 1000} | options
    return LogisticRegressionCV(**more, l1_ratios=(0,), use_legacy_attributes=False)


@pytest.fixture(scope="module")
def chosen(three):
    return SoftmaxRegressionCV(CS, cv=3, tol=1e-9).fit(*three)


def test_fold_scores_match_models_fitted_one_by_one(three, chosen):
    assert chosen.scores_.shape == chosen.n_iter_.shape == (3, 3)
    for j, C in enumerate(CS):
        model = LogisticRegression(C=C, solver="newton-cg", tol=1e-8)
        expected = cross_val_score(model, *three, cv=3, scoring="neg_log_loss")
        np.testing.assert_allclose(chosen.scores_[:, j], expected, atol=1e-5)


def test_best_penalty_is_fitted_to_all_examples(three, chosen):
    means = chosen.scores_.mean(0)
    assert chosen.C_ == CS[means.argmax()] == 1.0
    alone = SoftmaxRegression(chosen.C_, tol=1e-9).fit(*three)
    assert chosen.l2_ == pytest.approx(alone.l2_)
    np.testing.assert_allclose(chosen.coef_, alone.coef_, atol=1e-3)
    assert chosen.gap_bound_ <= 1e-9 * chosen.objective_
    np.testing.assert_allclose(chosen.Cs_, CS)
    np.testing.assert_allclose(chosen.l2s_ * 60 * chosen.Cs_, 1)


def test_l2s_are_the_same_in_every_fold(three):
    x, y = three
    l2s = [0.5, 0.05, 0.005]
    model = SoftmaxRegressionCV(l2s=l2s, cv=3, tol=1e-9).fit(x, y)
    for j, l2 in enumerate(l2s):
        alone = SoftmaxRegression(l2=l2, tol=1e-9)
        expected = cross_val_score(alone, x, y, cv=3, scoring="neg_log_loss")
        np.testing.assert_allclose(model.scores_[:, j], expected, atol=1e-5)
    np.testing.assert_allclose(model.Cs_, 1 / (np.array(l2s) * 60))
    assert model.l2_ in l2s and model.C_ == pytest.approx(1 / (model.l2_ * 60))


def test_strongest_of_equal_penalties_wins_and_nan_never(three):
    x, y = three
    constant = SoftmaxRegressionCV([1.0, 0.01, 10.0], cv=3, scoring=lambda *_: 1.0).fit(x, y)
    assert constant.C_ == 0.01

    def undefined_for_strong_ones(estimator, *_):
        return np.nan if np.abs(estimator.coef_).max() < 0.1 else 0.0

    model = SoftmaxRegressionCV([0.001, 1.0, 10.0], cv=3, scoring=undefined_for_strong_ones)
    assert model.fit(x, y).C_ == 1.0


@pytest.mark.parametrize("scoring", ["accuracy", None, make_scorer(balanced_accuracy_score)])
def test_scoring_is_used_for_folds_and_score(three, scoring):
    x, y = three
    model = SoftmaxRegressionCV(CS, cv=3, scoring=scoring).fit(x, y)
    alone = SoftmaxRegression(CS[1])
    np.testing.assert_allclose(
        model.scores_[:, 1], cross_val_score(alone, x, y, cv=3, scoring=scoring)
    )
    right = y == model.predict(x)
    recalls = [right[y == name].mean() for name in model.classes_]
    expected = right.mean() if scoring in ("accuracy", None) else np.mean(recalls)
    assert model.score(x, y) == pytest.approx(expected)


def test_examples_without_weight_count_nowhere(three):
    x, y = three
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    noise = np.random.default_rng(0).permutation(y)
    splits = [
        (np.append(train, 60 + train), np.append(test, 60 + test))
        for train, test in folds.split(x, y)
    ]
    weights = np.repeat([2.0, 0.0], 60)
    clean = SoftmaxRegressionCV(CS, cv=folds).fit(x, y, np.full(60, 2.0))
    dirty = SoftmaxRegressionCV(CS, cv=splits)
    dirty.fit(np.append(x, x, 0), np.append(y, noise), weights)
    np.testing.assert_allclose(dirty.scores_, clean.scores_, rtol=1e-7)
    np.testing.assert_allclose(dirty.coef_, clean.coef_, rtol=1e-6)
    score = dirty.score(np.append(x, x, 0), np.append(y, noise), weights)
    assert score == pytest.approx(clean.score(x, y))


def test_groups_stay_together_and_folds_may_lack_a_class(three):
    x, y = three
    groups = np.unique(y, return_inverse=True)[1]  # every fold is one class
    model = SoftmaxRegressionCV(CS, cv=GroupKFold(3)).fit(sparse.csr_array(x), y, groups=groups)
    # A class that a fold has never seen gets a probability of about 0.
    assert np.isfinite(model.scores_).all() and model.scores_.max() < -10
    np.testing.assert_allclose(model.coef_, SoftmaxRegression(model.C_).fit(x, y).coef_, atol=0.01)


@pytest.mark.parametrize(
    "scoring, labels",
    [
        ("neg_brier_score", "aabbcc"),
        ("accuracy", "aabbcc"),
        ("neg_brier_score", "abbabb"),
        ("neg_log_loss", "abbabb"),
    ],
)
def test_scores_are_those_of_scikit_learn_where_a_fold_lacks_a_class(scoring, labels):
    x, y = np.array([[0.0], [1], [2], [2.5], [3], [5]]), np.array(list(labels))
    options = {"Cs": [1.0], "cv": KFold(3), "scoring": scoring}
    expected = theirs(**options).fit(x, y).scores_[:, 0]
    model = SoftmaxRegressionCV(**options, tol=1e-9).fit(x, y)
    np.testing.assert_allclose(model.scores_, expected, rtol=1e-3)


def test_scorer_that_fails_loses_its_scores_alone(three):
    x, y = three

    def fails_in_one_fold(estimator, _, labels):
        if "pear" in labels[:2]:
            raise RuntimeError("no pears")
        return -np.abs(estimator.coef_).max()

    assert np.isfinite(SoftmaxRegressionCV(CS, cv=3, scoring="f1_macro").fit(x, y).scores_).all()
    model = SoftmaxRegressionCV(CS, cv=KFold(3), scoring=fails_in_one_fold)
    starts = [y[fold : fold + 2] for fold in (0, 20, 40)]
    lost = ["pear" in start for start in starts]
    assert 0 < sum(lost) < 3
    with pytest.warns(UserWarning, match=f"in {3 * sum(lost)} of 9 fits, .*no pears"):
        model.fit(x, y)
    np.testing.assert_array_equal(np.isnan(model.scores_).all(1), lost)
    assert model.C_ == CS[0]
    with pytest.raises(ValueError, match="No penalty can be chosen: .* 9 of 9 fits.*by zero"):
        SoftmaxRegressionCV(CS, cv=3, scoring=lambda *_: 1 / 0).fit(x, y)


def test_training_fold_of_one_class_is_named(three):
    x, y = three
    order = np.argsort(y == "pear", kind="stable")
    two = np.where(y == "pear", "pear", "other")[order]
    splits = [(np.arange(20), np.arange(20, 60)), (np.arange(60), np.arange(20))]
    with pytest.raises(ValueError, match=r"Fold 0 trains on .* 1 class \('other'\).*Shuffle"):
        SoftmaxRegressionCV(CS, cv=splits).fit(x[order], two)


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("data", ["two", "three"])
def test_attributes_are_those_of_scikit_learn(data, intercept, refit, request):
    x, y = request.getfixturevalue(data)
    options = {"cv": 3, "scoring": "neg_log_loss", "refit": refit, "fit_intercept": intercept}
    expected = theirs(Cs=CS, **options).fit(x, y)
    model = SoftmaxRegressionCV(CS, **options, tol=1e-12).fit(x, y)
    for name in ("coefs_paths_", "scores_"):  # theirs have an axis for L1 ratios
        np.testing.assert_allclose(getattr(model, name), getattr(expected, name)[:, 0], atol=1e-5)
    for name in ("coef_", "intercept_", "C_", "Cs_"):
        np.testing.assert_allclose(getattr(model, name), getattr(expected, name), atol=1e-5)
    assert np.isfinite(model.objective_) == refit
    factor = 2 if data == "two" else 1
    assert model.l2_ == pytest.approx(factor / (model.C_ * 60))


def test_mean_of_the_folds_models_leaves_out_a_fold_without_scores(three):
    x, y = three

    def fails_in_one_fold(estimator, features, _):
        if (features == x[0]).all(1).any():
            raise RuntimeError("no score")
        return -np.abs(estimator.coef_).max()

    with pytest.warns(UserWarning, match="no score"):
        model = SoftmaxRegressionCV(CS, cv=KFold(3), scoring=fails_in_one_fold, refit=False)
        model.fit(x, y)
    np.testing.assert_allclose(model.coef_, model.coefs_paths_[1:, 0, :, :-1].mean(0), atol=1e-12)
    assert model.C_ == CS[0]


def test_scores_hold_where_the_sum_of_the_weights_overflows(three):
    weights = np.random.default_rng(0).uniform(1, 1.7, 60)
    plain = SoftmaxRegressionCV(l2s=[0.5, 0.01], cv=3).fit(*three, weights)
    heavy = SoftmaxRegressionCV(l2s=[0.5, 0.01], cv=3).fit(*three, 1e308 * weights)
    np.testing.assert_allclose(heavy.scores_, plain.scores_, rtol=1e-6)
    assert heavy.l2_ == plain.l2_


def outcome(kind, scoring, cv, **fit):
    """The scores of the folds, or the error, of scikit-learn's estimator or this one."""
    x, y = three_classes()
    model = kind(Cs=[1.0], scoring=scoring, cv=cv)
    try:
        return np.ravel(model.fit(x, y, **fit).scores_).round(6).tolist()
    except (TypeError, ValueError) as error:
        return type(error).__name__, str(error).replace(type(model).__name__, "")


WEIGHTS, GROUPS = np.linspace(0.1, 3, 60), np.arange(60) % 6


@pytest.mark.parametrize(
    "request_, cv, fit",
    [
        (None, 3, {"sample_weight": WEIGHTS}),
        (True, 3, {"sample_weight": WEIGHTS}),
        (False, 3, {"sample_weight": WEIGHTS}),
        ("own", 3, {"sample_weight": WEIGHTS, "own": WEIGHTS**2}),
        (None, GroupKFold(3), {"groups": GROUPS}),
        (None, 3, {"groups": GROUPS}),
        (None, 3, {"unknown": GROUPS}),
        (None, 3, {}),
    ],
    ids=["unset", "wanted", "declined", "alias", "groups", "groups for none", "unknown", "nothing"],
)
def test_metadata_are_routed_as_by_scikit_learn(request_, cv, fit):
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(accuracy_score)
        if request_ is not None:
            scorer = scorer.set_score_request(sample_weight=request_)
        expected = outcome(theirs, scorer, cv, **fit)
        assert outcome(SoftmaxRegressionCV, scorer, cv, **fit) == expected
        routes = [
            kind(scoring=scorer, cv=cv).get_metadata_routing()._serialize()
            for kind in (theirs, SoftmaxRegressionCV)
        ]
        assert routes[0] == routes[1]


def test_score_passes_on_what_its_scorer_requests(three):
    x, y = three
    with sklearn.config_context(enable_metadata_routing=True):
        for wanted in (True, False):
            scorer = make_scorer(accuracy_score).set_score_request(sample_weight=wanted)
            model = SoftmaxRegressionCV([1.0], cv=3, scoring=scorer).fit(x, y)
            if wanted:
                right = model.predict(x) == y
                expected = np.average(right, weights=WEIGHTS)
                assert model.score(x, y, sample_weight=WEIGHTS) == pytest.approx(expected)
            else:
                with pytest.raises(TypeError, match="not routed"):
                    model.score(x, y, sample_weight=WEIGHTS)
    with pytest.raises(ValueError, match="enable_metadata_routing"):
        SoftmaxRegressionCV([1.0], cv=3).fit(x, y, unknown=WEIGHTS)


def test_scores_that_are_all_nan_are_said():
    x, y = three_classes()
    model = SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=3, scoring=lambda *_: np.nan)
    with pytest.warns(UserWarning, match="Every score is NaN, so that the strongest penalty"):
        assert model.fit(x, y).C_ == 0.1


@pytest.mark.parametrize("data", [two_classes, three_classes])
@pytest.mark.parametrize("refit", [True, False])
def test_l1_ratios_are_chosen_as_scikit_learn_does(data, refit):
    x, y = data()
    x = np.append(x, np.random.default_rng(0).normal(size=(60, 3)), 1)
    options = {"Cs": [0.2, 0.5, 2.0], "l1_ratios": np.array([0, 0.5, 1]), "cv": 3, "refit": refit}
    options |= {"scoring": "neg_log_loss", "max_iter": 20_000}
    theirs = {"solver": "saga", "tol": 1e-7, "use_legacy_attributes": False, "random_state": 0}
    expected = LogisticRegressionCV(**theirs, **options).fit(x, y)
    model = SoftmaxRegressionCV(tol=1e-9, **options).fit(x, y)
    np.testing.assert_allclose(model.scores_, expected.scores_, atol=1e-4)
    assert model.coefs_paths_.shape == expected.coefs_paths_.shape
    np.testing.assert_allclose(
        model.coefs_paths_[..., :-1], expected.coefs_paths_[..., :-1], atol=5e-3
    )
    assert model.n_iter_.shape == expected.n_iter_.shape
    assert model.C_ == pytest.approx(expected.C_)
    assert model.l1_ratio_ == pytest.approx(expected.l1_ratio_)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=5e-3)
    np.testing.assert_array_equal(model.l1_ratios_, [0.0, 0.5, 1.0])


@pytest.mark.parametrize("ratio", [-0.1, 1.1, np.nan, "1", None])
def test_an_l1_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match="l1_ratio must be a number from 0 to 1"):
        SoftmaxRegression(l1_ratio=ratio).fit(*three_classes())
    with pytest.raises(ValueError, match="l1_ratios must be"):
        SoftmaxRegressionCV(l1_ratios=[0.5, ratio]).fit(*three_classes())


def test_an_l1_ratio_needs_a_C():
    with pytest.raises(ValueError, match="with l2 there is none: give C"):
        SoftmaxRegression(l2=0.1, l1_ratio=0.5).fit(*three_classes())
    with pytest.raises(ValueError, match="with l2 there is none: give C"):
        SoftmaxRegressionCV(l2s=[0.1], l1_ratios=[0.5]).fit(*three_classes())
