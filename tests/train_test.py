import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax

from softmax_jax import losses, model, train

pytestmark = pytest.mark.numerical

N, D, C = 10, 6, 3
EACH_LOSS = pytest.mark.parametrize("name", losses.FROM_LOGITS)

_STATIC = ("criterion", "schedule", "batch_size")
_step = jax.jit(train.train_step, static_argnames=_STATIC[:2])
_epoch = jax.jit(train.train_epoch, static_argnames=_STATIC[:2])
_evaluate = jax.jit(train.evaluate, static_argnames=_STATIC[::2])


def criterion_of(loss):
    return train.criterion_of_logits(model.scratch, losses.FROM_LOGITS[loss])


def step(state, batch, loss="cross_entropy", schedule="constant"):
    return _step(state, batch, criterion_of(loss), schedule)


def epoch(state, data, order, loss="cross_entropy", schedule="constant"):
    return _epoch(state, data, order, criterion_of(loss), schedule)


def evaluate(state, data, loss="cross_entropy", batch_size=1000):
    return _evaluate(state, data, criterion_of(loss), batch_size=batch_size)


def values(sums):
    return criterion_of("cross_entropy").values(sums)


def examples(n=N):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(n, D)).astype(np.float32)
    return x, rng.integers(C, size=n).astype(np.int32)


def data_of(x, y, **fields):
    ones = np.ones(len(y), np.float32)
    data = train.Data(x, y, ones, np.float32(0), np.float32(1))._replace(**fields)
    return jax.tree.map(jnp.asarray, data)


def batch_of(x, y, weights=None):
    weights = np.ones(len(y), np.float32) if weights is None else weights
    return train.Batch(jnp.asarray(x), jnp.asarray(y), jnp.asarray(weights, jnp.float32))


def fresh(resample=0, num_steps=None, **h):
    h, options = train.Hyperparameters(**h), {"resample": resample, "num_steps": num_steps}
    return train.create_state(jax.random.key(0), model.scratch, h, D, C, **options)


def weights_of(state):
    return (np.asarray(leaf, np.float64) for leaf in model.scratch.weights(state.params))


def by_hand(state, batches, learning_rate=0.1, momentum=0.0, l2=0.0, smoothing=0.0, heights=None):
    """Minibatch SGD in NumPy float64, on batches of (x, y, weights): the final W and b.

    heights: what the rate is multiplied with at each step.
    """
    heights = np.ones(len(batches)) if heights is None else heights
    Y = (1 - smoothing) * np.eye(C) + smoothing / C
    W, b = weights_of(state)
    W_velocity, b_velocity = np.zeros_like(W), np.zeros_like(b)
    for (x, y, weights), height in zip(batches, heights, strict=True):
        x = x.astype(np.float64)
        error = (softmax(x @ W + b, -1) - Y[y]) * weights[:, None] / weights.sum()
        W_velocity = momentum * W_velocity + x.T @ error + l2 * W
        b_velocity = momentum * b_velocity + error.sum(0)
        W, b = W - height * learning_rate * W_velocity, b - height * learning_rate * b_velocity
    return W, b


def assert_weights(state, expected, **tolerance):
    for actual, wanted in zip(weights_of(state), expected, strict=True):
        assert_allclose(actual, wanted, **(tolerance or {"rtol": 1e-5, "atol": 1e-6}))


def losses_of(state, x, y):
    W, b = weights_of(state)
    return -log_softmax(x.astype(np.float64) @ W + b, -1)[np.arange(len(y)), y]


@EACH_LOSS
def test_loss_at_zero_weights_is_log_c(name):
    state = fresh(init_scale=0.0)
    _, sums = step(state, batch_of(*examples()), loss=name)
    assert_allclose(values(sums)["loss"], np.log(C), rtol=1e-6)


