"""A vocabulary divided over devices: the same loss, with a share of the memory on each."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from softmax_jax.vocabulary import sharded_linear_cross_entropy

PROGRAM = """
import functools, json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from softmax_jax.vocabulary import linear_cross_entropy, sharded_linear_cross_entropy

mesh = jax.make_mesh((8,), ("vocabulary",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
shapes = {"x": (64, 16), "W": (16, 40_000), "bias": (40_000,), "example_weights": (64,)}
arrays = {name: rng.uniform(-1, 1, shape).astype("f4") for name, shape in shapes.items()}
labels = rng.integers(0, 40_000, 64)
labels[::5] = -1
options = {"ignore_index": -1, "label_smoothing": 0.1, "z_loss": 1e-3, "logit_softcap": 3.0}
options |= {"vocabulary_block": 1024, "row_block": 24}
specs = {"W": PartitionSpec(None, "vocabulary"), "bias": PartitionSpec("vocabulary")}
divided = {
    name: jax.device_put(array, NamedSharding(mesh, specs.get(name, PartitionSpec())))
    for name, array in arrays.items()
}

def compiled(loss, arrays):
    def of(arrays):
        return loss(labels=labels, **options, **arrays)
    return jax.jit(jax.value_and_grad(of)).lower(arrays).compile()

one = compiled(linear_cross_entropy, arrays)
eight = compiled(functools.partial(sharded_linear_cross_entropy, mesh), divided)
expected, (value, gradients) = one(arrays), eight(divided)
pairs = zip(jax.tree.leaves((value, gradients)), jax.tree.leaves(expected))
memory = eight.memory_analysis()

def of_trial(W):
    loss = functools.partial(sharded_linear_cross_entropy, mesh, arrays["x"])
    return loss(W, labels, **options)

trials = jax.device_put(
    np.stack([arrays["W"], -arrays["W"]]),
    NamedSharding(mesh, PartitionSpec(None, None, "vocabulary")),
)
together = jax.jit(jax.vmap(of_trial))(trials)
alone = [linear_cross_entropy(arrays["x"], W, labels, **options) for W in trials]
print(json.dumps({
    "differences": [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs],
    "trials": float(np.abs(together - np.stack(alone)).max() / np.min(alone)),
    "share": gradients["W"].addressable_shards[0].data.shape,
    "arguments": memory.argument_size_in_bytes,
    "temporary": memory.temp_size_in_bytes,
    "reductions": [eight.as_text().count(f" {name}(") for name in ("all-reduce", "all-gather")],
}))
"""


@pytest.fixture(scope="module")
def found(environment):
    """What the program says about 8 devices beside 1."""
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    path = {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=environment | devices | path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_loss_and_gradients_on_eight_devices_match_one(found):
    assert max(found["differences"]) < 1e-6


def test_trials_on_eight_devices_match_one(found):
    assert found["trials"] < 1e-6


def test_each_device_holds_an_eighth_of_the_layer(found):
    assert found["share"] == [16, 5000]
    layer, tile = 17 * 40_000 * 4, 24 * 1024 * 4
    assert found["arguments"] < layer / 8 + 64 * 20 * 4
    assert found["temporary"] < layer / 8 * 2 + 4 * tile + 64 * 16 * 4 * 8


def test_devices_exchange_three_reductions(found):
    assert found["reductions"] == [3, 0]


@pytest.mark.parametrize(
    "shape, names, num_words, words",
    [
        ((1, 1), ("a", "b"), 8, "axis_name must be one of \\('a', 'b'\\); it is None"),
        ((1,), ("a",), 0, "nothing empty"),
    ],
)
def test_unknown_axis_or_empty_layer_is_refused(shape, names, num_words, words):
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))
    with pytest.raises(ValueError, match=words):
        sharded_linear_cross_entropy(
            mesh, jnp.ones((2, 3)), jnp.ones((3, num_words)), jnp.zeros(2, int)
        )


def test_vocabulary_not_divisible_by_the_devices_is_refused():
    """The mesh is an abstract one: this process has a single device."""
    mesh = jax.sharding.AbstractMesh((3,), ("a",), axis_types=(AxisType.Auto,))
    loss = functools.partial(sharded_linear_cross_entropy, mesh)
    with pytest.raises(ValueError, match="V must be a multiple of the 3 devices; it is 10"):
        loss(jnp.ones((2, 3)), jnp.ones((3, 10)), jnp.zeros(2, int))
