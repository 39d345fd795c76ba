"""Figures by class, and what decisions cost: plain dictionaries for summary.json and the log."""

import math

import numpy as np

from softmax_jax import class_report, decisions, intervals

_MOST_CLASSES = 100  # whose confusion matrix is written out, and of which the log has a line each
RULES = ("argmax", "bayes")


def problems(cost_matrix, label_names) -> list[str]:
    """What is wrong with a cost matrix for these classes, a line each."""
    form = f"cost_matrix must have a row of costs for each of the {len(label_names)} classes"
    rows = cost_matrix if isinstance(cost_matrix, tuple | list) else ()
    if len(rows) != len(label_names) or not all(isinstance(row, tuple | list) for row in rows):
        return [f"{form}; it is {cost_matrix!r}"]
    lengths = [len(row) for row in rows]
    if min(lengths) < 1 or max(lengths) > min(lengths):
        return [f"{form}, and each row one for each action; the rows have {lengths} costs"]
    wrong = [cost for row in rows for cost in row if not _is_finite(cost)]
    return [f"each cost in cost_matrix must be a finite number; one is {cost!r}" for cost in wrong]


def fields(config, splits, result, chosen, selected, counts=None) -> dict:
    """What summary.json holds of classes and costs, and `lines` writes in the log.

    chosen, selected: the winner as it was chosen, which has not seen val, and as it may have been
    refitted since, which has not seen test; on test, or where there is none on val. counts: the
    resamples [N, R] of the sweep, if it had any. Costs are None without config.cost_matrix.
    """
    on, part, model = "test", splits.test, selected
    if part is None:
        on, part, model = "val", splits.val, chosen
    probabilities = model.classifier.predict_proba(part.x)
    found = {"on": on, "classes": by_class(probabilities, part), "costs": None, "resampled": None}
    if config.cost_matrix:
        found["costs"] = by_cost(probabilities, part, config.cost_matrix)
        if counts is not None:
            arguments = result, chosen, splits.train, counts, config.cost_matrix
            found["resampled"] = over_resamples(*arguments, config.select_epoch)
    return found


def by_class(probabilities, dataset) -> dict:
    """Precision, recall, F1, support and the confusion matrix of argmax, in the order of labels.

    The confusion matrix is None for more than 100 classes.
    """
    table = class_report.confusion(dataset.y, probabilities.argmax(-1), dataset.num_classes)
    figures = class_report.per_class(table)
    shown = table if dataset.num_classes <= _MOST_CLASSES else None
    return {"label_names": dataset.label_names, **figures, "confusion": shown}


def by_cost(probabilities, dataset, cost_matrix) -> dict:
    """The mean cost of an example by argmax, by the least expected cost, and what that saves.

    Each with a normal 95 % interval, that of the saving from the differences of each example: too
    short where the dear mistakes are a handful, as they may all be missing from this split.
    `actions` [C, A]: how often each class met each action.
    """
    cost, labels = np.asarray(cost_matrix, float), np.asarray(dataset.y)
    actions = _actions(probabilities, cost)
    costs, tables = cost[labels, actions], class_report.confusion(labels, actions, *cost.shape)
    rules = {
        rule: {"cost": _mean(costs[index]), "actions": tables[index]}
        for index, rule in enumerate(RULES)
    }
    return {"cost_matrix": cost, **rules, "saving": _mean(costs[0] - costs[1])}


def over_resamples(result, selected, train, counts, cost_matrix, epoch="last") -> dict:
    """The same on what each resample held out: counts [N, R], as the sweep was given them.

    By rule, over the trials of the selected setting: mean, standard deviation and central 95 % of
    the mean cost and, where the actions are the classes, of the recall of each class.
    """
    cost, trials = np.asarray(cost_matrix, float), result.run.trials
    own = np.flatnonzero(trials.group == trials.group[selected.trial])
    tables = []
    for trial in own:
        probabilities = result.classifier(int(trial), epoch).predict_proba(train.x)
        actions, held_out = _actions(probabilities, cost), counts[:, trials.fold[trial]] == 0
        tables.append(class_report.confusion(train.y, actions, *cost.shape, held_out))
    tables = np.stack(tables, 1)  # [2, R, C, A]
    costs = class_report.mean_cost(tables, cost)
    figures = {rule: {"cost": _spread(costs[index])} for index, rule in enumerate(RULES)}
    if cost.shape[0] == cost.shape[1]:
        recalls = class_report.per_class(tables)["recall"]
        for index, rule in enumerate(RULES):
            names = zip(train.label_names, recalls[index].T, strict=True)
            figures[rule]["recall"] = {name: _spread(values) for name, values in names}
    return {"resamples": len(own), **figures, "saving": _spread(costs[0] - costs[1])}


def lines(found) -> list[str]:
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
    argmax, bayes = (costs[rule]["cost"]["mean"] for rule in RULES)
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


def _mean(values):
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    interval = intervals.normal(values.mean(), spread, len(values))
    return {"mean": float(values.mean()), "interval": interval}


def _spread(values):
    """None where no resample held out an example of the class."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=len(values) > 1)),
        "interval": [float(bound) for bound in np.quantile(values, (0.025, 0.975))],
    }


def _is_finite(cost):
    return isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost)
