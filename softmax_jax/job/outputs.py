"""What a job writes: tables, parameters, pictures, summary.json, the closing lines of the log."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from ml_collections import ConfigDict

from softmax_jax import decisions, metrics, plots, studies, sweep
from softmax_jax.classifier import Classifier
from softmax_jax.data.dataset import Dataset, Splits, example_weights
from softmax_jax.host import JobError
from softmax_jax.job import console, processes
from softmax_jax.job.checkpoint import Progress
from softmax_jax.job.workdir import Workdir
from softmax_jax.sweep.result import Result, Selected

_MOST_CLASSES = 100  # of more the confusion matrix and the lines in the log are left out
DECISION_RULES = ("argmax", "bayes")


def decision_fields(
    config: ConfigDict,
    splits: Splits,
    result: Result,
    chosen: Selected,
    selected: Selected,
    counts: Shaped[np.ndarray, "N R"] | None = None,
) -> dict[str, Any]:
    """The metrics by class and the costs, on test, or without a test split on val.

    Args:
      config: without its cost_matrix the costs are None.
      splits: the data.
      result: of the sweep.
      chosen: the winner as it was chosen, which has not seen val.
      selected: the winner as it may have been refitted, which has not seen test.
      counts: the resamples of the sweep, if it had any.

    Returns:
      What summary.json holds of them, and `decision_lines` writes to the log.
    """
    on, split, model = "test", splits.test, selected
    if split is None:
        on, split, model = "val", splits.val, chosen
    probabilities = model.classifier.predict_proba(split.x)
    predicted = model.classifier.predict(split.x)
    found: dict[str, Any] = {
        "on": on,
        "classes": class_metrics(probabilities, split, predicted),
        "costs": None,
        "resampled": None,
    }
    if config.cost_matrix:
        found["costs"] = cost_metrics(probabilities, split, config.cost_matrix, predicted)
        if counts is not None:
            arguments = result, chosen, splits.train, counts, config.cost_matrix
            found["resampled"] = resampled_costs(*arguments, config.select_epoch)
    return found


def class_metrics(
    probabilities: Float[np.ndarray, "N C"],
    dataset: Dataset,
    predicted: Int[np.ndarray, " N"] | None = None,
) -> dict[str, Any]:
    """Precision, recall, F1, support and the confusion matrix, in the order of labels.

    Each example counts as often as its weight says. The confusion matrix is None for more than 100
    classes. predicted: the classes that the model predicts; None: the most probable.
    """
    predicted = probabilities.argmax(-1) if predicted is None else predicted
    counts = dataset.y, predicted, dataset.num_classes
    table = metrics.confusion_matrix(*counts, weights=dataset.weights)
    shown = table if dataset.num_classes <= _MOST_CLASSES else None
    return {"label_names": dataset.label_names, **metrics.per_class(table), "confusion": shown}


def cost_metrics(
    probabilities: Float[np.ndarray, "N C"],
    dataset: Dataset,
    cost_matrix: Sequence,
    predicted: Int[np.ndarray, " N"] | None = None,
) -> dict[str, Any]:
    """The mean cost of an example by the predicted class and by least expected cost, the saving.

    Each has a normal 95 % interval, that of the saving from the differences by example. It is too
    short where there are only a few expensive mistakes, as this split may lack them altogether.

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
        rule: {"cost": _mean_with_interval(costs[index], weights), "actions": tables[index]}
        for index, rule in enumerate(DECISION_RULES)
    }
    saving = _mean_with_interval(costs[0] - costs[1], weights)
    return {"cost_matrix": cost, **rules, "saving": saving}


def resampled_costs(
    result: Result,
    selected: Selected,
    train: Dataset,
    counts: Shaped[np.ndarray, "N R"],
    cost_matrix: Sequence,
    epoch: str = "last",
) -> dict[str, Any]:
    """The costs on the examples that each resample held out, over the selected setting's trials.

    Args:
      result: of the sweep.
      selected: its winner.
      train: the training examples.
      counts: the resamples, as the sweep was given them.
      cost_matrix: the cost of each action in a row per class.
      epoch: whose models: 'last' or 'best'.

    Returns:
      For both rules mean, standard deviation and central 95 % of the mean cost and, where the
      actions are the classes, of the recall of each class.
    """
    cost, trials = np.asarray(cost_matrix, float), result.run.trials
    num_classes, num_actions = cost.shape
    own = np.flatnonzero(trials.setting == trials.setting[selected.trial])
    by_trial = []
    for trial in own:
        model = result.classifier(int(trial), epoch)
        actions = _actions(model.predict_proba(train.x), model.predict(train.x), cost)
        held_out = (counts[:, trials.fold[trial]] == 0) * example_weights(train)
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
    classes, costs, resampled = (found[name] for name in ("classes", "costs", "resampled"))
    names = classes["label_names"]
    text = []
    if len(names) <= _MOST_CLASSES:
        width = max(map(len, names))
        text.append(f"{'':{width}}{'precision':>11}{'recall':>11}{'f1':>11}{'examples':>11}")
        for index, name in enumerate(names):
            values = [classes[metric][index] for metric in ("precision", "recall", "f1")]
            columns = "".join(f"{value:11.4f}" for value in values)
            text.append(f"{name:{width}}{columns}{classes['support'][index]:11,.8g}")
    if costs:
        text.append(f"cost of an example: {_compared(costs)}")
    if resampled:
        text.append(f"over {resampled['resamples']} resamples: {_compared(resampled)}")
    return text


