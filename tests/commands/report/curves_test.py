import math

from softmax_jax.commands.report import curves, facts


def test_the_chosen_trials_figures_are_drawn_as_they_were_recorded(run, parse):
    parsed = parse(curves.of_run(run))
    for epoch, figures in run.metrics[facts.chosen_trial(run)].items():
        for name, value in figures.items():
            assert f"{name.replace('_', ' ')}: {value:.4f} at {epoch}" in parsed.texts
    assert len(parsed.with_class("mark")) == 4 * 4
    assert len([e for e in parsed.with_class("line") if "faint" in e[1]["class"]]) == 2 * 7


def test_many_trials_are_sampled(run, parse):
    metrics = {trial: run.metrics[trial % 8] for trial in range(1000)}
    parsed = parse(curves.of_run(run._replace(metrics=metrics)))
    faint = [e for e in parsed.with_class("line") if "faint" in e[1]["class"]]
    assert 100 <= len(faint) <= 200
    assert "100 of 999 other trials" in parsed.texts


def test_a_trial_that_blew_up_does_not_flatten_the_others(run, parse):
    """The chosen trial still takes a third of the height, whatever the others do."""
    for figures in run.metrics[5].values():
        figures["val_loss"] = 1e6
    chart = curves._chart(run, "loss", facts.chosen_trial(run), [5])
    heights = [float(e[1]["cy"]) for e in parse(chart).with_class("mark")]
    assert max(heights) - min(heights) > 224 / 4


def test_runs_are_overlaid_with_a_line_each(run, unfinished, parse):
    parsed = parse(curves.overlaid([run, unfinished]))
    looks = [e[1]["class"] for e in parsed.with_class("line")]
    assert looks == 2 * ["line c0", "line c1"]
    assert {"my run", "broken off", "my run, val loss"} <= set(parsed.texts)


def test_a_run_without_validation_shows_training(run, parse):
    for epochs in run.metrics.values():
        for figures in epochs.values():
            del figures["val_loss"], figures["val_accuracy"]
    assert "my run, train loss" in parse(curves.overlaid([run, run])).texts
    assert not [text for text in parse(curves.of_run(run)).texts if text.startswith("val loss")]


def test_a_run_without_a_finite_figure_says_so(run, parse):
    assert "No epoch" in parse(curves.of_run(run._replace(metrics={}))).texts[0]
    nothing = {0: {1: {"train_loss": math.nan, "val_loss": math.nan}}}
    parsed = parse(curves.of_run(run._replace(metrics=nothing)))
    assert "There is no finite loss to draw." in parsed.texts


def test_every_run_has_its_look():
    looks = [curves.colour(number) for number in range(16)]
    assert len(set(looks)) == 16
