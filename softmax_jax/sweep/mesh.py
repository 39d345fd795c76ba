"""Where the arrays of a sweep lie, on one device or on a mesh of them, and how many trials fit.

A mesh has three axes: `trials`, over which the trials of a chunk are dealt out (its settings, or
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
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from softmax_jax import host

AXES = ("trials", "batch", "classes")
_WHOLE_BYTES = 1 << 28  # bytes of an array that every device may have whole, for a moment


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
        """For `sharding`: how the devices share a leaf [S, K] or [S, K, C, ...] of a chunk.

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
        """An order [S, steps, B] for a chunk [S, K]: each device with its share of a minibatch."""
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
        small = {i: leaf for i, leaf in enumerate(leaves) if leaf.nbytes <= _WHOLE_BYTES}
        whole = jax.device_get(constrain(small, self.sharding()))
        return structure.unflatten(
            whole[i] if i in whole else _fetch_by_shares(leaf, self.sharding())
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


def _fetch_by_shares(leaf, everywhere):
    """A leaf of several processes as a NumPy array: one device's share of it at a time."""
    shape, whole = leaf.sharding.shard_shape(leaf.shape), np.empty(leaf.shape, leaf.dtype)
    for which in np.ndindex(*np.floor_divide(leaf.shape, shape)):
        part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(which, shape, strict=True))
        whole[part] = jax.device_get(_share_of(leaf, np.array(which), shape, everywhere))
    return whole


@functools.partial(jax.jit, static_argnums=(2, 3))
def _share_of(leaf, which, shape, everywhere):
    """The part [shape] of a leaf that is number `which` along every axis, on every device.

    A sum in which all other parts are zero: a slice would bring the whole leaf together first.
    """
    for axis, size in enumerate(shape):
        parts = leaf.reshape(*shape[:axis], -1, size, *leaf.shape[axis + 1 :])
        chosen = lax.broadcasted_iota(jnp.int32, parts.shape, axis) == which[axis]
        leaf = jnp.where(chosen, parts, 0).sum(axis, leaf.dtype)
    return constrain(leaf, everywhere)


_ITEM = 4  # bytes of a float32
_PARAMETER_COPIES = 6  # parameters, momentum, average, gradient, best so far, update in flight
_SCORE_COPIES = 6  # logits and what the losses and metrics make of them
_EVALUATION_BATCH = 1000
_OPTIMUM_PARAMETER_COPIES = 50  # 20 pairs of L-BFGS, and what is in flight
_OPTIMUM_SCORE_COPIES = 8  # logits, their change, probabilities, residuals
_TABLE_ROW = 100  # bytes of a trial in the table of trials
_MEMORY_FRACTION = 0.6  # of the memory: the rest is for the data, the compiler and the neighbours


def sgd_trial_bytes(num_features, num_classes, batch_size):
    """Bytes that one more trial takes while it trains."""
    parameters = (num_features + 1) * num_classes
    scores = max(batch_size, _EVALUATION_BATCH) * num_classes
    return _ITEM * (_PARAMETER_COPIES * parameters + _SCORE_COPIES * scores)


def lbfgs_trial_bytes(num_features, num_classes, num_examples):
    """Bytes that one more trial takes on its way to the optimum."""
    parameters, scores = (num_features + 1) * num_classes, num_examples * num_classes
    return _ITEM * (_OPTIMUM_PARAMETER_COPIES * parameters + _OPTIMUM_SCORE_COPIES * scores)


def vocabulary_trial_bytes(num_features, num_classes, _):
    """Bytes that one more trial takes with a loss that never holds the logits."""
    return _ITEM * (_PARAMETER_COPIES + 1) * (num_features + 1) * num_classes


def device_bytes():
    """The memory of a device: of an accelerator as it reports it, else its share of the machine's.

    Of several processes it is the smallest, so that all come to one plan; the first call is one
    that all of them make together.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    own = stats.get("bytes_limit") or host.available_memory() // jax.local_device_count()
    return own if jax.process_count() == 1 else _least(own)


def check_table(num_trials):
    """Raises ValueError where so many trials cannot even be listed: before any list is made."""
    _require_memory(
        num_trials * _TABLE_ROW, host.available_memory(), f"A table of {num_trials:,} trials needs"
    )


def check_counts(num_examples, num_resamples):
    """Raises ValueError where so many resamples cannot be held: here, and twice on the device."""
    what = f"{num_resamples:,} resamples of {num_examples:,} examples need"
    _require_memory(3 * num_examples * num_resamples, host.available_memory(), what)


def fitting_chunk(num_trials, num_features, num_classes, each, chunk_size=0, devices=1):
    """The number of trials of `each` so many bytes to run at once: `chunk_size`; if 0, what fits.

    devices: how many share the trials; a chunk is rounded up, to give each the same number.
    Raises ValueError, with the bytes, where not even one fits on each, or where the results of all
    (their last and their best parameters) cannot be held.
    """
    what = f"{num_trials:,} trials of {num_features} × {num_classes} parameters need"
    chunk_size = min(chunk_size, num_trials)
    here = max(math.ceil(chunk_size / devices), 1)
    _require_memory(each * here, device_bytes(), f"{here:,} at once on a device of {what}")
    _require_memory(
        2 * _ITEM * (num_features + 1) * num_classes * num_trials, host.available_memory(), what
    )
    return devices * (
        here if chunk_size else max(1, int(_MEMORY_FRACTION * device_bytes() // each))
    )


@functools.cache
def _least(own):
    mebibytes = multihost_utils.process_allgather(np.int32(own >> 20))
    return int(mebibytes.min()) << 20


def _require_memory(needed, there, what):
    most = _MEMORY_FRACTION * there
    if needed > most:
        raise ValueError(
            f"{what} {needed / 2**30:,.1f} GiB, more than the {most / 2**30:,.1f} GiB that may be "
            "used: take fewer settings, seeds or folds, or a smaller chunk."
        )
