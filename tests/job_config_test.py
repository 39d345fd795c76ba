"""Every field of a config has a rule, and all problems are reported at once."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import default
from softmax_jax import sweep
from softmax_jax.host import USAGE, JobError
from softmax_jax.hyperparameters import TABLE, TRACED
from softmax_jax.job import config
from softmax_jax.job.config import AXES, RULES, axis_values, config_problems, field_value, refuse


def config_with(**fields):
    config = default.get_config()
    with config.unlocked():
        for name, value in fields.items():
            target, _, leaf = name.rpartition("__")
            holder = config[target] if target else config
            with holder.ignore_type():
                holder[leaf] = value
    return config


def refused(**fields):
    """The message about the default config with these fields."""
    with pytest.raises(JobError) as caught:
        refuse(config_problems(config_with(**fields)))
    assert caught.value.exit_code == USAGE
    return str(caught.value)


def test_default_config_has_exactly_the_fields_with_rules_and_obeys_them():
    config = default.get_config()
    assert set(config) == {*(name.split(".")[0] for name in RULES), "sweep"}
    for name, rule in RULES.items():
        assert field_value(config, name) is not None or name == "class_weight", name
        assert rule.accepts(field_value(config, name)), name
    axes = {*TRACED, "batch_size", "num_samples", "seed"}
    assert set(config.sweep) == set(AXES) == axes
    assert set(AXES.values()) <= set(RULES)
    assert config_problems(config) == []


OUT_OF_RANGE = {
    "learning_rate": (0.0, -0.1, math.inf, math.nan, "0.1", None),
    "momentum": (-0.1, 1.0, math.nan),
    "l2": (-1e-9, math.inf),
    "l1": (-1e-9, math.inf, None),
    "l1_group": (-1e-9, math.nan),
    "init_scale": (-1.0, math.nan),
    "label_smoothing": (-0.1, 1.0, math.nan),
    "schedule": ("linear", None),
    "warmup": (-0.1, 1.0, math.nan),
    "final_rate": (-0.1, 1.1, math.nan),
    "averaging": (-0.1, 1.1, None),
    "early_stopping.patience": (-1, 0.5, None),
    "combine": ("pairs",),
    "batch_size": (0, -1, 2.5, "256"),
    "num_epochs": (0, 1.0),
    "seed": (-1, 2**32, 0.5),
    "folds": (1, -2, 2.0),
    "bootstraps": (-1,),
    "chunk": (-1,),
    "model": ("dense", ""),
    "loss": ("crossentropy",),
    "precision": ("float16",),
    "select": ("argmax",),
    "select_metric": ("train_loss",),
    "select_epoch": ("first",),
    "class_weight": ("even", (1.0, -1.0), (0, 0), (math.nan, 1)),
    "dataset": ("", None),
    "dataset_fallback": ("mnist",),
    "train_split": ("",),
    "val_split": ("", None),
    "test_split": (None,),
    "data_dir": (3,),
    "num_samples": (-1, 2.0),
    "standardize": (1, "yes", None),
    "optimizer": ("adagrad", None),
    "outer_folds": (1, -2, None),
    "tolerance": (0.0, 1.0, math.nan),
    "l2_path": (-1, 1.0),
    "l1_path": (-1, 1.0),
    "l1_group_path": (-1, None),
    "refit": (0, None),
    "out_of_fold": (1, "yes", None),
    "predictions": (1, "yes"),
    "label_column": (1, None),
    "group_column": (1, None),
    "stratify": (1, "yes", None),
    "halving.factor": (1, -1, 2.0, None),
    "halving.min_epochs": (0, 1.5, None),
    "beta1": (1.0, -0.1, math.nan),
    "beta2": (1.0, -0.1, math.nan),
    "weight_decay": (-1.0, math.inf),
    "learning_curve.sizes": (100, (0,), (1.5,)),
    "learning_curve.seeds": (0, 1.0),
    "audit_folds": (1, -2, None),
    "cost_matrix": (None, 3),
    "tensorboard": (1, "logs"),
    "keep": (0, 1.0),
    "checkpoint_seconds": (-1.0, math.inf, None),
    "mesh.trials": (0, -2, 1.0),
    "mesh.batch": (0, -2, None),
    "mesh.classes": (0, -2, 1.5),
}


def test_value_out_of_range_is_refused_by_name():
    assert set(OUT_OF_RANGE) == set(RULES)
    for name, values in OUT_OF_RANGE.items():
        for value in values:
            message = refused(**{name.replace(".", "__"): value})
            assert f"{name} must be" in message and repr(value) in message


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(width=32) | st.integers(-2, 2**40) | st.sampled_from([0, 0.5, 1, 1.0]))
def test_rule_of_a_hyperparameter_is_that_of_the_sweep(row, value):
    """A config accepts exactly what `sweep.grid` accepts, or the range of a size or seed."""
    accepted = RULES[row.config_field].accepts(value)
    if not row.traced:
        whole = isinstance(value, int) and not isinstance(value, bool)
        assert accepted == (whole and bool(row.range.accepts(value)))
    elif accepted or isinstance(value, int) or not row.range.whole:
        try:
            sweep.grid(**{row.name: np.float32(value)})
        except ValueError as error:
            assert not accepted and f"{row.name} must be" in str(error)
        else:
            assert accepted
    assert not RULES[row.config_field].accepts(True)


@pytest.mark.parametrize("value", [None, "balanced", (1, 2.5), (0.0, 1.0)])
def test_class_weights_of_every_kind_are_accepted(value):
    assert config_problems(config_with(class_weight=value)) == []


def test_all_problems_come_in_one_message():
    message = refused(learning_rate=-1.0, num_epochs=0, sweep__l2=("abc",), sweep__seed=(1, 1))
    for text in ("learning_rate", "num_epochs", "sweep.l2", "'abc'", "sweep.seed", "twice"):
        assert text in message


def test_axis_is_a_tuple_whose_elements_obey_the_rule_of_their_field():
    for element in ("abc", "", -1.0, math.nan, None, "1e-3"):
        message = refused(sweep__learning_rate=(0.1, element))
        assert "each of sweep.learning_rate must be" in message
    assert "sweep.l2 must be a tuple" in refused(sweep__l2=0.1)


def test_unknown_and_missing_fields_are_named_with_the_nearest_field():
    config = config_with(learning_rat=0.1, sweep__momentun=(0.1,), early_stopping__patienc=3)
    with config.unlocked():
        del config.loss
    problems = "\n".join(config_problems(config))
    assert "learning_rat; did you mean learning_rate?" in problems
    assert "momentun; did you mean momentum?" in problems
    assert "early_stopping.patienc; did you mean early_stopping.patience?" in problems
    assert "config.loss is missing" in problems


def test_contradictions_are_refused():
    assert "exclude each other" in refused(folds=2, bootstraps=2)
    assert "set folds, too" in refused(outer_folds=5)
    for fields in ({}, {"sweep__seed": (0, 1)}, {"folds": 5, "select_metric": "val_top5"}):
        assert config_problems(config_with(select="one_se", **fields)) == []
    assert "whose error is known" in refused(select="one_se", select_metric="val_top5")
    costs = {"folds": 5, "cost_matrix": ((0, 1), (1, 0))}
    for early in ({"select_epoch": "best"}, {"early_stopping__patience": 3}):
        assert "needs select_epoch = 'last'" in refused(**costs, **early)
    assert config_problems(config_with(**costs)) == []
    assert "out_of_fold needs folds" in refused(out_of_fold=True)
    assert "out_of_fold needs folds" in refused(out_of_fold=True, bootstraps=3)
    assert "last models" in refused(out_of_fold=True, folds=3, early_stopping__patience=2)


@pytest.mark.parametrize("name", RULES)
def test_an_array_in_any_field_is_refused_like_any_other_value(name):
    config = config_with().unlock()
    holder, _, leaf = name.rpartition(".")
    with config.ignore_type():
        (config[holder] if holder else config)[leaf] = np.arange(3)
    found = config_problems(config)
    assert [line for line in found if line.startswith(f"{name} must be ")]


@pytest.mark.parametrize("name", ["l1", "l1_group"])
def test_penalties_that_make_weights_zero_need_the_optimum(name):
    path, optimum = f"{name}_path", {"optimizer": "lbfgs"}
    for fields in ({name: 0.1}, {path: 5}, {f"sweep__{name}": (0.1, 0.2)}):
        assert config_problems(config_with(**fields, **optimum)) == []
        assert f"{name} above 0 need optimizer = 'lbfgs'" in refused(**fields)
        assert f"l2_path and {name} exclude" in refused(**fields, **optimum, l2_path=3)
        assert "audit_folds are for models without l1" in refused(
            **fields, **optimum, audit_folds=2
        )
    both = {path: 3, f"sweep__{name}": (0.1, 0.2)}
    assert f"{path} and sweep.{name} exclude each other" in refused(**both, **optimum)
    assert f"{path} needs combine = 'product'" in refused(**{path: 3}, **optimum, combine="zip")
    assert "l1_path and l1_group_path exclude" in refused(l1_path=2, l1_group_path=2, **optimum)


TWO = {"sweep__l2": (0.0, 0.1), "halving__factor": 3}


@pytest.mark.parametrize(
    "fields, texts",
    [
        ({"halving__factor": 3}, ["there is only one; set halving.factor to 0"]),
        ({"halving__factor": 3, "sweep__seed": (0, 1)}, ["there is only one"]),
        (TWO | {"num_epochs": 1}, ["halving.min_epochs must be below num_epochs = 1; it is 1"]),
        (TWO | {"halving__min_epochs": 20}, ["must be below num_epochs = 10; it is 20"]),
        (TWO | {"optimizer": "lbfgs"}, ["halving is for minibatch optimisers"]),
        (TWO | {"early_stopping__patience": 3}, ["halving and early_stopping.patience exclude"]),
        (TWO | {"folds": 3, "outer_folds": 2}, ["halving and outer_folds exclude each other"]),
        (
            {"halving__factor": 2, "num_epochs": 1, "sweep__patience": (0, 1), "beta1": 0.5},
            ["halving.min_epochs must be below", "exclude each other", "beta1 is for optimizer"],
        ),
        ({"optimizer": "nesterov"}, ["needs a momentum above 0; without it is 'sgd'"]),
        ({"optimizer": "adamw", "weight_decay": 0.0}, ["needs a weight_decay above 0"]),
        ({"optimizer": "adam", "momentum": 0.9}, ["momentum is for optimizer = 'sgd' or 'nest"]),
        ({"optimizer": "adam", "weight_decay": 0.1}, ["weight_decay is for optimizer = 'adamw'"]),
        ({"optimizer": "lbfgs", "precision": "tensorfloat32"}, ["needs precision = 'float32'"]),
        ({"loss": "linear_cross_entropy", "precision": "tensorfloat32"}, ["no tensorfloat32"]),
        ({"sweep__beta2": (0.9,)}, ["beta2 is for optimizer = 'adam' or 'adamw'; it is 'sgd'"]),
        ({"optimizer": "sgd", "sweep__weight_decay": (0.01,)}, ["weight_decay is for"]),
    ],
)
def test_halving_and_optimizers_that_cannot_be_are_refused_in_one_message(fields, texts):
    message = refused(**fields)
    for text in texts:
        assert text in message


@pytest.mark.parametrize(
    "fields",
    [
        TWO,
        TWO | {"folds": 3, "sweep__batch_size": (64, 128), "optimizer": "adam"},
        {"halving__factor": 2, "l2_path": 4},
        {"halving__min_epochs": 50},  # which nothing asks for
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "sweep__weight_decay": (0.0, 0.1)},
        {"optimizer": "nesterov", "sweep__momentum": (0.0, 0.9)},
        {"optimizer": "adam", "beta1": 0.5, "sweep__beta2": (0.9, 0.99)},
    ],
)
def test_halving_and_optimizers_that_can_be_are_accepted(fields):
    assert config_problems(config_with(**fields)) == []


def test_zipped_axes_may_repeat_a_value_but_need_one_length():
    axes = {"sweep__l2": (0.0, 0.1, 0.0), "sweep__patience": (0, 0, 5)}
    assert config_problems(config_with(combine="zip", **axes)) == []
    assert "sweep.l2 has a value twice" in refused(**axes)
    shorter = axes | {"sweep__patience": (0, 5)}
    assert "one length; they have l2 3, patience 2" in refused(combine="zip", **shorter)
    assert "sweep.seed has a value twice" in refused(combine="zip", sweep__seed=(1, 1))


def test_axis_values_are_those_of_the_sweep_or_else_of_the_field():
    config = config_with(learning_rate=0.5, sweep__l2=(0.0, 0.1))
    config.early_stopping.patience = 4
    assert axis_values(config, "learning_rate") == (0.5,)
    assert axis_values(config, "l2") == (0.0, 0.1)
    assert axis_values(config, "patience") == (4,)
    config.sweep.patience = (1, 2)
    assert axis_values(config, "patience") == (1, 2)
    assert field_value(config, "early_stopping.patience") == 4
    assert field_value(config, "num_epochs") == 10
    assert field_value(config, "early_stoping") is None


COST, WITH_REFERRAL = ((0, 10), (1, 0)), ((0, 10, 0.5), (1, 0, 0.5))


@pytest.mark.parametrize(
    "cost, what",
    [
        (COST, None),
        (WITH_REFERRAL, None),
        (3, "it is 3"),
        ((1, 2), "it is (1, 2)"),
        (((0, 1),), "each of the 2 classes"),
        (((0, 1), (1,)), "[2, 1] costs"),
        (((), ()), "[0, 0] costs"),
        (((0, float("inf")), (1, 0)), "one is inf"),
        (((0, "1"), (True, 0)), "one is '1'"),
    ],
)
def test_cost_matrix_must_fit_the_classes(cost, what):
    found = config.cost_problems(cost, ("malignant", "benign"))
    assert bool(found) == (what is not None)
    assert not found or what in found[0]


def test_every_field_has_its_default_and_its_meaning():
    """As configs/default.py has them, whose comments are read."""
    fields, defaults = config.described_fields(), config_with()
    assert set(fields) == set(config.RULES)
    for name, field in fields.items():
        assert len(field.meaning) > 5, name
        value = field_value(defaults, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        assert float(field.default) == value if number else field.default == str(value), name
    assert fields["learning_rate"].meaning == "of minibatch optimisers: the size of a step"
    assert fields["num_epochs"] == config.Field("10", "passes over the training examples")
    assert fields["schedule"].meaning.startswith("The rate over training: 'constant'")
    assert max(map(len, config.field_lines())) <= 100


@pytest.mark.parametrize(
    "written, meant",
    [
        ("lr", "learning_rate"),
        ("sweep.lr", "sweep.learning_rate"),
        ("patience", "early_stopping.patience"),
        ("epochs", "num_epochs"),
        ("batch", "batch_size"),
        ("seeds", "seed"),
        ("sweep.wd", "sweep.l2"),
        ("early_stoping.patience", "early_stopping.patience"),
        ("cv", "folds"),
        ("zzz", None),
    ],
)
def test_the_nearest_field_is_named_with_its_meaning(written, meant):
    fields = [*config.RULES, *(f"sweep.{name}" for name in config.AXES)]
    found = config._nearest_field(written, fields)
    if meant is None:
        assert found is None
        return
    name, meaning = found.split("? ", 1)
    field = config.AXES.get(meant.removeprefix("sweep."), meant)
    assert (name, meaning) == (meant, f"({config.described_fields()[field].meaning})")
