"""A layer with its vocabulary divided over the devices of a mesh. Pure."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from softmax_jax.vocabulary import checks
from softmax_jax.vocabulary.cross_entropy import linear_cross_entropy


def sharded_linear_cross_entropy(
    mesh,
    x,
    W,
    labels,
    *,
    bias=None,
    example_weights=None,
    ignore_index=None,
    axis_name=None,
    **options,
):
    """`linear_cross_entropy` with W [D, V] and bias [V] divided by their V over an axis of a mesh.

    Every device makes the tiles of its own share of V. For the value they exchange a maximum and
    three sums per row; for the gradients the sum of dx [N, D]. dW and the gradient of the bias stay
    divided as W is. x, labels and weights are whole on every device. axis_name: which axis (None:
    the only one); over the others the compiler divides what there is to divide.

        mesh = jax.make_mesh((8,), ("vocabulary",), axis_types=(AxisType.Auto,))
        W = jax.device_put(W, NamedSharding(mesh, PartitionSpec(None, "vocabulary")))
        loss = functools.partial(sharded_linear_cross_entropy, mesh)
        jax.jit(jax.value_and_grad(loss, (0, 1)))(x, W, labels)

    Raises ValueError as `linear_cross_entropy` does, for an axis that the mesh does not have, and
    for a V that the devices do not divide: pad W with zeros and the bias with -inf (not with label
    smoothing).
    """
    if axis_name is None and len(mesh.axis_names) == 1:
        (axis_name,) = mesh.axis_names
    if axis_name not in mesh.axis_names:
        raise ValueError(f"axis_name must be one of {mesh.axis_names}; it is {axis_name!r}.")
    checks.check_layer(*map(jnp.asarray, (x, W)), None)
    devices = mesh.shape[axis_name]
    if W.shape[1] % devices:
        raise ValueError(f"V must be a multiple of the {devices} devices; it is {W.shape[1]}.")
    checks.check_labels(jnp.asarray(labels), len(x), W.shape[1], ignore_index)
    options |= {"ignore_index": ignore_index, "axis_name": axis_name}

    def of_share(W, bias, x, labels, weights):
        return linear_cross_entropy(x, W, labels, bias=bias, example_weights=weights, **options)

    divided = over_vocabulary(of_share, mesh, axis_name)
    return divided(W, bias, x, labels, example_weights)


def over_vocabulary(function, mesh, axis_name):
    """function(W, bias, *arrays) on W [D, V] and bias [V], or None, divided over an axis of a mesh.

    Inside, W and bias are a device's share; the arrays are whole, and so must be what it returns.
    """
    whole, last = PartitionSpec(), PartitionSpec(axis_name)

    def on_devices(W, bias, *arrays):
        layer = PartitionSpec(None, axis_name), last
        run = jax.shard_map(
            function,
            mesh=mesh,
            axis_names={axis_name},
            in_specs=(*layer, *[whole] * len(arrays)),
            out_specs=whole,
        )
        return run(W, bias, *arrays)

    return on_devices
