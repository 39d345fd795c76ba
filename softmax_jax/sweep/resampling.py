"""Folds, bootstrap draws and weights: how often each training example counts.

A resample is a column of counts [N]; a model trains where its count is positive and is evaluated
where it is zero. All columns travel to the device once, as uint8 [N, R], whatever the number of
trials.
"""

import numpy as np

from softmax_jax.sweep import memory

_MOST = 255  # of a uint8


def fold_counts(labels, folds=5, *, stratified=True, seed=0):
    """Counts [N, R] of K-fold cross-validation: column k is zero on fold k and one elsewhere.

    folds: how many, or an integer array [N] that says which fold each example is in (groups that
    must stay together). stratified: each fold gets its share of every class. Raises ValueError for
    fewer than two folds, and for more folds than a class has examples.

    >>> fold_counts(np.array([0, 0, 1, 1]), 2).sum(0).tolist()
    [2, 2]
    """
    labels = np.asarray(labels)
    if np.ndim(folds) == 0:
        member = _assign(labels, int(folds), stratified, seed)
    else:
        member = _given(folds, len(labels))
    memory.check_counts(len(labels), member.max() + 1)
    return (member[:, None] != np.arange(member.max() + 1)).astype(np.uint8)


def check(resamples, num_examples):
    """Raises ValueError for counts that no resample can have.

    They are whole numbers [N, R] from 0 to 255, and every column leaves something in and
    something out.
    """
    counts = np.asarray(resamples)
    if counts.ndim != 2 or counts.shape[0] != num_examples or not counts.shape[1]:
        raise ValueError(f"resamples need a row for each of the {num_examples} training examples.")
    if not ((counts >= 0) & (counts <= _MOST) & (counts == np.floor(counts))).all():
        raise ValueError(f"resamples are counts: whole numbers from 0 to {_MOST}.")
    useless = ~((counts > 0).any(0) & (counts == 0).any(0))
    if useless.any():
        raise ValueError(
            f"Column {useless.argmax()} of the resamples leaves no example to train on, or none "
            "to evaluate on."
        )


def bootstrap_counts(num_examples, draws, *, seed=0):
    """Counts [N, R] of R bootstrap draws: each column sums to N, about 37 % of it is zero."""
    if draws < 2:
        raise ValueError(f"A bootstrap needs at least 2 draws; it got {draws}.")
    memory.check_counts(num_examples, draws)
    rng = np.random.default_rng(seed)
    counts = np.empty((num_examples, draws), np.uint8)
    for column in counts.T:
        drawn = rng.integers(num_examples, size=num_examples)
        column[:] = np.minimum(np.bincount(drawn, minlength=num_examples), _MOST)
    return counts


def importance(dataset, class_weight=None):
    """What each training example weighs in the objective, [N] of mean 1; None: the same.

    The product of the dataset's own weights and the weight of the example's class: 'balanced'
    (N / (C · count of the class)) or C numbers. With mean 1, l2 keeps its meaning. Raises
    ValueError for class weights that do not fit.
    """
    if dataset.weights is None and class_weight is None:
        return None
    labels, num_classes = np.asarray(dataset.y), dataset.num_classes
    own = np.ones(len(labels)) if dataset.weights is None else np.asarray(dataset.weights)
    weights = own * _class_weights(labels, num_classes, class_weight)[labels]
    if not weights.sum() > 0:
        raise ValueError("The weights of the training examples are all zero.")
    return (weights / weights.mean()).astype(dataset.dtype)


def _class_weights(labels, num_classes, class_weight):
    if class_weight is None:
        return np.ones(num_classes)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight must be 'balanced' or {num_classes} numbers; "
                f"it got {class_weight!r}."
            )
        counts = np.bincount(labels, minlength=num_classes)
        return len(labels) / (num_classes * np.maximum(counts, 1))
    weights = np.asarray(class_weight, np.float64)
    if weights.shape != (num_classes,) or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"class_weight needs {num_classes} finite numbers of 0 or greater, one per class; "
            f"it got {tuple(np.atleast_1d(weights).tolist())}."
        )
    return weights


def _assign(labels, folds, stratified, seed):
    """The fold of each example: shuffled, then dealt out like cards (class by class)."""
    smallest = np.bincount(labels)[np.unique(labels)].min() if stratified else len(labels)
    if folds < 2 or folds > smallest:
        scarce = "examples of the rarest class" if stratified else "examples"
        raise ValueError(f"folds must be from 2 to the {smallest} {scarce}; it got {folds}.")
    order = np.random.default_rng(seed).permutation(len(labels))
    if stratified:
        order = order[np.argsort(labels[order], kind="stable")]
    member = np.empty(len(labels), np.int64)
    member[order] = np.arange(len(labels)) % folds
    return member


def _given(folds, num_examples):
    folds = np.asarray(folds)
    if folds.shape != (num_examples,) or not np.issubdtype(folds.dtype, np.integer):
        raise ValueError(f"folds as an array must be {num_examples} integers, one per example.")
    names, member = np.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise ValueError("folds as an array must name at least two folds.")
    return member
