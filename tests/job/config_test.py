"""Every field has a rule, and every problem is reported, all of them at once."""

import math

import pytest

from configs import default
from softmax_jax.host import USAGE, JobError
from softmax_jax.hyperparameters import TRACED
from softmax_jax.job import config
from softmax_jax.job.config import AXES, RULES, axis_values, config_problems, field_value, refuse


def _config(**fields):
    config = default.get_config()
    with config.unlocked():
        for name, value in fields.items():
            target, _, leaf = name.rpartition("__")
            holder = config[target] if target else config
            with holder.ignore_type():
                holder[leaf] = value
    return config


def _check(config):
    refuse(config_problems(config))


def test_the_default_config_has_exactly_the_fields_that_have_rules():
    config = default.get_config()
    assert set(config) == {*(name.split(".")[0] for name in RULES), "sweep"}
    for name in RULES:
        assert field_value(config, name) is not None or name == "class_weight", name
    axes = {*TRACED, "batch_size", "num_samples", "seed"}
    assert set(config.sweep) == set(AXES) == axes
    _check(config)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "learning_rate": (0.0, -0.1, math.inf, math.nan, "0.1", None),
        "momentum": (-0.1, 1.0, math.nan),
        "l2": (-1e-9, math.inf),
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
        "optimizer": ("adam", None),
        "tolerance": (0.0, 1.0, math.nan),
        "l2_path": (-1, 1.0),
        "refit": (0, None),
        "predictions": (1, "yes"),
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
    }.items(),
)
def test_a_value_out_of_range_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(JobError, match=f"{name} must be") as caught:
            _check(_config(**{name.replace(".", "__"): value}))
        assert caught.value.exit_code == USAGE
        assert repr(value) in str(caught.value)


def test_every_rule_is_tried_by_the_test_above():
    tried = test_a_value_out_of_range_is_refused_by_name.pytestmark[0].args[1]
    assert {name for name, _ in tried} == set(config.RULES)


@pytest.mark.parametrize("value", [None, "balanced", (1, 2.5), (0.0, 1.0)])
def test_class_weights_of_every_kind_are_accepted(value):
    assert config.config_problems(_config(class_weight=value)) == []


def test_all_problems_come_in_one_message():
    config = _config(learning_rate=-1.0, num_epochs=0, sweep__l2=("abc",), sweep__seed=(1, 1))
    with pytest.raises(JobError) as caught:
        _check(config)
    for text in ("learning_rate", "num_epochs", "sweep.l2", "'abc'", "sweep.seed", "twice"):
        assert text in str(caught.value)


@pytest.mark.parametrize("element", ["abc", "", -1.0, math.nan, None, "1e-3"])
def test_elements_of_an_axis_obey_the_rule_of_their_field(element):
    with pytest.raises(JobError, match="each of sweep.learning_rate must be"):
        _check(_config(sweep__learning_rate=(0.1, element)))


def test_an_axis_must_be_a_tuple():
    with pytest.raises(JobError, match="sweep.l2 must be a tuple"):
        _check(_config(sweep__l2=0.1))


def test_unknown_and_missing_fields_are_named_with_the_nearest_field():
    config = _config(learning_rat=0.1, sweep__momentun=(0.1,))
    with config.unlocked():
        del config.loss
    with pytest.raises(JobError) as caught:
        _check(config)
    assert "learning_rat; did you mean learning_rate?" in str(caught.value)
    assert "momentun; did you mean momentum?" in str(caught.value)
    assert "config.loss is missing" in str(caught.value)


def test_contradictions_are_refused():
    with pytest.raises(JobError, match="exclude each other"):
        _check(_config(folds=2, bootstraps=2))
    with pytest.raises(JobError, match="needs a spread"):
        _check(_config(select="one_se"))
    _check(_config(select="one_se", sweep__seed=(0, 1)))
    _check(_config(select="one_se", folds=5))


def test_zipped_axes_may_repeat_a_value_but_not_differ_in_length():
    axes = {"sweep__l2": (0.0, 0.1, 0.0), "sweep__patience": (0, 0, 5)}
    _check(_config(combine="zip", **axes))
    with pytest.raises(JobError, match="sweep.l2 has a value twice"):
        _check(_config(**axes))
    with pytest.raises(JobError, match="one length; they have l2 3, patience 2"):
        _check(_config(combine="zip", **axes | {"sweep__patience": (0, 5)}))
    with pytest.raises(JobError, match="sweep.seed has a value twice"):
        _check(_config(combine="zip", sweep__seed=(1, 1)))


def test_a_misspelt_field_of_a_field_is_named_with_the_nearest():
    config = _config(early_stopping__patienc=3)
    with pytest.raises(JobError, match=r"early_stopping.patienc; did you mean early_stopping.pat"):
        _check(config)


def test_an_axis_is_the_sweep_or_else_the_scalar():
    config = _config(learning_rate=0.5, sweep__l2=(0.0, 0.1))
    assert axis_values(config, "learning_rate") == (0.5,)
    assert axis_values(config, "l2") == (0.0, 0.1)
    config.early_stopping.patience = 4
    assert axis_values(config, "patience") == (4,)
