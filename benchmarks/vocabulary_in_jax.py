"""The contenders of vocabulary.py in JAX: this project, and all logits at once. No command."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import peak_memory
from softmax_jax import vocabulary
from softmax_jax.configs import bigram

_BATCH_SIZE = 512


def describe():
    """The device that JAX computes on."""
    device = jax.devices()[0]
    return {"platform": device.platform, "device": f"{device.device_kind} × {jax.device_count()}"}


def ours(**arguments):
    """The loss without its logits."""
    return _run(vocabulary.linear_cross_entropy, **arguments)


def full(**arguments):
    """The logits, then optax's cross-entropy of them."""
    return _run(_full_loss, **arguments)


def _full_loss(x, W, labels):
    logits = jnp.matmul(x, W, precision=jax.lax.Precision.HIGHEST)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _run(loss, num_rows, num_words, num_features, gradients, peak=False):
    arrays = _problem(num_rows, num_words, num_features)
    program = _compiled(loss, num_rows, num_words, num_features, gradients)
    held, start = peak_memory.start(), time.process_time()
    found = jax.block_until_ready(program(*arrays))
    figures = {"cpu": time.process_time() - start, "loss": float(jax.tree.leaves(found)[0])}
    if peak:
        return figures | {"peak": peak_memory.since(held)}
    return figures | {"buffers": program.memory_analysis().temp_size_in_bytes}


@functools.lru_cache(maxsize=1)
def _problem(num_rows, num_words, num_features):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_rows, num_features), np.float32)
    W = rng.standard_normal((num_features, num_words), np.float32) * 0.1
    labels = rng.integers(0, num_words, num_rows, np.int32)
    return jax.block_until_ready([jnp.asarray(array) for array in (x, W, labels)])


@functools.lru_cache(maxsize=4)
def _compiled(loss, num_rows, num_words, num_features, gradients):
    wanted = jax.value_and_grad(loss, (0, 1)) if gradients else loss
    return jax.jit(wanted).lower(*_problem(num_rows, num_words, num_features)).compile()


def train(name, num_samples, learning_rate, num_steps=None):
    """An epoch of SGD on the bigram task, from W = 0 and the log-uniform law as bias."""
    language = _language()
    true = bigram.Layer(*map(jnp.asarray, language.layer))
    contexts, words = language.train
    num_words = true.W.shape[1]
    loss = vocabulary.objective(name, num_words, num_samples)
    bias = vocabulary.log_uniform(num_words).log_prob(jnp.arange(num_words))
    params, key = (jnp.zeros_like(true.W), bias), jax.random.key(0)
    order = np.random.default_rng(0).permutation(len(words))
    start = time.perf_counter(), time.process_time()
    for number in range(num_steps or len(words) // _BATCH_SIZE):
        rows = order[number * _BATCH_SIZE :][:_BATCH_SIZE]
        x, labels = language.features[contexts[rows]], words[rows]
        params = _step(params, jax.random.fold_in(key, number), x, labels, learning_rate, loss=loss)
    jax.block_until_ready(params)
    taken = {"seconds": time.perf_counter() - start[0], "cpu": time.process_time() - start[1]}
    divergence = language.frequencies @ np.asarray(
        bigram.kl_divergence(true, true._replace(W=params[0], bias=params[1]))
    )
    return taken | {"divergence": float(divergence), "learning_rate": learning_rate}


@functools.partial(jax.jit, static_argnames="loss", donate_argnames="params")
def _step(params, key, x, labels, learning_rate, *, loss):
    def of(params):
        return loss(key, x, params[0], labels, bias=params[1])

    return jax.tree.map(lambda p, g: p - learning_rate * g, params, jax.grad(of)(params))


@functools.cache
def _language():
    return bigram.bigrams(0, num_train=256_000)
