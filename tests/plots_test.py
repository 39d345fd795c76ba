"""Pictures of the work folder show the numbers they are made of, and text as text."""

import dataclasses
import io
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from softmax_jax import data, plots, sweep
from softmax_jax.data import DataError
from softmax_jax.sweep.settings import trial_table


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def changed(result, trial, values):
    metrics = {name: metric.copy() for name, metric in result.metrics.items()}
    metrics["val_loss"][trial] = values
    return dataclasses.replace(result, metrics=metrics)


def fit(splits, settings=None, **options):
    options = {"num_epochs": 1, "batch_size": 256} | options
    return sweep.fit(splits.train, splits.val, settings, **options)


def test_curves_show_the_selected_trial_by_epoch(result):
    selected = result.best()
    figure = plots.curves(result, selected, "digits")
    for axes, what in zip(figure.axes, ("loss", "accuracy"), strict=True):
        for name in (f"train_{what}", f"val_{what}"):
            line = lines_of(axes)[name.replace("_", " ")]
            assert line.get_xdata().tolist() == [1, 2, 3]
            np.testing.assert_array_equal(line.get_ydata(), result.metrics[name][selected.trial])
        assert len(axes.get_lines()) == 2 * len(result.best_epoch)
    assert figure.get_suptitle() == "digits"


def test_curves_ignore_the_scale_of_a_diverged_trial(result):
    worst = 0 if result.best().trial else 1
    figure = plots.curves(changed(result, worst, (10.0, 1e6, np.nan)), result.best(), "")
    assert figure.axes[0].get_ylim()[1] < 10


def test_confusion_counts_every_example_once():
    labels, predictions = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0])
    (axes,) = plots.confusion(labels, predictions, ("a", "b", "c"), "").axes
    cells = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "1", (2, 0): "1"}
    assert axes.get_xlabel() == "predicted" and axes.get_ylabel() == "true"
    np.testing.assert_allclose(axes.images[0].get_array().sum(1), 1)


def test_mistakes_are_ordered_by_confidence_and_name_both_labels(splits):
    val, (first, second) = splits.val, (7, 3)
    probabilities = np.full((len(val.y), 10), 0.01)
    probabilities[np.arange(len(val.y)), val.y] = 0.9
    for row, confidence in ((first, 0.99), (second, 0.95)):
        probabilities[row, (val.y[row] + 1) % 10] = confidence
    figure = plots.mistakes(val, probabilities, "digits")
    titles = [axes.get_title() for axes in figure.axes]
    labels = [f"{val.y[row]}\n{(val.y[row] + 1) % 10}" for row in (first, second)]
    assert titles == [f"{labels[0]} 99.0 %", f"{labels[1]} 95.0 %"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), val.x[first])


def test_weights_have_an_image_per_class_on_a_scale_symmetric_around_zero(result):
    classifier = result.best().classifier
    figure = plots.weights(classifier, (8, 8), "")
    for label in range(10):
        image = figure.axes[label].images[0]
        np.testing.assert_array_equal(image.get_array().ravel(), classifier.W[:, label])
        low, high = image.get_clim()
        assert low == -high


def test_features_have_no_pictures_of_images(result, splits):
    flat = dataclasses.replace(splits.val, x=splits.val.x.reshape(-1, 64))
    classifier, images = result.best().classifier, {"weights.png", "mistakes.png"}
    assert set(plots.of_classifier(classifier, flat, "")) == {"confusion.png"}
    assert set(plots.of_classifier(classifier, splits.val, "")) == {"confusion.png", *images}


def test_grid_holds_the_means_and_spreads_of_the_settings(result):
    grid = plots.lay_out(result, result.best(), "val_loss", "last")
    assert {name: len(v) for name, v in grid.axes.items()} == {"learning_rate": 2, "l2": 2}
    for row in result.by_setting():
        at = tuple(int(np.argmin(np.abs(v - row[name]))) for name, v in grid.axes.items())
        found = grid.val[at], grid.val_spread[at], grid.train[at]
        wanted = [row[name] for name in ("val_loss_mean", "val_loss_sd", "train_loss_mean")]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert grid.val[grid.winner] == grid.val.min()


