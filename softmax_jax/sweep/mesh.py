"""Where the arrays of a sweep are, on one device or on a mesh of them, and how many trials fit.

A mesh has three axes: `trials` divides the trials of a chunk (its settings, or else its seeds),
`batch` the examples of each minibatch, and `classes` the columns of a layer. The programs are the
same: the compiler divides them as their inputs are divided (GSPMD, Xu et al. 2021), and several
processes run them together.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree, Shaped

from softmax_jax import host

AXES = ("trials", "batch", "classes")
_WHOLE_BYTES = 1 << 28  # bytes of an array that every device may have whole, for a moment


class Placement(NamedTuple):
    """The mesh; None is one device, where JAX places every array."""

    mesh: Mesh | None = None

    def size(self, axis: str) -> int:
        """The number of devices along the axis 'trials', 'batch' or 'classes'."""
        return 1 if self.mesh is None else self.mesh.shape[axis]

    def sharding(self, *axes: str | None) -> NamedSharding | None:
        """The sharding of leaves whose first axes are divided over these; None: one device.

        For `constrain`; hashable, so that it can be a static argument of a jitted function.
        """
        return None if self.mesh is None else NamedSharding(self.mesh, P(*axes))

    @property
    def by_examples(self) -> NamedSharding | None:
        """The sharding of examples [N, ...]; None where no two devices share them."""
        return self.sharding("batch") if self.size("batch") > 1 else None

    @property
    def by_classes(self) -> NamedSharding | None:
        """The sharding of classes [C, ...]; None where no two devices share them."""
        return self.sharding("classes") if self.size("classes") > 1 else None

    def axes(self, shape: Sequence[int]) -> tuple[str | None, ...]:
        """For `sharding`: how the devices share a leaf [S, K] or [S, K, C, ...] of a chunk.

        They share the axis K if their number divides it, else S.
        """
        trials = ("trials", None) if shape[1] % self.size("trials") else (None, "trials")
        return (*trials, "classes") if len(shape) > 2 else trials

    def trials(self, tree: PyTree) -> PyTree:
        """Leaves [S, K] or [S, K, C, ...], each device with its share of the trials and classes."""
        return jax.tree.map(lambda leaf: self._put(leaf, *self.axes(leaf.shape)), tree)

    def divide(self, tree: PyTree) -> PyTree:
        """Inside a program: the tree with its leaves divided as `trials` divides them."""
        return jax.tree.map(
            lambda leaf: constrain(leaf, self.sharding(*self.axes(leaf.shape))), tree
        )

    def rows(self, tree: PyTree) -> PyTree:
        """Leaves [K, ...], each device with its share of the K if their number divides it."""
        return jax.tree.map(lambda leaf: self._put(leaf, self.axes((1, *leaf.shape))[1]), tree)

    def batches(
        self, order: Shaped[Array | np.ndarray, "S steps B"], shape: Sequence[int]
    ) -> Shaped[Array, "S steps B"]:
        """An order [S, steps, B] for a chunk [S, K]: each device with its share of a minibatch."""
        return self._put(order, self.axes(shape)[0], None, "batch")

    def examples(self, tree: PyTree, axis: int = 0) -> PyTree:
        """Leaves with N examples on an axis, each device with its share of them.

        Where the number of devices does not divide N, they are padded with zeros.
        """
        size = self.size("batch")
        if size > 1:
            tree = jax.tree.map(lambda leaf: padded(leaf, axis, size), tree)
        return self._put(tree, *[None] * axis, "batch")

    def everywhere(self, tree: PyTree) -> PyTree:
        """Leaves of which every device has a whole copy."""
        return self._put(tree)

    def fetch(self, tree: PyTree) -> PyTree:
        """The leaves as NumPy arrays, in every process."""
        if self.mesh is None or not self.mesh.is_multi_process:
            return jax.device_get(tree)
        leaves, structure = jax.tree.flatten(tree)
        small = {i: leaf for i, leaf in enumerate(leaves) if leaf.nbytes <= _WHOLE_BYTES}
        whole = jax.device_get(constrain(small, self.sharding()))
        everywhere = self.sharding()
        fetched = (
            whole[i] if i in whole else _fetch_by_shares(leaf, everywhere)
            for i, leaf in enumerate(leaves)
        )
        return jax.tree.unflatten(structure, fetched)

    def _put(self, tree, *axes):
        if self.mesh is None:
            return jax.device_put(tree)
        return jax.tree.map(lambda leaf: _put(leaf, self.sharding(*axes)), tree)


ONE = Placement()


def place(trials: int = -1, batch: int = 1, classes: int = 1) -> Placement:
    """A mesh of trials × batch × classes devices; -1: all that are left. One device needs no mesh.

    Of several processes it takes the devices of all.

    Raises:
      ValueError: there are too few devices, or not all of them would be used.
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
def constrain(tree: PyTree, sharding: NamedSharding | None) -> PyTree:
    """The same tree with its leaves divided as the sharding says; None: unchanged."""
    return tree if sharding is None else lax.with_sharding_constraint(tree, sharding)


def padded(
    array: Shaped[Array | np.ndarray, "..."], axis: int, multiple: int, value: int | float = 0
) -> Shaped[Array | np.ndarray, "..."]:
    """The array, padded at the end of an axis with `value` until `multiple` divides its length."""
    missing = -array.shape[axis] % multiple
    widths = [(0, missing if a == axis % array.ndim else 0) for a in range(array.ndim)]
    return np.pad(array, widths, constant_values=value) if missing else array


