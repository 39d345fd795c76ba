"""What a job says at its start and at its end, and the same as summary.json."""

import math

from softmax_jax import sweep
from softmax_jax.job import console, decisions, machine


def summary(config, splits, result, selected, test, seconds) -> dict:
    """What summary.json holds; `selected` is None where every trial diverged."""
    return {
        "dataset": splits.name,
        "num_examples": {
            role: 0 if part is None else len(part.y) for role, part in _roles(splits).items()
        },
        "val_is_test": splits.val_is_test,
        "trials": len(result.run.trials.group),
        "diverged": int((result.diverged > 0).sum()),
        "selected": None if selected is None else selected_fields(selected),
        "resampled": None if selected is None else resampled(config, result, selected),
        "test": test,
        "seconds": {phase: round(value, 3) for phase, value in seconds.items()},
    }


def selected_fields(selected) -> dict:
    """The chosen trial as a plain dictionary."""
    return {
        "trial": selected.trial,
        "hyperparameters": selected.hyperparameters,
        "epoch": selected.epoch,
        **selected.metrics,
        "refit": selected.refit,
        "why": selected.why,
        "hints": selected.hints,
    }


def resampled(config, result, selected):
    """Loss and accuracy of the selected setting over its folds or bootstrap draws, if it has any.

    For each mean and standard deviation, and for the bootstrap the 95 % percentile interval.
    """
    if not (config.folds or config.bootstraps):
        return None
    figures = {
        name: sweep.spread(result, selected, name, config.select_epoch)
        for name in ("val_loss", "val_accuracy")
    }
    if config.folds:
        for spread in figures.values():
            del spread["interval"]
    return {"resamples": config.folds or config.bootstraps, **figures}


def say_start(splits, folder, progress):
    """The first lines: what it runs on, on which data, where the results go, whether it goes on."""
    for warning in progress.warnings:
        console.warn(warning)
    where = machine.devices()
    console.say(
        f"{where['backend']} · {where['device_count']} × {where['device_kind']} · "
        f"{splits.name} ({_sizes(splits)}) → {folder}"
    )
    if progress.work is not None:
        console.say(f"Going on after {progress.seconds:.0f} s of training.")


def say_files(folder):
    """The last lines: what was written."""
    console.say(f"\nWritten to {folder}:")
    console.say("  " + "  ".join(sorted(path.name for path in folder.iterdir())))


def say_diverged(result):
    """What to do about a job of which every setting diverged."""
    first = result.diverged[result.diverged > 0].min()
    console.warn(
        f"Every setting has a diverged trial, the first in epoch {first}: a loss stopped being "
        "finite. Try a smaller learning_rate (0.1 is safe for pixels), or with momentum m one "
        "smaller by the factor 1 - m."
    )


def say_result(config, splits, result, selected, test):
    """The closing table: the selected trial, its figures, and what to think of them."""
    console.say()
    trials = len(result.run.trials.group)
    if trials > 1:
        diverged = int((result.diverged > 0).sum())
        console.say(f"{trials} trials, {diverged} diverged. Selected: {selected.why}")
        swept = [f"{name} {value:g}" for name, value in _swept(result, selected)]
        console.say(", ".join([f"trial {selected.trial}", f"epoch {selected.epoch}", *swept]))
    spread = resampled(config, result, selected)
    if spread:
        texts = [f"{name} {_spread(spread[f'val_{name}'])}" for name in ("loss", "accuracy")]
        console.say(f"over {spread['resamples']} resamples: {', '.join(texts)}")
    console.say(f"{'':8}{'loss':>10}{'accuracy':>10}")
    for role in ("train", "val"):
        if f"{role}_loss" in selected.metrics:
            figures = [selected.metrics.get(f"{role}_{what}") for what in ("loss", "accuracy")]
            shown = ["" if value is None else f"{value:.4f}" for value in figures]
            console.say(f"{role:8}{shown[0]:>10}{shown[1]:>10}".rstrip())
    if test:
        console.say(f"{'test':8}{test['loss']:10.4f}{test['accuracy']:10.4f}{_intervals(test)}")
        if splits.val_is_test and not selected.refit:
            console.say("val and test share examples: the test figures are optimistic.")
    for hint in selected.hints:
        console.warn(hint)
    if selected.metrics.get("val_loss", 0) > math.log(len(splits.label_names)):
        console.warn("The validation loss is above that of guessing: try a smaller learning rate.")


def say_more(config, more):
    """Argmax against the decision of least expected cost; the distance to a made language."""
    if config.cost_matrix:
        for line in decisions.lines(more["decisions"]):
            console.say(line)
    if more["language"]:
        kl, entropy = more["language"]["kl"], more["language"]["entropy"]
        console.say(f"KL(language ‖ model) = {kl:.4f} nats; the language has {entropy:.4f}")


def _swept(result, selected):
    trials = result.run.trials
    axes = trials.columns() | {"seed": trials.seed}
    shown = selected.hyperparameters
    return [
        (name, shown[name])
        for name, column in axes.items()
        if name in shown and (column != column[0]).any()
    ]


def _intervals(test):
    spans = [{"interval": test[f"{name}_interval"]} for name in ("loss", "accuracy")]
    return "  95 %: " + ", ".join(map(_interval, spans))


def _spread(figure):
    text = f"{figure['mean']:.4f} ± {figure['sd']:.4f}"
    return f"{text}, 95 % in {_interval(figure)}" if "interval" in figure else text


def _interval(figure):
    low, high = figure["interval"]
    return f"[{low:.4f}, {high:.4f}]"


def _roles(splits):
    return {"train": splits.train, "val": splits.val, "test": splits.test}


def _sizes(splits):
    return ", ".join(
        f"{len(part.y):,} {role}" for role, part in _roles(splits).items() if part is not None
    )
