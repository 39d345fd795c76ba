"""Batches, states, criteria, schedules, the step, the epoch, the evaluation; regularisation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax

from softmax_jax import losses, model, train, vocabulary

pytestmark = pytest.mark.numerical

N, D, C = 10, 6, 3
EACH_LOSS = pytest.mark.parametrize("name", losses.FROM_LOGITS)
PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=25)
# What a program leaves out where it is off.
REGULARISED = {
    "warmup": 0.1,
    "final_rate": 0.1,
    "averaging": 0.5,
    "patience": 2,
    "label_smoothing": 0.1,
}

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


def fresh(resample=0, num_steps=None, optimizer="sgd", **h):
    h, options = train.Hyperparameters(**h), {"resample": resample, "num_steps": num_steps}
    options["optimizer"] = optimizer
    return train.create_state(jax.random.key(0), model.scratch, h, D, C, **options)


def weights_of(state):
    return (np.asarray(leaf, np.float64) for leaf in model.scratch.weights(state.params))


def by_hand(
    state, batches, learning_rate=0.1, momentum=0.0, l2=0.0, smoothing=0.0, multipliers=None
):
    """Minibatch SGD in NumPy float64, on batches of (x, y, weights): the final W and b.

    multipliers: of the rate at each step.
    """
    multipliers = np.ones(len(batches)) if multipliers is None else multipliers
    Y = (1 - smoothing) * np.eye(C) + smoothing / C
    W, b = weights_of(state)
    W_velocity, b_velocity = np.zeros_like(W), np.zeros_like(b)
    for (x, y, weights), multiplier in zip(batches, multipliers, strict=True):
        x = x.astype(np.float64)
        error = (softmax(x @ W + b, -1) - Y[y]) * weights[:, None] / weights.sum()
        W_velocity = momentum * W_velocity + x.T @ error + l2 * W
        b_velocity = momentum * b_velocity + error.sum(0)
        W, b = (
            W - multiplier * learning_rate * W_velocity,
            b - multiplier * learning_rate * b_velocity,
        )
    return W, b


def assert_weights(state, expected, **tolerance):
    for actual, wanted in zip(weights_of(state), expected, strict=True):
        assert_allclose(actual, wanted, **(tolerance or {"rtol": 1e-5, "atol": 1e-6}))


def losses_of(state, x, y):
    W, b = weights_of(state)
    return -log_softmax(x.astype(np.float64) @ W + b, -1)[np.arange(len(y)), y]


def order_of(batch_size, seed=0):
    rows = np.full((-(-N // batch_size), batch_size), -1, np.int32)
    rows.ravel()[:N] = np.random.default_rng(seed).permutation(N)
    return rows


# States.


def test_a_state_holds_nothing_that_no_hyperparameter_needs():
    """Without regularisation a step reads and writes weights and momentum only."""
    plain = fresh()
    assert plain.num_steps is plain.average is plain.stopped is None
    assert [getattr(plain.hyperparameters, name) for name in REGULARISED] == [None] * 5
    averaged, patient = fresh(num_steps=10, averaging=0.5), fresh(patience=3)
    assert averaged.average is not None and averaged.stopped is None
    assert patient.stopped is not None and patient.num_steps is None


def test_initial_weights_are_those_of_the_model_and_the_initial_scale():
    state = fresh(init_scale=0.3)
    expected = model.scratch.init(jax.random.key(0), D, C, 0.3)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), state.params, expected)
    assert abs(state.params["W"]).min() > 0 and not state.params["b"].any()


def test_evaluated_parameters_are_the_average_where_there_is_one():
    assert_array_equal(fresh().averaged["W"], fresh().params["W"])
    state = fresh(num_steps=10, averaging=0.5)
    assert_array_equal(state.averaged["W"], state.params["W"])
    moved = state.replace(average=jax.tree.map(jnp.zeros_like, state.average))
    assert_array_equal(moved.averaged["W"], np.zeros((D, C)))


@pytest.mark.parametrize("name", ["warmup", "final_rate", "averaging"])
def test_fractions_of_training_need_its_length(name):
    with pytest.raises(ValueError, match="fractions of num_steps"):
        fresh(**{name: 0.5})


@pytest.mark.parametrize("h", [{}, REGULARISED], ids=["plain", "regularised"])
def test_a_fresh_state_has_strong_types_that_training_keeps(h):
    """A weakly typed one would be traced twice: once fresh, and once trained or restored."""
    state = jax.jit(lambda: fresh(num_steps=10, **h))()
    assert state.step.dtype == jnp.int32
    assert not h or state.num_steps == 10 and state.num_steps.dtype == jnp.float32
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    after, _ = epoch(state, data_of(*examples()), order_of(4))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    own, kept = (jax.tree.leaves(each.hyperparameters) for each in (state, after))
    assert_array_equal(kept, own)


def test_states_of_two_runs_have_one_structure():
    """Programs are keyed by it: the optimiser is one for all."""
    one = fresh(momentum=0.5)
    other = fresh(learning_rate=0.3, momentum=0.9, resample=1)
    assert jax.tree.structure(one) == jax.tree.structure(other)


# The step.


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


# Of each optimiser: its hyperparameters, and Optax's own, with a schedule of the rate or without.
OPTIMIZERS = {
    "nesterov": ({"momentum": 0.9}, lambda rate: optax.sgd(rate, 0.9, nesterov=True)),
    "adam": ({}, optax.adam),
    "adam with betas": ({"beta1": 0.5, "beta2": 0.9}, lambda rate: optax.adam(rate, 0.5, 0.9)),
    "adamw": (
        {"weight_decay": 0.5, "beta2": 0.9},
        lambda rate: optax.adamw(rate, b2=0.9, weight_decay=0.5, mask={"W": True, "b": False}),
    ),
}


@pytest.mark.parametrize("decays", [False, True], ids=["constant", "cosine"])
@pytest.mark.parametrize("form", ["scratch", "augmented"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_step_as_those_of_optax(name, form, decays):
    """By hand, on the gradient of the objective with its l2; b has neither penalty nor decay."""
    h, make = OPTIMIZERS[name]
    (x, y), num_steps = examples(), 20
    own = model.augment(model.scratch) if form == "augmented" else model.scratch
    final, schedule = (0.1, "cosine") if decays else (None, "constant")
    h = train.Hyperparameters(learning_rate=0.05, l2=0.1, init_scale=1.0, final_rate=final, **h)
    state = train.create_state(
        jax.random.key(0), own, h, D, C, num_steps=num_steps, optimizer=name.split()[0]
    )
    params = dict(zip("Wb", own.weights(state.params), strict=True))
    peak = 0.05
    rate = optax.cosine_decay_schedule(peak, num_steps, 0.1) if decays else peak
    optimizer = make(rate)
    opt_state = optimizer.init(params)

    def objective(params):
        logits = x @ params["W"] + params["b"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss + 0.1 / 2 * jnp.square(params["W"]).sum()

    @jax.jit
    def by_optax(params, opt_state):
        updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    criterion = train.criterion_of_logits(own)
    for _ in range(num_steps):
        state, _ = _step(state, batch_of(x, y), criterion, schedule)
        params, opt_state = by_optax(params, opt_state)
        for found, wanted in zip(own.weights(state.params), params.values(), strict=True):
            assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


def test_weight_decay_is_no_l2():
    """AdamW takes rate · weight_decay · W; in Adam's moments a penalty loses its scale."""
    x, y = examples()
    h = {"learning_rate": 0.01, "init_scale": 1.0}
    plain, decayed = (
        step(fresh(optimizer="adamw", **h, **more), batch_of(x, y))[0]
        for more in ({}, {"weight_decay": 0.5})
    )
    W, _ = weights_of(fresh(**h))
    taken = np.asarray(plain.params["W"], np.float64) - np.asarray(decayed.params["W"])
    assert_allclose(taken, 0.01 * 0.5 * W, atol=1e-6)
    assert_array_equal(plain.params["b"], decayed.params["b"])


