"""What a job reports, in words and in files, is what counting by hand gives."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import precision_recall_fscore_support, recall_score

from softmax_jax import data, metrics, sweep
from softmax_jax.classifier import load
from softmax_jax.job import outputs
from softmax_jax.job.workdir import Workdir
from softmax_jax.sweep import inputs

# The summary, the closing lines and params.npz.


def test_params_file_restores_the_classifier(result, splits, tmp_path):
    classifier = result.best().classifier
    outputs.write_params(Workdir(tmp_path), classifier)
    again = load(tmp_path)
    assert_array_equal(again.logits(splits.val.x), classifier.logits(splits.val.x))
    assert again.label_names == splits.label_names
    with np.load(tmp_path / "params.npz", allow_pickle=False) as params:
        assert set(params) == {"W", "b", "mean", "scale", "label_names"}


def test_summary_counts_examples_trials_and_divergence(config, result, splits):
    metrics = {name: values.copy() for name, values in result.metrics.items()}
    metrics["train_loss"][3, 1:] = np.nan
    broken = dataclasses.replace(result, metrics=metrics)
    summary = outputs.summary_fields(config, splits, broken, broken.best(), None, {"data": 1.23456})
    assert summary["num_examples"] == {"train": 1437, "val": 360, "test": 360}
    assert (summary["trials"], summary["diverged"], summary["val_is_test"]) == (8, 1, True)
    assert summary["seconds"] == {"data": 1.235}
    assert summary["selected"]["trial"] == broken.best().trial
    assert summary["selected"]["val_loss"] == broken.best().metrics["val_loss"]


def test_test_metrics_on_examples_of_val_are_called_optimistic(config, result, splits, capsys):
    selected = result.best()
    test = selected.classifier.test(splits.test)
    outputs.say_result(config, splits, result, selected, test)
    said = capsys.readouterr().out
    assert "optimistic" in said and f"{test['accuracy']:.4f}" in said
    outputs.say_result(config, splits, result, selected._replace(refit=True), test)
    assert "optimistic" not in capsys.readouterr().out  # it was not chosen on val
    apart = dataclasses.replace(splits, val_is_test=False)
    outputs.say_result(config, apart, result, selected, test)
    assert "optimistic" not in capsys.readouterr().out


def test_hints_and_a_loss_above_guessing_are_warnings(config, result, splits, capsys):
    selected = result.best()
    hints = ["learning_rate = 1 is the largest: try 3.", "No trial got as far as its patience."]
    worse = selected._replace(metrics=selected.metrics | {"val_loss": 2.4}, hints=hints)
    outputs.say_result(config, splits, result, worse, None)
    warnings = capsys.readouterr().err
    assert [line for line in warnings.splitlines() if line.startswith("WARNING: ")] == [
        f"WARNING: {hints[0]}",
        f"WARNING: {hints[1]}",
        "WARNING: The validation loss is above that of guessing, as the model overfits: "
        "try a larger l2.",
    ]
    worse = worse._replace(metrics=worse.metrics | {"train_loss": 2.4}, hints=[])
    outputs.say_result(config, splits, result, worse, None)
    assert "above that of guessing: try a smaller learning rate." in capsys.readouterr().err
    config.optimizer = "lbfgs"
    strongest = int(result.run.trials.hyperparameters.l2.argmax())
    for trial, has_remedy in ((strongest, False), (1 - strongest % 2, True)):
        outputs.say_result(config, splits, result, worse._replace(trial=trial), None)
        warning = capsys.readouterr().err
        assert "above that of guessing" in warning and "learning rate" not in warning
        assert ("try a larger l2" in warning) == has_remedy
    outputs.say_result(config, splits, result, selected._replace(hints=[]), None)
    assert capsys.readouterr().err == ""


def test_divergence_warning_names_the_epoch_and_a_remedy(result, capsys):
    metrics = {name: np.full_like(values, np.nan) for name, values in result.metrics.items()}
    metrics["train_loss"][:, 0] = metrics["val_loss"][:, 0] = 1.0
    outputs.say_diverged(dataclasses.replace(result, metrics=metrics))
    said = capsys.readouterr().err
    assert "epoch 2" in said and "try a smaller learning rate (0.1" in said
    facts = {"converged": np.zeros(8, bool)}  # as after L-BFGS
    outputs.say_diverged(dataclasses.replace(result, metrics=metrics, facts=facts))
    said = capsys.readouterr().err
    assert "a larger l2" in said and "learning rate" not in said


# Classes and costs.


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
    return counts, sweep.fit(cancer[0], counts, settings, num_epochs=2, batch_size=64)


@pytest.fixture(scope="module")
def probabilities(cancer, bootstrapped):
    return bootstrapped[1].best().classifier.predict_proba(cancer[1].x)


def actions_by_hand(p, threshold):
    return np.where(p[:, 0] > threshold, 0, 1)


def test_class_metrics_match_scikit_learn(cancer, probabilities):
    found = outputs.class_metrics(probabilities, cancer[1])
    expected = precision_recall_fscore_support(cancer[1].y, probabilities.argmax(1))
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert_allclose(found[name], values)
    assert found["label_names"] == ("malignant", "benign")
    assert found["confusion"].sum() == len(cancer[1].y)


def test_class_metrics_of_many_classes_omit_the_confusion_matrix():
    names = tuple(map(str, range(101)))
    dataset = data.Dataset(np.zeros((101, 1)), np.arange(101, dtype=np.int32), 1.0, names, "")
    found = outputs.class_metrics(np.eye(101), dataset)
    assert found["confusion"] is None and found["recall"].tolist() == [1.0] * 101
    assert outputs.decision_lines({"classes": found, "costs": None, "resampled": None}) == []


def test_costs_match_the_decisions_of_each_rule(cancer, probabilities):
    """Where a miss costs ten false alarms, the Bayes rule is a threshold of 1/11."""
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
    assert_allclose(found["saving"]["interval"], metrics.mean_interval(saved), rtol=1e-3)


def test_actions_need_not_be_classes(cancer, probabilities):
    """Referral is chosen where the expected cost of either class exceeds 0.5."""
    found = outputs.cost_metrics(probabilities, cancer[1], WITH_REFERRAL)
    referred = (probabilities[:, 0] > 0.05) & (probabilities[:, 0] < 0.5)
    assert found["bayes"]["actions"][:, 2].sum() == referred.sum() > 0
    assert found["argmax"]["actions"][:, 2].sum() == 0
    # Three actions that are not classes: argmax takes the cheapest action of its class.
    cheapest = outputs.cost_metrics(probabilities, cancer[1], ((5, 1, 0), (0, 3, 3)))
    assert cheapest["argmax"]["actions"].sum(0).tolist() == [
        (probabilities.argmax(1) == 1).sum(),
        0,
        (probabilities.argmax(1) == 0).sum(),
    ]


def test_resampled_costs_use_the_examples_that_each_resample_held_out(cancer, bootstrapped):
    (train, _), (counts, result) = cancer, bootstrapped
    selected = result.best()
    found = outputs.resampled_costs(result, selected, train, result.run.resamples, COST)
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
    assert_allclose(spread["spread"], np.quantile(costs, (0.025, 0.975)))
    assert_allclose(found["bayes"]["recall"]["malignant"]["mean"], np.mean(sensitivity))
    expected = found["argmax"]["cost"]["mean"] - found["bayes"]["cost"]["mean"]
    assert_allclose(found["saving"]["mean"], expected)
    referring = outputs.resampled_costs(
        result, selected, train, result.run.resamples, WITH_REFERRAL
    )
    assert "recall" not in referring["bayes"]


def test_decisions_use_the_refitted_model_on_test_and_the_chosen_one_on_val(
    config, cancer, bootstrapped
):
    _, result = bootstrapped
    chosen, other = result.best(), result.classifier(0)
    splits = data.Splits(*cancer, None, "", cancer[0].label_names, False)
    arguments = result, chosen, chosen._replace(classifier=other)
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
    plain = dataclasses.replace(result, run=result.run._replace(resamples=None))
    assert outputs.decision_fields(config, tested, plain, *arguments[1:])["resampled"] is None


def test_decision_lines_have_one_per_class_and_the_costs(config, cancer, bootstrapped):
    _, result = bootstrapped
    splits = data.Splits(*cancer, None, "", cancer[0].label_names, False)
    config.cost_matrix = COST
    found = outputs.decision_fields(config, splits, result, result.best(), result.best())
    head, malignant, benign, cost, over = outputs.decision_lines(found)
    assert head.split() == ["precision", "recall", "f1", "examples"]
    assert malignant.split()[0] == "malignant" and malignant.split()[-1] == "43"
    assert f"{found['classes']['recall'][1]:.4f}" in benign
    assert f"{found['costs']['bayes']['cost']['mean']:.4f} by least expected cost" in cost
    assert over.startswith("over 30 resamples: ")


def test_decision_fields_are_json(cancer, probabilities, tmp_path):
    workdir = Workdir(tmp_path)
    never = np.tile(np.array([0.0, 1.0]), (len(cancer[1].y), 1))  # so malignant has no precision
    workdir.write_json("a.json", outputs.class_metrics(never, cancer[1]))
    workdir.write_json("b.json", outputs.cost_metrics(probabilities, cancer[1], COST))
    assert '"precision": [\n    null,' in (tmp_path / "a.json").read_text()
    assert '"actions"' in (tmp_path / "b.json").read_text()


def test_recall_of_a_class_that_no_resample_held_out_is_none(cancer, bootstrapped):
    (train, _), (counts, result) = cancer, bootstrapped
    held_in = inputs.Resamples.of(np.where((train.y == 0)[:, None], 1, counts))
    found = outputs.resampled_costs(result, result.best(), train, held_in, COST)
    assert found["bayes"]["recall"]["malignant"] is None
    assert_array_equal(list(found["bayes"]["recall"]["benign"]), ["mean", "sd", "spread"])


def test_interval_of_a_mean_cost_is_within_the_costs():
    """A single expensive mistake among a hundred: by itself the interval reaches below zero."""
    x, y = np.arange(200.0).reshape(100, 2), np.arange(100) == 0
    dataset = data.from_arrays((x, y), (x + 1000, y)).val
    found = outputs.cost_metrics(np.tile([0.95, 0.05], (100, 1)), dataset, ((0, 1), (10, 0)))
    low, high = found["argmax"]["cost"]["interval"]
    assert found["argmax"]["cost"]["mean"] == pytest.approx(0.1)
    assert 0 <= low < 0.1 < high <= 10
