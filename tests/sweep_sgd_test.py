"""A sweep by SGD: every trial equals its single run and training by hand, however it was run."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax import model, sweep
from softmax_jax.sweep import inputs, program
from softmax_jax.sweep.loop import orders
from softmax_jax.train import Hyperparameters
from tests.sweep_fixtures import (
    DIGITS,
    THREE,
    assert_same_bits,
    chunks_of,
    counting_model,
    distance,
    epochs,
    first,
    fit,
    setting_of,
    train_by_hand,
)


@pytest.fixture(scope="module")
def result():
    return fit(THREE)


# One program for many trials, or one for each.


def test_sweep_equals_its_single_runs_and_training_by_hand(result):
    """By hand in NumPy float64, with momentum, l2 and initial scales of each trial's own."""
    for trial in range(3):
        single = fit(setting_of(THREE, trial))
        assert distance(result.classifier(trial), single.classifier(0)) <= 1e-6
        for name, values in result.metrics.items():
            assert_allclose(values[trial], single.metrics[name][0], rtol=1e-6)
        expected = train_by_hand(DIGITS.train, setting_of(THREE, trial))
        assert distance(result.classifier(trial), expected) <= 1e-6


def test_one_step_agrees_at_rates_that_amplify_rounding():
    settings = sweep.grid(learning_rate=(1.0, 10.0, 100.0))
    one_step = {"num_epochs": 1, "batch_size": 500}
    together = fit(settings, **one_step)
    for trial in range(3):
        single = fit(setting_of(sweep.zipped(**settings._asdict()), trial), **one_step)
        assert distance(together.classifier(trial), single.classifier(0)) <= 1e-6


def test_same_seed_gives_the_same_bits(result):
    assert_same_bits(fit(THREE), result)
    assert_same_bits(fit(THREE, seeds=np.arange(1), batch_size=np.array([64])), result)
    assert_same_bits(fit(sweep.grid(learning_rate=0.1)), fit())


def test_permuted_settings_give_permuted_results(result):
    """Bit for bit."""
    order = [2, 0, 1]
    permuted = fit(jax.tree.map(lambda column: column[order], THREE))
    jax.tree.map(
        lambda p, r: assert_array_equal(p, r[order]),
        (permuted.params, permuted.best_params, permuted.metrics),
        (result.params, result.best_params, result.metrics),
    )


def test_chunks_agree_with_one_program(result):
    """Of two trials (the last chunk padded), to 1e-6."""
    chunked = fit(THREE, devices=chunks_of(2))
    for trial in range(3):
        for epoch in "last", "best":
            expected = result.classifier(trial, epoch)
            assert distance(chunked.classifier(trial, epoch), expected) <= 1e-6
    for name, values in result.metrics.items():
        assert_allclose(chunked.metrics[name], values, rtol=1e-6)


MANY = sweep.grid(learning_rate=np.geomspace(1e-3, 0.05, 600))
IN_MICROCHUNKS = {
    "seeds": ({"seeds": (0, 1)}, 0, 200),
    "segments": ({}, 1, 300),
    "averaging and patience": (
        {"settings": MANY._replace(averaging=np.float32([0.5]), patience=np.float32([1]))},
        0,
        300,
    ),
}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU takes microchunks")
@pytest.mark.parametrize("case", IN_MICROCHUNKS)
def test_microchunks_agree_with_chunks(monkeypatch, case):
    """So many trials that a CPU takes them in microchunks, and in chunks too small for that."""
    (options, steps, expected), train_epoch, taken = IN_MICROCHUNKS[case], program.train_epoch, []

    def watched(*arguments):
        taken.append(arguments[5])
        return train_epoch(*arguments)

    monkeypatch.setattr(program, "train_epoch", watched)
    options = {"settings": MANY, "batch_size": 250} | options
    whole = fit(**options, devices=sweep.Devices(steps_per_call=steps))
    assert set(taken) == {expected}
    chunked = fit(**options, devices=sweep.Devices(steps_per_call=steps, chunk=100))
    assert set(taken) == {expected, None}
    assert_allclose(whole.params["augmented"], chunked.params["augmented"], atol=1e-6)
    for name, values in chunked.metrics.items():
        assert_allclose(whole.metrics[name], values, rtol=1e-5, err_msg=name)