@EACH_LOSS
def test_first_step_is_the_closed_form(name):
    """W - lr · (Xᵀ(P - Y)/N + l2 · W), and the same for b without l2."""
    x, y = examples()
    h = {"learning_rate": 0.5, "l2": 0.3}
    state = fresh(init_scale=1.0, **h)
    state = state.replace(params={**state.params, "b": jnp.array([1.0, -1.0, 0.5])})
    W, b = weights_of(state)
    error = softmax(x @ W + b, -1) - np.eye(C)[y]
    expected = W - 0.5 * (x.T @ error / N + 0.3 * W), b - 0.5 * error.mean(0)
    assert_weights(step(state, batch_of(x, y), loss=name)[0], expected)


def test_momentum_gathers_as_in_numpy():
    x, y = examples()
    h = {"learning_rate": 0.3, "momentum": 0.9, "l2": 0.1}
    first = state = fresh(init_scale=0.5, **h)
    for _ in range(5):
        state, _ = step(state, batch_of(x, y))
    assert int(state.step) == 5
    expected = by_hand(first, [(x, y, np.ones(N))] * 5, **h)
    assert_weights(state, expected)
    without = by_hand(first, [(x, y, np.ones(N))] * 5, **h | {"momentum": 0.0})
    assert abs(expected[0] - without[0]).max() > 0.05  # it does matter here


def test_sums_are_those_before_the_update():
    x, y = examples()
    state = fresh(init_scale=1.0)
    _, sums = step(state, batch_of(x, y))
    assert_allclose(sums["loss"]["sum"], losses_of(state, x, y).sum(), rtol=1e-6)
    assert_allclose(values(sums)["loss"], losses_of(state, x, y).mean(), rtol=1e-6)


def test_the_reported_loss_is_without_the_penalty():
    x, y = examples()
    _, plain = step(fresh(init_scale=1.0), batch_of(x, y))
    _, penalised = step(fresh(init_scale=1.0, l2=10.0), batch_of(x, y))
    assert_allclose(plain["loss"]["sum"], penalised["loss"]["sum"], rtol=1e-6)


@EACH_LOSS
def test_a_masked_example_is_as_good_as_removed(name):
    x, y = examples()
    there = np.arange(N) % 3 > 0
    state = fresh(init_scale=1.0, l2=0.1)
    masked, sums = step(state, batch_of(x, y, there), loss=name)
    removed, expected = step(state, batch_of(x[there], y[there]), loss=name)
    assert_weights(masked, weights_of(removed), rtol=1e-6, atol=1e-7)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), sums, expected)


def test_a_weight_of_two_is_the_example_twice():
    x, y = examples()
    counts = np.arange(N) % 3
    state = fresh(init_scale=1.0)
    weighted, _ = step(state, batch_of(x, y, counts))
    repeated, _ = step(state, batch_of(x.repeat(counts, 0), y.repeat(counts)))
    assert_weights(weighted, weights_of(repeated), rtol=1e-6, atol=1e-7)


@EACH_LOSS
def test_a_batch_without_weight_only_decays(name):
    x, y = examples()
    state = fresh(init_scale=1.0, learning_rate=0.5, l2=0.2)
    after, sums = step(state, batch_of(x, y, np.zeros(N)), loss=name)
    W, b = weights_of(state)
    assert_weights(after, (W * (1 - 0.5 * 0.2), b), rtol=1e-6)
    assert values(sums) == {"loss": 0, "accuracy": 0}


