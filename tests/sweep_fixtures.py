"""A small dataset, small sweeps on it, and the same training written in NumPy."""

import dataclasses
import itertools

import jax
import numpy as np
from numpy.testing import assert_array_equal
from scipy.special import softmax
from sklearn.datasets import load_digits

from softmax_jax import data, model, sweep, train
from softmax_jax.sweep.loop import orders


def _digits():
    """500 digits to train on, 200 to validate, 300 to test: 8 × 8 bytes, of which 16 is white."""
    everything = load_digits()
    x, y = everything.images.astype(np.uint8), everything.target
    rows = (slice(500), slice(500, 700), slice(700, 1000))
    splits = data.from_arrays(*((x[some], y[some]) for some in rows), name="digits")
    scaled = {
        role: dataclasses.replace(getattr(splits, role), scale=16.0)
        for role in ("train", "val", "test")
    }
    return dataclasses.replace(splits, **scaled)


DIGITS = _digits()

# Three settings that differ in everything, at rates where rounding is not amplified.
THREE = train.Hyperparameters(
    learning_rate=np.float32([0.02, 0.05, 0.1]),
    momentum=np.float32([0.5, 0.0, 0.0]),
    l2=np.float32([0.0, 1e-3, 1e-2]),
    init_scale=np.float32([0.01, 0.1, 0.05]),
)


def fit(settings=None, val=DIGITS.val, **options):
    """`sweep.fit` on the digits, three epochs of batches of 64 unless told otherwise."""
    return sweep.fit(DIGITS.train, val, settings, **{"num_epochs": 3, "batch_size": 64} | options)


def epochs(settings=None, val=DIGITS.val, **options):
    """`sweep.epochs` with the same defaults."""
    options = {"num_epochs": 3, "batch_size": 64} | options
    return sweep.epochs(DIGITS.train, val, settings, **options)


def chunks_of(size):
    """Devices that run at most `size` trials at once."""
    return sweep.Devices(chunk=size)


def setting_of(settings, number):
    """One of the settings, as plain numbers."""
    return jax.tree.map(lambda column: column[number].item(), settings)


def train_by_hand(
    dataset,
    h,
    *,
    num_epochs=3,
    batch_size=64,
    seed=0,
    weights=None,
    importance=1.0,
    multiplier=lambda _fraction: 1.0,
):
    """The final W and b of training in NumPy float64, from the same initial weights and orders.

    Examples of weight zero are taken out of their minibatches. multiplier: of the rate, after a
    fraction of training.
    """
    weights = np.ones(len(dataset.y)) if weights is None else np.asarray(weights, np.float64)
    importance = np.broadcast_to(importance, weights.shape)
    x = np.asarray(dataset.x, np.float64).reshape(len(dataset.y), -1) / dataset.scale
    smoothing, averaging = h.label_smoothing or 0, h.averaging or 0
    y = np.eye(dataset.num_classes)[dataset.y]
    y = (1 - smoothing) * y + smoothing / dataset.num_classes
    key, shape = jax.random.key(seed), (dataset.num_features, dataset.num_classes)
    fresh = train.Hyperparameters(init_scale=h.init_scale)
    initial = train.create_state(key, model.concise, fresh, *shape).params
    W, b = np.asarray(initial["kernel"], np.float64), np.zeros(shape[1])
    W_velocity, b_velocity = np.zeros_like(W), np.zeros_like(b)
    path, num_steps = [], num_epochs * -(-len(y) // batch_size)
    for epoch in range(1, num_epochs + 1):
        for rows in orders([seed], epoch, len(y), batch_size)[0]:
            rows = rows[rows >= 0]
            rows = rows[weights[rows] > 0]
            w = (importance * weights)[rows, None] / weights[rows].sum()
            error = (softmax(x[rows] @ W + b, -1) - y[rows]) * w
            W_velocity = (h.momentum or 0) * W_velocity + x[rows].T @ error + h.l2 * W
            b_velocity = (h.momentum or 0) * b_velocity + error.sum(0)
            rate = h.learning_rate * multiplier(len(path) / num_steps)
            W, b = W - rate * W_velocity, b - rate * b_velocity
            path.append((W, b))
    averaged = path[-max(round(averaging * num_steps), 1) :]
    return tuple(np.mean(parts, 0) for parts in zip(*averaged, strict=True))


def distance(one, other):
    """‖ΔW‖ / ‖W‖ of two models, each (W, b) or a classifier."""
    one, other = (np.vstack([model[0], model[1]]).astype(np.float64) for model in (one, other))
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def assert_same_bits(one, other):
    """Equal parameters and metrics of two results, bit for bit."""
    jax.tree.map(assert_array_equal, (one.params, one.metrics), (other.params, other.metrics))


def counting_model():
    """The concise model, with a list that grows by one with every trace of it."""
    traces = []

    def apply(params, x):
        traces.append(x.shape)
        return model.concise.apply(params, x)

    return model.concise._replace(apply=apply), traces


def first(number, iterator):
    """The first values of an iterator, one at a time: each is valid until the next."""
    return itertools.islice(iterator, number)
