"""The compiled programs: shapes, traces, products, memory, microchunks, best epochs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import model, sweep, train
from softmax_jax.sweep import inputs, program
from softmax_jax.sweep.loop import orders
from softmax_jax.sweep.mesh import AXES, ONE, Placement, sgd_trial_bytes
from tests.sweep_fixtures import DIGITS, counting_model, fit

MODEL = model.augment(model.concise)
CRITERION = train.criterion_of_logits(MODEL)


def create(seeds=(0,), settings=None, num_features=64):
    settings = sweep.grid(learning_rate=(0.02, 0.05, 0.1)) if settings is None else settings
    return program.create(
        np.asarray(seeds, np.uint32),
        settings,
        np.zeros(len(settings.l2), np.int32),
        model=MODEL,
        num_features=num_features,
        num_classes=10,
    )


def test_fresh_states_are_stacked_by_seed_and_setting():
    states = create(seeds=(0, 1))
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(states)} == {(2, 3)}
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(states))
    assert_array_equal(states.hyperparameters.learning_rate, np.float32([[0.02, 0.05, 0.1]] * 2))


def test_initial_weights_differ_by_seed_alone():
    matrix = np.asarray(create(seeds=(0, 1)).params["augmented"])
    assert (matrix[0] != matrix[1])[..., :-1].all() and not matrix[..., -1].any()
    assert_array_equal(matrix[:, 0], matrix[:, 1])
    assert_array_equal(matrix[1], create(seeds=(1,)).params["augmented"][0])


def test_stacked_states_are_those_of_train():
    settings = sweep.grid(init_scale=(0.01, 0.1, 1.0))
    states = create(seeds=(5,), settings=settings)
    for i, scale in enumerate((0.01, 0.1, 1.0)):
        h = train.Hyperparameters(init_scale=scale)
        alone = train.create_state(jax.random.key(5), MODEL, h, 64, 10)
        assert_allclose(states.params["augmented"][0, i], alone.params["augmented"], rtol=1e-6)


def test_trials_share_each_minibatch_in_one_matrix_product():
    """No product has a batch axis: [K·C, D+1] × [D+1, B] forward, [K·C, B] × [B, D+1] backward."""
    states, order = create(), orders([0], 1, 500, 64)
    program_text = program.train_epoch.lower(
        states, inputs.device_data(DIGITS.train), order, CRITERION
    )
    products = [line for line in program_text.as_text().splitlines() if "dot_general" in line]
    assert not any("batching_dims" in line for line in products)
    for line, left in zip(products, ("3x10x65", "3x10x64"), strict=True):
        assert f"tensor<{left}xf32>, tensor<65x64xf32>" in line


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["a seed", "two seeds"])
@pytest.mark.parametrize("at_once", [1, 2])
def test_microchunks_train_as_all_trials_at_once(seeds, at_once):
    """Every one in its own place, with its own sums."""
    settings = sweep.grid(learning_rate=(0.01, 0.02, 0.05, 0.1), momentum=0.5)
    data, order = inputs.device_data(DIGITS.train), orders(seeds, 1, 500, 64)
    (expected, sums), (found, own) = (
        program.train_epoch(
            create(seeds=seeds, settings=settings), data, order, CRITERION, microchunk=n
        )
        for n in (None, at_once)
    )
    whole, in_microchunks = (
        jax.tree.leaves((s.params, s.opt_state, s.step)) for s in (expected, found)
    )
    for actual, wanted in zip(in_microchunks, whole, strict=True):
        assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)
    for name in ("loss", "accuracy"):
        assert_allclose(own[name]["sum"], sums[name]["sum"], rtol=1e-5)
        assert_array_equal(own[name]["weight"], sums[name]["weight"])


def test_microchunks_take_less_memory():
    """Each is trained in place; a second set of all states would show."""
    states = create(settings=sweep.grid(learning_rate=np.linspace(0.01, 0.1, 16)))
    data, order = inputs.device_data(DIGITS.train), orders([0], 1, 500, 64)

    def bytes_of(at_once):
        lowered = program.train_epoch.lower(states, data, order, CRITERION, microchunk=at_once)
        used = lowered.compile().memory_analysis()
        return used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes

    assert bytes_of(4) < 0.6 * bytes_of(None)


def test_epoch_reuses_the_memory_of_the_states_it_was_given():
    states = create()
    after, _ = program.train_epoch(
        states, inputs.device_data(DIGITS.train), orders([0], 1, 500, 64), CRITERION
    )
    assert states.params["augmented"].is_deleted() and not after.params["augmented"].is_deleted()


def test_data_on_the_device_stays_there():
    on_device = inputs.device_data(DIGITS.train)
    assert on_device.x.dtype == jnp.uint8 and on_device.scale == 16
    assert_array_equal(on_device.weights, np.ones(500))
    x = jnp.asarray(DIGITS.val.x)
    again = inputs.device_data(dataclasses.replace(DIGITS.val, x=x))
    assert again.x.unsafe_buffer_pointer() == x.unsafe_buffer_pointer()


def test_metrics_are_those_of_each_model_alone():
    """Evaluation in NumPy, a model at a time, of states that differ."""
    settings = sweep.grid(init_scale=(0.1, 0.5, 1.0))
    states, data = create(settings=settings), inputs.device_data(DIGITS.val)
    measured = jax.device_get(program.values(program.evaluate(states, data, CRITERION), CRITERION))
    x, y = DIGITS.val.x.reshape(200, 64) / 16.0, DIGITS.val.y
    for i in range(3):
        params = jax.tree.map(lambda leaf, i=i: leaf[0, i], states.params)
        W, b = (np.asarray(leaf, np.float64) for leaf in MODEL.weights(params))
        logits = x @ W + b
        each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(200), y]
        assert measured["loss"][0, i] == pytest.approx(each.mean(), rel=1e-5)
        assert measured["accuracy"][0, i] == pytest.approx((logits.argmax(-1) == y).mean())


def test_best_epoch_is_kept_trial_by_trial():
    states = create()
    best = program.no_best(states)
    assert_array_equal(best.epoch, [[0, 0, 0]])
    seen = {}
    for epoch, costs in enumerate([[3.0, 1, np.nan], [2, 1, np.nan], [4, 0.5, np.inf]], start=1):
        params = jax.tree.map(lambda leaf, e=epoch: jnp.full_like(leaf, e), states.params)
        seen[epoch] = states.replace(params=params)
        best = program.keep_best(best, seen[epoch], jnp.array([costs]), epoch)
    assert_array_equal(best.epoch, [[2, 3, 0]])  # a tie goes to the earlier epoch; NaN never is
    assert_array_equal(best.value, [[2, 0.5, np.inf]])
    assert_array_equal(best.params["augmented"][0, :2, 0, 0], [2, 3])
    assert_array_equal(best.params["augmented"][0, :2, 0, -1], [2, 3])
    assert_array_equal(best.params["augmented"][0, 2], states.params["augmented"][0, 2])


# What is traced and compiled.


def test_step_is_traced_once_per_batch_size_and_number_of_trials():
    model, traces = counting_model()
    objective = sweep.Objective(model=model)
    for rates, batch_sizes in [((0.1,), (8,)), ((0.1, 0.2), (8, 16)), ((0.3, 0.4), (16, 8))]:
        settings = sweep.grid(learning_rate=rates)
        options = {"num_epochs": 3, "batch_size": batch_sizes, "objective": objective}
        sweep.fit(DIGITS.train[:40], None, settings, **options)
    assert traces == [(8, 65), (8, 65), (16, 65)]


def test_other_strengths_and_lengths_are_no_new_program():
    model, traces = counting_model()
    objective, solver = sweep.Objective(model=model), sweep.SGD(schedule="cosine")
    for num_epochs, strength in [(2, 0.1), (5, 0.3)]:
        own = {"label_smoothing": strength, "averaging": strength, "warmup": strength}
        settings = sweep.grid(learning_rate=(0.1, strength + 1), final_rate=strength, **own)
        options = {"batch_size": 8, "objective": objective, "solver": solver}
        sweep.fit(DIGITS.train[:40], None, settings, num_epochs=num_epochs, **options)
    assert traces == [(8, 65)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_second_sweep_of_the_same_shape_compiles_nothing(compilations, momentum):
    fit(sweep.grid(learning_rate=(0.01, 0.02, 0.03), momentum=momentum))
    compilations.clear()
    other = sweep.grid(learning_rate=(0.03, 0.06, 0.09), l2=1e-5, momentum=momentum / 2)
    fit(other, seeds=(3,), num_epochs=5).best()
    assert not compilations


def test_estimated_bytes_per_trial_cover_what_the_compiler_takes():
    """Arguments, results and temporaries of an epoch, by what three more trials add to them."""

    def bytes_of(K):
        states = create(settings=sweep.grid(learning_rate=np.linspace(0.01, 0.1, K)))
        data, order = inputs.device_data(DIGITS.train), np.zeros((1, 1, 500), np.int32)
        lowered = program.train_epoch.lower(states, data, order, CRITERION)
        used = lowered.compile().memory_analysis()
        return (
            used.argument_size_in_bytes
            + used.output_size_in_bytes
            - used.alias_size_in_bytes
            + used.temp_size_in_bytes
        )

    assert (bytes_of(4) - bytes_of(1)) / 3 <= sgd_trial_bytes(64, 10, 500)


# Microchunks.

FASHION, SMALL = (784, 10), (64, 10)
ON_A_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU has such caches")


@ON_A_CPU
@pytest.mark.parametrize(
    ("shape", "sizes", "num_scores", "expected"),
    [
        ((1, 64), FASHION, 256, None),  # all fit
        ((1, 256), FASHION, 256, None),
        ((1, 1024), FASHION, 256, 256),  # the weights are too many
        ((4, 256), FASHION, 256, 64),  # seeds count: 4 × 64 at once
        ((1, 5000), SMALL, 256, 500),  # the scores are
        ((1, 8), FASHION, 60_000, None),  # too few rows to divide
        ((1, 4), (32, 100_000), 0, 1),  # one trial alone has more than enough
        ((1, 64), (32, 1000), 0, 32),  # without logits the weights alone count
        ((1, 1009), FASHION, 256, None),  # a prime
    ],
)
def test_trials_are_trained_in_microchunks_where_they_are_too_many(
    shape, sizes, num_scores, expected
):
    assert program.training_microchunk(ONE, shape, *sizes, num_scores) == expected


@ON_A_CPU
@pytest.mark.parametrize(
    ("shape", "num_classes", "expected"),
    [((1, 64), 10, None), ((1, 256), 10, 64), ((2, 64), 10, 32), ((1, 3), 1000, 1)],
)
def test_trials_are_evaluated_in_smaller_microchunks(shape, num_classes, expected):
    assert program.evaluation_microchunk(ONE, shape, num_classes) == expected


@given(num_trials=st.integers(1, 2000), num_microchunks=st.integers(1, 5000))
def test_microchunks_are_even_and_as_few_as_can_be(num_trials, num_microchunks):
    fewest = min(num_microchunks, num_trials)
    possible = [n for n in range(max(fewest, 2), 2 * fewest) if num_trials % n == 0]
    expected = num_trials // possible[0] if possible else None
    assert program.even_size(num_trials, num_microchunks) == expected


def test_mesh_takes_no_microchunks():
    shared = Placement(jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3))
    assert program.training_microchunk(shared, (1, 1024), *FASHION, 256) is None
    assert program.evaluation_microchunk(shared, (1, 1024), 10) is None
