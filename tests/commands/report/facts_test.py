import math

import pytest

from softmax_jax.commands.report import facts
from softmax_jax.commands.report.facts import Figure


def test_the_figures_are_those_of_the_summary_in_the_order_of_the_splits(run):
    found, selected = facts.figures(run), run.summary["selected"]
    assert list(found) == [
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
    ]
    assert found["val_loss"] == Figure(selected["val_loss"])
    assert found["test_accuracy"] == Figure(0.8222, (0.7601, 0.8712))


def test_an_unfinished_run_has_the_figures_of_its_best_trial_so_far(unfinished):
    trial = facts.chosen_trial(unfinished)
    losses = {number: epochs[3]["val_loss"] for number, epochs in unfinished.metrics.items()}
    assert losses[trial] == min(losses.values())
    assert facts.figures(unfinished)["val_loss"].value == losses[trial]
    assert facts.status(unfinished)[0] == "unfinished"
    assert facts.progress(unfinished) == "epoch 3 of 4 of 8 trials"


def test_a_loss_that_is_not_finite_is_never_the_best(unfinished):
    best = facts.chosen_trial(unfinished)
    unfinished.metrics[best][3]["val_loss"] = math.nan
    assert facts.chosen_trial(unfinished) != best


def test_a_run_of_which_every_trial_diverged(run):
    run.summary["selected"] = run.summary["test"] = None
    run.summary["diverged"] = 8
    assert facts.status(run) == ("every trial diverged", "bad")
    assert "8 of 8 trials diverged." in facts.notices(run)


def test_notices_say_what_makes_the_figures_doubtful(run):
    assert facts.notices(run) == ["extend l2 downwards"]
    run.config["config"]["dataset"] = "fashion_mnist"
    run.summary["val_is_test"] = True
    assert facts.notices(run)[:2] == [
        "Trained on digits: fashion_mnist was not to be had.",
        "Validation and test share examples: the test figures are optimistic.",
    ]
    run.summary["selected"]["refit"] = True
    assert not any("optimistic" in notice for notice in facts.notices(run))


@pytest.mark.parametrize("value", [None, "x", "nan", math.inf, 10**400, [], {}])
def test_what_is_no_finite_number_is_none(value):
    assert facts.finite(value) is None


def test_fields_are_flat_and_without_what_is_empty():
    nested = {"a": 1, "sweep": {"l2": [0.1, 1], "seed": []}, "b": {"c": {"d": False}}, "e": ""}
    assert facts.fields(nested) == {"a": "1", "sweep.l2": "0.1, 1", "b.c.d": "False"}
