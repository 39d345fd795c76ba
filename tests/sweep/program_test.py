import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import model, sweep, train
from softmax_jax.sweep import inputs, program
from softmax_jax.sweep.sgd import orders

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


def test_seeds_differ_in_their_weights_and_settings_of_a_seed_do_not():
    matrix = np.asarray(create(seeds=(0, 1)).params["augmented"])
    assert (matrix[0] != matrix[1])[..., :-1].all() and not matrix[..., -1].any()
    assert_array_equal(matrix[:, 0], matrix[:, 1])
    assert_array_equal(matrix[1], create(seeds=(1,)).params["augmented"][0])


def test_every_state_is_the_one_that_train_makes():
    settings = sweep.grid(init_scale=(0.01, 0.1, 1.0))
    states = create(seeds=(5,), settings=settings)
    for i, scale in enumerate((0.01, 0.1, 1.0)):
        h = train.Hyperparameters(init_scale=scale)
        alone = train.create_state(jax.random.key(5), MODEL, h, 64, 10)
        assert_allclose(states.params["augmented"][0, i], alone.params["augmented"], rtol=1e-6)


def test_trials_share_each_minibatch_in_one_matrix_product(digits):
    """No product has a batch axis: [K·C, D+1] × [D+1, B] forward, [K·C, B] × [B, D+1] backward."""
    states, order = create(), orders([0], 1, 500, 64)
    program_text = program.train_epoch.lower(
        states, inputs.device_data(digits.train), order, CRITERION
    )
    products = [line for line in program_text.as_text().splitlines() if "dot_general" in line]
    assert not any("batching_dims" in line for line in products)
    for line, left in zip(products, ("3x10x65", "3x10x64"), strict=True):
        assert f"tensor<{left}xf32>, tensor<65x64xf32>" in line


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["a seed", "two seeds"])
@pytest.mark.parametrize("at_once", [1, 2])
def test_portions_of_the_trials_train_as_all_at_once(digits, seeds, at_once):
    """Every one in its own place, with its own sums."""
    settings = sweep.grid(learning_rate=(0.01, 0.02, 0.05, 0.1), momentum=0.5)
    data, order = inputs.device_data(digits.train), orders(seeds, 1, 500, 64)
    (expected, sums), (found, own) = (
        program.train_epoch(
            create(seeds=seeds, settings=settings), data, order, CRITERION, microchunk=n
        )
        for n in (None, at_once)
    )
    whole, in_portions = (
        jax.tree.leaves((s.params, s.opt_state, s.step)) for s in (expected, found)
    )
    for actual, wanted in zip(in_portions, whole, strict=True):
        assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)
    for name in ("loss", "accuracy"):
        assert_allclose(own[name]["sum"], sums[name]["sum"], rtol=1e-5)
        assert_array_equal(own[name]["weight"], sums[name]["weight"])


def test_portions_take_no_more_memory(digits):
    """Each is trained in place; a second set of all states would show."""
    states = create(settings=sweep.grid(learning_rate=np.linspace(0.01, 0.1, 16)))
    data, order = inputs.device_data(digits.train), orders([0], 1, 500, 64)

    def bytes_of(at_once):
        lowered = program.train_epoch.lower(states, data, order, CRITERION, microchunk=at_once)
        used = lowered.compile().memory_analysis()
        return used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes

    assert bytes_of(4) < 0.6 * bytes_of(None)


def test_an_epoch_uses_the_memory_of_the_states_it_was_given(digits):
    states = create()
    after, _ = program.train_epoch(
        states, inputs.device_data(digits.train), orders([0], 1, 500, 64), CRITERION
    )
    assert states.params["augmented"].is_deleted() and not after.params["augmented"].is_deleted()


def test_data_that_is_on_the_device_stays_there(digits):
    on_device = inputs.device_data(digits.train)
    assert on_device.x.dtype == jnp.uint8 and on_device.scale == 16
    assert_array_equal(on_device.weights, np.ones(500))
    x = jnp.asarray(digits.val.x)
    again = inputs.device_data(digits.val.__class__(x, digits.val.y, 16.0, (), ""))
    assert again.x.unsafe_buffer_pointer() == x.unsafe_buffer_pointer()


def test_figures_are_those_of_each_model_alone(digits):
    """Evaluation in NumPy, a model at a time, of states that differ."""
    settings = sweep.grid(init_scale=(0.1, 0.5, 1.0))
    states, data = create(settings=settings), inputs.device_data(digits.val)
    figures = jax.device_get(program.values(program.evaluate(states, data, CRITERION), CRITERION))
    x, y = digits.val.x.reshape(200, 64) / 16.0, digits.val.y
    for i in range(3):
        params = jax.tree.map(lambda leaf, i=i: leaf[0, i], states.params)
        W, b = (np.asarray(leaf, np.float64) for leaf in MODEL.weights(params))
        logits = x @ W + b
        each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(200), y]
        assert figures["loss"][0, i] == pytest.approx(each.mean(), rel=1e-5)
        assert figures["accuracy"][0, i] == pytest.approx((logits.argmax(-1) == y).mean())


def test_the_best_epoch_is_kept_trial_by_trial():
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