def test_a_batch_without_any_example_of_the_resample_decays_nothing():
    x, y = examples()
    state = fresh(optimizer="adamw", weight_decay=0.5)
    absent = batch_of(x, y, np.zeros(N))._replace(total=jnp.float32(0))
    after, _ = step(state, absent)
    assert_array_equal(after.params["W"], state.params["W"])


def test_momentum_matches_numpy():
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


def test_sums_are_before_the_update_and_without_the_penalty():
    x, y = examples()
    state = fresh(init_scale=1.0)
    _, sums = step(state, batch_of(x, y))
    assert_allclose(sums["loss"]["sum"], losses_of(state, x, y).sum(), rtol=1e-6)
    assert_allclose(values(sums)["loss"], losses_of(state, x, y).mean(), rtol=1e-6)
    _, penalised = step(fresh(init_scale=1.0, l2=10.0), batch_of(x, y))
    assert_allclose(sums["loss"]["sum"], penalised["loss"]["sum"], rtol=1e-6)


@EACH_LOSS
def test_whole_number_weights_count_copies_and_zero_is_absent(name):
    x, y = examples()
    counts = np.arange(N) % 3
    state = fresh(init_scale=1.0, l2=0.1)
    weighted, sums = step(state, batch_of(x, y, counts), loss=name)
    copies = batch_of(x.repeat(counts, 0), y.repeat(counts))
    repeated, expected = step(state, copies, loss=name)
    assert_weights(weighted, weights_of(repeated), rtol=1e-6, atol=1e-7)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), sums, expected)


