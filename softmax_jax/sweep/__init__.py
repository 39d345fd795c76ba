"""Many trials as one program: settings, folds and seeds in, metrics and the chosen model out.

settings = sweep.grid(learning_rate=(0.03, 0.1, 0.3), l2=(0.0, 1e-4))
result = sweep.fit(train, val, settings, num_epochs=10, batch_size=256)
"""

from softmax_jax.sweep.chunks import Epoch
from softmax_jax.sweep.cross_validation import (
    bootstrap,
    cross_validate,
    out_of_fold,
    outer_estimate,
    refit,
    spread,
)
from softmax_jax.sweep.full_batch import l1_path, l2_path
from softmax_jax.sweep.inputs import Resamples, bootstrap_counts, fold_counts, nested_folds
from softmax_jax.sweep.loop import LBFGS, SGD, Devices, Objective, epochs, fit
from softmax_jax.sweep.result import Result, Selected, Selection, collect
from softmax_jax.sweep.settings import grid, log_uniform, random, uniform, zipped

__all__ = [
    "LBFGS",
    "SGD",
    "Devices",
    "Epoch",
    "Objective",
    "Resamples",
    "Result",
    "Selected",
    "Selection",
    "bootstrap",
    "bootstrap_counts",
    "collect",
    "cross_validate",
    "epochs",
    "fit",
    "fold_counts",
    "grid",
    "l1_path",
    "l2_path",
    "log_uniform",
    "nested_folds",
    "out_of_fold",
    "outer_estimate",
    "random",
    "refit",
    "spread",
    "uniform",
    "zipped",
]