def test_sweep_has_a_panel_per_axis_and_frames_the_winner_in_the_heat_map(result):
    grid = plots.lay_out(result, result.best(), "val_loss", "last")
    rates, penalties, heat, _ = plots.sweep(grid, "digits").axes
    assert (rates.get_xlabel(), penalties.get_xlabel()) == ("learning_rate", "l2")
    np.testing.assert_array_equal(heat.images[0].get_array(), grid.val)
    (frame,) = heat.patches
    assert (frame.get_y() + 0.5, frame.get_x() + 0.5) == grid.winner


def test_sweep_is_logarithmic_over_decades_and_for_a_diverging_loss(splits):
    result = fit(splits, sweep.grid(learning_rate=(0.001, 0.1, 1e3)), batch_size=64)
    grid = plots.lay_out(result, result.best(), "val_loss", "last")
    (axes,) = plots.sweep(grid, "").axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert np.nanmax(grid.val) > 5 * grid.val.min()
    assert axes.get_ylim()[1] <= 100.001 * grid.val.min()


def test_sweep_with_a_diverged_trial_has_a_gap(result):
    broken = changed(result, (result.best().trial + 1) % 8, np.nan)
    grid = plots.lay_out(broken, broken.best(), "val_loss", "last")
    assert np.isnan(grid.val).sum() == 1
    assert len(plots.sweep(grid, "").axes) == 4


def test_sweep_needs_axes_that_are_crossed(splits):
    single = fit(splits, seeds=(0, 1))
    uncrossed = fit(splits, sweep.zipped(l2=(0.0, 0.1, 0.0), averaging=(0.0, 0.0, 0.5)))
    for result in single, uncrossed:
        assert plots.lay_out(result, result.best(), "val_loss", "last") is None


@pytest.mark.parametrize(
    "settings, options, names",
    [
        (
            sweep.zipped(l2=(0.0, 0.01, 0.0), patience=(0, 0, 5)),
            {"seeds": (0, 1)},
            ["baseline", "l2 0.01", "patience 5"],
        ),
        (
            sweep.zipped(l2=(0.0, 0.01, 0.0, 0.01), averaging=(0.0, 0.0, 0.5, 0.5)),
            {},
            [f"l2 {l2}, averaging {a}" for a in ("0", "0.5") for l2 in ("0", "0.01")],
        ),
        (sweep.grid(), {"batch_sizes": (8, 64)}, ["batch_size 8", "batch_size 64"]),
    ],
)
def test_setting_names_contain_only_what_differs(settings, options, names):
    assert plots.setting_names(trial_table(settings, **options)) == names


def test_settings_show_means_over_trials_and_mark_the_selected_epoch(splits):
    settings = sweep.grid(learning_rate=20.0, patience=(0, 1))
    result = fit(splits, settings, num_epochs=6, batch_size=64, seeds=(0, 1))
    figure = plots.settings(result, "digits")
    names = ["train loss", "val loss", "train accuracy", "val accuracy"]
    assert [axes.get_ylabel() for axes in figure.axes] == names
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["patience 0", "patience 1", "the model that is compared (last epoch)"]
    for name, axes in zip(names, figure.axes, strict=True):
        values = result.metrics[name.replace(" ", "_")]
        for setting in 0, 1:
            curve, dot = axes.get_lines()[2 * setting : 2 * setting + 2]
            np.testing.assert_allclose(curve.get_ydata(), values[setting::2].mean(0), rtol=1e-6)
            judged = result.epochs("last")[setting::2]
            assert dot.get_xdata() == judged.mean()
            at = [values[2 * seed + setting, judged[seed] - 1] for seed in (0, 1)]
            assert dot.get_ydata() == pytest.approx(np.mean(at))
    curve = figure.axes[0].get_lines()[2]
    assert curve.get_xdata().max() == result.facts["stopped_epoch"].max() < 6


def test_settings_ignore_the_scale_of_a_diverged_setting(splits):
    result = fit(splits, sweep.grid(learning_rate=(0.1, 1e4)), num_epochs=3, batch_size=64)
    low, high = plots.settings(result, "").axes[0].get_ylim()
    worst = result.metrics["train_loss"][1].max()
    assert low < result.metrics["train_loss"][0, -1] < high < worst / 2


