"""What a job writes: tables, parameters, pictures, summary.json, the closing lines of the log."""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from softmax_jax import decisions, host, metrics, plots, studies, sweep
from softmax_jax.classifier import Classifier
from softmax_jax.data.dataset import Dataset, Splits, check_joinable, digest, example_weights
from softmax_jax.host import JobError, cut
from softmax_jax.hyperparameters import SPARSE
from softmax_jax.job import console, processes
from softmax_jax.job.checkpoint import Progress
from softmax_jax.job.workdir import Workdir
from softmax_jax.sweep import inputs
from softmax_jax.sweep.inputs import Resamples
from softmax_jax.sweep.result import Result, Selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # Matplotlib takes long to import; only pictures need it
    Figure = Any

_MOST_CLASSES = 100  # of more the confusion matrix is left out
_MOST_LINES, _FEWER_LINES = 30, 10  # of classes in the log; of more, so many
_LONGEST_NAME = 30  # characters of the name of a class in the log
_BY_CLASS = ("precision", "recall", "f1")
DECISION_RULES = ("argmax", "bayes")


def class_fields(splits: Splits, chosen: Selected, selected: Selected) -> dict[str, Any]:
    """The metrics by class on test, or without a test split on val, as summary.json holds them.

    Where these examples decided the choice there are no intervals: they would not hold.

    Args:
      splits: the data.
      chosen: the winner as it was chosen, which has not seen val.
      selected: the winner as it may have been refitted, which has not seen test.
    """
    on, split, model = _judged(splits, chosen, selected)
    decided = _chosen_on_test(splits, selected) if on == "test" else chosen.selected_on
    found = class_metrics(model.classifier.classes(split.x), split, intervals=not decided)
    return {"on": on, "selected_on": decided, **found}


def class_metrics(
    predicted: Int[np.ndarray, " N"], dataset: Dataset, intervals: bool = True
) -> dict[str, Any]:
    """{'by_class': {name: precision, recall, ...}, 'confusion': true classes by rows}.

    Each example counts as often as its weight says. `taken_for` is the class that the examples of
    this one are most often mistaken for, None where no example is. The confusion matrix is None for
    more than 100 classes.
    """
    table, squares = (
        metrics.confusion_matrix(dataset.y, predicted, dataset.num_classes, weights=weights)
        for weights in (dataset.weights, np.square(example_weights(dataset)))
    )
    found, ends = metrics.per_class(table), metrics.class_intervals(table, squares)
    names, mistakes = _keys(dataset.label_names), table - np.diag(table.diagonal())
    by_class: dict[str, dict] = {}
    for k, name in enumerate(names):
        row: dict[str, Any] = {"examples": found["support"][k]}
        for metric in _BY_CLASS:
            row[metric] = found[metric][k]
            row |= {f"{metric}_interval": ends[metric][k]} if intervals else {}
        other = int(mistakes[k].argmax())
        row["taken_for"] = names[other] if mistakes[k, other] > 0 else None
        by_class[name] = row | {"taken_for_examples": mistakes[k, other]}
    return {"by_class": by_class, "confusion": table if len(names) <= _MOST_CLASSES else None}


def _keys(names):
    """The names of the classes, with their numbers where two have one name."""
    twice = len(set(names)) < len(names)
    return [f"{name} ({k})" if twice else name for k, name in enumerate(names)]


def class_lines(found: dict[str, Any]) -> list[str]:
    """The result of `class_fields` as a table for the log; of many classes the worst by F1."""
    rows = list(found["by_class"].items())
    what = ", which decided the choice" if found["selected_on"] else ", with intervals of 95 %"
    some = ""
    if len(rows) > _MOST_LINES:
        rows.sort(key=lambda row: -1 if np.isnan(row[1]["f1"]) else row[1]["f1"])
        rows, some = rows[:_FEWER_LINES], f" (the {_FEWER_LINES} worst of {len(rows):,})"
    table = [["class", "examples", *_BY_CLASS, "most often taken for"]]
    for name, row in rows:
        cells = [_with_interval(row[m], row.get(f"{m}_interval")) for m in _BY_CLASS]
        other = row["taken_for"]
        taken = f"{_name(other)} ({row['taken_for_examples']:,.6g})" if other is not None else ""
        table.append([_name(name), f"{row['examples']:,.6g}", *cells, taken])
    lines = host.aligned(table, "<><")
    return [f"By class, on {found['on']}{what}{some}:", *(f"  {line}".rstrip() for line in lines)]


