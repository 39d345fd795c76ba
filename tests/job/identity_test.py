"""A job is the same if all on which its numbers depend is the same, and only then."""

import dataclasses
import json

import numpy as np
import pytest

from configs import default
from softmax_jax import data
from softmax_jax.job import config, workdir


@pytest.fixture(scope="module")
def small():
    x, y = np.arange(24.0, dtype=np.float32).reshape(8, 3), np.arange(8) % 2
    return data.from_arrays(train=(x, y), val=(x[:4].copy(), y[:4].copy()))


def of(splits, **changes):
    return workdir.job_identity(default.get_config().to_dict() | changes, splits)


def test_it_comes_back_out_of_json_as_it_was(small):
    job = of(small)
    again = json.loads(json.dumps(job))
    assert again == job and workdir.digest(again) == workdir.digest(job)
    assert workdir.differences(job, again) == []


@pytest.mark.parametrize("name", workdir.WITHOUT_EFFECT)
def test_what_cannot_change_the_numbers_makes_no_other_job(small, name):
    assert workdir.digest(of(small, **{name: "other"})) == workdir.digest(of(small))


@pytest.mark.parametrize("name", sorted(set(config.RULES) - set(workdir.WITHOUT_EFFECT)))
def test_every_other_field_makes_another_job(small, name):
    old, new = of(small), of(small, **{name: "other"})
    assert workdir.digest(new) != workdir.digest(old)
    (difference,) = workdir.differences(old, new)
    assert difference.startswith(f"{name}: ") and difference.endswith(' → "other"')


def test_a_swept_axis_makes_another_job(small):
    config = default.get_config()
    config.sweep.l2 = (0.0, 1e-4)
    new = workdir.job_identity(config.to_dict(), small)
    assert workdir.differences(of(small), new) == ["sweep.l2: [] → [0.0, 0.0001]"]


def test_other_data_make_another_job(small):
    x, y = small.train.x.copy(), small.train.y
    x[5, 1] += 1e-3
    val = small.val.x, small.val.y
    other = data.from_arrays(train=(x, y), val=val, test=(small.train.x, y.copy()))
    names = [text.split(":")[0] for text in workdir.differences(of(small), of(other))]
    assert names == ["data.fingerprint", "data.shapes.test"]


def test_data_that_are_read_in_other_parts_make_another_job(small):
    """As the parts decide in which order the examples come."""
    in_parts = dataclasses.replace(small, train=dataclasses.replace(small.train, shard_size=4))
    assert workdir.differences(of(small), of(in_parts)) == ["data.part_size: null → 4"]


def test_fields_that_one_of_them_lacks_are_told():
    old, new = {"config": {"a": 1, "gone": None}}, {"config": {"a": 1.0, "new": "x"}}
    assert workdir.differences(old, new) == [
        "a: 1 → 1.0",
        "gone: null → nothing",
        'new: nothing → "x"',
    ]
