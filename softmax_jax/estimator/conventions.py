"""Between scikit-learn's conventions and this project's: penalties, and the shapes of weights."""

import numpy as np


def swap_C_and_l2(value, total_weight, num_classes):
    """l2 = 1 / (C · Σ weights), and as well C = 1 / (l2 · Σ weights); with two classes 2 / (…).

    scikit-learn minimises C · Σ weights · loss + ‖coef‖²/2: a sum, where the objective here has a
    mean. With two classes its coef is W₁ - W₀. At the optimum W₁ = -W₀, so that ‖W‖² is half of
    ‖coef‖², and l2 has to be twice as large.

    >>> float(swap_C_and_l2(1.0, 100, num_classes=3)), float(swap_C_and_l2(1.0, 100, num_classes=2))
    (0.01, 0.02)
    """
    factor = 2 if num_classes == 2 else 1
    with np.errstate(divide="ignore"):  # no penalty is C = inf
        return np.divide(factor, np.multiply(value, total_weight))


def to_scikit_learn(W, b):
    """W [D, C], b [C] -> coef_ [C, D], intercept_ [C]; with two classes [1, D], [1]: W₁ - W₀.

    Adding a constant to all logits of an example changes no probability: of all W and b that mean
    the same, those whose mean over the classes is zero.
    """
    if len(b) == 2:
        return W.T[1:] - W.T[:1], b[1:] - b[:1]
    return W.T - W.T.mean(0), b - b.mean()


def from_scikit_learn(coef, intercept):
    """The other way round."""
    if len(intercept) == 1:
        coef, intercept = np.append(-coef, coef, 0) / 2, np.append(-intercept, intercept) / 2
    return coef.T, intercept