@EACH_LOSS
def test_a_batch_without_weight_only_decays_the_weights(name):
    x, y = examples()
    state = fresh(init_scale=1.0, learning_rate=0.5, l2=0.2)
    after, sums = step(state, batch_of(x, y, np.zeros(N)), loss=name)
    W, b = weights_of(state)
    assert_weights(after, (W * (1 - 0.5 * 0.2), b), rtol=1e-6)
    assert values(sums) == {"loss": 0, "accuracy": 0}


def test_without_momentum_the_buffer_changes_nothing():
    x, y = examples()
    data, order = data_of(x, y), order_of(4)
    states = [fresh(init_scale=1.0, momentum=momentum) for momentum in (None, 0.0)]
    without, with_buffer = (epoch(state, data, order)[0].params for state in states)
    jax.tree.map(np.testing.assert_array_equal, without, with_buffer)


# Batches, the epoch and the evaluation.


def test_gathered_rows_are_flat_and_normalised_and_padding_weighs_nothing():
    pixels = np.random.default_rng(0).integers(256, size=(N, 2, 3)).astype(np.uint8)
    weights, (_, y) = np.linspace(0.5, 2, N, dtype=np.float32), examples()
    data = data_of(pixels, y, weights=weights, scale=np.float32(255), mean=None)
    batch = train.gather_batch(data, jnp.array([7, -1, 2]), 0)
    assert batch.x.shape == (3, 6) and batch.x.dtype == jnp.float32
    assert_allclose(batch.x[::2], pixels.reshape(N, 6)[[7, 2]] / 255, rtol=1e-6)
    assert_array_equal(batch.y[::2], y[[7, 2]])
    assert_allclose(batch.weights, [weights[7], 0, weights[2]])


def test_an_epoch_matches_its_steps_by_hand():
    """Ten examples in batches of four: the last batch holds two, and means over two."""
    x, y = examples()
    h = {"learning_rate": 0.5, "momentum": 0.5, "l2": 0.1}
    state, order = fresh(init_scale=0.5, **h), order_of(4)
    after, _ = epoch(state, data_of(x, y), order)
    rows = [batch[batch >= 0] for batch in order]
    assert [len(batch) for batch in rows] == [4, 4, 2]
    expected = by_hand(state, [(x[r], y[r], np.ones(len(r))) for r in rows], **h)
    assert_weights(after, expected)


def test_train_metrics_count_each_example_once():
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