def order_of(batch_size, seed=0):
    rows = np.full((-(-N // batch_size), batch_size), -1, np.int32)
    rows.ravel()[:N] = np.random.default_rng(seed).permutation(N)
    return rows


def test_an_epoch_is_its_steps_by_hand():
    """Ten examples in batches of four: the last batch holds two, and means over two."""
    x, y = examples()
    h = {"learning_rate": 0.5, "momentum": 0.5, "l2": 0.1}
    state, order = fresh(init_scale=0.5, **h), order_of(4)
    after, _ = epoch(state, data_of(x, y), order)
    rows = [batch[batch >= 0] for batch in order]
    assert [len(batch) for batch in rows] == [4, 4, 2]
    expected = by_hand(state, [(x[r], y[r], np.ones(len(r))) for r in rows], **h)
    assert_weights(after, expected)


def test_running_figures_count_each_example_once():
    """Each loss is the one before the step of its batch; the mean is over examples, not batches."""
    x, y = examples()
    state, order = fresh(init_scale=1.0, learning_rate=0.5), order_of(4)
    _, sums = epoch(state, data_of(x, y), order)
    expected = []
    for rows in order:
        rows = rows[rows >= 0]
        expected.extend(losses_of(state, x[rows], y[rows]))
        state, _ = step(state, batch_of(x[rows], y[rows]))
    assert sums["loss"]["weight"] == sums["accuracy"]["weight"] == N
    assert_allclose(values(sums)["loss"], np.mean(expected), rtol=1e-6)


def test_a_wholly_padded_batch_leaves_the_model_alone():
    x, y = examples()
    state, order = fresh(init_scale=1.0), order_of(4)
    padded = np.concatenate([order, np.full_like(order[:1], -1)])
    after, sums = epoch(state, data_of(x, y), padded)
    expected, expected_sums = epoch(state, data_of(x, y), order)
    assert_weights(after, weights_of(expected), rtol=1e-6, atol=1e-7)
    assert sums["loss"]["weight"] == expected_sums["loss"]["weight"] == N


@pytest.mark.parametrize("block", [1, 3, 4, 5, 9, 10, 1000])
def test_evaluate_counts_every_example_once(block):
    x, y = examples()
    state = fresh(init_scale=2.0)
    sums = evaluate(state, data_of(x, y), batch_size=block)
    assert sums["loss"]["weight"] == sums["balanced_accuracy"]["weight"].sum() == N
    figures = values(sums)
    W, b = weights_of(state)
    right = (x @ W + b).argmax(-1) == y
    assert_allclose(figures["loss"], losses_of(state, x, y).mean(), rtol=1e-6)
    assert_allclose(figures["accuracy"], right.mean(), rtol=1e-6)
    recalls = [right[y == label].mean() for label in range(C)]
    assert_allclose(figures["balanced_accuracy"], np.mean(recalls), rtol=1e-6)
    assert figures["top5"] == 1


def test_data_weights_weigh_the_evaluation():
    x, y = examples()
    weights = np.arange(N, dtype=np.float32)
    state = fresh(init_scale=2.0)
    sums = evaluate(state, data_of(x, y, weights=weights), batch_size=4)
    expected = np.average(losses_of(state, x, y), weights=weights)
    assert_allclose(values(sums)["loss"], expected, rtol=1e-6)


def test_pixels_are_normalised_on_the_way_as_x_minus_mean_over_scale():
    """uint8 images in the data, and a mean and a scale of each pixel."""
    rng, (_, y) = np.random.default_rng(1), examples()
    pixels = rng.integers(256, size=(N, 2, 3)).astype(np.uint8)
    mean, scale = rng.uniform(0, 200, (2, 3)), rng.uniform(50, 255, (2, 3))
    raw = data_of(pixels, y, mean=np.float32(mean).ravel(), scale=np.float32(scale).ravel())
    ready = data_of(((pixels - mean) / scale).astype(np.float32).reshape(N, D), y)
    state, order = fresh(init_scale=0.5), order_of(4)
    assert raw.x.dtype == jnp.uint8
    after, expected = epoch(state, raw, order)[0], epoch(state, ready, order)[0]
    assert_weights(after, weights_of(expected))
    sums, wanted = (evaluate(state, data, batch_size=4) for data in (raw, ready))
    assert_allclose(sums["loss"]["sum"], wanted["loss"]["sum"], rtol=1e-5)


@pytest.mark.parametrize("column", [0, 1])
def test_a_state_counts_examples_by_its_own_column_of_the_resamples(column):
    x, y = examples()
    counts = np.random.default_rng(2).integers(3, size=(N, 2)).astype(np.uint8)
    own = np.linspace(0.5, 1.5, N).astype(np.float32)
    resampled = data_of(x, y, weights=own, resamples=counts)
    weighted = data_of(x, y, weights=own * counts[:, column])
    state, order = fresh(init_scale=1.0, resample=column), order_of(4)
    actual, expected = epoch(state, resampled, order), epoch(state, weighted, order)
    assert_weights(actual[0], weights_of(expected[0]), rtol=1e-6, atol=1e-7)
    assert_allclose(actual[1]["loss"]["sum"], expected[1]["loss"]["sum"], rtol=1e-6)
    sums, wanted = (evaluate(state, data, batch_size=4) for data in (resampled, weighted))
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), sums, wanted)
    assert sums["loss"]["weight"] == pytest.approx((own * counts[:, column]).sum())


def test_prediction_is_the_softmax_of_the_logits():
    x, _ = examples()
    state = fresh(init_scale=20.0)
    probabilities = train.predict(state, jnp.asarray(x))
    W, b = weights_of(state)
    assert_allclose(probabilities.sum(-1), np.ones(N), rtol=1e-6)
    assert_allclose(probabilities, softmax(x @ W + b, -1), rtol=1e-4, atol=1e-6)


def test_a_fresh_state_has_strong_types():
    """A weakly typed one would be traced twice: once fresh, and once trained or restored."""
    state = jax.jit(fresh)()
    assert state.step.dtype == jnp.int32 and not state.step.weak_type
    for leaf in jax.tree.leaves(state):
        assert not leaf.weak_type
    after, _ = epoch(state, data_of(*examples()), order_of(4))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert_array_equal(
        jax.tree.leaves(after.hyperparameters), jax.tree.leaves(state.hyperparameters)
    )


def test_states_of_two_runs_are_of_one_kind():
    """What they are made of is part of what a program is keyed by: the optimiser is one for all."""
    one = fresh(momentum=0.5)
    other = fresh(learning_rate=0.3, momentum=0.9, resample=1)
    assert jax.tree.structure(one) == jax.tree.structure(other)


def test_without_momentum_the_buffer_changes_nothing():
    x, y = examples()
    data, order = data_of(x, y), order_of(4)
    states = [fresh(init_scale=1.0, momentum=momentum) for momentum in (None, 0.0)]
    without, with_buffer = (epoch(state, data, order)[0].params for state in states)
    jax.tree.map(np.testing.assert_array_equal, without, with_buffer)


# Cures of overfitting.


@EACH_LOSS
def test_a_step_on_smoothed_labels_is_the_closed_form_and_the_figures_are_plain(name):
    x, y = examples()
    h = {"learning_rate": 0.5, "l2": 0.1}
    state = fresh(init_scale=1.0, label_smoothing=0.3, **h)
    counts = np.arange(N) % 3
    after, sums = step(state, batch_of(x, y, counts), loss=name)
    assert_weights(after, by_hand(state, [(x, y, counts)], smoothing=0.3, **h))
    expected = np.average(losses_of(state, x, y), weights=counts)
    assert_allclose(values(sums)["loss"], expected, rtol=1e-6)
    sums = evaluate(state, data_of(x, y), loss=name)
    assert_allclose(values(sums)["loss"], losses_of(state, x, y).mean(), rtol=1e-6)


def test_importance_weighs_the_smoothed_loss():
    x, y = examples()
    own = np.linspace(0.5, 1.5, N).astype(np.float32)
    state = fresh(init_scale=1.0, label_smoothing=0.3)
    after, _ = step(state, batch_of(x, y)._replace(importance=jnp.asarray(own)))
    W, b = weights_of(state)
    error = softmax(x @ W + b, -1) - (0.7 * np.eye(C)[y] + 0.1)
    error *= own[:, None] / N
    assert_weights(after, (W - 0.1 * x.T @ error, b - 0.1 * error.sum(0)))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_follows_its_schedule_from_step_to_step(schedule):
    """Warm-up in 3 of 12 steps: with momentum, which the rate multiplies once it has gathered."""
    x, y = examples()
    h = {"learning_rate": 0.8, "momentum": 0.5}
    decay = {} if schedule == "constant" else {"final_rate": 0.1}
    first = state = fresh(num_steps=12, init_scale=1.0, warmup=0.25, **decay, **h)
    u = np.maximum(np.arange(12) - 3, 0) / 9
    fallen = 1.0 if schedule == "constant" else 0.1 + 0.9 * (1 + np.cos(np.pi * u)) / 2
    heights = np.minimum(np.arange(12) / 3, 1) * fallen
    states = []
    for _ in range(12):
        states.append(state)
        state, _ = step(state, batch_of(x, y), schedule=schedule)
    assert_weights(state, by_hand(first, [(x, y, np.ones(N))] * 12, heights=heights, **h))
    resumed = jax.tree.map(jnp.copy, states[7])  # what is to come depends on the state alone
    for _ in range(5):
        resumed, _ = step(resumed, batch_of(x, y), schedule=schedule)
    jax.tree.map(assert_array_equal, resumed.params, state.params)


def test_the_averaged_weights_are_evaluated_and_the_last_ones_trained():
    x, y = examples()
    h = {"learning_rate": 0.5, "momentum": 0.5}
    state = first = fresh(num_steps=6, init_scale=1.0, averaging=0.5, **h)
    batches = [(x, y, np.ones(N))]
    for _ in range(6):
        state, _ = step(state, batch_of(x, y))
    path = [by_hand(first, batches * n, **h) for n in (4, 5, 6)]
    assert_weights(state, path[-1])
    mean = tuple(np.mean(parts, 0) for parts in zip(*path, strict=True))
    assert_weights(state.replace(params=state.average), mean)
    losses_ = losses_of(state.replace(params=state.average), x, y)
    assert_allclose(evaluate(state, data_of(x, y))["loss"]["sum"], losses_.sum(), rtol=1e-6)
    probabilities = softmax(x @ mean[0] + mean[1], -1)
    assert_allclose(train.predict(state, jnp.asarray(x)), probabilities, rtol=1e-4)
    assert abs(losses_ - losses_of(state, x, y)).max() > 1e-3


def test_a_stopped_state_does_not_change():
    """Nothing of it: not its step, its momentum, its average."""
    x, y = examples()
    h = {"momentum": 0.9, "averaging": 1.0, "patience": 3, "final_rate": 0.1}
    state, _ = epoch(fresh(num_steps=9, **h), data_of(x, y), order_of(4), schedule="cosine")
    stopped = state.replace(stopped=jnp.array(True))
    after, sums = epoch(stopped, data_of(x, y), order_of(4, seed=1), schedule="cosine")
    jax.tree.map(assert_array_equal, after, stopped)
    assert sums["loss"]["weight"] == N
    going, _ = epoch(state, data_of(x, y), order_of(4, seed=1), schedule="cosine")
    assert going.step == 6 and abs(going.average["W"] - state.average["W"]).max() > 1e-4


def test_cures_that_are_off_change_nothing():
    """Trials without cures go through a program that has them as through one that has none."""
    x, y = examples()
    off = {"label_smoothing": 0.0, "warmup": 0.0, "final_rate": 1.0, "averaging": 0.0}
    plain = fresh(init_scale=1.0)
    idle = fresh(num_steps=3, init_scale=1.0, patience=0, **off)
    plain, idle = (
        epoch(state, data_of(x, y), order_of(4), schedule=schedule)[0]
        for state, schedule in ((plain, "constant"), (idle, "cosine"))
    )
    assert_weights(idle, weights_of(plain), rtol=1e-6, atol=1e-7)
    jax.tree.map(assert_array_equal, idle.averaged, idle.params)
