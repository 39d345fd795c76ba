"""Many trials as one program: settings, folds and seeds in, figures and the chosen model out.

settings = sweep.grid(learning_rate=(0.03, 0.1, 0.3), l2=(0.0, 1e-4))
result = sweep.fit(train, val, settings, num_epochs=10, batch_size=256)
"""

from softmax_jax.sweep.collecting import collect
from softmax_jax.sweep.cross_validation import bootstrap, cross_validate, refit
from softmax_jax.sweep.epoch import Epoch
from softmax_jax.sweep.full_batch import l2_path
from softmax_jax.sweep.loop import epochs, fit
from softmax_jax.sweep.result import Result
from softmax_jax.sweep.run import Selected
from softmax_jax.sweep.settings import grid, log_uniform, random, uniform, zipped
from softmax_jax.sweep.tables import spread

__all__ = [
    "Epoch",
    "Result",
    "Selected",
    "bootstrap",
    "collect",
    "cross_validate",
    "epochs",
    "fit",
    "grid",
    "l2_path",
    "log_uniform",
    "random",
    "refit",
    "spread",
    "uniform",
    "zipped",
]