def _put(leaf, sharding):
    """A leaf, of this process or of all, on the devices of all processes."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return constrain(leaf, sharding)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    array = np.asarray(leaf)
    array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _fetch_by_shares(leaf, everywhere):
    """A leaf of several processes as a NumPy array: one device's share at a time."""
    shape, whole = leaf.sharding.shard_shape(leaf.shape), np.empty(leaf.shape, leaf.dtype)
    for which in np.ndindex(*np.floor_divide(leaf.shape, shape)):
        share = tuple(slice(i * n, (i + 1) * n) for i, n in zip(which, shape, strict=True))
        whole[share] = jax.device_get(_share_of(leaf, np.array(which), shape, everywhere))
    return whole


@functools.partial(jax.jit, static_argnums=(2, 3))
def _share_of(leaf, which, shape, everywhere):
    """The share [shape] of a leaf that is number `which` along every axis, on every device.

    A sum in which all other shares are zero: a slice would gather the whole leaf first.
    """
    for axis, size in enumerate(shape):
        shares = leaf.reshape(*shape[:axis], -1, size, *leaf.shape[axis + 1 :])
        chosen = lax.broadcasted_iota(jnp.int32, shares.shape, axis) == which[axis]
        leaf = jnp.where(chosen, shares, 0).sum(axis, leaf.dtype)
    return constrain(leaf, everywhere)


_ITEM = 4  # bytes of a float32
_PARAMETER_COPIES = 6  # parameters, momentum, average, gradient, best so far, pending update
_SCORE_COPIES = 6  # logits and what the losses and metrics make of them
_EVALUATION_BATCH = 1000
_SPARSE_PARAMETER_COPIES, _SPARSE_SCORE_COPIES = 8, 4
_OPTIMUM_PARAMETER_COPIES = 50  # 20 pairs of L-BFGS, and temporaries
_OPTIMUM_SCORE_COPIES = 8  # logits, their change, probabilities, residuals
_TABLE_ROW = 100  # bytes of a trial in the table of trials
_MEMORY_FRACTION = 0.6  # of the memory: the rest is for data, compiler and other processes


def sgd_trial_bytes(
    num_features: int, num_classes: int, batch_size: int, more_copies: int = 0
) -> int:
    """Bytes that one more trial takes while it trains.

    more_copies: of its parameters, that an optimiser keeps beside a momentum.
    """
    parameters = (num_features + 1) * num_classes
    scores = max(batch_size, _EVALUATION_BATCH) * num_classes
    copies = _PARAMETER_COPIES + more_copies
    return _ITEM * (copies * parameters + _SCORE_COPIES * scores)


def lbfgs_trial_bytes(num_features: int, num_classes: int, num_examples: int) -> int:
    """Bytes that one more trial takes while L-BFGS runs."""
    parameters, scores = (num_features + 1) * num_classes, num_examples * num_classes
    return _ITEM * (_OPTIMUM_PARAMETER_COPIES * parameters + _OPTIMUM_SCORE_COPIES * scores)


def sparse_trial_bytes(num_features: int, num_classes: int, num_examples: int) -> int:
    """Bytes that one more trial takes on a path of l1: few of its trials run at the same time."""
    parameters, scores = (num_features + 1) * num_classes, num_examples * num_classes
    return _ITEM * (_SPARSE_PARAMETER_COPIES * parameters + _SPARSE_SCORE_COPIES * scores)


def vocabulary_trial_bytes(
    num_features: int, num_classes: int, _batch_size: int, more_copies: int = 0
) -> int:
    """Bytes that one more trial takes with a loss that never holds the logits."""
    return _ITEM * (_PARAMETER_COPIES + 1 + more_copies) * (num_features + 1) * num_classes


def device_bytes() -> int:
    """The memory of a device: what an accelerator reports, else its share of the machine's.

    Of several processes it is the smallest, so that all make the same plan; they must make the
    first call together.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    own = stats.get("bytes_limit") or host.available_memory() // jax.local_device_count()
    return own if jax.process_count() == 1 else _least(own)


def check_table(num_trials: int) -> None:
    """Raises ValueError, before any list is made, if a table of so many trials is too large."""
    _require_memory(
        num_trials * _TABLE_ROW, host.available_memory(), f"A table of {num_trials:,} trials needs"
    )


def check_counts(num_examples: int, num_resamples: int) -> None:
    """Raises ValueError if the counts of so many resamples are too large: on host and device."""
    what = f"{num_resamples:,} resamples of {num_examples:,} examples need"
    _require_memory(3 * num_examples * num_resamples, host.available_memory(), what)


def fitting_chunk(
    num_trials: int,
    num_features: int,
    num_classes: int,
    each: int,
    chunk_size: int = 0,
    devices: int = 1,
) -> int:
    """The number of trials to run at once.

    Args:
      num_trials: of the whole sweep.
      num_features: D.
      num_classes: C.
      each: bytes that a trial takes while it runs.
      chunk_size: the number that was asked for; 0: as many as fit.
      devices: how many share the trials; a chunk is rounded up, to give each the same number.

    Raises:
      ValueError: with the bytes, where not even one trial fits on each device, or the results of
        all (their last and their best parameters) do not fit into the memory of the host.
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