def test_settings_show_every_end_that_is_no_divergence(result):
    """A setting that is many times worse than the others is within the axes, as batch size 1 is."""
    for worst in (1.0, 8.0):  # the axis becomes logarithmic
        metrics = {name: values.copy() for name, values in result.metrics.items()}
        own = result.run.trials.setting == 3
        metrics["val_loss"][own] = worst * metrics["val_loss"].max()
        figure = plots.settings(dataclasses.replace(result, metrics=metrics), "")
        for axes in figure.axes:
            low, high = axes.get_ylim()
            for dot in axes.get_lines()[1::2]:
                assert low <= dot.get_ydata()[0] <= high


def test_curves_of_a_single_measurement_are_marks(result):
    """Of a trial that has converged before the second, beside others that took long."""
    selected, length = result.best(), 60
    reached = np.tile(20 * np.arange(1, length + 1), (len(result.best_epoch), 1))
    reached[selected.trial] = 12
    metrics = {name: np.repeat(v[:, :1], length, 1) for name, v in result.metrics.items()}
    facts = {"converged": np.ones(len(reached), bool)}
    long = dataclasses.replace(result, reached=reached, metrics=metrics, facts=facts)
    for axes, what in zip(plots.curves(long, selected, "").axes, ("loss", "accuracy"), strict=True):
        for line in (lines_of(axes)[f"{role} {what}"] for role in ("train", "val")):
            assert line.get_marker() == "." and line.get_xdata()[0] == 12
        assert axes.get_xlabel() == "iteration" and 12 < axes.get_xlim()[1] < 13


def test_legends_explain_bands_and_faint_lines(splits):
    result = fit(splits, sweep.grid(l2=(0.0, 0.1)), seeds=(0, 1))
    (axes,) = plots.sweep(plots.lay_out(result, result.best(), "val_loss", "last"), "").axes
    assert any("standard deviation" in text.get_text() for text in axes.get_legend().get_texts())
    (axes, _) = plots.curves(result, result.best(), "").axes
    assert "the next best" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_settings_are_drawn_for_two_to_ten_settings(result, splits):
    assert plots.settings(fit(splits, seeds=(0, 1)), "") is None
    assert plots.settings(result, "") is not None
    assert plots.settings(fit(splits, sweep.grid(l2=np.linspace(0, 1, 11))), "") is None


@pytest.mark.parametrize("shape, grey", [((4, 5), True), ((4, 5, 1), True), ((4, 5, 3), False)])
def test_show_images_puts_every_image_under_its_title(shape, grey):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    figure = data.show_images(images, [f"title {i}" for i in range(5)], num_columns=3)
    assert [axes.get_title() for axes in figure.axes] == [f"title {i}" for i in range(5)]
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image.squeeze())
        assert not axes.axison
    content = io.BytesIO()
    figure.savefig(content, format="rgba", dpi=40)
    pixels = np.frombuffer(content.getvalue(), np.uint8).reshape(-1, 4)[:, :3]
    assert grey == bool((pixels == pixels[:, :1]).all())


def test_show_images_fills_rows_from_the_top_left_without_overlaps():
    figure = data.show_images(np.zeros((5, 4, 4)), ["true\npredicted"] * 5, num_columns=3)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox().frozen() for axes in figure.axes]
    assert len({round(box.y0) for box in boxes[:3]}) == 1
    assert boxes[0].x0 < boxes[1].x0 < boxes[2].x0
    assert boxes[3].x0 == boxes[0].x0 and boxes[3].y1 < boxes[0].y0
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_show_images_size_follows_the_images():
    width, height = data.show_images(np.zeros((18, 2, 2)), ["a"] * 18, scale=2.0).get_size_inches()
    assert width == 18.0 and 4.0 < height < 5.0
    assert data.show_images(np.zeros((2, 2, 2)), "ab", scale=2.0).get_size_inches()[0] == 4.0


@pytest.mark.parametrize(
    "shape, titles, why",
    [
        ((2, 4, 4), ["a"], "2 images and 1 titles"),
        ((0, 4, 4), [], "at least one image"),
        ((2, 16), ["a", "b"], "reshape"),
        ((2, 4, 4, 2), ["a", "b"], r"not \(2, 4, 4, 2\)"),
    ],
)
def test_show_images_rejects_arrays_that_are_not_images(shape, titles, why):
    with pytest.raises(DataError, match=why):
        data.show_images(np.zeros(shape), titles)


def test_data_rejects_unknown_lazy_names():
    with pytest.raises(AttributeError, match="no attribute 'show_image'"):
        _ = data.show_image


ODD = ["$5 and $6", r"$\frac{", "50% $x", "half \ud800", "bell \x07", "_hidden"]


