"""What more data would bring, and which labels to doubt: studies of the train split.

Both take the selected model's normalisation and l2, and train to the certified optimum, so that
neither learning rate nor number of epochs plays a part.
"""

import numpy as np

from softmax_jax import audit, learning_curve, optimum, sweep

_TOLERANCE = 1e-3  # relative, of the objective: far less than a subset or a fold changes it
LISTED = 1000  # suspects, at most


def curve(splits, classifier, l2, sizes, num_seeds, class_weight=None):
    """(rows, law): a row for each seed and size, and the power law of the validation error.

    sizes: numbers of training examples; the subsets of each of `num_seeds` seeds are nested and
    stratified. l2 is that of the whole split; smaller subsets get the same prior
    (`learning_curve.same_prior`). Raises ValueError for sizes that do not fit.
    """
    train = splits.train
    subsets = learning_curve.nested_subsets(train.y, sizes, range(num_seeds))
    problem = _problem(train, classifier, subsets.counts, class_weight)
    penalties = learning_curve.same_prior(l2, len(train.y), subsets.size)
    columns = np.arange(len(penalties))
    optima = optimum.minimise(problem, penalties, columns=columns, tolerance=_TOLERANCE)
    rows = []
    for trial in columns:
        figures = classifier._replace(W=optima.W[trial], b=optima.b[trial]).test(splits.val)
        rows.append(
            {
                "size": int(subsets.size[trial]),
                "seed": int(subsets.seed[trial]),
                "l2": float(penalties[trial]),
                "train_loss": float(optima.loss[trial]),
                "val_loss": figures["loss"],
                "val_accuracy": figures["accuracy"],
                "converged": bool(optima.converged[trial]),
            }
        )
    return rows, _law(rows, len(splits.val.y))


def suspects(dataset, classifier, l2, folds, class_weight=None, seed=0) -> audit.Suspects:
    """The examples whose labels are the least probable to the folds without them."""
    counts = sweep.resampling.fold_counts(dataset.y, folds, seed=seed)
    problem = _problem(dataset, classifier, counts, class_weight)
    probabilities = audit.out_of_sample_probabilities(problem, l2, tolerance=_TOLERANCE)
    return audit.suspects(probabilities, np.asarray(dataset.y), LISTED)


def _problem(dataset, classifier, counts, class_weight):
    x = np.asarray(dataset.x, classifier.W.dtype).reshape(len(dataset.y), -1)
    importance = sweep.resampling.importance(dataset, class_weight)
    return optimum.Problem(
        (x - classifier.mean) / classifier.scale,
        np.asarray(dataset.y),
        importance,
        counts,
        dataset.num_classes,
    )


def _law(rows, num_val):
    """The power law of the errors; None for fewer than three sizes."""
    sizes = [row["size"] for row in rows]
    if len(set(sizes)) < 3:
        return None
    # An error of zero on so few examples is one below half of one.
    errors = [max(1 - row["val_accuracy"], 0.5 / num_val) for row in rows]
    return learning_curve.fit_power_law(sizes, errors)
