import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import model, sweep
from softmax_jax.sweep import inputs, program
from softmax_jax.sweep.sgd import orders
from softmax_jax.train import Hyperparameters
from tests import flat


def alone(settings, trial):
    return jax.tree.map(lambda column: column[trial], settings)


def assert_same_bits(one, other):
    jax.tree.map(assert_array_equal, (one.params, one.metrics), (other.params, other.metrics))


# One program for many trials, or one for each.


def test_a_sweep_equals_its_single_runs(fit, result, settings, distance):
    for trial in range(3):
        single = fit(alone(settings, trial))
        assert distance(result.classifier(trial), single.classifier(0)) <= 1e-6
        for name, values in result.metrics.items():
            assert_allclose(values[trial], single.metrics[name][0], rtol=1e-6)


def test_a_sweep_equals_training_by_hand(result, digits, settings, by_hand, distance):
    """In NumPy float64, with momentum, l2 and initial scales of each trial's own."""
    for trial in range(3):
        expected = by_hand(digits.train, alone(settings, trial))
        assert distance(result.classifier(trial), expected) <= 1e-6


def test_at_rates_that_amplify_rounding_one_step_agrees(fit, distance):
    settings = sweep.grid(learning_rate=(1.0, 10.0, 100.0))
    one_step = {"num_epochs": 1, "batch_size": 500}
    together = fit(settings, **one_step)
    for trial in range(3):
        single = fit(alone(settings, trial), **one_step)
        assert distance(together.classifier(trial), single.classifier(0)) <= 1e-6


def test_a_grid_of_one_is_a_plain_run(fit):
    """Bit for bit."""
    assert_same_bits(fit(sweep.grid(learning_rate=0.1)), fit())


def test_permuting_the_settings_permutes_the_results(fit, result, settings):
    """Bit for bit."""
    order = [2, 0, 1]
    permuted = fit(jax.tree.map(lambda column: column[order], settings))
    jax.tree.map(
        lambda p, r: assert_array_equal(p, r[order]),
        (permuted.params, permuted.best_params, permuted.metrics),
        (result.params, result.best_params, result.metrics),
    )


def test_running_in_chunks_changes_nothing(fit, result, settings, distance):
    """Of two (the last one padded), and to 1e-6."""
    chunked = fit(settings, chunk=2)
    for trial in range(3):
        for epoch in "last", "best":
            expected = result.classifier(trial, epoch)
            assert distance(chunked.classifier(trial, epoch), expected) <= 1e-6
    for name, values in result.metrics.items():
        assert_allclose(chunked.metrics[name], values, rtol=1e-6)


MANY = sweep.grid(learning_rate=np.geomspace(1e-3, 0.05, 600))
IN_PORTIONS = {
    "seeds": ({"seeds": (0, 1)}, 200),
    "spans": ({"steps_per_call": 1}, 300),
    "averaging and stopping": (
        {"settings": MANY._replace(averaging=np.float32([0.5]), patience=np.float32([1]))},
        300,
    ),
}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU takes portions")
@pytest.mark.parametrize("case", IN_PORTIONS)
def test_running_in_portions_changes_nothing(fit, monkeypatch, case):
    """So many trials that a CPU takes them in portions, and in chunks too small for that."""
    (options, expected), train_epoch, taken = IN_PORTIONS[case], program.train_epoch, []

    def watched(*arguments):
        taken.append(arguments[5])
        return train_epoch(*arguments)

    monkeypatch.setattr(program, "train_epoch", watched)
    options = {"settings": MANY, "batch_size": 250} | options
    in_portions = fit(**options)
    assert set(taken) == {expected}
    in_chunks = fit(**options, chunk=100)
    assert set(taken) == {expected, None}
    assert_allclose(in_portions.params["augmented"], in_chunks.params["augmented"], atol=1e-6)
    for name, values in in_chunks.metrics.items():
        assert_allclose(in_portions.metrics[name], values, rtol=1e-5, err_msg=name)


def test_folds_in_portions_are_those_in_chunks(digits):
    counts = inputs.fold_counts(digits.train.y, 3)
    settings = sweep.grid(learning_rate=np.geomspace(1e-3, 0.05, 200))
    options = {"resamples": counts, "num_epochs": 2, "batch_size": 250}
    in_portions, in_chunks = (
        flat.fit(digits.train, None, settings, **options, chunk=chunk) for chunk in (0, 100)
    )
    assert_allclose(in_portions.params["augmented"], in_chunks.params["augmented"], atol=1e-6)


