"""Softmax regression in functional JAX: one model or thousands, as one compiled program.

The letters in the shapes of every docstring:

    N examples    D features    C classes    B batch size
    T trials      S seeds       R resamples  V vocabulary

A *setting* is one choice of the hyperparameters; a *trial* is one trained model: a setting, a
seed, a resample and a batch size. The *loss* is the mean cross-entropy; the *objective*, which is
what training minimises, adds l2/2 · ‖W‖² to it (the bias is not penalised).
"""

import importlib

__version__ = "0.2.0"

# What is imported when it is first asked for: name → module, or name → the module itself.
_LAZY = {
    "data": "softmax_jax.data",
    "losses": "softmax_jax.losses",
    "optimum": "softmax_jax.optimum",
    "sweep": "softmax_jax.sweep",
    "load": "softmax_jax.classifier",
    "SoftmaxRegression": "softmax_jax.estimator",
    "SoftmaxRegressionCV": "softmax_jax.estimator",
}
_MODULES = ("data", "losses", "optimum", "sweep")

__all__ = ["__version__", *_LAZY]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'softmax_jax' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name in _MODULES else getattr(module, name)


def __dir__():
    return sorted({*globals(), *__all__})