def test_a_wholly_padded_batch_changes_nothing():
    x, y = examples()
    state, order = fresh(init_scale=1.0), order_of(4)
    padded = np.concatenate([order, np.full_like(order[:1], -1)])
    after, sums = epoch(state, data_of(x, y), padded)
    expected, expected_sums = epoch(state, data_of(x, y), order)
    assert_weights(after, weights_of(expected), rtol=1e-6, atol=1e-7)
    assert sums["loss"]["weight"] == expected_sums["loss"]["weight"] == N


@pytest.mark.parametrize("batch_size", [*range(1, N + 1), 1000])
def test_evaluation_counts_every_example_once_with_its_weight(batch_size):
    """Also where the last batch is short, and begins in the one before."""
    x, y = examples()
    state, w = fresh(init_scale=2.0), np.linspace(0.5, 2, N, dtype=np.float32)
    sums = evaluate(state, data_of(x, y, weights=w), batch_size=batch_size)
    for total in sums["loss"]["weight"], sums["balanced_accuracy"]["weight"].sum():
        assert_allclose(total, w.sum(), rtol=1e-6)
    found = values(sums)
    W, b = weights_of(state)
    correct = (x @ W + b).argmax(-1) == y
    assert_allclose(found["loss"], np.average(losses_of(state, x, y), weights=w), rtol=1e-6)
    assert_allclose(found["accuracy"], np.average(correct, weights=w), rtol=1e-6)
    recalls = [np.average(correct[y == label], weights=w[y == label]) for label in range(C)]
    assert_allclose(found["balanced_accuracy"], np.mean(recalls), rtol=1e-6)
    assert_allclose(found["top5"], 1, rtol=1e-6)


@pytest.mark.parametrize("vmapped", [False, True])
def test_evaluation_counts_beyond_what_float32_holds(vmapped):
    """Each of 5,003 batches weighs 9,999: in float32 alone, the sum is off by a thousandth."""
    x, y = (np.tile(array, (504,) + (1,) * (array.ndim - 1))[:5003] for array in examples())
    state, data = fresh(init_scale=1.0), data_of(x, y, weights=np.full(5003, 9999, np.float32))
    if vmapped:
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), state)
        sums = jax.vmap(lambda state: evaluate(state, data, batch_size=1))(states)
        sums = jax.tree.map(lambda leaf: leaf[1], sums)
    else:
        sums = evaluate(state, data, batch_size=1)
    W, b = weights_of(state)
    correct = (x @ W + b).argmax(-1) == y
    assert_allclose(sums["accuracy"]["weight"], 9999 * 5003, rtol=1e-7)
    assert_allclose(sums["accuracy"]["sum"], 9999 * correct.sum(), rtol=1e-7)
    members = [9999 * correct[y == label].sum() for label in range(C)]
    assert_allclose(sums["balanced_accuracy"]["correct"], members, rtol=1e-7)
    assert_allclose(values(sums)["loss"], losses_of(state, x, y).mean(), rtol=1e-6)


def test_pixels_train_and_evaluate_as_normalised_features():
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
def test_a_state_counts_examples_by_its_column_of_the_resamples(column):
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


# Regularisation: smoothed labels, schedules, averaging, early stopping.


@EACH_LOSS
def test_smoothed_step_is_the_closed_form_and_metrics_are_plain(name):
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


