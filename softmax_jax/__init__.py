"""Softmax regression in functional JAX: one model or thousands, as one compiled program.

The letters in the shapes of every docstring:

    N examples    D features    C classes    B batch size
    T trials      S seeds       R resamples  V vocabulary

A *setting* is one choice of the hyperparameters; a *trial* is one trained model: a setting, a
seed, a resample and a batch size. The *loss* is the mean cross-entropy; the *objective*, which is
what training minimises, adds l2/2 · ‖W‖² to it (the bias is not penalised).
"""

import importlib

# What is imported when it is first asked for: name → module.
_LAZY = {
    "load": "softmax_jax.commands.parameters",
    "SoftmaxRegression": "softmax_jax.estimator",
    "SoftmaxRegressionCV": "softmax_jax.estimator",
}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'softmax_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