def test_seeds_at_once_equal_each_alone(fit, result, settings, distance):
    together = fit(settings, seeds=(0, 1))
    second = fit(settings, seeds=(1,))
    assert_array_equal(together.run.trials.seed, [0, 0, 0, 1, 1, 1])
    for trial in range(3):
        assert distance(together.classifier(trial), result.classifier(trial)) <= 1e-6
        assert distance(together.classifier(3 + trial), second.classifier(trial)) <= 1e-6
        assert distance(result.classifier(trial), second.classifier(trial)) > 0.01


def test_same_seed_same_bits(fit, result, settings):
    assert_same_bits(fit(settings), result)


def test_batch_sizes_run_one_after_the_other_into_one_table(
    fit, digits, settings, by_hand, distance
):
    both = fit(settings, batch_size=(64, 500))
    assert_array_equal(both.run.trials.batch_size, [64] * 3 + [500] * 3)
    for trial, batch_size in enumerate([64] * 3 + [500] * 3):
        h = alone(settings, trial % 3)
        expected = by_hand(digits.train, h, batch_size=batch_size)
        assert distance(both.classifier(trial), expected) <= 1e-6


# The order of the data.


def test_an_order_is_a_permutation_with_its_padding_last():
    order = orders([3, 4], 1, num_examples=10, batch_size=4)
    assert order.shape == (2, 3, 4) and order.dtype == np.int32
    for seed in range(2):
        assert_array_equal(np.sort(order[seed].ravel()[:10]), np.arange(10))
        assert_array_equal(order[seed, 2, 2:], [-1, -1])


def test_an_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return orders([seed], epoch, num_examples=20, batch_size=20).ravel().tolist()

    assert orders([7, 2], 5, 20, 20)[1].ravel().tolist() == order(2, 5)
    different = {tuple(order(seed, epoch)) for seed in range(4) for epoch in range(1, 5)}
    assert len(different) == 16


# What is compiled.


def counting_model():
    """The concise model, with a list that grows by one with every trace of it."""
    traces = []

    def apply(params, x):
        traces.append(x.shape)
        return model.concise.apply(params, x)

    return model.concise._replace(apply=apply), traces