def test_class_weights_weigh_the_smoothed_loss_against_the_total():
    x, y = examples()
    own = np.linspace(0.5, 1.5, C).astype(np.float32)
    state = fresh(init_scale=1.0, label_smoothing=0.3)
    weighted = {"class_weight": jnp.asarray(own), "total": jnp.float32(2 * N)}
    after, _ = step(state, batch_of(x, y)._replace(**weighted))
    W, b = weights_of(state)
    error = softmax(x @ W + b, -1) - (0.7 * np.eye(C)[y] + 0.3 / C)
    error *= own[y, None] / (2 * N)
    assert_weights(after, (W - 0.1 * x.T @ error, b - 0.1 * error.sum(0)))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_follows_its_schedule_and_resumes_from_the_state(schedule):
    """Warm-up in 3 of 12 steps: with momentum, which the rate multiplies once it has gathered."""
    x, y = examples()
    h = {"learning_rate": 0.8, "momentum": 0.5}
    decay = {} if schedule == "constant" else {"final_rate": 0.1}
    first = state = fresh(num_steps=12, init_scale=1.0, warmup=0.25, **decay, **h)
    u = np.maximum(np.arange(12) - 3, 0) / 9
    fallen = 1.0 if schedule == "constant" else 0.1 + 0.9 * (1 + np.cos(np.pi * u)) / 2
    multipliers = np.minimum(np.arange(12) / 3, 1) * fallen
    states = []
    for _ in range(12):
        states.append(state)
        state, _ = step(state, batch_of(x, y), schedule=schedule)
    assert_weights(state, by_hand(first, [(x, y, np.ones(N))] * 12, multipliers=multipliers, **h))
    resumed = jax.tree.map(jnp.copy, states[7])  # later steps depend on the state alone
    for _ in range(5):
        resumed, _ = step(resumed, batch_of(x, y), schedule=schedule)
    jax.tree.map(assert_array_equal, resumed.params, state.params)


def test_averaged_weights_are_evaluated_and_the_last_ones_trained():
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


def test_regularisation_that_is_off_changes_nothing():
    """A program that has it gives such a trial the weights of a program without it."""
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


def test_a_frozen_state_keeps_every_leaf():
    old = {"W": jnp.ones((2, 3)), "step": jnp.array([4, 4])}
    new = {"W": jnp.full((2, 3), jnp.nan), "step": jnp.array([5, 5])}
    kept = jax.vmap(train.freeze)(jnp.array([True, False]), old, new)
    assert_array_equal(kept["step"], [4, 5])
    assert_array_equal(kept["W"][0], np.ones(3))
    assert np.isnan(kept["W"][1]).all()


# Label smoothing.


@EACH_LOSS
@pytest.mark.parametrize("amount", [0.0, 0.1, 0.9])
def test_smoothed_loss_matches_optax_in_value_and_gradient_in_either_layout(name, amount):
    rng, smoothed = np.random.default_rng(0), losses.smoothed(losses.FROM_LOGITS[name], amount)
    logits = rng.normal(size=(6, 4), scale=2).astype(np.float32)
    labels = rng.integers(4, size=6).astype(np.int32)

    def by_optax(logits):
        targets = optax.smooth_labels(jax.nn.one_hot(labels, 4), amount)
        return optax.softmax_cross_entropy(logits, targets).sum()

    expected, slope = jax.jit(jax.value_and_grad(by_optax))(logits)
    for loss in (
        lambda logits: smoothed(logits, labels).sum(),
        lambda logits: smoothed(logits.T, labels, axis=0).sum(),
    ):
        value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
        assert value == pytest.approx(float(expected), rel=1e-5)
        assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)


def test_smoothed_loss_is_smallest_at_the_smoothed_label():
    """At probabilities 1 - s + s/C and s/C, and not at 1 and 0."""
    amount, label = 0.2, jnp.array([1])
    target = np.full((1, 4), amount / 4, np.float32)
    target[0, 1] += 1 - amount
    smoothed = losses.smoothed(losses.cross_entropy, amount)
    slope = jax.jit(jax.grad(lambda o: smoothed(o, label).sum()))
    assert_allclose(slope(np.log(target)), np.zeros((1, 4)), atol=1e-6)
    assert abs(slope(100 * target)).max() > 0.01


# The mean of the iterates.

STEPS = 20


@jax.jit
def tail_means(iterates, fraction):
    """The mean after every step, from an initial one that must leave no trace."""

    def step(mean, now):
        number, params = now
        mean = train.tail_mean(mean, {"W": params}, number, STEPS, fraction)
        return mean, mean["W"]

    numbers = jnp.arange(1, STEPS + 1)
    return jax.lax.scan(step, {"W": jnp.full(3, 1e6)}, (numbers, iterates))[1]


