"""Where the arrays of a sweep lie: on one device, or spread over a mesh of them.

A mesh has two axes: `trials`, over which the trials of a piece are dealt out, and `batch`, over
which the examples of each minibatch are. The programs are the same: the compiler divides them as
their inputs are divided (GSPMD, Xu et al. 2021).
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


class Placement(NamedTuple):
    """The mesh; None is one device, where everything lies as JAX puts it."""

    mesh: Mesh | None = None

    def size(self, axis):
        """How many devices the axis 'trials' or 'batch' has."""
        return 1 if self.mesh is None else self.mesh.shape[axis]

    def trials(self, tree):
        """Leaves [S, K, ...], each device with its share of the K."""
        return self._put(tree, P(None, "trials"))

    def rows(self, tree):
        """Leaves [K, ...], each device with its share of the K."""
        return self._put(tree, P("trials"))

    def batches(self, order):
        """An order [S, steps, B], each device with its share of every minibatch."""
        return self._put(order, P(None, None, "batch"))

    def examples(self, tree, axis):
        """Leaves with the examples on the given axis, each device with its share of them."""
        return self._put(tree, P(*[None] * axis, "batch"))

    def everywhere(self, tree):
        """Leaves that every device has whole."""
        return self._put(tree, P())

    def fetch(self, tree):
        """The leaves as NumPy arrays, in every process."""
        if jax.process_count() > 1:
            tree = self.everywhere(tree)
        return jax.device_get(tree)

    def _put(self, tree, spec):
        if self.mesh is None:
            return jax.device_put(tree)
        return jax.tree.map(lambda leaf: _place(leaf, NamedSharding(self.mesh, spec)), tree)


ONE = Placement()


def place(trials: int = -1, batch: int = 1) -> Placement:
    """A mesh of trials × batch devices; -1: all that are left. One device needs no mesh.

    Raises ValueError where the devices do not suffice, or not all of them would be used.
    """
    devices = jax.devices()
    if trials == batch == -1:
        raise ValueError("Only one of mesh.trials and mesh.batch can be -1.")
    if trials == -1:
        trials = len(devices) // batch
    if batch == -1:
        batch = len(devices) // trials
    if trials * batch != len(devices):
        raise ValueError(
            f"mesh.trials × mesh.batch is {trials} × {batch}, and there are {len(devices)} "
            "devices: the product must be their number (-1 takes all that are left)."
        )
    if len(devices) == 1:
        return ONE
    auto = (AxisType.Auto, AxisType.Auto)
    return Placement(jax.make_mesh((trials, batch), ("trials", "batch"), axis_types=auto))


def padded(array, axis, multiple, value):
    """The array, made longer along an axis with `value` until `multiple` divides its length."""
    missing = -array.shape[axis] % multiple
    widths = [(0, missing if a == axis % array.ndim else 0) for a in range(array.ndim)]
    return np.pad(array, widths, constant_values=value) if missing else array


def _place(leaf, sharding):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
    return jax.device_put(leaf, sharding)