def test_one_trace_of_the_train_step_per_batch_size_and_number_of_trials(digits):
    small = dataclasses.replace(digits.train, x=digits.train.x[:40], y=digits.train.y[:40])
    model, traces = counting_model()
    options = {"num_epochs": 3, "seeds": (0,), "model": model}
    for rates, batch_sizes in [((0.1,), (8,)), ((0.1, 0.2), (8, 16)), ((0.3, 0.4), (16, 8))]:
        settings = sweep.grid(learning_rate=rates)
        flat.fit(small, None, settings, batch_size=batch_sizes, **options)
    assert traces == [(8, 65), (8, 65), (16, 65)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_second_sweep_of_the_same_shape_compiles_nothing(fit, compilations, momentum):
    fit(sweep.grid(learning_rate=(0.01, 0.02, 0.03), momentum=momentum))
    compilations.clear()
    other = sweep.grid(learning_rate=(0.03, 0.06, 0.09), l2=1e-5, momentum=momentum / 2)
    fit(other, seeds=(3,), num_epochs=5).best()
    assert not compilations


# Weights: folds, classes.


@pytest.fixture(scope="module")
def folded(fit, digits):
    counts = inputs.fold_counts(digits.train.y, 3, seed=0)
    return fit(sweep.grid(learning_rate=0.1, l2=1e-2), val=None, resamples=counts), counts


def test_a_fold_trains_as_if_the_held_out_examples_were_not_there(
    folded, digits, by_hand, distance
):
    """On the same minibatches without them, each with the mean over what is left."""
    result, counts = folded
    h = alone(sweep.grid(learning_rate=0.1, l2=1e-2), 0)
    assert_array_equal(result.run.trials.fold, [0, 1, 2])
    for fold in range(3):
        expected = by_hand(digits.train, h, weights=counts[:, fold])
        assert distance(result.classifier(fold), expected) <= 1e-6


def test_a_fold_is_evaluated_on_what_it_held_out(folded, digits):
    result, counts = folded
    for fold in range(3):
        held_out = dataclasses.replace(
            digits.train,
            x=digits.train.x[counts[:, fold] == 0],
            y=digits.train.y[counts[:, fold] == 0],
        )
        figures = result.classifier(fold).test(held_out)
        assert result.metrics["val_loss"][fold, -1] == pytest.approx(figures["loss"], rel=1e-5)
        assert result.metrics["val_accuracy"][fold, -1] == pytest.approx(figures["accuracy"])


def test_weights_of_classes_and_examples_weigh_the_objective(digits, by_hand, distance):
    """In every minibatch by their share in the whole, but not the figures."""
    own = np.random.default_rng(0).uniform(0.5, 2, 500).astype(np.float32)
    train = dataclasses.replace(digits.train, weights=own)
    class_weight = np.arange(1.0, 11)
    h = Hyperparameters(l2=1e-2)
    options = {"num_epochs": 3, "batch_size": 64}
    result = flat.fit(train, digits.val, h, class_weight=class_weight, **options)
    weights = own * class_weight[digits.train.y]
    expected = by_hand(digits.train, h, importance=weights / weights.mean())
    assert distance(result.classifier(0), expected) <= 1e-6
    assert result.metrics["train_loss"][0, 0] == pytest.approx(np.log(10), abs=0.3)
    figures = result.classifier(0).test(digits.val)
    assert result.metrics["val_loss"][0, -1] == pytest.approx(figures["loss"], rel=1e-5)


# The generator, and what it refuses.


def test_epochs_come_one_by_one_with_figures_and_states(digits, settings, result):
    seen = []
    for epoch in flat.epochs(digits.train, digits.val, settings, num_epochs=3, batch_size=64):
        seen.append(epoch.epoch)
        assert_array_equal(epoch.trials, [0, 1, 2])
        for name, values in epoch.metrics.items():
            assert_array_equal(values, result.metrics[name][:, epoch.epoch - 1])
        W, _ = epoch.run.model.weights(jax.tree.map(lambda leaf: leaf[0, 1], epoch.states.params))
    assert seen == [1, 2, 3]
    assert_array_equal(W, result.classifier(1).W)


def test_all_problems_are_in_one_message_before_anything_is_compiled(digits, compilations):
    with pytest.raises(ValueError) as error:
        flat.epochs(
            digits.train,
            digits.val,
            num_epochs=0,
            batch_size=(64, 501, 64),
            seeds=(1, 1),
            best_by="val_los",
            chunk=-1,
        )
    for part in (
        "num_epochs must be a whole number from 1; it is 0",
        "batch_size must be from 1 to the 500 training examples; it is [64, 501, 64]",
        "batch_size has a value twice",
        "seeds must be distinct",
        "best_by must be one of val_loss",
        "chunk must be a whole number from 0; it is -1",
    ):
        assert part in str(error.value)
    assert not compilations


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size must be"),
        ({"seeds": ()}, "seeds must be"),
        ({"seeds": (-1,)}, "seeds must be"),
        ({"class_weight": "even"}, "'balanced'"),
        ({"settings": Hyperparameters(learning_rate=-1.0)}, "learning_rate must be"),
        ({"schedule": "linear"}, "schedule must be one of .*; it is 'linear'"),
        ({"schedule": "cosine"}, "decays to final_rate, which is 1 throughout"),
        ({"settings": Hyperparameters(final_rate=0.1)}, "final_rate below 1 needs a schedule"),
        (
            {"settings": Hyperparameters(final_rate=[0.0, 0.1]), "schedule": "exponential"},
            "never arrives at 0",
        ),
        ({"settings": Hyperparameters(patience=2), "val": None}, "patience waits for a validation"),
        (
            {"settings": Hyperparameters(averaging=0.5, l2=1.0), "optimizer": "lbfgs"},
            "averaging do not work with LBFGS",
        ),
    ],
)
def test_a_bad_option_is_named(fit, options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def test_seeds_and_batch_sizes_may_be_arrays(fit, result, settings):
    again = fit(settings, seeds=np.arange(1), batch_size=np.array([64]))
    assert_same_bits(again, result)


def test_bfloat16_products_select_the_same_setting(digits):
    settings = sweep.grid(learning_rate=(0.01, 0.03, 0.1), l2=(0.0, 1e-2, 1e-1))
    options = {"num_epochs": 10, "batch_size": 50}
    chosen = [
        flat.fit(
            digits.train, digits.val, settings, model=model.by_name("concise", precision), **options
        ).best()
        for precision in ("float32", "bfloat16")
    ]
    assert chosen[0].trial == chosen[1].trial
    losses_ = [selected.metrics["val_loss"] for selected in chosen]
    assert 0 < abs(losses_[0] - losses_[1]) / losses_[0] < 4e-3