@given(arrays(np.float32, (STEPS, 3), elements=st.floats(-10, 10, width=32)), st.integers(0, STEPS))
@PROPERTY
def test_the_average_is_that_of_the_last_iterates(iterates, averaged):
    """Before they begin it is the last iterate, bit for bit; and so is the first of them."""
    means = tail_means(iterates, np.float32(averaged / STEPS))
    begin = min(STEPS - averaged, STEPS - 1)
    assert_array_equal(means[: begin + 1], iterates[: begin + 1])
    for n in range(begin, STEPS):
        expected = iterates[begin : n + 1].astype(np.float64).mean(0)
        assert_allclose(means[n], expected, rtol=1e-5, atol=1e-5)


# Schedules.

SCHEDULE_STEPS = 50
FRACTIONS = np.arange(SCHEDULE_STEPS + 1, dtype=np.float32) / SCHEDULE_STEPS
EACH_SCHEDULE = pytest.mark.parametrize("schedule", train.SCHEDULES)

_multipliers = jax.jit(jax.vmap(train.rate_multiplier, (None, 0, None, None)), static_argnums=0)


def multipliers_of(schedule, warmup, final_rate):
    """At every step."""
    return np.asarray(_multipliers(schedule, FRACTIONS, warmup, final_rate))


def multipliers_in_optax(schedule, warmup, final_rate):
    """At every step, by optax's schedules of steps and rates."""
    rising, steps = round(warmup * SCHEDULE_STEPS), SCHEDULE_STEPS
    made = {
        "constant": lambda: optax.warmup_constant_schedule(0.0, 1.0, rising),
        "cosine": lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, rising, steps, final_rate),
        "exponential": lambda: optax.warmup_exponential_decay_schedule(
            0.0, 1.0, rising, steps - rising, final_rate
        ),
    }[schedule]()
    return [float(made(step)) for step in range(steps + 1)]


@EACH_SCHEDULE
@pytest.mark.parametrize("warmup", [0.02, 0.2, 0.9])
@pytest.mark.parametrize("final_rate", [0.001, 0.3])
def test_schedules_match_optax(schedule, warmup, final_rate):
    found = multipliers_of(schedule, warmup, final_rate)
    expected = multipliers_in_optax(schedule, warmup, final_rate)
    assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@EACH_SCHEDULE
@given(st.floats(0.002, 0.9), st.floats(0, 0.8))
@PROPERTY
def test_a_schedule_peaks_after_warmup_and_never_rises_again(schedule, final_rate, warmup):
    """A decay arrives at the final rate; with a final rate of 1 there is none."""
    found = multipliers_of(schedule, warmup, final_rate)
    fallen = found[FRACTIONS >= warmup + 1e-6]
    assert multipliers_of(schedule, 0.0, final_rate)[0] == 1
    assert (np.diff(fallen) <= 0).all() and found.max() <= 1
    assert schedule == "constant" or (np.diff(fallen) < 0).all()
    arrived = 1 if schedule == "constant" else final_rate
    assert found[-1] == pytest.approx(arrived, rel=1e-5)
    flat = multipliers_of(schedule, warmup, 1.0)[FRACTIONS >= warmup + 1e-6]
    assert_allclose(flat, np.ones(len(flat)), rtol=1e-6)


@EACH_SCHEDULE
def test_trials_have_schedules_of_their_own_under_vmap(schedule):
    """Traced numbers, for which optax's own schedules of peaks and rates cannot be made."""
    warmup, final_rate = np.float32([0.0, 0.1, 0.4]), np.float32([0.5, 0.01, 1.0])
    together = jax.jit(jax.vmap(lambda w, r: train.rate_multiplier(schedule, 0.6, w, r)))
    alone = [train.rate_multiplier(schedule, 0.6, warmup[i], final_rate[i]) for i in range(3)]
    assert_allclose(together(warmup, final_rate), alone, rtol=1e-6)


# Criteria: with or without the logits, the same is minimised and measured.

