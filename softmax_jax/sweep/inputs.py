"""The examples of a sweep, prepared for the device: moments, resamples, weights.

A resample is a column of counts [N]; a model trains where its count is positive and is evaluated
where it is zero. All columns are copied to the device once, as uint8 [N, R], whatever the number
of trials.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num, Shaped, UInt8

from softmax_jax.data import validation
from softmax_jax.data.dataset import Dataset, column_moments, moments, normalised
from softmax_jax.sweep import mesh
from softmax_jax.sweep.mesh import ONE, Placement
from softmax_jax.train import Data

# A mean or a scale: one for all features, [D], or [R, D] where each resample has its own.
Moment: TypeAlias = float | int | Float[np.ndarray, "..."]

_MOST_COPIES = 255  # of a uint8


def fold_counts(
    labels: Shaped[Array | np.ndarray, " N"] | Sequence,
    folds: ArrayLike | Sequence[int] = 5,
    *,
    stratified: bool = True,
    seed: int = 0,
) -> UInt8[np.ndarray, "N R"]:
    """Counts [N, R] of K-fold cross-validation: column k is zero on fold k and one elsewhere.

    Args:
      labels: of the examples.
      folds: how many, or an integer array [N] that says which fold each example is in (groups that
        must stay together).
      stratified: each fold gets its share of every class.
      seed: of the order in which examples are assigned to folds.

    Raises:
      ValueError: fewer than two folds, or more folds than a class has examples.

    >>> fold_counts(np.array([0, 0, 1, 1]), 2).sum(0).tolist()
    [2, 2]
    """
    labels = np.asarray(labels)
    if np.ndim(folds) == 0:
        member = _assign_folds(labels, np.asarray(folds).item(), stratified, seed)
    else:
        member = _given_folds(folds, len(labels))
    mesh.check_counts(len(labels), int(member.max()) + 1)
    return (member[:, None] != np.arange(member.max() + 1)).astype(np.uint8)


def check_resamples(resamples: ArrayLike | Sequence, num_examples: int) -> None:
    """Raises ValueError for impossible counts.

    They must be whole numbers [N, R] from 0 to 255, with a zero and a positive count in every
    column.
    """
    counts = np.asarray(resamples)
    if counts.ndim != 2 or counts.shape[0] != num_examples or not counts.shape[1]:
        raise ValueError(f"resamples need a row for each of the {num_examples} training examples.")
    if not ((counts >= 0) & (counts <= _MOST_COPIES) & (counts == np.floor(counts))).all():
        raise ValueError(f"resamples are counts: whole numbers from 0 to {_MOST_COPIES}.")
    useless = ~((counts > 0).any(0) & (counts == 0).any(0))
    if useless.any():
        raise ValueError(
            f"Column {useless.argmax()} of the resamples leaves no example to train on, or none "
            "to evaluate on."
        )


def bootstrap_counts(num_examples: int, draws: int, *, seed: int = 0) -> UInt8[np.ndarray, "N R"]:
    """Counts [N, R] of R bootstrap draws: each column sums to N, about 37 % of it is zero."""
    if draws < 2:
        raise ValueError(f"A bootstrap needs at least 2 draws; it got {draws}.")
    mesh.check_counts(num_examples, draws)
    rng = np.random.default_rng(seed)
    counts = np.empty((num_examples, draws), np.uint8)
    for column in counts.T:
        drawn = rng.integers(num_examples, size=num_examples)
        column[:] = np.minimum(np.bincount(drawn, minlength=num_examples), _MOST_COPIES)
    return counts


def example_importance(
    dataset: Dataset, class_weight: str | ArrayLike | Sequence | None = None
) -> Float[np.ndarray, " N"] | None:
    """The weight of each training example in the objective, of mean 1; None: all are equal.

    The product of the dataset's own weights and the weight of the example's class: 'balanced'
    (N / (C · count of the class)) or C numbers. With mean 1, l2 keeps its meaning.

    Raises:
      ValueError: class_weight is not 'balanced' or C numbers from 0, or all weights are zero.
    """
    if dataset.weights is None and class_weight is None:
        return None
    labels, num_classes = np.asarray(dataset.y), dataset.num_classes
    own = np.ones(len(labels)) if dataset.weights is None else np.asarray(dataset.weights)
    weights = own * _class_weights(labels, num_classes, class_weight)[labels]
    if not weights.sum() > 0:
        raise ValueError("The weights of the training examples are all zero.")
    return (weights / weights.mean()).astype(dataset.dtype)


def _class_weights(labels, num_classes, class_weight):
    if class_weight is None:
        return np.ones(num_classes)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight must be 'balanced' or {num_classes} numbers; "
                f"it got {class_weight!r}."
            )
        counts = np.bincount(labels, minlength=num_classes)
        return len(labels) / (num_classes * np.maximum(counts, 1))
    weights = np.asarray(class_weight, np.float64)
    if weights.shape != (num_classes,) or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"class_weight needs {num_classes} finite numbers of 0 or greater, one per class; "
            f"it got {tuple(np.atleast_1d(weights).tolist())}."
        )
    return weights


def _assign_folds(labels, folds, stratified, seed):
    """The fold of each example: shuffled, then assigned in turn (class by class)."""
    smallest = np.bincount(labels)[np.unique(labels)].min() if stratified else len(labels)
    if type(folds) is not int or not 2 <= folds <= smallest:
        scarce = "examples of the rarest class" if stratified else "examples"
        raise ValueError(
            f"folds must be a whole number from 2 to the {smallest} {scarce}; it is {folds}."
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    if stratified:
        order = order[np.argsort(labels[order], kind="stable")]
    member = np.empty(len(labels), np.int64)
    member[order] = np.arange(len(labels)) % folds
    return member


def _given_folds(folds, num_examples):
    folds = np.asarray(folds)
    if folds.shape != (num_examples,) or not np.issubdtype(folds.dtype, np.integer):
        raise ValueError(f"folds as an array must be {num_examples} integers, one per example.")
    names, member = np.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise ValueError("folds as an array must name at least two folds.")
    return member


class Inputs(NamedTuple):
    """A `data.Dataset` for the device: as a whole or, where it is too large, by shards.

    Attributes:
      dataset: the examples.
      importance: their weights in the objective; None: all are equal.
      resamples: how often each counts in each resample; None: there are no resamples.
      placement: on the devices.
      dtype: of the features there.
      divided: whether each device of the mesh's batch axis has a share of the examples, instead of
        all.
      resident: the whole dataset, on the device; None: it is read by shards.
    """

    dataset: Dataset
    importance: Float[np.ndarray, " N"] | None
    resamples: UInt8[np.ndarray, "N R"] | None
    placement: Placement
    dtype: Any
    divided: bool = False
    resident: Data | None = None

    def shards(self, epoch: int | None = None, batch_size: int = 1) -> Iterator[tuple[int, Data]]:
        """(number, examples) of each shard, in the order of an epoch or (None) of the dataset."""
        if self.resident is not None:
            yield 0, self.resident
            return
        dataset = self.dataset
        shards = dataset.in_order() if epoch is None else dataset.shuffled(epoch, batch_size)
        for shard in shards:
            yield shard.number, self._on_device(shard.dataset, shard.rows)

    def kept(self) -> "Inputs":
        """The same inputs, with the dataset on the device unless it is read by shards."""
        if self.dataset.shard_size is not None:
            return self
        return self._replace(resident=self._on_device(self.dataset, slice(None)))

    def normalised(self, mean: Float[np.ndarray, " D"], scale: Float[np.ndarray, " D"]) -> "Inputs":
        """The same inputs with another mean and scale."""
        dataset = dataclasses.replace(self.dataset, mean=mean, scale=scale)
        resident = self.resident
        if resident is not None:
            on_device = _less_shift(mean, dataset, self.dtype), scale.astype(self.dtype)
            own = self.placement.everywhere(on_device)
            resident = resident._replace(mean=own[0], scale=own[1])
        return self._replace(dataset=dataset, resident=resident)

    def _on_device(self, dataset, rows):
        importance = None if self.importance is None else self.importance[rows]
        resamples = None if self.resamples is None else self.resamples[rows]
        how = self.dtype, self.placement, self.divided
        return device_data(dataset, importance, resamples, *how)


def device_data(
    dataset: Dataset,
    importance: Float[np.ndarray, " N"] | None = None,
    resamples: UInt8[np.ndarray, "N R"] | None = None,
    dtype: Any = np.float32,
    placement: Placement = ONE,
    divided: bool = False,
) -> Data:
    """A `data.Dataset` on the device; arrays that are there already are not copied.

    The other arguments are the fields of `Inputs`.
    """
    mean, scale = _less_shift(dataset.mean, dataset, dtype), np.asarray(dataset.scale, dtype)
    x = dataset.x if dataset.shift is None else normalised(dataset.x, dataset.shift, 1.0, dtype)
    whole = {"mean": mean if np.any(mean) else None, "scale": scale}
    examples = {
        "x": x,
        "y": dataset.y,
        "weights": np.ones(len(dataset.y), np.float32),
        "resamples": resamples,
        "importance": importance,
    }
    put = placement.examples if divided else placement.everywhere
    return Data(**put(examples), **placement.everywhere(whole))


def _less_shift(mean, dataset, dtype):
    """What is subtracted on the device, where x arrives less `dataset.shift`."""
    mean = np.asarray(mean)
    return (mean if dataset.shift is None else mean - dataset.shift).astype(dtype)


_FAR = 100  # standard deviations from zero, at which a mean stalls SGD
_SAMPLE = 1024  # examples that tell


def warn_unstandardised(train: Dataset) -> None:
    """Warns of features whose mean is so large that SGD cannot learn from how they vary.

    The curvature along a feature's mean is (mean / deviation)² of that along its deviation, and the
    learning rate is bound by the former.
    """
    if train.x.dtype == np.uint8:
        return
    x = train.x[:: len(train) // _SAMPLE + 1]
    mean, deviation = column_moments([np.asarray(x)])
    columns = np.flatnonzero((deviation > 0) & (np.abs(mean) > _FAR * deviation))
    if len(columns):
        warnings.warn(
            f"{validation.columns_text(columns, mean, deviation)}: SGD hardly learns from features "
            "whose mean is so much larger than their standard deviation. Standardise the features: "
            "standardize=True.",
            stacklevel=3,
        )


class InputPair(NamedTuple):
    """The training data and the held-out data (None: nothing is evaluated).

    mean, scale: those of the training examples of each resample, where each is standardised by its
    own; else None.
    """

    train: Inputs
    held_out: Inputs | None
    mean: Float[np.ndarray, "R D"] | None = None
    scale: Float[np.ndarray, "R D"] | None = None

    @property
    def differ(self) -> bool:
        """Whether every resample is normalised in its own way."""
        return self.mean is not None

    def of(self, fold: int) -> tuple[Inputs, Inputs | None]:
        """(training inputs, held-out inputs) for the trials of a fold (-1: there are no folds)."""
        if self.mean is None or self.scale is None:
            return self.train, self.held_out
        own = self.mean[fold], self.scale[fold]
        held_out = None if self.held_out is None else self.held_out.normalised(*own)
        return self.train.normalised(*own), held_out


def make_inputs(
    train: Dataset,
    val: Dataset | None,
    *,
    class_weight: str | ArrayLike | Sequence | None = None,
    resamples: Num[Array | np.ndarray, "N R"] | None = None,
    standardize: bool = False,
    centred: bool = False,
    dtype: Any = np.float32,
    placement: Placement = ONE,
    divided: bool = False,
) -> tuple[InputPair, Moment, Moment]:
    """(inputs, mean, scale): the data on the device, and how an input is normalised.

    Args:
      train: the examples to train on.
      val: the examples to evaluate on, or None.
      class_weight: see `example_importance`.
      resamples: counts of the training examples, instead of `val`.
      standardize: whether features get mean 0 and standard deviation 1 over the training examples.
      centred: whether a `Dataset.shift` stays subtracted without `standardize`, too. That moves no
        optimum, as the bias absorbs it.
      dtype: of the features on the device.
      placement: on the devices.
      divided: on a mesh, each device of its batch axis has a share of the training examples (those
        that are only evaluated are always divided).

    Returns:
      The inputs, and mean and scale: numbers, [D], or [R, D] where each resample has its own.

    Raises:
      ValueError: see `example_importance`.
    """
    importance = example_importance(train, class_weight)
    own = None
    if standardize:
        train, val, own = _standardised(train, val, resamples, dtype)
    elif centred and train.shift is not None:
        train = dataclasses.replace(train, mean=train.shift)
        val = val and dataclasses.replace(val, mean=train.shift)
    counts = None if resamples is None else np.asarray(resamples, np.uint8)
    inputs = Inputs(train, importance, counts, placement, dtype, divided).kept()
    normalisation = train.mean, train.scale
    if counts is None:
        held_out = None
        if val is not None:
            held_out = Inputs(val, None, None, placement, dtype, divided=True).kept()
        return InputPair(inputs, held_out), *normalisation
    out = np.equal(counts, 0).astype(np.uint8)
    held_out = inputs._replace(importance=None, resamples=out)
    if inputs.resident is not None:  # the examples are there once
        put = placement.examples if divided else placement.everywhere
        shared = inputs.resident._replace(importance=None, resamples=put(out))
        held_out = held_out._replace(resident=shared)
    return InputPair(inputs, held_out, *(own or (None, None))), *(own or normalisation)


def _standardised(train, val, resamples, dtype):
    """The datasets with the moments of the training examples; and those of each resample.

    They are those that the device computes with, to the bit: what `dtype` rounds the bias absorbs.
    """
    shift = 0.0 if train.shift is None else train.shift

    def of(counts):
        mean, scale = moments(train.blocks("mean and scale"), counts, constant=train.scale)
        mean, scale = (values.astype(dtype).astype(np.float64) for values in (mean - shift, scale))
        return shift + mean, scale

    mean, scale = (values[0] for values in of(None))
    own = None if resamples is None else of(resamples)
    train = dataclasses.replace(train, mean=mean, scale=scale)
    val = val and dataclasses.replace(val, mean=mean, scale=scale)
    return train, val, own