def _with_interval(value, interval):
    text = "–" if np.isnan(value) else f"{value:.3f}"
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text


def _name(text):
    return cut(host.shown(text), _LONGEST_NAME)


def _judged(splits, chosen, selected):
    """(the split that the model is judged on, its examples, the model that has not seen them)."""
    if splits.test is None:
        return "val", splits.val, chosen
    return "test", splits.test, selected


def decision_fields(
    config: ConfigDict,
    splits: Splits,
    result: Result,
    chosen: Selected,
    selected: Selected,
) -> dict[str, Any] | None:
    """The costs by `config.cost_matrix` as summary.json holds them; None without one.

    The arguments are those of `class_fields`, and the result of the sweep.
    """
    if not config.cost_matrix:
        return None
    on, split, model = _judged(splits, chosen, selected)
    probabilities = model.classifier.predict_proba(split.x)
    predicted, costs = model.classifier.classes(split.x), config.cost_matrix
    resamples, resampled = result.run.resamples, None
    if resamples is not None:
        resampled = resampled_costs(result, chosen, splits.train, resamples, costs)
    costs = cost_metrics(probabilities, split, costs, predicted)
    return {"on": on, "costs": costs, "resampled": resampled}


def cost_metrics(
    probabilities: Float[np.ndarray, "N C"],
    dataset: Dataset,
    cost_matrix: Sequence,
    predicted: Int[np.ndarray, " N"] | None = None,
) -> dict[str, Any]:
    """The mean cost of an example by the predicted class and by least expected cost, the saving.

    Each has a 95 % interval (`metrics.mean_interval`), that of the saving from the differences by
    example. It is too short where there are only a few expensive mistakes, as this split may lack
    them altogether.

    Args:
      probabilities: of the classes.
      dataset: has the labels.
      cost_matrix: the cost of each action in a row per class.
      predicted: the classes that the model predicts; None: the most probable.

    Returns:
      {'cost_matrix', 'argmax', 'bayes', 'saving'}; for both rules `actions` [C, A] counts how often
      each class met each action.
    """
    cost, labels = np.asarray(cost_matrix, float), np.asarray(dataset.y)
    predicted = probabilities.argmax(-1) if predicted is None else predicted
    actions, weights = _actions(probabilities, predicted, cost), example_weights(dataset)
    costs = cost[labels, actions]
    num_classes, num_actions = cost.shape
    tables = metrics.confusion_matrix(labels, actions, num_classes, num_actions, dataset.weights)
    rules = {
        rule: {"cost": _mean_with_interval(costs[index], weights, cost), "actions": tables[index]}
        for index, rule in enumerate(DECISION_RULES)
    }
    saving = _mean_with_interval(costs[0] - costs[1], weights, np.ptp(cost) * np.array([-1, 1]))
    return {"cost_matrix": cost, **rules, "saving": saving}


