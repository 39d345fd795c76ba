"""The dataset that is always there: scikit-learn's handwritten digits."""

import numpy as np

from softmax_jax.data.source import Source

NAME = "digits"


def source() -> Source:
    """1,797 handwritten digits: images uint8 [N, 8, 8] of values 0..16, in 10 classes.

    The division into `train` (1,437) and `test` (360) is fixed and stratified: with the images
    sorted by class, and within a class in scikit-learn's order, the first of every five is in
    `test`. So each class gives a fifth of its images, to within one. Within each split the
    images keep scikit-learn's order.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = x.reshape(-1, 8, 8).astype(np.uint8), y.astype(np.int32)
    in_test = np.zeros(len(y), bool)
    in_test[np.argsort(y, kind="stable")[::5]] = True
    parts = {"train": (x[~in_test], y[~in_test]), "test": (x[in_test], y[in_test])}
    lengths = {split: (len(labels),) for split, (_, labels) in parts.items()}
    return Source(NAME, tuple("0123456789"), 16.0, lengths, parts.__getitem__)
