"""What a job reports, in words and in files, is what counting by hand gives."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import precision_recall_fscore_support, recall_score

from softmax_jax import data, metrics, sweep
from softmax_jax.classifier import Classifier, load
from softmax_jax.job import outputs, run
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


def test_a_sweep_ends_with_its_best_settings(config, result, capsys):
    """Each with its axes, mean, spread and paired difference from the best, which has none."""
    leaders = result.leaders()
    outputs.say_leaders(config, result, leaders)
    _, title, head, *rows = capsys.readouterr().out.splitlines()
    assert "all, and how far" in title and "for all 3 at once" in title
    assert head.split() == ["learning_rate", "l2", "val_loss", "±", "sd", "of", "2", "difference"]
    wanted = sorted(result.by_setting(), key=lambda row: row["val_loss_mean"])
    for row, setting in zip(rows, wanted, strict=True):
        rate, l2, mean, spread, *difference = row.split()
        assert [float(rate), float(l2)] == pytest.approx([setting["learning_rate"], setting["l2"]])
        assert float(mean) == pytest.approx(setting["val_loss_mean"], abs=1e-4)
        assert float(spread) == pytest.approx(setting["val_loss_sd"], abs=1e-4)
        assert bool(difference) == (setting is not wanted[0])
    outputs.say_leaders(config, result, leaders[:2])
    assert "the 2 best of 4" in capsys.readouterr().out


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
    y, predicted = cancer[1].y, probabilities.argmax(1)
    found = outputs.class_metrics(predicted, cancer[1])
    assert list(found["by_class"]) == ["malignant", "benign"]
    expected = precision_recall_fscore_support(y, predicted)
    for name, values in zip(("precision", "recall", "f1", "examples"), expected, strict=True):
        assert_allclose([row[name] for row in found["by_class"].values()], values)
    assert found["confusion"].sum() == len(y)
    missed = int(((y == 0) & (predicted == 1)).sum())
    malignant = found["by_class"]["malignant"]
    assert (malignant["taken_for"], malignant["taken_for_examples"]) == ("benign", missed)
    for metric in ("precision", "recall", "f1"):
        low, high = malignant[f"{metric}_interval"]
        assert 0 <= low < malignant[metric] < high <= 1
    assert not [
        name
        for name in outputs.class_metrics(predicted, cancer[1], False)["by_class"]["benign"]
        if "interval" in name
    ]


def test_weighted_class_metrics_are_those_of_copies(cancer, probabilities):
    """The values; copies are fewer examples than they seem, and the intervals know."""
    y, predicted = cancer[1].y, probabilities.argmax(1)
    times = np.arange(len(y)) % 3
    weighted = dataclasses.replace(cancer[1], weights=times.astype(np.float32))
    copied = dataclasses.replace(
        cancer[1], x=np.repeat(cancer[1].x, times, 0), y=np.repeat(y, times), weights=None
    )
    one = outputs.class_metrics(predicted, weighted)["by_class"]
    other = outputs.class_metrics(np.repeat(predicted, times), copied)["by_class"]
    for name, row in one.items():
        for metric in ("examples", "precision", "recall", "f1", "taken_for", "taken_for_examples"):
            assert row[metric] == (
                other[name][metric] if metric == "taken_for" else pytest.approx(other[name][metric])
            )
        widths = [np.ptp(table[name]["recall_interval"]) for table in (one, other)]
        assert widths[0] > widths[1]


def class_table(num_classes, selected_on=False):
    """`class_fields` of classes that are all predicted right but the first, which is the second."""
    names = tuple(f"class {k}" for k in range(num_classes))
    y = np.arange(2 * num_classes, dtype=np.int32) % num_classes
    dataset = data.Dataset(np.zeros((len(y), 1)), y, 1.0, names, "")
    found = outputs.class_metrics(np.where(y == 0, 1, y), dataset, intervals=not selected_on)
    return {"on": "test", "selected_on": selected_on, **found}


def test_class_lines_name_the_split_and_the_most_frequent_confusion():
    title, head, first, second, _ = outputs.class_lines(class_table(3))
    assert title == "By class, on test, with intervals of 95 %:"
    assert head.split()[:5] == ["class", "examples", "precision", "recall", "f1"]
    assert first.split()[:3] == ["class", "0", "2"] and first.endswith("class 1 (2)")
    assert "0.500 [0.150, 0.850]" in second and "1.000 [0.342, 1.000]" in second
    title, *rows = outputs.class_lines(class_table(3, selected_on=True))
    assert title == "By class, on test, which decided the choice:"
    assert not [row for row in rows if "[" in row]


def test_class_lines_of_many_classes_are_the_worst():
    found = class_table(101)
    assert found["confusion"] is None and len(found["by_class"]) == 101
    title, _, *rows = outputs.class_lines(found)
    assert "the 10 worst of 101" in title and len(rows) == 10
    assert [row.split()[1] for row in rows[:2]] == ["0", "1"]


def test_classes_of_one_name_stay_apart():
    dataset = data.Dataset(np.zeros((3, 1)), np.arange(3, dtype=np.int32), 1.0, ("a", "a", "b"), "")
    found = outputs.class_metrics(np.array([0, 1, 1]), dataset)["by_class"]
    assert list(found) == ["a (0)", "a (1)", "b (2)"] and found["b (2)"]["taken_for"] == "a (1)"


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


def test_the_refitted_model_is_judged_on_test_and_the_chosen_one_on_val(
    config, cancer, bootstrapped
):
    _, result = bootstrapped
    chosen, other = result.best(), result.classifier(0)
    splits = data.Splits(*cancer, None, "", cancer[0].label_names, False)
    models = chosen, chosen._replace(classifier=other)
    config.cost_matrix = ()
    assert outputs.decision_fields(config, splits, result, *models) is None
    found = outputs.class_fields(splits, *models)
    expected = outputs.class_metrics(chosen.classifier.classes(cancer[1].x), cancer[1])
    assert_array_equal(found["confusion"], expected["confusion"])
    assert (found["on"], found["selected_on"]) == ("val", True)
    assert "recall_interval" not in found["by_class"]["benign"]
    config.cost_matrix = COST
    tested = dataclasses.replace(splits, test=cancer[1])
    expected = outputs.class_metrics(other.classes(cancer[1].x), cancer[1])
    judged = outputs.class_fields(tested, *models)
    assert judged["on"] == "test" and judged["by_class"] == expected["by_class"]
    found = outputs.decision_fields(config, tested, result, *models)
    expected = outputs.cost_metrics(other.predict_proba(cancer[1].x), cancer[1], COST)
    assert found["on"] == "test" and found["costs"]["saving"] == expected["saving"]
    assert found["resampled"]["resamples"] == 30
    plain = dataclasses.replace(result, run=result.run._replace(resamples=None))
    assert outputs.decision_fields(config, tested, plain, *models)["resampled"] is None


def test_decision_lines_name_the_costs_and_their_split(config, cancer, bootstrapped):
    _, result = bootstrapped
    splits = data.Splits(*cancer, None, "", cancer[0].label_names, False)
    config.cost_matrix = COST
    found = outputs.decision_fields(config, splits, result, result.best(), result.best())
    cost, over = outputs.decision_lines(found)
    assert cost.startswith("cost of an example of val: ")
    assert f"{found['costs']['bayes']['cost']['mean']:.4f} by least expected cost" in cost
    assert over.startswith("over 30 resamples: ")


def test_classes_and_costs_are_json(cancer, probabilities, tmp_path):
    workdir = Workdir(tmp_path)
    never = np.ones(len(cancer[1].y), int)  # so malignant has no precision
    workdir.write_json("a.json", outputs.class_metrics(never, cancer[1]))
    workdir.write_json("b.json", outputs.cost_metrics(probabilities, cancer[1], COST))
    malignant = json.loads((tmp_path / "a.json").read_text())["by_class"]["malignant"]
    assert malignant["precision"] is malignant["precision_interval"] is None
    assert malignant["recall"] == 0 and malignant["taken_for"] == "benign"
    assert '"actions"' in (tmp_path / "b.json").read_text()


def test_files_are_listed_as_people_open_them(tmp_path, capsys):
    names = ["trials.csv", "metrics.jsonl", "curves.png", "summary.json", ".lock", "mine.txt"]
    for name in names:
        (tmp_path / name).touch()
    outputs.say_files(tmp_path)
    _, _, listed, more = capsys.readouterr().out.splitlines()
    assert listed.split() == [
        "curves.png",
        "summary.json",
        "trials.csv",
        "metrics.jsonl",
        "mine.txt",
    ]
    assert f"report {tmp_path}" in more


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


@pytest.mark.parametrize("fields", [{}, {"folds": 3}, {"refit": True}])
def test_coefficients_of_a_job_at_the_optimum_are_those_of_the_estimator(tmp_path, fields):
    from configs import default
    from softmax_jax import SoftmaxRegression, inference

    config = default.get_config().unlock()
    config.update({"dataset": "breast_cancer", "optimizer": "lbfgs", "num_epochs": 300, "l2": 0.01})
    config.update({"train_split": "train[:60%]", "val_split": "train[60%:]", "tolerance": 1e-6})
    config.update({"standardize": True} | fields)
    assert run.main(config, tmp_path / "w") == 0
    with open(tmp_path / "w" / "coefficients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    splits = data.load("breast_cancer", "train[:60%]", "train[60%:]")
    train = data.joined(splits.train, splits.val) if config.refit else splits.train
    x = np.asarray(train.x, np.float64).reshape(len(train.y), -1)
    z = (x - x.mean(0)) / x.std(0)
    fit = SoftmaxRegression(l2=0.01, tol=1e-10).fit(z, train.y)
    expected = inference.table(fit, z, train.y)
    assert list(rows[0]) == [
        *("class", "feature", "estimate", "standard_error", "z", "p_value", "low", "high")
    ]
    for row, own in zip(rows, expected, strict=True):
        assert row["class"] == splits.label_names[own["class"]]
        if own["feature"] != "intercept":  # of raw units
            scale = x.std(0)[int(own["feature"][1:])]
            for name in ("estimate", "standard_error"):
                assert float(row[name]) * scale == pytest.approx(own[name], rel=2e-3, abs=1e-4)


def test_no_coefficients_of_sgd_or_of_many_weights(tmp_path):
    from configs import default

    config = default.get_config().unlock()
    config.update({"dataset": "iris", "num_epochs": 1, "batch_size": 16})
    assert run.main(config, tmp_path / "w") == 0
    assert not (tmp_path / "w" / "coefficients.csv").exists()
    train = data.load("digits").train
    wide = Classifier(np.ones((64, 40)), np.zeros(40), 0.0, 1.0, ("x",) * 40)
    assert run.coefficient_rows((train,), wide) is None


def test_out_of_fold_file_has_the_mean_loss_of_the_folds(config, tmp_path):
    config.update({"train_split": "train[:40%]", "val_split": "train[40%:]", "folds": 3})
    config.update({"out_of_fold": True, "sweep": {"learning_rate": (0.01, 0.1), "seed": (0, 1)}})
    assert run.main(config, tmp_path / "w") == 0
    found = np.load(tmp_path / "w" / "out_of_fold.npz")
    train = data.load("digits", "train[:40%]", "train[40%:]").train
    assert_array_equal(found["labels"], train.y)
    assert_array_equal(found["index"], np.arange(len(train)))
    assert found["label_names"].tolist() == list(train.label_names)
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    rate, seed = (summary["selected"]["hyperparameters"][n] for n in ("learning_rate", "seed"))
    with open(tmp_path / "w" / "trials.csv", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (float(row["learning_rate"]), int(row["seed"])) == (rate, seed)
        ]
    assert len(rows) == 3
    losses = -np.log(found["probabilities"][np.arange(len(train)), train.y])
    for row in rows:
        own = losses[found["fold"] == int(row["fold"])]
        assert own.mean() == pytest.approx(float(row["val_loss"]), rel=1e-3)
