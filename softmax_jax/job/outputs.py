"""What a job leaves: tables, parameters, pictures, summary.json, closing lines of the log."""

import math

import numpy as np

from softmax_jax import decisions, metrics, plots, studies, sweep
from softmax_jax.host import JobError
from softmax_jax.job import console, processes

_MOST_CLASSES = 100  # whose confusion matrix is written out, and of which the log has a line each
DECISION_RULES = ("argmax", "bayes")


def decision_fields(config, splits, result, chosen, selected, counts=None) -> dict:
    """What summary.json holds of classes and costs, and `lines` writes in the log.

    chosen, selected: the winner as it was chosen, which has not seen val, and as it may have been
    refitted since, which has not seen test; on test, or where there is none on val. counts: the
    resamples [N, R] of the sweep, if it had any. Costs are None without config.cost_matrix.
    """
    on, part, model = "test", splits.test, selected
    if part is None:
        on, part, model = "val", splits.val, chosen
    probabilities = model.classifier.predict_proba(part.x)
    found = {
        "on": on,
        "classes": class_metrics(probabilities, part),
        "costs": None,
        "resampled": None,
    }
    if config.cost_matrix:
        found["costs"] = cost_metrics(probabilities, part, config.cost_matrix)
        if counts is not None:
            arguments = result, chosen, splits.train, counts, config.cost_matrix
            found["resampled"] = resampled_costs(*arguments, config.select_epoch)
    return found


def class_metrics(probabilities, dataset) -> dict:
    """Precision, recall, F1, support and the confusion matrix of argmax, in the order of labels.

    The confusion matrix is None for more than 100 classes.
    """
    table = metrics.confusion_matrix(dataset.y, probabilities.argmax(-1), dataset.num_classes)
    figures = metrics.per_class(table)
    shown = table if dataset.num_classes <= _MOST_CLASSES else None
    return {"label_names": dataset.label_names, **figures, "confusion": shown}


def cost_metrics(probabilities, dataset, cost_matrix) -> dict:
    """The mean cost of an example by argmax, by the least expected cost, and what that saves.

    Each with a normal 95 % interval, that of the saving from the differences of each example: too
    short where the dear mistakes are a handful, as they may all be missing from this split.
    `actions` [C, A]: how often each class met each action.
    """
    cost, labels = np.asarray(cost_matrix, float), np.asarray(dataset.y)
    actions = _actions(probabilities, cost)
    costs, tables = cost[labels, actions], metrics.confusion_matrix(labels, actions, *cost.shape)
    rules = {
        rule: {"cost": _mean_with_interval(costs[index]), "actions": tables[index]}
        for index, rule in enumerate(DECISION_RULES)
    }
    return {"cost_matrix": cost, **rules, "saving": _mean_with_interval(costs[0] - costs[1])}


def resampled_costs(result, selected, train, counts, cost_matrix, epoch="last") -> dict:
    """The same on what each resample held out: counts [N, R], as the sweep was given them.

    By rule, over the trials of the selected setting: mean, standard deviation and central 95 % of
    the mean cost and, where the actions are the classes, of the recall of each class.
    """
    cost, trials = np.asarray(cost_matrix, float), result.run.trials
    own = np.flatnonzero(trials.setting == trials.setting[selected.trial])
    tables = []
    for trial in own:
        probabilities = result.classifier(int(trial), epoch).predict_proba(train.x)
        actions, held_out = _actions(probabilities, cost), counts[:, trials.fold[trial]] == 0
        tables.append(metrics.confusion_matrix(train.y, actions, *cost.shape, held_out))
    tables = np.stack(tables, 1)  # [2, R, C, A]
    costs = metrics.mean_cost(tables, cost)
    figures = {
        rule: {"cost": _resample_spread(costs[index])} for index, rule in enumerate(DECISION_RULES)
    }
    if cost.shape[0] == cost.shape[1]:
        recalls = metrics.per_class(tables)["recall"]
        for index, rule in enumerate(DECISION_RULES):
            names = zip(train.label_names, recalls[index].T, strict=True)
            figures[rule]["recall"] = {name: _resample_spread(values) for name, values in names}
    return {"resamples": len(own), **figures, "saving": _resample_spread(costs[0] - costs[1])}


def decision_lines(found) -> list[str]:
    """What `fields` found, as text for the log."""
    classes, costs, resampled = (found[name] for name in ("classes", "costs", "resampled"))
    names = classes["label_names"]
    text = []
    if len(names) <= _MOST_CLASSES:
        width = max(map(len, names))
        text.append(f"{'':{width}}{'precision':>11}{'recall':>11}{'f1':>11}{'examples':>11}")
        for index, name in enumerate(names):
            figures = [classes[figure][index] for figure in ("precision", "recall", "f1")]
            columns = "".join(f"{figure:11.4f}" for figure in figures)
            text.append(f"{name:{width}}{columns}{classes['support'][index]:11,}")
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


def _actions(probabilities, cost):
    """[2, N]: the action that is best for the most probable class, and the Bayes action."""
    of_class = cost.argmin(1)
    bayes = decisions.bayes_action(np.asarray(probabilities), cost)
    return np.stack([of_class[probabilities.argmax(-1)], np.asarray(bayes)])


def _mean_with_interval(values):
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    interval = metrics.normal_interval(values.mean(), spread, len(values))
    return {"mean": float(values.mean()), "interval": interval}


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


