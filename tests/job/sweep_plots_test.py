"""The picture of a sweep shows means and spreads over its seeds, where they belong."""

import dataclasses

import numpy as np

from softmax_jax import sweep
from softmax_jax.job import sweep_plots
from tests import flat


def test_the_grid_holds_the_means_and_spreads_of_the_settings(result):
    selected = result.best()
    grid = sweep_plots.lay_out(result, selected, "val_loss", "last")
    assert {name: len(values) for name, values in grid.axes.items()} == {
        "learning_rate": 2,
        "l2": 2,
    }
    for row in result.by_setting():
        place = tuple(
            int(np.argmin(np.abs(values - row[name]))) for name, values in grid.axes.items()
        )
        assert np.isclose(grid.val[place], row["val_loss_mean"], atol=1e-5)
        assert np.isclose(grid.val_spread[place], row["val_loss_sd"], atol=1e-5)
        assert np.isclose(grid.train[place], row["train_loss_mean"], atol=1e-5)
    assert grid.val[grid.winner] == grid.val.min()


def test_two_axes_get_a_panel_each_and_a_heat_map_with_the_winner_framed(result):
    grid = sweep_plots.lay_out(result, result.best(), "val_loss", "last")
    figure = sweep_plots.sweep(grid, "digits")
    rates, penalties, heat, _ = figure.axes
    assert (rates.get_xlabel(), penalties.get_xlabel()) == ("learning_rate", "l2")
    np.testing.assert_array_equal(heat.images[0].get_array(), grid.val)
    (frame,) = heat.patches
    centre = frame.get_y() + 0.5, frame.get_x() + 0.5
    assert centre == grid.winner


def test_an_axis_over_decades_and_a_loss_that_blows_up_are_logarithmic(splits):
    settings = sweep.grid(learning_rate=(0.001, 0.1, 1e3))
    result = flat.fit(splits.train, splits.val, settings, num_epochs=1, batch_size=64)
    grid = sweep_plots.lay_out(result, result.best(), "val_loss", "last")
    (axes,) = sweep_plots.sweep(grid, "").axes
    assert axes.get_xscale() == "log"
    assert axes.get_yscale() == "log" and np.nanmax(grid.val) > 5 * grid.val.min()
    assert axes.get_ylim()[1] <= 100.001 * grid.val.min()


def test_a_diverged_setting_leaves_a_gap(result):
    metrics = {name: values.copy() for name, values in result.metrics.items()}
    trial = int(
        np.flatnonzero(result.run.trials.setting != result.best().hyperparameters["fold"])[0]
    )
    trial = trial if trial != result.best().trial else trial + 1
    metrics["val_loss"][trial, -1] = np.nan
    broken = dataclasses.replace(result, metrics=metrics)
    grid = sweep_plots.lay_out(broken, broken.best(), "val_loss", "last")
    assert np.isnan(grid.val).sum() == 1
    assert len(sweep_plots.sweep(grid, "").axes) == 4


def test_a_run_without_axes_has_no_such_picture(splits):
    result = flat.fit(splits.train, splits.val, num_epochs=1, batch_size=256, seeds=(0, 1))
    assert sweep_plots.lay_out(result, result.best(), "val_loss", "last") is None


def test_axes_that_are_not_crossed_have_no_such_picture(splits):
    settings = sweep.zipped(l2=(0.0, 0.1, 0.0), averaging=(0.0, 0.0, 0.5))
    result = flat.fit(splits.train, splits.val, settings, num_epochs=1, batch_size=256)
    assert sweep_plots.lay_out(result, result.best(), "val_loss", "last") is None
