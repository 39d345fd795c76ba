"""Each setting has a curve, its mean, and a name that tells it from the others."""

import numpy as np
import pytest

from softmax_jax import sweep
from softmax_jax.job import setting_plots
from softmax_jax.sweep.settings import trial_table
from tests import flat


def labels(settings, **options):
    return setting_plots.labels(trial_table(settings, **options))


def test_what_most_settings_share_is_not_in_their_names():
    one_by_one = sweep.zipped(l2=(0.0, 0.01, 0.0, 0.01), averaging=(0.0, 0.0, 0.5, 0.5))
    assert labels(one_by_one)[1] == "l2 0.01, averaging 0"
    cures = sweep.zipped(l2=(0.0, 0.01, 0.0), patience=(0, 0, 5))
    assert labels(cures, seeds=(0, 1)) == ["baseline", "l2 0.01", "patience 5"]


def test_settings_of_a_grid_are_named_by_their_axes():
    grid = sweep.grid(learning_rate=(0.1, 0.3), l2=(0.0, 1.0))
    assert labels(grid)[1:3] == ["learning_rate 0.1, l2 1", "learning_rate 0.3, l2 0"]
    sizes = labels(sweep.grid(), batch_sizes=(8, 64))
    assert sizes == ["batch_size 8", "batch_size 64"]


@pytest.fixture(scope="module")
def stopping(splits):
    settings = sweep.grid(learning_rate=20.0, patience=(0, 1))
    options = {"num_epochs": 6, "batch_size": 64, "seeds": (0, 1)}
    return flat.fit(splits.train, splits.val, settings, **options)


def test_a_curve_is_the_mean_of_the_trials_and_a_dot_the_model_that_counts(stopping):
    figure = setting_plots.settings(stopping, "digits")
    names = ["train loss", "val loss", "train accuracy", "val accuracy"]
    assert [axes.get_ylabel() for axes in figure.axes] == names
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["patience 0", "patience 1"]
    for name, axes in zip(names, figure.axes, strict=True):
        values = stopping.metrics[name.replace(" ", "_")]
        for setting in 0, 1:
            curve, dot = axes.get_lines()[2 * setting : 2 * setting + 2]
            np.testing.assert_allclose(curve.get_ydata(), values[setting::2].mean(0), rtol=1e-6)
            judged = stopping.epochs("last")[setting::2]
            assert dot.get_xdata() == judged.mean()
            at = [values[2 * seed + setting, judged[seed] - 1] for seed in (0, 1)]
            assert dot.get_ydata() == pytest.approx(np.mean(at))
    curve = figure.axes[0].get_lines()[2]
    assert curve.get_xdata().max() == stopping.facts["stopped_epoch"].max() < 6


def test_a_trial_that_blew_up_does_not_set_the_scale(splits):
    settings = sweep.grid(learning_rate=(0.1, 1e4))
    result = flat.fit(splits.train, splits.val, settings, num_epochs=3, batch_size=64)
    low, high = setting_plots.settings(result, "").axes[0].get_ylim()
    worst = result.metrics["train_loss"][1].max()
    assert low < result.metrics["train_loss"][0, -1] < high < worst / 2


def test_one_setting_or_too_many_have_no_such_picture(result, splits):
    alone = flat.fit(splits.train, splits.val, num_epochs=1, batch_size=256, seeds=(0, 1))
    assert setting_plots.settings(alone, "") is None
    assert setting_plots.settings(result, "") is not None
    many = sweep.grid(learning_rate=np.linspace(0.1, 1, 11))
    result = flat.fit(splits.train, splits.val, many, num_epochs=1, batch_size=256)
    assert setting_plots.settings(result, "") is None
