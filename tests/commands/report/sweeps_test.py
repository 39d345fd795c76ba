import math

import pytest

from softmax_jax.commands.report import sweeps


def test_the_axes_are_the_fields_in_which_the_settings_differ(run):
    """Seeds are averaged over in settings.csv; batch_size is the same in all."""
    sweep = sweeps.lay_out(run)
    assert sweep.axes == {"learning_rate": [0.1, 0.5], "l2": [0.0, 0.01]}
    chosen = run.summary["selected"]["hyperparameters"]
    assert sweep.winner == (chosen["learning_rate"], chosen["l2"])
    best = min(float(row["val_loss_mean"]) for row in run.settings)
    assert sweep.settings[sweep.winner][0] == best


def test_each_axis_has_a_panel_and_two_axes_a_heat_map(run, parse):
    parsed = parse(sweeps.of_run(run))
    assert len(parsed.with_class("chart")) == 2
    assert len(parsed.with_class("heat")) == 1
    for row in run.settings:
        assert f"{float(row['val_loss_mean']):.4f}" in parsed.texts
    assert len(parsed.with_class("band")) == 2  # the spread over seeds
    (marked,) = [e for e in parsed.with_class("chosen") if e[0] == "td"]
    assert marked[1]["style"] == "--share:100%"  # the best is the darkest


def test_the_winners_line_is_bold_and_the_others_are_named(run, parse):
    parsed = parse(sweeps.of_run(run))
    assert len([e for e in parsed.with_class("line") if "c1" in e[1]["class"]]) == 2
    other = {0.0: "l2 0.01", 0.01: "l2 0"}[run.summary["selected"]["hyperparameters"]["l2"]]
    assert other in parsed.texts


def test_a_diverged_setting_is_left_out_of_the_drawing(run, parse):
    winner = run.summary["selected"]["hyperparameters"]
    for row in run.settings:
        if float(row["learning_rate"]) != winner["learning_rate"]:
            row["val_loss_mean"] = "inf"
    html = sweeps.of_run(run)
    assert "inf" not in html.replace("info", "")
    assert "–" in parse(html).texts


def test_without_a_winner_all_is_faint(run, parse):
    run.summary["selected"] = None
    sweep = sweeps.lay_out(run)
    assert sweep.winner is None
    parsed = parse(sweeps.of_run(run))
    assert {e[1]["class"] for e in parsed.with_class("line")} == {"line faint"}


def test_what_is_no_sweep_has_no_picture(run, unfinished):
    assert sweeps.of_run(unfinished) is None
    assert sweeps.of_run(run._replace(settings=run.settings[:1])) is None
    run.config["config"]["sweep"] = {}
    assert sweeps.of_run(run) is None


def test_random_draws_are_drawn_as_points(run, parse):
    """Every setting differs from every other in both axes: no lines, but a mark each."""
    rows = [
        run.settings[0] | {"learning_rate": str(0.01 * 1.1**k), "l2": str(1e-5 * 1.3**k)}
        for k in range(30)
    ]
    parsed = parse(sweeps.of_run(run._replace(settings=rows)))
    assert len(parsed.with_class("mark")) >= 2 * 29
    assert not parsed.with_class("heat")


@pytest.mark.parametrize("values", [[0.4, 0.5], [0.4, 90.0], [math.nan]])
def test_a_loss_that_blows_up_is_on_a_logarithmic_scale(run, values):
    scale = sweeps._figure_scale(sweeps.lay_out(run), values)
    steps = scale.place(0.8) - scale.place(0.4), scale.place(1.6) - scale.place(0.8)
    assert (steps[0] == pytest.approx(steps[1])) == (max(values) == 90)
