"""The contenders in JAX: this project, the textbook's loop, bare products. No command of its own.

All data lies in memory, on the device, before a measurement starts.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from softmax_jax import data, sweep

_EVALUATION_BLOCK = 1000


def describe():
    """The device that JAX computes on."""
    device = jax.devices()[0]
    return {"platform": device.platform, "device": f"{device.device_kind} × {jax.device_count()}"}


def sizes(dataset):
    """How many examples, features and classes there are."""
    splits = _splits(dataset)
    return {
        "train": splits.train.num_examples,
        "val": splits.val.num_examples,
        "features": splits.train.num_features,
        "classes": splits.train.num_classes,
    }


def fit(dataset, num_epochs, batch_size, learning_rates):
    """This project: all trials as one sweep, evaluated after every epoch."""
    train, val = _on_device(dataset)
    settings = sweep.grid(learning_rate=learning_rates)
    result = sweep.fit(train, val, settings, num_epochs=num_epochs, batch_size=batch_size)
    return {name: float(result.metrics[f"val_{name}"][-1, -1]) for name in ("loss", "accuracy")}


def fit_one_by_one(dataset, num_epochs, batch_size, learning_rates):
    """This project: a run per trial, one after the other."""
    for learning_rate in learning_rates:
        figures = fit(dataset, num_epochs, batch_size, (learning_rate,))
    return figures


def cross_validate_digits(num_epochs, batch_size, num_settings, folds):
    """This project: settings × folds of the digits as one sweep."""
    train, _ = _on_device("digits")
    settings = sweep.random(
        num_settings,
        seed=0,
        learning_rate=sweep.log_uniform(0.01, 0.5),
        l2=sweep.log_uniform(1e-6, 1e-1),
    )
    counts = sweep.fold_counts(train.y, folds)
    result = sweep.fit(train, counts, settings, num_epochs=num_epochs, batch_size=batch_size)
    return {"accuracy": float(result.metrics["val_accuracy"][:, -1].max())}


def textbook_loop(dataset, num_epochs, batch_size, learning_rate):
    """The textbook's way: a Python loop, a jitted step, a batch from the host at a time."""
    (x, y), (val_x, val_y) = _on_host(dataset)
    state = _state(x.shape[1], int(y.max()) + 1, learning_rate)
    rng = np.random.default_rng(0)
    for _ in range(num_epochs):
        order = rng.permutation(len(y))
        sums = []
        for start in range(0, len(y), batch_size):
            rows = order[start : start + batch_size]
            state, batch_sums = _step(state, x[rows], y[rows])
            sums.append(batch_sums)
        train_loss, train_accuracy = _means(sums, len(y))
        sums = []
        for start in range(0, len(val_y), batch_size):
            stop = start + batch_size
            sums.append(_evaluate(state, val_x[start:stop], val_y[start:stop]))
        val_loss, val_accuracy = _means(sums, len(val_y))
    assert np.isfinite([train_loss, train_accuracy]).all()
    return {"loss": float(val_loss), "accuracy": float(val_accuracy)}


def products(dataset, num_epochs, batch_size, num_trials):
    """The matrix products of a sweep and nothing else, one [T·C, D + 1] matrix of weights."""
    train, val = _on_device(dataset)
    num_features = train.num_features + 1  # and the one that the bias is the weight of
    # The rows of xᵀx stay what they are under repeated products: no overflow, no denormals.
    W = jnp.full((num_trials * train.num_classes, num_features), 0.01)
    x = jnp.full((batch_size, num_features), (batch_size * num_features) ** -0.5)
    block = jnp.full((min(_EVALUATION_BLOCK, len(val.y)), num_features), 0.01)
    steps, blocks = -(-len(train.y) // batch_size), -(-len(val.y) // len(block))
    for _ in range(num_epochs):
        W = _training_products(W, x, steps)
        jax.block_until_ready(_evaluation_products(W, block, blocks))
    return {"sum": float(W.sum())}


@functools.partial(jax.jit, static_argnames="steps", donate_argnames="W")
def _training_products(W, x, steps):
    def step(W, _):
        return _product(_product(W, x.T), x), None

    return jax.lax.scan(step, W, length=steps)[0]


@functools.partial(jax.jit, static_argnames="blocks")
def _evaluation_products(W, x, blocks):
    def block(carry, _):
        W, _ = carry
        # The barrier keeps the compiler from seeing that every product is the same.
        return jax.lax.optimization_barrier((W, _product(W, x.T))), None

    scores = jnp.zeros((W.shape[0], x.shape[0]))
    return jax.lax.scan(block, (W, scores), length=blocks)[0][1]


def _product(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@functools.cache
def _splits(dataset):
    return data.load(dataset)


@functools.cache
def _on_device(dataset):
    splits = _splits(dataset)
    return [
        dataclasses.replace(part, x=jnp.asarray(part.x), y=jnp.asarray(part.y))
        for part in (splits.train, splits.val)
    ]


@functools.cache
def _on_host(dataset):
    splits = _splits(dataset)
    return [
        (part.x.reshape(len(part.y), -1).astype(np.float32) / part.scale, part.y)
        for part in (splits.train, splits.val)
    ]


@functools.cache
def _network(num_classes, learning_rate):
    layer = nn.Dense(num_classes, kernel_init=nn.initializers.normal(0.01))
    return layer, optax.sgd(learning_rate)


def _state(num_features, num_classes, learning_rate):
    layer, optimizer = _network(num_classes, learning_rate)
    params = layer.init(jax.random.key(0), jnp.zeros((1, num_features)))
    return TrainState.create(apply_fn=layer.apply, params=params, tx=optimizer)


def _means(sums, num_examples):
    return np.sum(jax.device_get(sums), 0) / num_examples


@jax.jit
def _step(state, x, y):
    def loss(params):
        logits = state.apply_fn(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits

    (value, logits), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    sums = value * len(y), (logits.argmax(-1) == y).sum()
    return state.apply_gradients(grads=gradient), sums


@jax.jit
def _evaluate(state, x, y):
    logits = state.apply_fn(state.params, x)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return loss.sum(), (logits.argmax(-1) == y).sum()