def test_folds_in_microchunks_agree_with_chunks():
    counts = inputs.fold_counts(DIGITS.train.y, 3)
    settings = sweep.grid(learning_rate=np.geomspace(1e-3, 0.05, 200))
    options = {"num_epochs": 2, "batch_size": 250}
    whole, chunked = (
        fit(settings, counts, **options, devices=chunks_of(size)) for size in (0, 100)
    )
    assert_allclose(whole.params["augmented"], chunked.params["augmented"], atol=1e-6)


def test_seeds_together_equal_each_alone(result):
    together, second = fit(THREE, seeds=(0, 1)), fit(THREE, seeds=(1,))
    assert_array_equal(together.run.trials.seed, [0, 0, 0, 1, 1, 1])
    for trial in range(3):
        assert distance(together.classifier(trial), result.classifier(trial)) <= 1e-6
        assert distance(together.classifier(3 + trial), second.classifier(trial)) <= 1e-6
        assert distance(result.classifier(trial), second.classifier(trial)) > 0.01


def test_batch_sizes_run_one_after_the_other_into_one_table():
    both = fit(THREE, batch_size=(64, 500))
    assert_array_equal(both.run.trials.batch_size, [64] * 3 + [500] * 3)
    for trial, batch_size in enumerate([64] * 3 + [500] * 3):
        h = setting_of(THREE, trial % 3)
        expected = train_by_hand(DIGITS.train, h, batch_size=batch_size)
        assert distance(both.classifier(trial), expected) <= 1e-6


def test_epochs_come_one_by_one_with_metrics_and_states(result):
    seen = []
    for epoch in epochs(THREE):
        seen.append(epoch.epoch)
        assert_array_equal(epoch.trials, [0, 1, 2])
        for name, values in epoch.metrics.items():
            assert_array_equal(values, result.metrics[name][:, epoch.epoch - 1])
        W, _ = epoch.run.model.weights(jax.tree.map(lambda leaf: leaf[0, 1], epoch.states.params))
    assert seen == [1, 2, 3]
    assert_array_equal(W, result.classifier(1).W)


def test_bfloat16_products_select_the_same_setting():
    settings = sweep.grid(learning_rate=(0.01, 0.03, 0.1), l2=(0.0, 1e-2, 1e-1))
    exact, rounded = (
        fit(
            settings,
            num_epochs=10,
            batch_size=50,
            objective=sweep.Objective(model=model.by_name("concise", precision)),
        ).best()
        for precision in ("float32", "bfloat16")
    )
    assert exact.trial == rounded.trial
    exact, rounded = (selected.metrics["val_loss"] for selected in (exact, rounded))
    assert 0 < abs(exact - rounded) / exact < 4e-3


# The order of the data.