def _compared(costs):
    argmax, bayes = (costs[rule]["cost"]["mean"] for rule in DECISION_RULES)
    low, high = costs["saving"]["interval"]
    return (
        f"{argmax:.4f} by argmax, {bayes:.4f} by least expected cost; "
        f"saved {costs['saving']['mean']:.4f}, 95 % in [{low:.4f}, {high:.4f}]"
    )


def _actions(probabilities, predicted, cost):
    """[2, N]: the cheapest action for the predicted class, and the Bayes action."""
    of_class = cost.argmin(1)
    bayes = decisions.bayes_action(np.asarray(probabilities), cost)
    return np.stack([of_class[predicted], np.asarray(bayes)])


def _mean_with_interval(values, weights):
    mean, spread, n = metrics.mean_and_spread(values, weights)
    return {"mean": mean, "interval": metrics.normal_interval(mean, spread, n)}


def _resample_spread(values):
    """None where no resample held out an example of the class."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=len(values) > 1)),
        "interval": [float(bound) for bound in np.quantile(values, (0.025, 0.975))],
    }


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
        "selected": None if selected is None else selected_fields(selected),
        "resampled": None if selected is None else resampled_metrics(config, result, selected),
        "test": test,
        "seconds": {phase: round(value, 3) for phase, value in seconds.items()},
    }


def selected_fields(selected: Selected) -> dict[str, Any]:
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


def resampled_metrics(
    config: ConfigDict, result: Result, selected: Selected
) -> dict[str, Any] | None:
    """Mean and standard deviation of loss and accuracy over the folds or bootstrap draws.

    For the bootstrap also the 95 % percentile interval; None without resamples.
    """
    if not (config.folds or config.bootstraps):
        return None
    spreads = {
        name: sweep.spread(result, selected, name, config.select_epoch)
        for name in ("val_loss", "val_accuracy")
    }
    if config.folds:
        for spread in spreads.values():
            del spread["interval"]
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
        console.say(f"Resuming after {progress.seconds:.0f} s of training.")


def say_files(folder: Path) -> None:
    """Prints the last lines: what was written."""
    console.say(f"\nWritten to {folder}:")
    console.say("  " + "  ".join(sorted(path.name for path in folder.iterdir())))


def say_diverged(result: Result) -> None:
    """Warns that every setting diverged, and says what to do."""
    first = result.diverged[result.diverged > 0].min()
    console.warn(
        f"Every setting has a diverged trial, the first in epoch {first}: a loss stopped being "
        "finite. Try a smaller learning_rate (0.1 is safe for pixels), or with momentum m one "
        "smaller by the factor 1 - m."
    )


def say_result(
    config: ConfigDict, splits: Splits, result: Result, selected: Selected, test: dict | None
) -> None:
    """Prints the closing table: the selected trial, its metrics, and warnings about them."""
    console.say()
    trials = len(result.run.trials.setting)
    if trials > 1:
        diverged = int((result.diverged > 0).sum())
        console.say(f"{trials} trials, {diverged} diverged. Selected: {selected.why}")
        swept = [f"{name} {value:g}" for name, value in _swept(result, selected)]
        console.say(", ".join([f"trial {selected.trial}", f"epoch {selected.epoch}", *swept]))
    spread = resampled_metrics(config, result, selected)
    if spread:
        texts = [f"{name} {_spread_text(spread[f'val_{name}'])}" for name in ("loss", "accuracy")]
        console.say(f"over {spread['resamples']} resamples: {', '.join(texts)}")
    console.say(f"{'':8}{'loss':>10}{'accuracy':>10}")
    for role in ("train", "val"):
        if f"{role}_loss" in selected.metrics:
            values = [selected.metrics.get(f"{role}_{what}") for what in ("loss", "accuracy")]
            shown = ["" if value is None else f"{value:.4f}" for value in values]
            console.say(f"{role:8}{shown[0]:>10}{shown[1]:>10}".rstrip())
    if test:
        console.say(
            f"{'test':8}{test['loss']:10.4f}{test['accuracy']:10.4f}{_interval_texts(test)}"
        )
        if splits.val_is_test and not selected.refit:
            console.say("val and test share examples: the test metrics are optimistic.")
    for hint in selected.hints:
        console.warn(hint)
    if selected.metrics.get("val_loss", 0) > math.log(len(splits.label_names)):
        remedy = "a larger l2" if config.optimizer == "lbfgs" else "a smaller learning rate"
        console.warn(f"The validation loss is above that of guessing: try {remedy}.")


def say_more(config: ConfigDict, more: dict[str, Any]) -> None:
    """Prints the metrics by class and the costs."""
    if config.cost_matrix:
        for line in decision_lines(more["decisions"]):
            console.say(line)


def _swept(result, selected):
    trials = result.run.trials
    axes = trials.columns() | {"seed": trials.seed}
    shown = selected.hyperparameters
    return [
        (name, shown[name])
        for name, column in axes.items()
        if name in shown and (column != column[0]).any()
    ]


def _interval_texts(test):
    spans = [{"interval": test[f"{name}_interval"]} for name in ("loss", "accuracy")]
    return "  95 %: " + ", ".join(map(_interval_text, spans))


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


def draw(
    workdir: Workdir, config: ConfigDict, splits: Splits, result: Result, selected: Selected
) -> None:
    """Draws the pictures that apply to this job and its dataset."""
    several = len(result.run.trials.setting) > 1
    which = f", trial {selected.trial}, epoch {selected.epoch}" if several else ""
    figures = {"curves.png": plots.curves(result, selected, splits.name + which)}
    grid = plots.lay_out(result, selected, config.select_metric, config.select_epoch)
    if grid:
        figures["sweep.png"] = plots.sweep(grid, splits.name)
    settings = plots.settings(result, splits.name, config.select_epoch)
    if settings:
        figures["settings.png"] = settings
    figures |= plots.of_classifier(selected.classifier, splits.val, splits.name + which)
    if not splits.val.is_image:
        console.say(f"No pictures of examples: {splits.name} has features, not images.")
    for name, figure in figures.items():
        workdir.write_figure(name, figure)


def write_studies(
    workdir: Workdir, config: ConfigDict, splits: Splits, selected: Selected
) -> dict[str, Any]:
    """Writes learning_curve.csv and .png, audit.csv and .png, where the config asks for them.

    Returns:
      What summary.json holds of them.

    Raises:
      JobError: the sizes or folds do not fit the data (exit code 2).
    """
    classifier, l2 = selected.classifier, selected.hyperparameters["l2"]
    summary: dict[str, Any] = {}
    wanted = config.learning_curve
    try:
        if wanted.sizes:
            options = wanted.sizes, wanted.seeds, config.class_weight
            rows, law = studies.learning_curve(splits, classifier, l2, *options)
            workdir.write_csv("learning_curve.csv", rows)
            figure = plots.learning_curve(rows, law, splits.name)
            workdir.write_figure("learning_curve.png", figure)
            summary["learning_curve"] = law and law._asdict()
        if config.audit_folds:
            options = l2, config.audit_folds, config.class_weight
            found = studies.label_audit(splits.train, classifier, *options)
            as_given = found._replace(row=splits.train.rows[found.row])
            workdir.write_csv("audit.csv", as_given.table(splits.label_names))
            if splits.train.is_image:
                figure = plots.suspects(splits.train, found, splits.name)
                workdir.write_figure("audit.png", figure)
    except ValueError as error:
        raise JobError(f"The studies cannot be run on {splits.name}: {error}") from error
    return summary


def write_tables(workdir: Workdir, config: ConfigDict, result: Result) -> None:
    """Writes trials.csv, and for a sweep settings.csv."""
    workdir.write_csv("trials.csv", result.table())
    if len(result.run.trials.setting) > 1:
        workdir.write_csv("settings.csv", result.by_setting(config.select_epoch))


def write_params(workdir: Workdir, classifier: Classifier) -> None:
    """Writes params.npz, of which NumPy computes logits = ((x - mean) / scale) @ W + b.

    Mean and scale are float64: a mean of 1.7e9 beside a scale of 30 needs its digits. Where there
    are class weights, b is corrected for them, and class_weight has them: those of the fit are
    logits + log(class_weight).
    """
    by_class = classifier.class_weight
    workdir.write_npz(
        "params.npz",
        W=classifier.W,
        b=classifier.b,
        mean=np.asarray(classifier.mean, np.float64),
        scale=np.asarray(classifier.scale, np.float64),
        label_names=np.array(classifier.label_names),
        **({} if by_class is None else {"class_weight": by_class}),
    )


def write_predictions(
    workdir: Workdir, splits: Splits, on_val: Classifier, on_test: Classifier
) -> None:
    """Writes predictions.npz: probabilities [N, C], predicted classes and labels [N].

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
            arrays[f"{role}_predicted"] = model.predict(split.x)
            arrays[f"{role}_labels"] = np.asarray(split.y)
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
    """Writes summary.json, the last file of a job: its presence means that the job has ended."""
    summary = summary_fields(config, splits, result, selected, test, seconds) | more
    workdir.write_json("summary.json", summary)
