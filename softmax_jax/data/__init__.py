"""Where examples come from.

splits = data.load('fashion_mnist', train='train[:50000]', val='train[50000:]', test='test')
splits = data.load('features.npz', train='auto', val='auto', test='auto')
splits = data.from_arrays(train=(x, y), val=(x_val, y_val))
"""

import importlib
from typing import Any

from softmax_jax.data.dataset import Dataset, Splits, digest, fingerprint, joined
from softmax_jax.data.loading import from_arrays, load
from softmax_jax.data.sources import Source, register
from softmax_jax.host import DataError, DatasetNotFoundError

__all__ = [
    "DataError",
    "Dataset",
    "DatasetNotFoundError",
    "Source",
    "Splits",
    "digest",
    "fingerprint",
    "from_arrays",
    "joined",
    "load",
    "register",
    "show_images",
]


def __getattr__(name: str) -> Any:
    if name == "show_images":  # on demand: loading data needs no Matplotlib
        return importlib.import_module("softmax_jax.plots").show_images
    raise AttributeError(f"module 'softmax_jax.data' has no attribute {name!r}")
