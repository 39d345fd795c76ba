"""The datasets that are always there: those that come with scikit-learn."""

import numpy as np

from softmax_jax.data.source import Source

NAMES = ("breast_cancer", "digits", "iris", "wine")


def source(name: str) -> Source:
    """One of `NAMES`, from scikit-learn's copy of it.

    - `digits`: 1,797 handwritten digits, images uint8 [N, 8, 8] of values 0..16, in 10 classes.
    - `breast_cancer` (569 examples of 30 features; `malignant` is class 0, `benign` class 1),
      `iris` (150 of 4, in 3 classes), `wine` (178 of 13, in 3 classes): float32 [N, D] as measured.

    The division into `train` and `test` is fixed and stratified: with the examples sorted by
    class, and within a class in scikit-learn's order, the first of every five is in `test`. So
    each class gives a fifth of its examples, to within one. Within each split the examples keep
    scikit-learn's order.
    """
    from sklearn import datasets

    everything = getattr(datasets, f"load_{name}")()
    if name == "digits":
        x, scale = everything.images.astype(np.uint8), 16.0
    else:
        x, scale = everything.data.astype(np.float32), 1.0
    y = everything.target.astype(np.int32)
    in_test = np.zeros(len(y), bool)
    in_test[np.argsort(y, kind="stable")[::5]] = True
    parts = {"train": (x[~in_test], y[~in_test]), "test": (x[in_test], y[in_test])}
    lengths = {split: (len(labels),) for split, (_, labels) in parts.items()}
    label_names = tuple(str(label) for label in everything.target_names)
    return Source(name, label_names, scale, lengths, parts.__getitem__)
