"""The exact loss with the vocabulary divided over the devices of a mesh. Pure."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from softmax_jax.vocabulary import checks
from softmax_jax.vocabulary.cross_entropy import linear_cross_entropy


def sharded_linear_cross_entropy(
    mesh, x, W, labels, *, bias=None, example_weights=None, ignore_index=None, **options
):
    """`linear_cross_entropy` with W [D, V] and bias [V] divided by their V over a mesh of one axis.

    Every device makes the tiles of its own share of V. For the value they exchange a maximum and
    three sums per row; for the gradients the sum of dx [N, D]. dW and the gradient of the bias stay
    divided as W is. x, labels and weights are whole on every device.

        mesh = jax.make_mesh((8,), ("vocabulary",), axis_types=(AxisType.Auto,))
        W = jax.device_put(W, NamedSharding(mesh, PartitionSpec(None, "vocabulary")))
        loss = functools.partial(sharded_linear_cross_entropy, mesh)
        jax.jit(jax.value_and_grad(loss, (0, 1)))(x, W, labels)

    Raises ValueError as `linear_cross_entropy` does, for a mesh of several axes, and for a V that
    the devices do not divide: pad W with zeros and the bias with -inf (not with label smoothing).
    """
    if len(mesh.axis_names) != 1:
        raise ValueError(f"The mesh must have one axis; it has {mesh.axis_names}.")
    checks.check_layer(*map(jnp.asarray, (x, W)), None)
    if W.shape[1] % mesh.size:
        raise ValueError(f"V must be a multiple of the {mesh.size} devices; it is {W.shape[1]}.")
    checks.check_labels(jnp.asarray(labels), len(x), W.shape[1], ignore_index)
    (axis,) = mesh.axis_names
    whole, last = PartitionSpec(), PartitionSpec(axis)

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(whole, PartitionSpec(None, axis), whole, last, whole),
        out_specs=whole,
    )
    def of_share(x, W, labels, bias, example_weights):
        return linear_cross_entropy(
            x,
            W,
            labels,
            bias=bias,
            example_weights=example_weights,
            ignore_index=ignore_index,
            axis_name=axis,
            **options,
        )

    return of_share(x, W, labels, bias, example_weights)
