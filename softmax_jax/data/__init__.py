"""Where examples come from.

splits = data.load('fashion_mnist', train='train[:50000]', val='train[50000:]', test='test')
splits = data.load('features.npz', train='auto', val='auto', test='auto')
splits = data.from_arrays(train=(x, y), val=(x_val, y_val))
"""

from softmax_jax.data.arrays import from_arrays
from softmax_jax.data.dataset import Dataset, Splits, fingerprint
from softmax_jax.data.errors import DataError, DatasetNotFoundError
from softmax_jax.data.gallery import show_images
from softmax_jax.data.joining import joined
from softmax_jax.data.loading import load

__all__ = [
    "DataError",
    "Dataset",
    "DatasetNotFoundError",
    "Splits",
    "fingerprint",
    "from_arrays",
    "joined",
    "load",
    "show_images",
]