def resampled_costs(
    result: Result,
    selected: Selected,
    train: Dataset,
    resamples: Resamples,
    cost_matrix: Sequence,
) -> dict[str, Any]:
    """The costs on the examples that each resample held out, over the selected setting's trials.

    Args:
      result: of the sweep; of its models those of the last epoch count.
      selected: its winner.
      train: the training examples.
      resamples: of these.
      cost_matrix: the cost of each action in a row per class.

    Returns:
      For both rules mean, standard deviation and central 95 % of the mean cost and, where the
      actions are the classes, of the recall of each class.
    """
    cost, trials = np.asarray(cost_matrix, float), result.run.trials
    num_classes, num_actions = cost.shape
    own = np.flatnonzero(trials.setting == trials.setting[selected.trial])
    by_trial = []
    for trial in own:
        model = result.classifier(int(trial))
        probabilities = model.predict_proba(train.x)
        actions = _actions(probabilities, model.classes(train.x), cost)
        held_out = (resamples.held_out[:, trials.fold[trial]] > 0) * example_weights(train)
        table = metrics.confusion_matrix(train.y, actions, num_classes, num_actions, held_out)
        by_trial.append(table)
    tables = np.stack(by_trial, 1)  # [2, R, C, A]
    costs = metrics.mean_cost(tables, cost)
    found: dict[str, dict] = {
        rule: {"cost": _resample_spread(costs[index])} for index, rule in enumerate(DECISION_RULES)
    }
    if num_classes == num_actions:
        recalls = metrics.per_class(tables)["recall"]
        for index, rule in enumerate(DECISION_RULES):
            names = zip(train.label_names, recalls[index].T, strict=True)
            found[rule]["recall"] = {name: _resample_spread(values) for name, values in names}
    return {"resamples": len(own), **found, "saving": _resample_spread(costs[0] - costs[1])}


def decision_lines(found: dict[str, Any]) -> list[str]:
    """The result of `decision_fields` as text for the log."""
    text = [f"cost of an example of {found['on']}: {_compared(found['costs'])}"]
    if resampled := found["resampled"]:
        text.append(f"over {resampled['resamples']} resamples: {_compared(resampled)}")
    return text


def _compared(costs):
    argmax, bayes = (costs[rule]["cost"]["mean"] for rule in DECISION_RULES)
    saving = costs["saving"]
    kind, what = ("interval", "95 %:") if "interval" in saving else ("spread", "95 % of them in")
    low, high = saving[kind]
    return (
        f"{argmax:.4f} by argmax, {bayes:.4f} by least expected cost; "
        f"saved {saving['mean']:.4f}, {what} [{low:.4f}, {high:.4f}]"
    )


def _actions(probabilities, predicted, cost):
    """[2, N]: the cheapest action for the predicted class, and the Bayes action."""
    of_class = cost.argmin(1)
    bayes = decisions.bayes_action(np.asarray(probabilities), cost)
    return np.stack([of_class[predicted], np.asarray(bayes)])


def _mean_with_interval(values, weights, possible):
    """The mean, and its interval in the range of the possible values."""
    mean = float(np.average(values, weights=weights))
    interval = metrics.mean_interval(values, weights)
    return {"mean": mean, "interval": np.clip(interval, possible.min(), possible.max()).tolist()}


def _resample_spread(values):
    """None where no resample held out an example of the class."""
    values = values[~np.isnan(values)]
    return metrics.spread_of(values) if len(values) else None


