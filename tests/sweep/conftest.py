"""A small dataset, a small sweep on it, and the same training written in NumPy."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits

from softmax_jax import data, model, train
from softmax_jax.sweep.sgd import orders
from tests import flat


@pytest.fixture(scope="session")
def digits():
    """500 digits to train on, 200 to validate, 300 to test: 8 × 8 bytes, of which 16 is white."""
    everything = load_digits()
    x, y = everything.images.astype(np.uint8), everything.target
    parts = ((x[part], y[part]) for part in (slice(500), slice(500, 700), slice(700, 1000)))
    splits = data.from_arrays(*parts, name="digits")
    as_digits = {
        role: dataclasses.replace(getattr(splits, role), scale=16.0)
        for role in ("train", "val", "test")
    }
    return dataclasses.replace(splits, **as_digits)


@pytest.fixture(scope="session")
def settings():
    """Three settings that differ in everything, at rates where rounding is not amplified."""
    return train.Hyperparameters(
        learning_rate=np.float32([0.02, 0.05, 0.1]),
        momentum=np.float32([0.5, 0.0, 0.0]),
        l2=np.float32([0.0, 1e-3, 1e-2]),
        init_scale=np.float32([0.01, 0.1, 0.05]),
    )


@pytest.fixture(scope="session")
def fit(digits):
    """`sweep.fit` on the digits, three epochs of batches of 64 unless told otherwise."""

    def fit(settings=None, **options):
        options = {"num_epochs": 3, "batch_size": 64} | options
        return flat.fit(digits.train, options.pop("val", digits.val), settings, **options)

    return fit


@pytest.fixture(scope="session")
def result(fit, settings):
    return fit(settings)


@pytest.fixture(scope="session")
def by_hand():
    """Training in NumPy float64, from the same initial weights and in the same order."""

    def run(
        dataset,
        h,
        *,
        num_epochs=3,
        batch_size=64,
        seed=0,
        weights=None,
        importance=1.0,
        height=lambda _fraction: 1.0,
    ):
        """The final W and b; examples of weight zero are taken out of their minibatches.

        height: what the rate is multiplied with after a fraction of training.
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
                rate = h.learning_rate * height(len(path) / num_steps)
                W, b = W - rate * W_velocity, b - rate * b_velocity
                path.append((W, b))
        averaged = path[-max(round(averaging * num_steps), 1) :]
        return tuple(np.mean(parts, 0) for parts in zip(*averaged, strict=True))

    return run


@pytest.fixture(scope="session")
def distance():
    """‖ΔW‖ / ‖W‖ of two models, each (W, b) or a classifier."""

    def distance(one, other):
        one, other = (np.vstack([model[0], model[1]]).astype(np.float64) for model in (one, other))
        return np.linalg.norm(one - other) / np.linalg.norm(other)

    return distance


@pytest.fixture
def compilations():
    """A list that grows by one with every program that XLA compiles."""
    seen = []

    def listen(event, _seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