def summary_fields(config, splits, result, selected, test, seconds) -> dict:
    """What summary.json holds; `selected` is None where every trial diverged."""
    return {
        "dataset": splits.name,
        "num_examples": {
            role: 0 if part is None else len(part.y) for role, part in _roles(splits).items()
        },
        "val_is_test": splits.val_is_test,
        "trials": len(result.run.trials.setting),
        "diverged": int((result.diverged > 0).sum()),
        "selected": None if selected is None else selected_fields(selected),
        "resampled": None if selected is None else resampled_metrics(config, result, selected),
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


def resampled_metrics(config, result, selected):
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
    """The first lines: what it runs on, on which data, where the results go, whether it resumes."""
    for warning in progress.warnings:
        console.warn(warning)
    where = processes.devices()
    console.say(
        f"{where['backend']} · {where['device_count']} × {where['device_kind']} · "
        f"{splits.name} ({_role_sizes(splits)}) → {folder}"
    )
    if progress.pending is not None:
        console.say(f"Resuming after {progress.seconds:.0f} s of training.")


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
            figures = [selected.metrics.get(f"{role}_{what}") for what in ("loss", "accuracy")]
            shown = ["" if value is None else f"{value:.4f}" for value in figures]
            console.say(f"{role:8}{shown[0]:>10}{shown[1]:>10}".rstrip())
    if test:
        console.say(
            f"{'test':8}{test['loss']:10.4f}{test['accuracy']:10.4f}{_interval_texts(test)}"
        )
        if splits.val_is_test and not selected.refit:
            console.say("val and test share examples: the test figures are optimistic.")
    for hint in selected.hints:
        console.warn(hint)
    if selected.metrics.get("val_loss", 0) > math.log(len(splits.label_names)):
        console.warn("The validation loss is above that of guessing: try a smaller learning rate.")


def say_more(config, more):
    """Argmax against the decision of least expected cost; the distance to a made language."""
    if config.cost_matrix:
        for line in decision_lines(more["decisions"]):
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


def _interval_texts(test):
    spans = [{"interval": test[f"{name}_interval"]} for name in ("loss", "accuracy")]
    return "  95 %: " + ", ".join(map(_interval_text, spans))


def _spread_text(figure):
    text = f"{figure['mean']:.4f} ± {figure['sd']:.4f}"
    return f"{text}, 95 % in {_interval_text(figure)}" if "interval" in figure else text


def _interval_text(figure):
    low, high = figure["interval"]
    return f"[{low:.4f}, {high:.4f}]"


def _roles(splits):
    return {"train": splits.train, "val": splits.val, "test": splits.test}


def _role_sizes(splits):
    return ", ".join(
        f"{len(part.y):,} {role}" for role, part in _roles(splits).items() if part is not None
    )


def write_provenance(workdir, config, splits, job):
    """config.json: the config as run, the software, the devices and the data really used."""
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


def draw(workdir, config, splits, result, selected):
    """The pictures that this job and this dataset have."""
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
        console.say(f"No pictures of examples: those of {splits.name} are features, not images.")
    for name, figure in figures.items():
        workdir.write_figure(name, figure)


def write_studies(workdir, config, splits, selected) -> dict:
    """learning_curve.csv and .png, audit.csv and .png, where the config asks for them.

    Returns what summary.json holds of them. Raises JobError for sizes or folds that do not fit.
    """
    classifier, l2 = selected.classifier, selected.hyperparameters["l2"]
    summary, wanted = {}, config.learning_curve
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
            workdir.write_csv("audit.csv", found.table(splits.label_names))
            if splits.train.is_image:
                figure = plots.suspects(splits.train, found, splits.name)
                workdir.write_figure("audit.png", figure)
    except ValueError as error:
        raise JobError(f"The studies cannot be made on {splits.name}: {error}") from error
    return summary


def write_tables(workdir, config, result):
    """trials.csv, and for a sweep settings.csv."""
    workdir.write_csv("trials.csv", result.table())
    if len(result.run.trials.setting) > 1:
        workdir.write_csv("settings.csv", result.by_setting(config.select_epoch))


def write_params(workdir, classifier):
    """params.npz: logits = ((x - mean) / scale) @ W + b, with NumPy alone."""
    workdir.write_npz(
        "params.npz",
        W=classifier.W,
        b=classifier.b,
        mean=np.asarray(classifier.mean, classifier.W.dtype),
        scale=np.asarray(classifier.scale, classifier.W.dtype),
        label_names=np.array(classifier.label_names),
    )


def write_predictions(workdir, splits, on_val, on_test):
    """predictions.npz: probabilities [N, C], predicted classes and labels [N] for val and test.

    on_val, on_test: the classifiers that have not seen them.
    """
    arrays = {"label_names": np.array(splits.label_names)}
    for role, part, model in (("val", splits.val, on_val), ("test", splits.test, on_test)):
        if part is not None:
            probabilities = model.predict_proba(part.x)
            arrays[f"{role}_probabilities"] = probabilities
            arrays[f"{role}_predicted"] = probabilities.argmax(-1).astype(np.int32)
            arrays[f"{role}_labels"] = np.asarray(part.y)
    workdir.write_npz("predictions.npz", **arrays)


def write_summary(workdir, config, splits, result, selected, test, more, seconds):
    """summary.json, the last file of a job: where it stands, the job is done."""
    summary = summary_fields(config, splits, result, selected, test, seconds) | more
    workdir.write_json("summary.json", summary)