def summary_fields(
    config: ConfigDict,
    splits: Splits,
    result: Result,
    selected: Selected | None,
    test: dict | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of summary.json; `selected` is None where every setting diverged."""
    return {
        "dataset": splits.name,
        "num_examples": {
            role: 0 if split is None else len(split.y) for role, split in _roles(splits).items()
        },
        "val_is_test": splits.val_is_test,
        "trials": len(result.run.trials.setting),
        "diverged": int((result.diverged > 0).sum()),
        **({} if result.run.halving is None else {"halved": int((result.halved > 0).sum())}),
        "selected": None if selected is None else _selected_fields(config, result, selected),
        "resampled": None if selected is None else resampled_metrics(config, result, selected),
        "test": test,
        "seconds": {phase: round(value, 3) for phase, value in seconds.items()},
    }


def test_metrics(splits: Splits, selected: Selected) -> dict[str, Any] | None:
    """Loss and accuracy on test, with intervals unless test decided the choice; None without test.

    An interval around the best of several metrics does not cover what the model is worth.
    """
    if splits.test is None:
        return None
    found = selected.classifier.test(splits.test)
    if not _chosen_on_test(splits, selected):
        return found | {"selected_on": False}
    return {name: found[name] for name in ("loss", "accuracy")} | {"selected_on": True}


def _chosen_on_test(splits, selected):
    """Whether the choice was made on val, and test has examples of val."""
    return splits.val_is_test and selected.selected_on and not selected.refit


def _selected_fields(config, result, selected):
    """The chosen trial as a plain dictionary; a refit may take another number of epochs."""
    return {
        "trial": selected.trial,
        "hyperparameters": selected.hyperparameters,
        "epoch": int(result.epochs(config.select_epoch)[selected.trial]),
        **selected.metrics,
        "refit": selected.refit,
        "refit_epochs": selected.epoch if selected.refit else None,
        "selected_on": selected.selected_on,
        "why": selected.why,
        "hints": selected.hints,
    }


def resampled_metrics(
    config: ConfigDict, result: Result, selected: Selected
) -> dict[str, Any] | None:
    """Loss and accuracy over the folds or bootstrap draws, see `sweep.spread`; None without."""
    if result.run.resamples is None:
        return None
    spreads = {
        name: sweep.spread(result, selected, name, config.select_epoch)
        for name in ("val_loss", "val_accuracy")
    }
    return {"resamples": config.folds or config.bootstraps, **spreads}


def say_start(splits: Splits, folder: Path, progress: Progress) -> None:
    """Prints the first lines: devices, data, the folder of the results, whether it resumes."""
    for warning in progress.warnings:
        console.warn(warning)
    where = processes.devices()
    console.say(
        f"{where['backend']} · {where['device_count']} × {where['device_kind']} · "
        f"{splits.name} ({_role_sizes(splits)}) → {folder}"
    )
    if progress.pending is not None:
        longer = ", with more epochs than it had" if progress.longer else ""
        console.say(f"Resuming after {progress.seconds:.0f} s of training{longer}.")


def say_files(folder: Path) -> None:
    """Prints the last lines: what was written."""
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    first = [name for name in _OPENED_FIRST if name in there]
    console.say(f"\nWritten to {folder}:")
    console.say("  " + "  ".join([*first, *sorted(there - set(first))]))
    console.say(f"All of it on one page: python -m softmax_jax report {folder}")


# What people look at, then tables, then what programs read.
_OPENED_FIRST = (
    *("curves.png", "mistakes.png", "confusion.png", "weights.png", "sweep.png", "path.png"),
    *("settings.png", "learning_curve.png", "audit.png", "summary.json", "settings.csv"),
    *("path.csv", "trials.csv", "coefficients.csv", "learning_curve.csv", "audit.csv"),
    *("params.npz", "predictions.npz", "out_of_fold.npz", "metrics.jsonl"),
)


def say_diverged(result: Result) -> None:
    """Warns that every setting diverged, and says what to do."""
    first = result.diverged[result.diverged > 0].min()
    by_rate = "learning rate" in result.remedy
    safe = "0.1 is safe for pixels; with momentum m, 1 - m times as much"
    rate = f" ({safe}): --config.learning_rate" if by_rate else ""
    several = len(result.run.trials.setting) > 1
    which = "Every setting has a diverged trial, the first" if several else "The training diverged"
    console.warn(
        f"{which} in epoch {first}: a loss stopped being finite, or ended at over 100 times that "
        f"of guessing: {result.remedy}{rate}."
    )


def say_leaders(config: ConfigDict, result: Result, leaders: list[dict] | None) -> None:
    """Prints the ten best settings of a sweep by what was swept, and what sets them apart."""
    if not leaders:
        return
    axes, metric = _swept_axes(result), config.select_metric
    others = len(np.unique(result.run.trials.setting)) - 1
    for_all = f", for all {others:,} at once" if others > 1 else ""
    count = f"the {len(leaders)} best of {others + 1:,}" if others >= len(leaders) else "all"
    console.say(f"\nSettings, {count}, and how far they are behind the best (95 %{for_all}):")
    each = len(result.run.trials.setting) // (others + 1)
    spread = [f"± sd of {each}"] if each > 1 else []
    table = [[*axes, metric, *spread]]
    for row in leaders:
        cells = [f"{row[name]:g}" for name in axes] + [f"{row[metric]:.4f}"]
        table.append([*cells, *(f"{row['sd']:.4f}" for _ in spread)])
    intervals = ["difference", *(_apart(row) for row in leaders)]
    for line, interval in zip(host.aligned(table, ">"), intervals, strict=True):
        console.say(f"  {line}  {interval}".rstrip())


def _apart(row):
    """The difference from the best, with its interval; nothing for the best itself."""
    if not row["difference"] and row["interval"] in (None, [0.0, 0.0]):
        return ""
    interval = f" [{row['interval'][0]:+.4f}, {row['interval'][1]:+.4f}]" if row["interval"] else ""
    return f"{row['difference']:+.4f}{interval}"


def say_result(
    config: ConfigDict,
    splits: Splits,
    result: Result,
    selected: Selected,
    test: dict | None,
    nested: dict | None = None,
) -> None:
    """Prints the closing table: the selected trial, its metrics, and warnings about them.

    Metrics that decided a choice are marked as selected on.
    """
    console.say()
    trials = len(result.run.trials.setting)
    if trials > 1:
        diverged = int((result.diverged > 0).sum())
        halved = int((result.halved > 0).sum())
        text = f", {halved} stopped by halving" * (halved > 0)
        console.say(f"{trials} trials, {diverged} diverged{text}. Selected: {selected.why}")
        shown = selected.hyperparameters
        axes = [*_swept_axes(result), *(["seed"] if len(set(result.run.trials.seed)) > 1 else [])]
        swept = [f"{name} {shown[name]:g}" for name in axes if name in shown]
        console.say(
            ", ".join([f"trial {selected.trial}", _epoch_text(result, selected, config), *swept])
        )
    spread = resampled_metrics(config, result, selected)
    if spread:
        texts = [f"{name} {_spread_text(spread[f'val_{name}'])}" for name in ("loss", "accuracy")]
        console.say(f"over {spread['resamples']} resamples: {', '.join(texts)}")
    console.say(f"{'':8}{'loss':>10}{'accuracy':>10}")
    for role in ("train", "val"):
        if f"{role}_loss" in selected.metrics:
            values = [selected.metrics.get(f"{role}_{what}") for what in ("loss", "accuracy")]
            shown = ["" if value is None else f"{value:.4f}" for value in values]
            mark = "  selected on" if role == "val" and selected.selected_on else ""
            console.say(f"{role:8}{shown[0]:>10}{shown[1]:>10}{mark}".rstrip())
    if nested:
        over = f" over {nested['outer_folds']} outer folds"
        console.say(_measured_line("nested", nested) + over)
    if test:
        console.say(_measured_line("test", test))
        if _chosen_on_test(splits, selected):
            console.say("val and test share examples: the test metrics are optimistic.")
    if selected.selected_on and not nested and (not test or _chosen_on_test(splits, selected)):
        console.say(
            "Metrics that were selected on flatter the model. For honest ones: a test_split with "
            "examples of its own, or folds with outer_folds."
        )
    for hint in selected.hints:
        console.warn(hint)
    if selected.metrics.get("val_loss", 0) > math.log(len(splits.label_names)):
        console.warn(
            f"The validation loss is above that of guessing{_mend(config, result, selected)}."
        )


def _epoch_text(result, selected, config):
    """The epoch that was chosen; a refit may take another number of them."""
    word = "iteration" if result.full_batch else "epoch"
    chosen = int(result.epochs(config.select_epoch)[selected.trial])
    again = f" (the refit: {selected.epoch})" if selected.epoch != chosen else ""
    return f"{word} {chosen}{again}"


def _mend(config, result, selected):
    """What to try against a validation loss above that of guessing; '': no hint would be true."""
    guessing = math.log(len(result.run.label_names))
    if config.optimizer != "lbfgs" and not selected.metrics.get("train_loss", 0) <= guessing:
        return ": try a smaller learning rate"
    l2 = result.run.trials.hyperparameters.l2
    if len(set(l2.tolist())) > 1 and l2[selected.trial] == l2.max():
        return ""
    return ", as the model overfits: try a larger l2"


def say_classes(more: dict[str, Any]) -> None:
    """Prints the metrics by class, where summary.json has them."""
    if more["classes"]:
        console.say()
        for line in class_lines(more["classes"]):
            console.say(line)


def say_costs(more: dict[str, Any]) -> None:
    """Prints the costs, where there are any."""
    for line in decision_lines(more["decisions"]) if more["decisions"] else ():
        console.say(line)


def _swept_axes(result):
    """The names of the axes that differ between settings."""
    trials = result.run.trials
    columns, shown = trials.columns(), trials.row(0)
    return [name for name, column in columns.items() if name in shown and len(set(column)) > 1]


def _measured_line(role, found):
    """A row of the closing table, with the intervals or the mark that takes their place."""
    spans = [found.get(f"{name}_interval") for name in ("loss", "accuracy")]
    texts = [_interval_text({"interval": span}) for span in spans if span]
    more = f"95 %: {', '.join(texts)}" if texts else "selected on"
    return f"{role:8}{found['loss']:10.4f}{found['accuracy']:10.4f}  {more}"


def _spread_text(spread):
    text = f"{spread['mean']:.4f} ± {spread['sd']:.4f}"
    return f"{text}, 95 % in {_interval_text(spread)}" if "interval" in spread else text


def _interval_text(spread):
    low, high = spread["interval"]
    return f"[{low:.4f}, {high:.4f}]"


def _roles(splits):
    return {"train": splits.train, "val": splits.val, "test": splits.test}


def _role_sizes(splits):
    return ", ".join(
        f"{len(split.y):,} {role}" for role, split in _roles(splits).items() if split is not None
    )


def write_provenance(workdir: Workdir, config: ConfigDict, splits: Splits, job: dict) -> None:
    """Writes config.json: the config as run, the software, the devices and the data in use."""
    workdir.write_json(
        "config.json",
        {
            "config": config.to_dict(),
            "versions": processes.versions(),
            **processes.devices(),
            "mesh": processes.mesh_sizes(config),
            "dataset": splits.name,
            "fingerprint": job["data"]["fingerprint"],
            "job": job,
        },
    )


Pictures = dict[str, Callable[[], Figure | None]]  # by file name; None: there is nothing to draw


def draw(
    workdir: Workdir,
    config: ConfigDict,
    splits: Splits,
    result: Result,
    selected: Selected,
    more: Pictures,
) -> None:
    """Draws the pictures that apply to this job and its dataset, and `more` of its studies.

    One that fails is a warning: all numbers have been written.

    Raises:
      JobError: the folder cannot be written (exit code 3).
    """
    try:
        host.require("matplotlib", "plots")
    except host.NotInstalledError as error:
        console.warn(f"There are no pictures: {error}")
        return
    several = len(result.run.trials.setting) > 1
    which = f", trial {selected.trial}, {_epoch_text(result, selected, config)}" if several else ""
    which += ", before the refit" if config.refit else ""
    named = "" if config.val_split == "auto" else f" ({config.val_split})"
    on_val = f"{splits.name}, validation{named}"
    held_out = "the folds" if config.folds else "the bootstrap draws" if config.bootstraps else ""
    compared = f"{splits.name}, held out of train by {held_out}" if held_out else on_val

    def sweep_figure():
        grid = plots.lay_out(result, selected, config.select_metric, config.select_epoch)
        return plots.sweep(grid, compared) if grid else None

    pictures: Pictures = {
        "curves.png": lambda: plots.curves(result, selected, compared + which),
        "sweep.png": sweep_figure,
        "settings.png": lambda: plots.settings(result, compared, config.select_epoch),
        "path.png": lambda: plots.path(result, selected, config.select_metric, compared),
    }
    pictures |= plots.of_classifier(
        selected.classifier, splits.val, on_val + which, f"{splits.name}, learned on train{which}"
    )
    if not splits.val.is_image:
        console.say(f"No pictures of examples: {splits.name} has features, not images.")
    for name, make in (pictures | more).items():
        try:
            figure = make()
            if figure is not None:
                workdir.write_figure(name, figure)
        except JobError:
            raise
        except Exception as error:  # of Matplotlib and what it draws with
            reason = f"{type(error).__name__}: {cut(' '.join(str(error).split()), 200)}"
            console.warn(f"{name} could not be drawn ({reason}). No number depends on it.")


def check_studies(config: ConfigDict, splits: Splits) -> None:
    """Checks what comes after the training, its studies and a refit, before anything is deleted.

    Raises:
      JobError: the sizes, the folds, the class weights or a refit do not fit the data, or the
        memory (exit code 2).
    """
    train, wanted = splits.train, config.learning_curve
    trials = max(len(wanted.sizes) * wanted.seeds, config.audit_folds)
    try:
        if wanted.sizes:
            studies.check_sizes(train.y, wanted.sizes, wanted.seeds)
        if config.audit_folds:
            studies.audit_folds(train, config.audit_folds)
        if wanted.sizes or config.audit_folds:
            inputs.class_weights(train, config.class_weight)
            # The features, and at the least logits and residuals of all trials.
            needed = 4 * len(train) * (train.num_features + 2 * trials * train.num_classes)
            remedy = "Ask for fewer sizes, seeds or folds."
            host.require_memory(needed, "What the studies compute with", remedy)
        if config.refit:
            check_joinable(train, splits.val)
    except ValueError as error:
        raise JobError(f"The config cannot be run on {splits.name}: {error}") from error


def write_studies(
    workdir: Workdir, config: ConfigDict, splits: Splits, selected: Selected
) -> tuple[dict[str, Any], Pictures]:
    """Writes learning_curve.csv and audit.csv, where the config asks for them.

    Returns:
      What summary.json holds of them, and their pictures.

    Raises:
      JobError: the sizes or folds do not fit the data (exit code 2).
    """
    classifier, l2 = selected.classifier, selected.hyperparameters["l2"]
    summary: dict[str, Any] = {}
    pictures: Pictures = {}
    wanted = config.learning_curve
    try:
        if wanted.sizes:
            options = wanted.sizes, wanted.seeds, config.class_weight
            rows, law = studies.learning_curve(splits, classifier, l2, *options)
            workdir.write_csv("learning_curve.csv", rows)
            drawn = functools.partial(
                plots.learning_curve, rows, law, f"{splits.name}, val and train"
            )
            pictures["learning_curve.png"] = drawn
            size = metrics.effective_size(example_weights(splits.val))
            floor = studies.floor_interval(rows, size)
            summary["learning_curve"] = law and law._asdict() | {"a_interval": floor}
        if config.audit_folds:
            options = l2, config.audit_folds, config.class_weight
            found = studies.label_audit(splits.train, classifier, *options)
            as_given = found._replace(row=splits.train.rows[found.row])
            workdir.write_csv("audit.csv", as_given.table(splits.label_names))
            if splits.train.is_image:
                drawn = functools.partial(
                    plots.suspects, splits.train, found, f"{splits.name}, train"
                )
                pictures["audit.png"] = drawn
    except ValueError as error:
        raise JobError(f"The studies cannot be run on {splits.name}: {error}") from error
    return summary, pictures


def write_tables(workdir: Workdir, config: ConfigDict, result: Result) -> None:
    """Writes trials.csv, for a sweep settings.csv, and for several optima path.csv."""
    workdir.write_csv("trials.csv", result.table())
    if len(result.run.trials.setting) > 1:
        workdir.write_csv("settings.csv", result.by_setting(config.select_epoch))
        if result.full_batch:
            workdir.write_csv("path.csv", result.path())


def write_params(workdir: Workdir, classifier: Classifier) -> None:
    """Writes params.npz: see `Classifier.arrays`.

    Where there are class weights, b is corrected for them, and class_weight has them: those of the
    fit are logits + log(class_weight). `labels` is in it where the data may call the classes
    otherwise than 0..C-1.
    """
    workdir.write_npz("params.npz", **classifier.arrays())


_MOST_WEIGHTS = 1_000_000  # of a table for people to read


def write_weights(workdir: Workdir, classifier: Classifier) -> None:
    """Writes weights.csv, where the features have names: a row of weights for each.

    They are those of params.npz: of (x - mean) / scale.
    """
    if classifier.features is None or classifier.W.size > _MOST_WEIGHTS:
        return
    names, (D, _) = classifier.features.names, classifier.W.shape
    moments = (
        np.broadcast_to(values, D).tolist() for values in (classifier.mean, classifier.scale)
    )
    classes = [f"W({name})" for name in classifier.label_names]
    workdir.write_csv(
        "weights.csv",
        [
            {"feature": name, "mean": mean, "scale": scale} | dict(zip(classes, row, strict=True))
            for name, mean, scale, row in zip(names, *moments, classifier.W.tolist(), strict=True)
        ],
    )


def sparse_rows(selected: Selected) -> list[dict] | None:
    """The rows of coefficients.csv, where an l1 or l1_group was chosen: weights that are not zero.

    They are those of params.npz, with the intercept of each class. Features without names are x0,
    x1, ...
    """
    chosen, classifier = selected.hyperparameters, selected.classifier
    if not any(chosen.get(name) for name in SPARSE):
        return None
    features = classifier.features
    names = [f"x{d}" for d in range(len(classifier.W))] if features is None else features.names
    W, names = np.vstack([classifier.W, classifier.b]), [*names, "intercept"]
    return [
        {"class": label, "feature": names[d], "estimate": float(W[d, c])}
        for c, label in enumerate(classifier.label_names)
        for d in [*np.flatnonzero(classifier.W[:, c]), -1]
    ]


def write_coefficients(workdir: Workdir, rows: list[dict] | None) -> None:
    """Writes coefficients.csv, where there are rows of class, feature, estimate and more."""
    if rows:
        workdir.write_csv("coefficients.csv", rows)


def write_predictions(
    workdir: Workdir, splits: Splits, on_val: Classifier, on_test: Classifier
) -> None:
    """Writes predictions.npz: probabilities [N, C], predicted classes, labels and losses [N].

    With a digest of the examples, so that runs are compared on the same ones (`comparison`).
    Where a split has weights, they are there too; and where some of them were 0, the rows of the
    others among all that were given.

    Args:
      workdir: the folder.
      splits: of which val and test are predicted.
      on_val, on_test: the classifiers that have not seen these splits.
    """
    arrays = {"label_names": np.array(splits.label_names)}
    for role, split, model in (("val", splits.val, on_val), ("test", splits.test, on_test)):
        if split is not None:
            arrays[f"{role}_probabilities"] = model.predict_proba(split.x)
            arrays[f"{role}_predicted"] = model.classes(split.x)
            arrays[f"{role}_labels"] = np.asarray(split.y)
            arrays[f"{role}_losses"] = model.by_example(split)[0]
            arrays[f"{role}_digest"] = np.array(digest(split))
            if split.weights is not None:
                arrays[f"{role}_weights"] = example_weights(split)
            if split.present is not None:
                arrays[f"{role}_rows"] = split.rows
    workdir.write_npz("predictions.npz", **arrays)


def write_summary(
    workdir: Workdir,
    config: ConfigDict,
    splits: Splits,
    result: Result,
    selected: Selected | None,
    test: dict | None,
    more: dict[str, Any],
    seconds: dict[str, float],
) -> None:
    """Writes summary.json, before the pictures and again, with their seconds, after them.

    A job has ended once it has those seconds, or no setting was selected: see `workdir.outcome`.
    """
    summary = summary_fields(config, splits, result, selected, test, seconds) | more
    workdir.write_json("summary.json", summary)