@given(
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3),
    epoch=st.integers(1, 100),
    num_examples=st.integers(1, 50),
    batch_size=st.integers(1, 50),
)
def test_order_is_a_permutation_by_seed_and_epoch_with_padding_last(
    seeds, epoch, num_examples, batch_size
):
    order = orders(seeds, epoch, num_examples, batch_size)
    assert order.shape == (len(seeds), -(-num_examples // batch_size), batch_size)
    assert order.dtype == np.int32
    for seed, own in zip(seeds, order.reshape(len(seeds), -1), strict=True):
        assert_array_equal(np.sort(own[:num_examples]), np.arange(num_examples))
        assert (own[num_examples:] == -1).all()
        assert_array_equal(orders([seed], epoch, num_examples, batch_size).ravel(), own)


def test_orders_of_seeds_epochs_and_shards_differ():
    keys = [(seed, epoch, shard) for seed in range(3) for epoch in (1, 2, 3) for shard in (0, 1)]
    different = {
        tuple(orders([seed], epoch, 20, 20, shard).ravel().tolist()) for seed, epoch, shard in keys
    }
    assert len(different) == len(keys)


# Regularisation, trial by trial: each on its own, all together, and none.

REGULARISED = sweep.zipped(
    learning_rate=0.1,
    momentum=0.5,
    init_scale=0.1,
    label_smoothing=(0.0, 0.2, 0.0, 0.0, 0.0, 0.1),
    warmup=(0.0, 0.0, 0.3, 0.0, 0.0, 0.2),
    final_rate=(1.0, 1.0, 1.0, 0.1, 1.0, 0.05),
    averaging=(0.0, 0.0, 0.0, 0.0, 0.5, 0.3),
)
COSINE = sweep.SGD(schedule="cosine")


@pytest.fixture(scope="module")
def regularised():
    return fit(REGULARISED, solver=COSINE)


@pytest.mark.parametrize("trial", range(6))
def test_regularised_trial_equals_training_by_hand(regularised, trial):
    """In NumPy float64, from the definitions."""
    h = setting_of(REGULARISED, trial)

    def multiplier(fraction):
        if fraction < h.warmup:
            return fraction / h.warmup
        rest = (fraction - h.warmup) / (1 - h.warmup)
        return h.final_rate + (1 - h.final_rate) * (1 + np.cos(np.pi * rest)) / 2

    expected = train_by_hand(DIGITS.train, h, multiplier=multiplier)
    assert distance(regularised.classifier(trial), expected) <= 1e-6
    measured = regularised.classifier(trial).test(DIGITS.val)
    assert regularised.metrics["val_loss"][trial, -1] == pytest.approx(measured["loss"], rel=1e-5)
    assert trial == 0 or distance(expected, regularised.classifier(0)) > 1e-3


def test_averaged_weights_are_kept_without_validation_too(regularised):
    blind = fit(REGULARISED, val=None, solver=COSINE)
    for trial in range(6):
        expected = regularised.classifier(trial).W
        assert_allclose(blind.classifier(trial).W, expected, rtol=1e-5, atol=1e-7)


def test_unregularised_trial_is_as_in_a_sweep_without_regularisation(regularised):
    plain = fit(Hyperparameters(momentum=0.5, init_scale=0.1))
    assert distance(regularised.classifier(0), plain.classifier(0)) <= 1e-6
    for name, values in plain.metrics.items():
        assert_allclose(regularised.metrics[name][0], values[0], rtol=1e-6)


def test_exponential_decay_of_every_seed_equals_training_by_hand():
    result = fit(
        sweep.grid(final_rate=0.01), solver=sweep.SGD(schedule="exponential"), seeds=(0, 1)
    )
    for seed in 0, 1:
        expected = train_by_hand(
            DIGITS.train, Hyperparameters(), seed=seed, multiplier=lambda u: 0.01**u
        )
        assert distance(result.classifier(seed), expected) <= 1e-6


def test_weights_are_copied_for_averaging_alone():
    def copies(**axes):
        (epoch,) = first(1, epochs(sweep.grid(**axes), val=None, num_epochs=1, batch_size=500))
        return [leaf.shape for leaf in jax.tree.leaves(epoch.states)].count((1, 1, 10, 65))

    assert copies() == copies(l2=0.1, label_smoothing=0.1, warmup=0.1) == 1
    assert copies(averaging=0.1) == 2


# Other optimisers.

ADAM = sweep.grid(learning_rate=(0.01, 0.03), beta1=(0.0, 0.9), beta2=(0.9, 0.999))


def test_trials_of_adam_differ_by_rate_and_betas_in_one_program():
    """Each as by itself, of each seed; one with the defaults is that of a sweep without betas."""
    spied, traces = counting_model()
    solver = sweep.SGD(optimizer="adam")
    result = fit(ADAM, solver=solver, seeds=(0, 1), objective=sweep.Objective(model=spied))
    assert len(traces) <= 3  # the step and its derivative; the evaluation
    for trial in (0, 5, 8 + 3):
        h = setting_of(ADAM, trial % 8)
        alone = fit(sweep.grid(**h._asdict()), solver=solver, seeds=(trial // 8,))
        assert distance(result.classifier(trial), alone.classifier(0)) <= 1e-5
    plain = fit(sweep.grid(learning_rate=(0.01, 0.03)), solver=solver)
    assert distance(result.classifier(7), plain.classifier(1)) <= 1e-5
    assert result.best().metrics["val_loss"] < fit().best().metrics["val_loss"]  # of SGD


def test_the_table_shows_the_hyperparameters_that_the_optimizer_has():
    def shown(optimizer, **axes):
        (row,) = fit(
            sweep.grid(**axes), solver=sweep.SGD(optimizer=optimizer), num_epochs=1
        ).table()
        return {"momentum", "beta1", "beta2", "weight_decay"} & set(row)

    assert shown("sgd") == shown("nesterov", momentum=0.5) == {"momentum"}
    assert shown("adam") == {"beta1", "beta2"}
    assert shown("adamw", weight_decay=0.1) == {"beta1", "beta2", "weight_decay"}


@pytest.mark.parametrize(
    "optimizer, axes, text",
    [
        ("adagrad", {}, "optimizer must be one of 'sgd', 'nesterov', 'adam', 'adamw'; it is 'adag"),
        ("sgd", {"beta1": 0.5}, "beta1 is for optimizer 'adam' or 'adamw', and it is 'sgd'"),
        ("adam", {"momentum": 0.5, "weight_decay": 0.1}, "momentum is for .*; weight_decay is for"),
        ("nesterov", {}, "'nesterov' needs a momentum above 0; without it is 'sgd'"),
        ("adamw", {}, "'adamw' needs a weight_decay above 0; without it is 'adam'"),
    ],
)
def test_what_an_optimizer_has_not_is_refused(optimizer, axes, text):
    with pytest.raises(ValueError, match=text):
        epochs(sweep.grid(**axes), solver=sweep.SGD(optimizer=optimizer))


@pytest.mark.parametrize(
    "optimizer, axes",
    [("adamw", {"weight_decay": (0.0, 50.0)}), ("nesterov", {"momentum": (0.0, 0.999)})],
)
def test_a_refit_is_that_of_the_winner_without_decay_or_momentum(optimizer, axes):
    settings = sweep.grid(learning_rate=0.003, **axes)
    options = {"num_epochs": 2, "batch_size": 64, "folds": 2}
    solver = sweep.SGD(optimizer=optimizer)
    result = sweep.cross_validate(DIGITS.train, settings, solver=solver, **options)
    (name,) = axes
    chosen = result.refit.hyperparameters[name]
    without = {"adamw": "adam", "nesterov": "sgd"}[optimizer]
    plain = sweep.SGD(optimizer=without if chosen == 0 else optimizer)
    alone = fit(
        sweep.grid(learning_rate=0.003, **{name: chosen}), num_epochs=2, val=None, solver=plain
    )
    assert distance(result.refit.classifier, alone.classifier(0)) <= 1e-6
    assert optimizer != "adamw" or chosen == 0


# Early stopping, at a rate so large that the validation loss jumps about. Trial 0 never stops.

ROUGH = {"learning_rate": 5.0, "momentum": 0.9}
PATIENCE = (0, 1, 2, 3, 30)


@pytest.fixture(scope="module")
def stopped():
    """The result of a sweep of patience, and its epochs as they came."""
    seen = []

    def passed_on():
        for epoch in epochs(sweep.grid(**ROUGH, patience=PATIENCE), num_epochs=12):
            seen.append((epoch.epoch, epoch.trials.tolist(), jax.device_get(epoch.states)))
            yield epoch

    return sweep.collect(passed_on()), seen


def stop_by_hand(losses, patience):
    """The first epoch that lies `patience` epochs behind the best so far; 0: there is none."""
    for epoch in range(1, len(losses) + 1):
        if patience and epoch - (1 + np.argmin(losses[:epoch])) >= patience:
            return epoch
    return 0


def test_trial_stops_when_its_patience_ends(stopped):
    result, _ = stopped
    losses = result.metrics["val_loss"][0]
    expected = [stop_by_hand(losses, patience) for patience in PATIENCE]
    assert [row["stopped_epoch"] for row in result.table()] == expected
    assert expected[0] == expected[4] == 0 and 0 < expected[1] < expected[2] < 12
    for trial, stop in enumerate(expected):
        stop = stop or 12
        assert_array_equal(result.metrics["val_loss"][trial, :stop], losses[:stop])
        assert result.best_epoch[trial] == 1 + losses[:stop].argmin()


def test_stopped_trial_is_frozen_while_others_train(stopped):
    result, seen = stopped
    stop = result.facts["stopped_epoch"][1]
    for name, values in result.metrics.items():
        assert (values[1, stop - 1 :] == values[1, stop - 1]).all(), name
    assert (result.reached[1, stop - 1 :] == stop).all() and result.reached[0, -1] == 12
    assert [epoch for epoch, trials, _ in seen if 1 in trials] == list(range(1, stop + 1))
    matrices = [states.params["augmented"][0] for _, _, states in seen]
    for before, after in zip(matrices[stop - 1 :], matrices[stop:], strict=False):
        assert_array_equal(before[1], after[1])
        assert abs(before[0] - after[0]).max() > 0


def test_stopped_trial_has_the_parameters_of_its_best_epoch(stopped):
    result, _ = stopped
    for trial in 1, 2:
        best = result.best_epoch[trial]
        assert best < result.facts["stopped_epoch"][trial]
        for epoch in "last", "best":
            measured = result.classifier(trial, epoch).test(DIGITS.val)
            loss = result.metrics["val_loss"][0, best - 1]
            assert measured["loss"] == pytest.approx(loss, rel=1e-4)
            assert result.values("val_loss", epoch)[trial] == loss
    assert result.epochs("last")[0] == 12


def test_training_ends_when_all_trials_have_stopped():
    settings = sweep.grid(**ROUGH, patience=(1, 2))
    seen = list(epochs(settings, num_epochs=500, seeds=(0, 1)))
    result = sweep.collect(iter(seen))
    last = result.facts["stopped_epoch"].max()
    assert len(seen) == last < 500 and seen[-1].ends
    assert (result.facts["stopped_epoch"] > 0).all()
    assert result.metrics["val_loss"].shape == (4, last)


def test_early_stopping_watches_the_metric_it_is_told():
    solver = sweep.SGD(best_by="val_accuracy")
    result = fit(sweep.grid(**ROUGH, patience=(0, 2)), num_epochs=12, solver=solver, seeds=(0, 1))
    for trial in 0, 2:  # of each seed, the one that never stops
        stop = stop_by_hand(-result.metrics["val_accuracy"][trial], 2)
        assert result.facts["stopped_epoch"][trial + 1] == stop


# Weights: folds, classes.


def test_fold_trains_and_is_evaluated_as_if_split_by_hand():
    """On the same minibatches without the held-out examples, each with the mean over the rest."""
    counts = inputs.fold_counts(DIGITS.train.y, 3, seed=0)
    settings = sweep.grid(learning_rate=0.1, l2=1e-2)
    result, h = fit(settings, counts), Hyperparameters(l2=1e-2)
    assert_array_equal(result.run.trials.fold, [0, 1, 2])
    for fold in range(3):
        expected = train_by_hand(DIGITS.train, h, weights=counts[:, fold])
        assert distance(result.classifier(fold), expected) <= 1e-6
        measured = result.classifier(fold).test(DIGITS.train[counts[:, fold] == 0])
        assert result.metrics["val_loss"][fold, -1] == pytest.approx(measured["loss"], rel=1e-5)
        assert result.metrics["val_accuracy"][fold, -1] == pytest.approx(measured["accuracy"])


def test_weights_of_classes_and_examples_weigh_the_objective():
    """In every minibatch by their fraction of the whole; what was learned is p' ∝ v · p."""
    own = np.random.default_rng(0).uniform(0.5, 2, 500).astype(np.float32)
    train = dataclasses.replace(DIGITS.train, weights=own)
    class_weight, h = np.arange(1.0, 11), Hyperparameters(l2=1e-2)
    objective = sweep.Objective(class_weight=class_weight)
    result = sweep.fit(train, DIGITS.val, h, num_epochs=3, batch_size=64, objective=objective)
    weights = own * class_weight[DIGITS.train.y]
    expected = train_by_hand(DIGITS.train, h, importance=weights / weights.mean())
    model = result.classifier(0)
    trained = model._replace(b=model.b + np.log(class_weight), class_weight=None)
    assert distance(trained, expected) <= 1e-6
    assert_allclose(model.weighted_proba(train.x), trained.predict_proba(train.x), atol=1e-6)
    assert_array_equal(model.predict(train.x), trained.predict(train.x))
    assert result.metrics["train_loss"][0, 0] == pytest.approx(np.log(10), abs=0.3)
    measured = result.classifier(0).test(DIGITS.val)
    assert result.metrics["val_loss"][0, -1] == pytest.approx(measured["loss"], rel=1e-5)


# What is refused.


@pytest.mark.parametrize("sizes", [501, (64, 10**6), (500, 600, 700)])
def test_batches_larger_than_the_data_are_all_of_it(sizes):
    with pytest.warns(UserWarning, match="is larger than the 500 training examples"):
        found = epochs(batch_size=sizes)
    least = 64 if sizes == (64, 10**6) else 500
    assert set(found.run.trials.batch_size) == {least, 500}


def test_all_problems_are_in_one_message_before_anything_is_compiled(compilations):
    with pytest.raises(ValueError) as error:
        epochs(
            num_epochs=0,
            batch_size=(64, 0, 64),
            seeds=(1, 1),
            solver=sweep.SGD(best_by="val_los"),
            devices=chunks_of(-1),
        )
    for text in (
        "num_epochs must be a whole number from 1; it is 0",
        "batch_size must be from 1 to the 500 training examples; it is [64, 0, 64]",
        "batch_size has a value twice",
        "seeds must be distinct",
        "best_by must be one of val_loss",
        "chunk must be a whole number from 0; it is -1",
    ):
        assert text in str(error.value)
    assert not compilations


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size must be"),
        ({"seeds": ()}, "seeds must be"),
        ({"seeds": (-1,)}, "seeds must be"),
        ({"objective": sweep.Objective(class_weight="even")}, "'balanced'"),
        ({"settings": Hyperparameters(learning_rate=-1.0)}, "learning_rate must be"),
        ({"solver": sweep.SGD(num_samples=5)}, "num_samples is for the losses sampled_softmax"),
        ({"num_epochs": True}, "num_epochs must be a whole number"),
        ({"solver": sweep.SGD("linear")}, "schedule must be one of .*; it is 'linear'"),
        ({"solver": COSINE}, "decays to final_rate, which is 1 throughout"),
        ({"settings": Hyperparameters(final_rate=0.1)}, "final_rate below 1 needs a schedule"),
        (
            {
                "settings": Hyperparameters(final_rate=[0.0, 0.1]),
                "solver": sweep.SGD("exponential"),
            },
            "never reaches 0",
        ),
        ({"settings": Hyperparameters(patience=2), "val": None}, "patience needs a validation"),
        (
            {"settings": Hyperparameters(averaging=0.5, l2=1.0), "solver": sweep.LBFGS()},
            "averaging do not work with LBFGS",
        ),
    ],
)
def test_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"solver": "lbfgs"}, r"solver must be sweep.SGD\(...\) or sweep.LBFGS\(...\); .*'lbfgs'"),
        ({"solver": sweep.SGD}, "solver must be"),
        ({"objective": sweep.SGD()}, r"objective must be sweep.Objective\(...\)"),
        ({"objective": "cross_entropy"}, "objective must be"),
        ({"devices": (-1, 1)}, r"devices must be sweep.Devices\(...\)"),
        ({"devices": None}, "devices must be"),
    ],
)
def test_option_of_the_wrong_type_is_refused(options, message, compilations):
    name = next(iter(options))
    message = (
        f"{message}|checking parameter '{name}'|parameter '{name}'"  # or the hook of the tests
    )
    for function in fit, epochs:
        with pytest.raises(TypeError, match=message):
            function(**options)
    with pytest.raises(TypeError, match=message):
        sweep.cross_validate(DIGITS.train, num_epochs=1, **options)
    assert not compilations


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "options, message",
    [
        ({"solver": sweep.SGD(num_samples=2.5)}, r"num_samples must be .*\[2.5\]"),
        ({"solver": sweep.SGD(num_samples=True)}, "num_samples must be whole numbers"),
        ({"objective": sweep.Objective(standardize="no")}, "standardize must be True or False"),
        ({"objective": sweep.Objective(dtype=np.float16)}, "dtype must be float32 or float64"),
        ({"objective": sweep.Objective(class_weight=[1, 1j])}, "class_weight needs"),
        ({"objective": sweep.Objective(class_weight={0: 1.0})}, "class_weight needs"),
    ],
)
def test_option_that_means_nothing_is_refused(options, message, compilations):
    with pytest.raises(ValueError, match=message):
        fit(**options)
    assert not compilations


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("number", [2.7, "3", True, 1, np.float64(3)])
def test_numbers_of_folds_and_draws_are_whole(number):
    y = np.arange(12) % 2
    for make in (
        lambda: sweep.fold_counts(y, number),
        lambda: sweep.nested_folds(y, 2, number),
        lambda: sweep.nested_folds(y, number, 2),
        lambda: sweep.bootstrap_counts(y, number),
        lambda: sweep.bootstrap(DIGITS.train, draws=number, num_epochs=1),
    ):
        with pytest.raises(ValueError, match="must be a whole number"):
            make()