MODEL = model.augment(model.scratch)
WORDS, FEATURES, EXAMPLES = 12, 5, 30
WITH_LOGITS = train.criterion_of_logits(MODEL)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, EXAMPLES).astype(np.float32)
    x = rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    return train.Batch(x, rng.integers(0, WORDS, EXAMPLES).astype(np.int32), weights)


@pytest.fixture(scope="module")
def augmented():
    h = train.Hyperparameters(init_scale=1.0)
    return train.create_state(jax.random.key(1), MODEL, h, FEATURES, WORDS)


def exact():
    return vocabulary.criterion("cross_entropy", WORDS)


def test_exact_loss_without_logits_trains_and_measures_as_with_them(augmented, batch):
    with_logits, sums = _step(augmented, batch, WITH_LOGITS)
    without, own = _step(augmented, batch, exact())
    for pair in zip(MODEL.weights(without.params), MODEL.weights(with_logits.params), strict=True):
        assert_allclose(*pair, rtol=1e-5, atol=1e-6)
    assert_allclose(own["loss"]["sum"], sums["loss"]["sum"], rtol=1e-5)
    assert_allclose(own["loss"]["weight"], batch.weights.sum())
    found, expected = (
        criterion.values(jax.jit(criterion.evaluate)(augmented.params, batch))
        for criterion in (exact(), WITH_LOGITS)
    )
    assert set(found) == {"loss", "accuracy", "top5"}
    for name, value in found.items():
        assert_allclose(value, expected[name], rtol=1e-5)


@pytest.mark.parametrize("criterion", [exact(), WITH_LOGITS], ids=["exact", "of logits"])
def test_class_weights_weigh_the_objective_and_are_taken_out_of_what_is_reported(
    augmented, batch, criterion
):
    """The loss is that of p ∝ p'/v, in training and validation; the accuracy that of p'."""
    v = np.linspace(0.5, 1.5, WORDS).astype(np.float32)
    logits = np.asarray(MODEL.apply(augmented.params, batch.x))
    plain = criterion.loss(augmented.params, batch, None, 0)
    weighted = batch._replace(class_weight=v, total=np.float32(7))
    value, sums = criterion.loss(augmented.params, weighted, None, 0)
    own = np.asarray(losses.cross_entropy(logits, batch.y))
    assert_allclose(plain[0], np.average(own, weights=batch.weights), rtol=1e-5)
    assert_allclose(value, (batch.weights * v[batch.y] * own).sum() / 7, rtol=1e-5)
    true = np.asarray(losses.cross_entropy(logits - np.log(v), batch.y))
    expected = np.average(true, weights=batch.weights)
    found = criterion.values(criterion.evaluate(augmented.params, weighted))
    assert_allclose(found["loss"], expected, rtol=1e-5)
    assert_allclose(criterion.values(sums)["loss"], expected, rtol=1e-5)
    hits = logits.argmax(1) == batch.y
    assert_allclose(found["accuracy"], np.average(hits, weights=batch.weights), rtol=1e-5)


@pytest.mark.parametrize("name", vocabulary.OBJECTIVES[1:])
def test_sampled_losses_draw_anew_at_every_step_and_alike_at_equal_steps(augmented, batch, name):
    loss = jax.jit(vocabulary.criterion(name, WORDS, 4).loss)
    first, again, later = (loss(augmented.params, batch, None, step)[0] for step in (0, 0, 1))
    assert first == again and first != later


@pytest.mark.parametrize("name", vocabulary.OBJECTIVES)
def test_losses_without_logits_refuse_smoothed_labels(augmented, batch, name):
    loss = vocabulary.criterion(name, WORDS, 0 if name == "cross_entropy" else 4).loss
    with pytest.raises(ValueError, match=f"label_smoothing must be 0 with the loss '{name}'"):
        loss(augmented.params, batch, 0.1, 0)


def test_equal_criteria_are_one_object_so_that_nothing_is_compiled_twice():
    again = train.criterion_of_logits(MODEL, losses.cross_entropy)
    assert again is train.criterion_of_logits(MODEL, losses.cross_entropy)
    assert exact() is exact()
