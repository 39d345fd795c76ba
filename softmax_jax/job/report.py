"""What a job says at its start and at its end, and the same as summary.json."""

import math

import numpy as np

from softmax_jax.job import console, machine


def summary(splits, result, selected, test, seconds) -> dict:
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
        "resampled": None if selected is None else resampled(result, selected),
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


def resampled(result, selected):
    """The selected setting over its folds or bootstrap draws: the spread of loss and accuracy."""
    trials = result.run.trials
    own = trials.group == trials.group[selected.trial]
    if trials.fold[selected.trial] < 0:
        return None
    figures = {}
    for name in ("val_loss", "val_accuracy"):
        values = result.figures(name)[own].astype(np.float64)
        figures[name] = {
            "mean": values.mean(),
            "sd": values.std(ddof=1),
            "interval": np.quantile(values, (0.025, 0.975)),
        }
    return {"resamples": len(np.unique(trials.fold)), **figures}


def say_start(splits, folder):
    """The first line: what it runs on, on which data, and where the results go."""
    where = machine.devices()
    console.say(
        f"{where['backend']} · {where['device_count']} × {where['device_kind']} · "
        f"{splits.name} ({_sizes(splits)}) → {folder}"
    )


def say_files(folder):
    """The last lines: what was written."""
    console.say(f"\nWritten to {folder}:")
    console.say("  " + "  ".join(sorted(path.name for path in folder.iterdir())))


def say_diverged(result):
    """What to do about a job of which every trial diverged."""
    console.warn(
        f"Every trial diverged, the first in epoch {result.diverged.min()}: a loss stopped being "
        "finite. Try a smaller learning_rate (0.1 is safe for pixels), or with momentum m one "
        "smaller by the factor 1 - m."
    )


def say_result(splits, result, selected, test):
    """The closing table: the selected trial, its figures, and what to think of them."""
    console.say()
    trials = len(result.run.trials.group)
    if trials > 1:
        diverged = int((result.diverged > 0).sum())
        console.say(f"{trials} trials, {diverged} diverged. Selected: {selected.why}")
        settings = ", ".join(f"{name} {value:g}" for name, value in _swept(result, selected))
        console.say(f"trial {selected.trial}, epoch {selected.epoch}: {settings}")
    spread = resampled(result, selected)
    if spread:
        loss, accuracy = (_interval(spread[name]) for name in ("val_loss", "val_accuracy"))
        console.say(
            f"over {spread['resamples']} resamples, 95 % between: loss {loss}, accuracy {accuracy}"
        )
    console.say(f"{'':8}{'loss':>10}{'accuracy':>10}")
    for role in ("train", "val"):
        if f"{role}_loss" in selected.metrics:
            figures = [selected.metrics[f"{role}_{what}"] for what in ("loss", "accuracy")]
            console.say(f"{role:8}" + "".join(f"{value:10.4f}" for value in figures))
    if test:
        console.say(f"{'test':8}{test['loss']:10.4f}{test['accuracy']:10.4f}{_intervals(test)}")
        if splits.val_is_test:
            console.say("val and test share examples: the test figures are optimistic.")
    for hint in selected.hints:
        console.warn(f"The winner lies at the edge of the grid: {hint}.")
    if selected.metrics.get("val_loss", 0) > math.log(len(splits.label_names)):
        console.warn("The validation loss is above that of guessing: try a smaller learning rate.")


def _swept(result, selected):
    axes = result.run.trials.axes() | {
        "batch_size": result.run.trials.batch_size,
        "seed": result.run.trials.seed,
    }
    return [
        (name, selected.hyperparameters[name])
        for name, column in axes.items()
        if (column != column[0]).any()
    ]


def _intervals(test):
    spans = [{"interval": test[f"{name}_interval"]} for name in ("loss", "accuracy")]
    return "  95 %: " + ", ".join(map(_interval, spans))


def _interval(figure):
    low, high = figure["interval"]
    return f"[{low:.4f}, {high:.4f}]"


def _roles(splits):
    return {"train": splits.train, "val": splits.val, "test": splits.test}


def _sizes(splits):
    return ", ".join(
        f"{len(part.y):,} {role}" for role, part in _roles(splits).items() if part is not None
    )