def test_text_from_data_is_drawn_literally():
    """No label is parsed as mathematics, and none prevents a picture."""
    numbers = np.arange(len(ODD))
    images = np.zeros((len(ODD), 2, 2))
    model = type("Model", (), {"W": np.ones((4, len(ODD))), "label_names": ODD})
    figures = [
        plots.confusion(numbers, numbers, ODD, ODD[0]),
        plots.show_images(images, ODD, heading=ODD[0]),
        plots.weights(model, (2, 2), ODD[0]),
    ]
    for figure in figures:
        content = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            figure.savefig(content, format="svg")
        texts = [e.text for e in ElementTree.fromstring(content.getvalue()).iter() if e.text]
        assert {"$5 and $6", r"$\frac{", "50% $x", "half \ufffd", "bell \ufffd"} <= set(texts)
        assert texts.count("$5 and $6") >= 2


def live(splits, settings=None, **options):
    options = {"num_epochs": 3, "batch_size": 256} | options
    return plots.LiveCurves(sweep.epochs(splits.train, splits.val, settings, **options), "digits")


def test_live_curves_pass_the_epochs_on_and_show_all_that_was_measured(splits, capsys):
    settings = sweep.grid(learning_rate=(0.1, 0.5))
    curves = live(splits, settings, batch_size=(256, 512))
    found = sweep.collect(curves)
    np.testing.assert_array_equal(
        found.metrics["val_loss"],
        fit(splits, settings, num_epochs=3, batch_size=(256, 512)).metrics["val_loss"],
    )
    for axes, what in zip(curves.figure().axes, ("loss", "accuracy"), strict=True):
        drawn = sorted(tuple(line.get_ydata()) for line in axes.get_lines())
        wanted = [*found.metrics[f"train_{what}"], *found.metrics[f"val_{what}"]]
        np.testing.assert_allclose(drawn, sorted(map(tuple, wanted)))
        assert [text.get_text() for text in axes.get_legend().get_texts()] == plots.setting_names(
            found.run.trials
        )
    bold = {line.get_color() for line in axes.get_lines() if line.get_linewidth() == 2}
    assert bold == {f"C{found.run.trials.setting[found.best().trial]}"}
    assert len(capsys.readouterr().out.splitlines()) == 6  # of each batch size three epochs


def test_live_curves_are_lines_of_text_in_a_terminal(splits, capsys):
    found = sweep.collect(live(splits))
    lines = capsys.readouterr().out.splitlines()
    for epoch, line in enumerate(lines):
        names = "train_loss", "val_loss", "train_accuracy", "val_accuracy"
        texts = [f"{name.replace('_', ' ')} {found.metrics[name][0, epoch]:.3f}" for name in names]
        assert line == f"epoch {epoch + 1} of 3: {', '.join(texts)}"
    assert len(lines) == 3


@pytest.mark.parametrize("last, told", [(7, [3, 6, 7]), (120, [*range(3, 121, 3)])])
def test_live_curves_of_many_epochs_are_redrawn_now_and_then_and_at_the_end(
    splits, capsys, last, told
):
    for epoch in live(splits, num_epochs=120, batch_size=1437):
        if epoch.epoch == last:
            break
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[1]) for line in lines] == told


def test_live_curves_leave_out_what_is_not_finite(splits):
    settings = sweep.grid(learning_rate=(0.1, 0.5))
    trained = sweep.epochs(splits.train, splits.val, settings, num_epochs=2, batch_size=256)

    def diverging():
        for epoch in trained:
            losses = np.where(epoch.trials == 1, np.nan, epoch.metrics["val_loss"])
            yield epoch._replace(metrics=epoch.metrics | {"val_loss": losses})

    curves = plots.LiveCurves(diverging())
    assert [epoch.epoch for epoch in curves] == [1, 2]
    lines = curves.figure().axes[0].get_lines()
    assert sorted(line.get_color() for line in lines) == ["C0", "C0", "C1"]


def test_live_curves_of_segments_wait_for_the_end_of_the_epoch(splits, capsys):
    curves = live(splits, devices=sweep.Devices(steps_per_call=2))
    assert sum(1 for _ in curves) == 9
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_live_curves_before_the_first_epoch_are_empty(splits):
    assert [len(axes.get_lines()) for axes in live(splits).figure().axes] == [0, 0]
