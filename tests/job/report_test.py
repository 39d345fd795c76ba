"""What is said at the end, in words and as summary.json, is what happened."""

import dataclasses

import numpy as np

from softmax_jax.job import outputs


def test_the_summary_counts_examples_trials_and_divergence(config, result, splits):
    metrics = {name: values.copy() for name, values in result.metrics.items()}
    metrics["train_loss"][3, 1:] = np.nan
    broken = dataclasses.replace(result, metrics=metrics)
    summary = outputs.summary_fields(config, splits, broken, broken.best(), None, {"data": 1.23456})
    assert summary["num_examples"] == {"train": 1437, "val": 360, "test": 360}
    assert (summary["trials"], summary["diverged"], summary["val_is_test"]) == (8, 1, True)
    assert summary["seconds"] == {"data": 1.235}
    assert summary["selected"]["trial"] == broken.best().trial
    assert summary["selected"]["val_loss"] == broken.best().metrics["val_loss"]


def test_an_optimistic_test_figure_is_called_so(config, result, splits, capsys):
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


def test_each_hint_and_a_loss_above_guessing_are_warnings(config, result, splits, capsys):
    selected = result.best()
    hints = ["learning_rate = 1 is the largest: try 3.", "No trial got as far as its patience."]
    worse = selected._replace(metrics=selected.metrics | {"val_loss": 2.4}, hints=hints)
    outputs.say_result(config, splits, result, worse, None)
    warnings = capsys.readouterr().err
    assert [line for line in warnings.splitlines() if line.startswith("WARNING: ")] == [
        f"WARNING: {hints[0]}",
        f"WARNING: {hints[1]}",
        "WARNING: The validation loss is above that of guessing: try a smaller learning rate.",
    ]
    outputs.say_result(config, splits, result, selected._replace(hints=[]), None)
    assert capsys.readouterr().err == ""


def test_divergence_names_the_epoch_and_the_mend(result, capsys):
    metrics = {name: np.full_like(values, np.nan) for name, values in result.metrics.items()}
    metrics["train_loss"][:, 0] = metrics["val_loss"][:, 0] = 1.0
    outputs.say_diverged(dataclasses.replace(result, metrics=metrics))
    said = capsys.readouterr().err
    assert "epoch 2" in said and "learning_rate" in said
