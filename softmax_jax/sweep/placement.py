"""Where the arrays of a sweep lie: on one device, or spread over a mesh of them.

A mesh has three axes: `trials`, over which the trials of a piece are dealt out (its settings, or
else its seeds), `batch`, over which the examples of each minibatch are, and `classes`, over which
the columns of a layer are. The programs are the same: the compiler divides them as their inputs are
divided (GSPMD, Xu et al. 2021), and several processes run them together.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("trials", "batch", "classes")
_AT_ONCE = 1 << 28  # bytes of an array that every device may have whole, for a moment


class Placement(NamedTuple):
    """The mesh; None is one device, where everything lies as JAX puts it."""

    mesh: Mesh | None = None

    def size(self, axis):
        """How many devices the axis 'trials', 'batch' or 'classes' has."""
        return 1 if self.mesh is None else self.mesh.shape[axis]

    def sharding(self, *axes):
        """That of leaves whose first axes lie on 'trials', on 'batch', or None; None: one device.

        For `constrain`; hashable, so that it can be a static argument of a jitted function.
        """
        return None if self.mesh is None else NamedSharding(self.mesh, P(*axes))

    @property
    def by_examples(self):
        """The sharding of examples [N, ...]; None where no two devices share them."""
        return self.sharding("batch") if self.size("batch") > 1 else None

    @property
    def by_classes(self):
        """The sharding of classes [C, ...]; None where no two devices share them."""
        return self.sharding("classes") if self.size("classes") > 1 else None

    def axes(self, shape):
        """For `sharding`: how the devices share a leaf [S, K] or [S, K, C, ...] of a piece.

        Of the trials they share K, if they divide it, else S.
        """
        trials = ("trials", None) if shape[1] % self.size("trials") else (None, "trials")
        return (*trials, "classes") if len(shape) > 2 else trials

    def trials(self, tree):
        """Leaves [S, K] or [S, K, C, ...], each device with its share of the trials and classes."""
        return jax.tree.map(lambda leaf: self._put(leaf, *self.axes(leaf.shape)), tree)

    def divide(self, tree):
        """The same tree inside a program: its leaves divided as `trials` divides them."""
        return jax.tree.map(
            lambda leaf: constrain(leaf, self.sharding(*self.axes(leaf.shape))), tree
        )

    def rows(self, tree):
        """Leaves [K, ...], each device with its share of the K if they divide it."""
        return jax.tree.map(lambda leaf: self._put(leaf, self.axes((1, *leaf.shape))[1]), tree)

    def batches(self, order, shape):
        """An order [S, steps, B] for a piece [S, K]: each device with its share of a minibatch."""
        return self._put(order, self.axes(shape)[0], None, "batch")

    def examples(self, tree, axis=0):
        """Leaves with N examples on an axis, each device with its share of them.

        Where the devices do not divide N, zeros fill it up.
        """
        size = self.size("batch")
        if size > 1:
            tree = jax.tree.map(lambda leaf: padded(leaf, axis, size), tree)
        return self._put(tree, *[None] * axis, "batch")

    def everywhere(self, tree):
        """Leaves that every device has whole."""
        return self._put(tree)

    def fetch(self, tree):
        """The leaves as NumPy arrays, in every process."""
        if self.mesh is None or not self.mesh.is_multi_process:
            return jax.device_get(tree)
        leaves, structure = jax.tree.flatten(tree)
        small = {i: leaf for i, leaf in enumerate(leaves) if leaf.nbytes <= _AT_ONCE}
        whole = jax.device_get(constrain(small, self.sharding()))
        return structure.unflatten(
            whole[i] if i in whole else _by_shares(leaf, self.sharding())
            for i, leaf in enumerate(leaves)
        )

    def _put(self, tree, *axes):
        if self.mesh is None:
            return jax.device_put(tree)
        return jax.tree.map(lambda leaf: _put(leaf, self.sharding(*axes)), tree)


ONE = Placement()


def place(trials: int = -1, batch: int = 1, classes: int = 1) -> Placement:
    """A mesh of trials × batch × classes devices; -1: all that are left. One device needs no mesh.

    Of several processes it takes the devices of all. Raises ValueError where the devices do not
    suffice, or not all of them would be used.
    """
    num_devices, asked = len(jax.devices()), (trials, batch, classes)
    given = [size for size in asked if size != -1]
    if len(given) < 2 or min(given) < 1:
        raise ValueError(
            "mesh.trials, mesh.batch and mesh.classes must be whole numbers from 1, or one of them "
            f"-1; got {trials}, {batch} and {classes}."
        )
    shape = [num_devices // math.prod(given) if size == -1 else size for size in asked]
    if math.prod(shape) != num_devices:
        raise ValueError(
            f"mesh.trials × mesh.batch × mesh.classes is {trials} × {batch} × {classes}; the "
            f"product must be the number of devices, {num_devices} (-1: all that are left)."
        )
    if num_devices == 1:
        return ONE
    return Placement(jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES)))


@functools.partial(jax.jit, static_argnums=1)
def constrain(tree, sharding):
    """The same tree with its leaves divided as the sharding says; as they are where it is None."""
    return tree if sharding is None else lax.with_sharding_constraint(tree, sharding)


def padded(array, axis, multiple, value=0):
    """The array, made longer along an axis with `value` until `multiple` divides its length."""
    missing = -array.shape[axis] % multiple
    widths = [(0, missing if a == axis % array.ndim else 0) for a in range(array.ndim)]
    return np.pad(array, widths, constant_values=value) if missing else array


def _put(leaf, sharding):
    """A leaf of this process, or of all, on the devices of all."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return constrain(leaf, sharding)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    array = np.asarray(leaf)
    array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _by_shares(leaf, everywhere):
    """A leaf of several processes as a NumPy array: one device's share of it at a time."""
    shape, whole = leaf.sharding.shard_shape(leaf.shape), np.empty(leaf.shape, leaf.dtype)
    for which in np.ndindex(*np.floor_divide(leaf.shape, shape)):
        part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(which, shape, strict=True))
        whole[part] = jax.device_get(_share(leaf, np.array(which), shape, everywhere))
    return whole


@functools.partial(jax.jit, static_argnums=(2, 3))
def _share(leaf, which, shape, everywhere):
    """The part [shape] of a leaf that is number `which` along every axis, on every device.

    A sum in which all other parts are zero: a slice would bring the whole leaf together first.
    """
    for axis, size in enumerate(shape):
        parts = leaf.reshape(*shape[:axis], -1, size, *leaf.shape[axis + 1 :])
        chosen = lax.broadcasted_iota(jnp.int32, parts.shape, axis) == which[axis]
        leaf = jnp.where(chosen, parts, 0).sum(axis, leaf.dtype)
    return constrain(leaf, everywhere)
