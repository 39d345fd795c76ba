"""What summary.json says of classes and costs is what counting by hand gives."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import precision_recall_fscore_support, recall_score

from softmax_jax import data, sweep
from softmax_jax.job import config, outputs
from softmax_jax.job.workdir import Workdir
from softmax_jax.sweep import inputs
from tests import flat

COST = ((0, 10), (1, 0))  # malignant, benign
WITH_REFERRAL = ((0, 10, 0.5), (1, 0, 0.5))


@pytest.fixture(scope="module")
def cancer():
    """Breast cancer, standardised: train and test."""
    splits = data.load("breast_cancer")
    moments = {"mean": splits.train.x.mean(0), "scale": splits.train.x.std(0)}
    return tuple(dataclasses.replace(part, **moments) for part in (splits.train, splits.val))


@pytest.fixture(scope="module")
def bootstrapped(cancer):
    """Two settings over 30 bootstrap draws: the counts, and the sweep."""
    counts = inputs.bootstrap_counts(len(cancer[0].y), 30)
    settings = sweep.grid(learning_rate=(0.001, 0.1))
    options = {"num_epochs": 2, "batch_size": 64, "resamples": counts}
    return counts, flat.fit(cancer[0], None, settings, **options)


@pytest.fixture(scope="module")
def probabilities(cancer, bootstrapped):
    return bootstrapped[1].best().classifier.predict_proba(cancer[1].x)


def actions_by_hand(p, threshold):
    return np.where(p[:, 0] > threshold, 0, 1)


def test_figures_by_class_are_those_of_scikit_learn(cancer, probabilities):
    found = outputs.class_metrics(probabilities, cancer[1])
    expected = precision_recall_fscore_support(cancer[1].y, probabilities.argmax(1))
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert_allclose(found[name], values)
    assert found["label_names"] == ("malignant", "benign")
    assert found["confusion"].sum() == len(cancer[1].y)


def test_of_many_classes_there_is_no_confusion_matrix_but_every_figure():
    names = tuple(map(str, range(101)))
    dataset = data.Dataset(np.zeros((101, 1)), np.arange(101, dtype=np.int32), 1.0, names, "")
    found = outputs.class_metrics(np.eye(101), dataset)
    assert found["confusion"] is None and found["recall"].tolist() == [1.0] * 101
    assert outputs.decision_lines({"classes": found, "costs": None, "resampled": None}) == []


def test_costs_are_those_of_the_decisions_of_either_rule(cancer, probabilities):
    """With a miss ten times a false alarm the least expected cost is a threshold of 1/11."""
    y, cost = cancer[1].y, np.array(COST)
    found = outputs.cost_metrics(probabilities, cancer[1], COST)
    costs = {}
    for rule, threshold in (("argmax", 1 / 2), ("bayes", 1 / 11)):
        actions = actions_by_hand(probabilities, threshold)
        costs[rule] = cost[y, actions]
        assert found[rule]["cost"]["mean"] == pytest.approx(costs[rule].mean())
        assert found[rule]["actions"][0, 1] == ((y == 0) & (actions == 1)).sum()
    saved = costs["argmax"] - costs["bayes"]
    assert found["saving"]["mean"] == pytest.approx(saved.mean())
    half = 1.96 * saved.std(ddof=1) / np.sqrt(len(y))
    assert_allclose(found["saving"]["interval"], saved.mean() + np.array([-half, half]), rtol=1e-3)


def test_actions_need_not_be_classes(cancer, probabilities):
    """A third action, referral, is taken where either class would cost more than 0.5 expected."""
    found = outputs.cost_metrics(probabilities, cancer[1], WITH_REFERRAL)
    referred = (probabilities[:, 0] > 0.05) & (probabilities[:, 0] < 0.5)
    assert found["bayes"]["actions"][:, 2].sum() == referred.sum() > 0
    assert found["argmax"]["actions"][:, 2].sum() == 0
    # Three actions that are no classes: of each class, argmax takes the one that suits it best.
    cheapest = outputs.cost_metrics(probabilities, cancer[1], ((5, 1, 0), (0, 3, 3)))
    assert cheapest["argmax"]["actions"].sum(0).tolist() == [
        (probabilities.argmax(1) == 1).sum(),
        0,
        (probabilities.argmax(1) == 0).sum(),
    ]


def test_each_resample_is_judged_on_what_it_held_out(cancer, bootstrapped):
    (train, _), (counts, result) = cancer, bootstrapped
    selected = result.best()
    found = outputs.resampled_costs(result, selected, train, counts, COST)
    costs, sensitivity = [], []
    for trial in np.flatnonzero(
        result.run.trials.setting == result.run.trials.setting[selected.trial]
    ):
        W, b, *_ = result.classifier(trial)
        p = softmax((train.x - train.mean) / train.scale @ W + b, axis=1)
        out = counts[:, result.run.trials.fold[trial]] == 0
        actions = actions_by_hand(p[out], 1 / 11)
        costs.append(np.array(COST)[train.y[out], actions].mean())
        sensitivity.append(recall_score(train.y[out], actions, pos_label=0))
    assert found["resamples"] == len(costs) == 30
    spread = found["bayes"]["cost"]
    assert_allclose([spread["mean"], spread["sd"]], [np.mean(costs), np.std(costs, ddof=1)])
    assert_allclose(spread["interval"], np.quantile(costs, (0.025, 0.975)))
    assert_allclose(found["bayes"]["recall"]["malignant"]["mean"], np.mean(sensitivity))
    expected = found["argmax"]["cost"]["mean"] - found["bayes"]["cost"]["mean"]
    assert_allclose(found["saving"]["mean"], expected)
    referring = outputs.resampled_costs(result, selected, train, counts, WITH_REFERRAL)
    assert "recall" not in referring["bayes"]


def test_test_is_judged_by_the_refitted_model_and_val_by_the_chosen_one(
    config, cancer, bootstrapped
):
    counts, result = bootstrapped
    chosen, other = result.best(), result.classifier(0)
    splits = data.Splits(*cancer, None, "", cancer[0].label_names, False)
    arguments = result, chosen, chosen._replace(classifier=other), counts
    config.cost_matrix = ()
    found = outputs.decision_fields(config, splits, *arguments)
    expected = outputs.class_metrics(chosen.classifier.predict_proba(cancer[1].x), cancer[1])
    assert_array_equal(found["classes"]["confusion"], expected["confusion"])
    assert (found["on"], found["costs"], found["resampled"]) == ("val", None, None)
    config.cost_matrix = COST
    tested = dataclasses.replace(splits, test=cancer[1])
    found = outputs.decision_fields(config, tested, *arguments)
    expected = outputs.cost_metrics(other.predict_proba(cancer[1].x), cancer[1], COST)
    assert found["on"] == "test" and found["costs"]["saving"] == expected["saving"]
    assert found["resampled"]["resamples"] == 30
    assert outputs.decision_fields(config, tested, *arguments[:-1])["resampled"] is None


def test_the_log_has_a_line_for_each_class_and_for_the_costs(config, cancer, bootstrapped):
    counts, result = bootstrapped
    splits = data.Splits(*cancer, None, "", cancer[0].label_names, False)
    config.cost_matrix = COST
    found = outputs.decision_fields(config, splits, result, result.best(), result.best(), counts)
    head, malignant, benign, cost, over = outputs.decision_lines(found)
    assert head.split() == ["precision", "recall", "f1", "examples"]
    assert malignant.split()[0] == "malignant" and malignant.split()[-1] == "43"
    assert f"{found['classes']['recall'][1]:.4f}" in benign
    assert f"{found['costs']['bayes']['cost']['mean']:.4f} by least expected cost" in cost
    assert over.startswith("over 30 resamples: ")


def test_the_dictionaries_are_json(cancer, probabilities, tmp_path):
    workdir = Workdir(tmp_path)
    never = np.tile(np.array([0.0, 1.0]), (len(cancer[1].y), 1))  # no precision of malignant
    workdir.write_json("a.json", outputs.class_metrics(never, cancer[1]))
    workdir.write_json("b.json", outputs.cost_metrics(probabilities, cancer[1], COST))
    assert '"precision": [\n    null,' in (tmp_path / "a.json").read_text()
    assert '"actions"' in (tmp_path / "b.json").read_text()


@pytest.mark.parametrize(
    "cost, what",
    [
        (COST, None),
        (WITH_REFERRAL, None),
        (3, "it is 3"),
        ((1, 2), "it is (1, 2)"),
        (((0, 1),), "each of the 2 classes"),
        (((0, 1), (1,)), "[2, 1] costs"),
        (((), ()), "[0, 0] costs"),
        (((0, float("inf")), (1, 0)), "one is inf"),
        (((0, "1"), (True, 0)), "one is '1'"),
    ],
)
def test_a_cost_matrix_that_does_not_fit_is_a_problem(cost, what):
    found = config.cost_problems(cost, ("malignant", "benign"))
    assert bool(found) == (what is not None)
    assert not found or what in found[0]


def test_a_class_that_no_resample_held_out_has_no_recall(cancer, bootstrapped):
    (train, _), (counts, result) = cancer, bootstrapped
    held_in = counts.copy()
    held_in[train.y == 0] = 1
    found = outputs.resampled_costs(result, result.best(), train, held_in, COST)
    assert found["bayes"]["recall"]["malignant"] is None
    assert_array_equal(list(found["bayes"]["recall"]["benign"]), ["mean", "sd", "interval"])
