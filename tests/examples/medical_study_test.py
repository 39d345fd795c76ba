import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score

from examples import medical_study
from examples.medical_study import BENIGN, COST, MALIGNANT

PENALTIES, REPEATS = (0.1, 0.001), 2


@pytest.fixture(scope="module")
def tumours():
    return medical_study.tumours()


@pytest.fixture(scope="module")
def studies(tumours):
    return medical_study.study(*tumours, PENALTIES, REPEATS)


def test_every_tumour_is_held_out_once_a_repeat_with_its_share_of_either_class(studies):
    held_out, labels = studies[0].held_out, studies[0].labels
    assert held_out.shape == (10, 569)
    assert (held_out.reshape(2, 5, 569).sum(1) == 1).all()
    malignant = (held_out & (labels == MALIGNANT)).sum(1)
    assert malignant.min() >= 42 and malignant.max() <= 43  # of 212


def test_the_model_of_a_split_is_that_of_scikit_learn_without_the_held_out(tumours, studies):
    x, y = tumours
    for penalty, study in zip(PENALTIES, studies, strict=True):
        kept = ~study.held_out[7]
        # With two classes scikit-learn penalises the difference of the weights: C = 2 / (l2 · N).
        model = LogisticRegression(C=2 / (penalty * kept.sum()), tol=1e-8, max_iter=1000)
        model.fit(x[kept], y[kept])
        assert_allclose(study.probabilities()[7], model.predict_proba(x), atol=8e-3)


def test_the_temperature_is_fitted_to_what_the_other_splits_held_out(studies):
    study = studies[0]
    logits, T = np.zeros((569, 2)), study.T[7]
    others = [split for split in range(5, 10) if split != 7]
    for split in others:
        logits[study.held_out[split]] = study.logits[split, study.held_out[split]]
    there = ~study.held_out[7]

    def loss(log_T):
        scaled = logits[there] / np.exp(log_T)
        own = scaled[np.arange(there.sum()), study.labels[there]]
        return (special.logsumexp(scaled, 1) - own).mean()

    assert_allclose(T, np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3)).x), rtol=1e-3)


def test_the_cost_rule_finds_no_fewer_malignant_and_clears_no_more_benign(studies):
    """In every split: it is a lower threshold."""
    for study in studies:
        actions = study.actions()
        assert_array_equal(
            actions["least cost"] == MALIGNANT, study.probabilities()[..., 0] > 1 / 11
        )
        argmax, least = (study.recalls(actions[rule]) for rule in ("argmax", "least cost"))
        assert (least[:, MALIGNANT] >= argmax[:, MALIGNANT]).all()
        assert (least[:, BENIGN] <= argmax[:, BENIGN]).all()
        assert least[:, MALIGNANT].mean() > argmax[:, MALIGNANT].mean() + 0.01
        tempered = study.probabilities(tempered=True)
        expected = special.softmax(study.logits[7].astype(np.float64) / study.T[7], -1)
        assert_allclose(tempered[7], expected, atol=1e-6)


def test_recalls_and_costs_are_those_of_the_held_out(studies):
    study = studies[1]
    chosen = study.actions()["least cost"]
    recalls, costs = study.recalls(chosen), np.zeros(569)
    for split, held_out in enumerate(study.held_out):
        y, action = study.labels[held_out], chosen[split, held_out]
        assert recalls[split, MALIGNANT] == pytest.approx(recall_score(y, action, pos_label=0))
        assert recalls[split, BENIGN] == pytest.approx(recall_score(y, action))
        costs[held_out] += COST[y, action] / REPEATS
    assert_allclose(study.costs(chosen), costs)
