"""The examples of a sweep, prepared for the device: moments, resamples, weights.

A resample is a column of counts [N]; a model trains where its count is positive and is evaluated on
the examples that it holds out, those whose count is zero. All columns are copied to the device
once, as uint8 [N, R], whatever the number of trials.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, Num, Shaped, UInt8

from softmax_jax import checks
from softmax_jax.data import validation
from softmax_jax.data.dataset import (
    Dataset,
    column_moments,
    example_weights,
    moments,
    normalised,
)
from softmax_jax.optimum.problem import relative
from softmax_jax.sweep import mesh
from softmax_jax.sweep.mesh import ONE, Placement
from softmax_jax.train import Data

# A mean or a scale: one for all features, [D], or [R, D] where each resample has its own.
Moment: TypeAlias = float | int | Float[np.ndarray, "..."]

_MOST_COPIES = 255  # of a uint8


class Resamples(NamedTuple):
    """R resamples of N examples.

    Attributes:
      counts: how often each example is trained on.
      held_out: 1 where an example is evaluated, else 0.
      outer: of a nested cross-validation, the outer fold that a column serves; -1: it serves the
        choice for all examples.
      final: whether a column trains on all but its outer fold, and is evaluated on that.
    """

    counts: UInt8[np.ndarray, "N R"]
    held_out: UInt8[np.ndarray, "N R"]
    outer: Int[np.ndarray, " R"]
    final: Bool[np.ndarray, " R"]

    @classmethod
    def of(cls, counts: Num[Array | np.ndarray, "N R"]) -> "Resamples":
        """Each column is evaluated where its count is zero."""
        counts = np.asarray(counts)
        R = counts.shape[1] if counts.ndim == 2 else 0
        held_out = np.equal(counts, 0).astype(np.uint8)
        return cls(counts, held_out, np.full(R, -1), np.zeros(R, bool))

    @property
    def error_factor(self) -> float:
        """The standard error of a metric's mean over the resamples / its deviation over them.

        1/√K where the columns hold out each example once, as K folds do: the classic of the rule
        'one_se'. Else `corrected_factor`.
        """
        held_out = self.held_out[:, self.outer < 0]
        once = (held_out.sum(1) == 1).all()
        return held_out.shape[1] ** -0.5 if once else self.corrected_factor

    @property
    def corrected_factor(self) -> float:
        """The same for intervals: √(1/R + f/(1 - f)), where a column holds out f of all examples.

        R columns share their training examples, so that their values are not independent, and more
        columns do not make the examples more. Source: Nadeau and Bengio, *Inference for the
        Generalization Error* (2003), section 3.
        """
        held_out = self.held_out[:, self.outer < 0]
        fraction = held_out.mean(dtype=np.float64)
        return float(np.sqrt(1 / held_out.shape[1] + fraction / (1 - fraction)))


def fold_counts(
    labels: Shaped[Array | np.ndarray, " N"] | Sequence,
    folds: ArrayLike | Sequence[int] = 5,
    *,
    stratified: bool = True,
    seed: int = 0,
    together: Integer[np.ndarray, " N"] | None = None,
) -> UInt8[np.ndarray, "N R"]:
    """Counts [N, R] of K-fold cross-validation: column k is zero on fold k and one elsewhere.

    Args:
      labels: of the examples.
      folds: how many, or an integer array [N] that says which fold each example is in (groups that
        must stay together).
      stratified: each fold gets its share of every class. Of a class with fewer examples than
        folds, only as many folds have one, and a warning says so.
      seed: of the order in which examples are assigned to folds.
      together: examples of one number get into one fold, such as those of one group or the copies
        of one row (`data.validation.together`); None: each is assigned on its own.

    Raises:
      ValueError: fewer than two folds, or more folds than examples.

    >>> fold_counts(np.array([0, 0, 1, 1]), 2).sum(0).tolist()
    [2, 2]
    """
    labels = np.asarray(labels)
    if np.ndim(folds) == 0:
        number = np.asarray(folds).item()
        how: dict[str, Any] = {"stratified": stratified, "seed": seed, "together": together}
        member = validation.assign_folds(labels, number, **how)
        if stratified:
            validation.warn_rare(labels, number, together)
    else:
        member = _given_folds(folds, len(labels))
    mesh.check_counts(len(labels), int(member.max()) + 1)
    return (member[:, None] != np.arange(member.max() + 1)).astype(np.uint8)


def nested_folds(
    labels: Shaped[Array | np.ndarray, " N"] | Sequence,
    folds: int,
    outer_folds: int,
    *,
    stratified: bool = True,
    seed: int = 0,
    together: Integer[np.ndarray, " N"] | None = None,
) -> Resamples:
    """The resamples of a nested cross-validation of O outer folds with K inner ones.

    K columns for the choice on all examples; then for each outer fold the K inner folds of the
    examples outside it, which are evaluated on these alone; then for each outer fold one column
    that trains on all examples outside it and is evaluated on it.

    Args:
      labels: of the examples.
      folds: K.
      outer_folds: O.
      stratified, seed, together: see `fold_counts`.

    Raises:
      ValueError: fewer than two folds, or more than there are examples outside an outer fold.
    """
    labels = np.asarray(labels)
    for name, number in (("folds", folds), ("outer_folds", outer_folds)):
        checks.check_whole(name, number, 2)
    mesh.check_counts(len(labels), folds + outer_folds * (folds + 1))
    how: dict[str, Any] = {"stratified": stratified, "together": together}
    seeds = (seed, 1)  # not those of the inner folds
    outer = validation.assign_folds(labels, outer_folds, seed=seeds, **how)
    parts = [Resamples.of(fold_counts(labels, folds, seed=seed, **how))]
    if stratified:
        validation.warn_rare(labels, outer_folds, together)
    for number in range(outer_folds):
        rest = outer != number
        own = together if together is None else together[rest]
        counts = np.zeros((len(labels), folds), np.uint8)
        how = {"stratified": stratified, "together": own}
        inner = validation.assign_folds(labels[rest], folds, seed=seed, **how)
        counts[rest] = inner[:, None] != np.arange(folds)
        held_out = (rest[:, None] & (counts == 0)).astype(np.uint8)
        parts.append(Resamples(counts, held_out, np.full(folds, number), np.zeros(folds, bool)))
    final = Resamples.of((outer[:, None] != np.arange(outer_folds)).astype(np.uint8))
    parts.append(final._replace(outer=np.arange(outer_folds), final=np.ones(outer_folds, bool)))
    return Resamples(*(np.concatenate(columns, -1) for columns in zip(*parts, strict=True)))


def check_resamples(resamples: Resamples, num_examples: int) -> None:
    """Raises ValueError for impossible counts.

    They must be whole numbers [N, R] from 0 to 255, and every column must have a positive count and
    hold out an example.
    """
    counts = resamples.counts
    if counts.ndim != 2 or counts.shape[0] != num_examples or not counts.shape[1]:
        raise ValueError(f"resamples need a row for each of the {num_examples} training examples.")
    if not ((counts >= 0) & (counts <= _MOST_COPIES) & (counts == np.floor(counts))).all():
        raise ValueError(f"resamples are counts: whole numbers from 0 to {_MOST_COPIES}.")
    useless = ~((counts > 0).any(0) & resamples.held_out.any(0))
    if useless.any():
        raise ValueError(
            f"Column {useless.argmax()} of the resamples leaves no example to train on, or none "
            "to evaluate on."
        )


def bootstrap_counts(
    labels: Shaped[Array | np.ndarray, " N"] | Sequence | int,
    draws: int,
    *,
    seed: int = 0,
    together: Integer[np.ndarray, " N"] | None = None,
) -> UInt8[np.ndarray, "N R"]:
    """Counts [N, R] of R bootstrap draws: each column sums to N, about 37 % of it is zero.

    Args:
      labels: of the examples: as many are drawn of each class as it has, so that no draw lacks a
        rare one. Or their number N: the draws are not stratified.
      draws: R.
      seed: of the draws.
      together: examples of one number are drawn together, see `fold_counts`; a column then sums to
        N in the mean.

    Raises:
      ValueError: fewer than two draws.
    """
    labels = np.zeros(labels, int) if np.ndim(labels) == 0 else np.asarray(labels)
    checks.check_whole("draws", draws, 2)
    mesh.check_counts(len(labels), draws)
    first, group = _groups(len(labels), together)
    strata = [np.flatnonzero(labels[first] == label) for label in np.unique(labels[first])]
    rng = np.random.default_rng(seed)
    counts = np.empty((len(labels), draws), np.uint8)
    for column in counts.T:
        drawn = [own[rng.integers(len(own), size=len(own))] for own in strata]
        times = np.bincount(np.concatenate(drawn), minlength=len(first))
        column[:] = np.minimum(times, _MOST_COPIES)[group]
    return counts


def leave_out_absent(train: Dataset) -> Dataset:
    """The examples of positive weight, with a warning of classes that have none."""
    there = train.without_absent()
    if there is not train:
        present = example_weights(train) > 0
        validation.warn_absent_classes(np.asarray(train.y), present, train.label_names)
    return there


def class_weights(
    dataset: Dataset, class_weight: str | ArrayLike | Sequence | None = None
) -> Float[np.ndarray, " C"] | None:
    """What an example of each class weighs in the objective, beside its own weight; None: 1.

    'balanced' is Σ w / (C · Σ w of the class): all classes weigh the same in the end.

    Raises:
      ValueError: class_weight is not 'balanced' or C numbers from 0, or all weights are zero.
    """
    if class_weight is None:
        return None
    own, labels = example_weights(dataset), np.asarray(dataset.y)
    sums, num_classes = np.bincount(labels, own, dataset.num_classes), dataset.num_classes
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight must be 'balanced' or {num_classes} numbers; "
                f"it got {class_weight!r}."
            )
        return sums.sum() / (num_classes * np.where(sums > 0, sums, sums.max()))
    weights = np.asarray(class_weight)
    weights = weights.astype(np.float64) if weights.dtype.kind in "biuf" else np.zeros(0)
    if weights.shape != (num_classes,) or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"class_weight needs {num_classes} finite numbers of 0 or greater, one per class; "
            f"it got {class_weight!r}."
        )
    if not weights @ sums > 0:
        raise ValueError("The weights of the training examples are all zero.")
    return weights


def _groups(num_examples, together):
    """(the first example of each group [M], in their order; the group of each example [N])."""
    if together is None:
        return np.arange(num_examples), np.arange(num_examples)
    return validation.numbered(together)


def frequency_losses(train: Dataset, val: Dataset | None) -> dict[str, float]:
    """The losses, by name, of a model without features: the classes' frequencies in train.

    Without val, val_loss is that on train, too.
    """
    shares = []
    for one in (train, val or train):
        counts = np.bincount(np.asarray(one.y), weights=one.weights, minlength=train.num_classes)
        shares.append(counts / counts.sum())
    each = -np.log(np.maximum(shares[0], np.finfo(np.float64).tiny))
    return {
        f"{role}_loss": float(s @ each) for role, s in zip(("train", "val"), shares, strict=True)
    }


def objective_weights(
    dataset: Dataset, class_weight: Float[np.ndarray, " C"] | None
) -> Float[np.ndarray, " N"] | None:
    """The weight of each example in the objective: its own times its class's; None: all are 1."""
    if class_weight is None:
        return None if dataset.weights is None else example_weights(dataset)
    return example_weights(dataset) * class_weight[np.asarray(dataset.y)]


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
      dataset: the examples, with weights of mean 1.
      class_weight, mean_weight: see `train.Data`.
      resamples: how often each counts in each resample; None: there are no resamples.
      placement: on the devices.
      dtype: of the features there.
      divided: whether each device of the mesh's batch axis has a share of the examples, instead of
        all.
      resident: the whole dataset, on the device; None: it is read by shards.
    """

    dataset: Dataset
    class_weight: Float[np.ndarray, " C"] | None
    resamples: UInt8[np.ndarray, "N R"] | None
    placement: Placement
    dtype: Any
    divided: bool = False
    mean_weight: Float[np.ndarray, " R"] | None = None
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
        own = {
            "class_weight": self.class_weight,
            "mean_weight": self.mean_weight,
            "resamples": None if self.resamples is None else self.resamples[rows],
        }
        return device_data(dataset, self.dtype, self.placement, self.divided, **own)


def device_data(
    dataset: Dataset,
    dtype: Any = np.float32,
    placement: Placement = ONE,
    divided: bool = False,
    *,
    class_weight: Float[np.ndarray, " C"] | None = None,
    mean_weight: Float[np.ndarray, " R"] | None = None,
    resamples: UInt8[np.ndarray, "N R"] | None = None,
) -> Data:
    """A `data.Dataset` on the device; arrays that are there already are not copied.

    The other arguments are the fields of `Inputs`.
    """

    def numbers(values):
        return None if values is None else np.asarray(values, dtype)

    mean = _less_shift(dataset.mean, dataset, dtype)
    x = dataset.x if dataset.shift is None else normalised(dataset.x, dataset.shift, 1.0, dtype)
    whole = {
        "mean": mean if np.any(mean) else None,
        "scale": numbers(dataset.scale),
        "class_weight": numbers(class_weight),
        "mean_weight": numbers(mean_weight),
    }
    weights = np.ones(len(dataset.y), np.float32) if dataset.weights is None else dataset.weights
    examples = {"x": x, "y": dataset.y, "resamples": resamples}
    examples["weights"] = weights if dataset.weights is None else numbers(weights)
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
    class_weight: Float[np.ndarray, " C"] | None = None,
    resamples: Resamples | None = None,
    standardize: bool = False,
    centred: bool = False,
    dtype: Any = np.float32,
    placement: Placement = ONE,
    divided: bool = False,
) -> tuple[InputPair, Moment, Moment]:
    """(inputs, mean, scale): the data on the device, and how an input is normalised.

    Args:
      train: the examples to train on, none of weight 0.
      val: the examples to evaluate on, or None.
      class_weight: see `class_weights`.
      resamples: of the training examples, instead of `val`.
      standardize: whether features get mean 0 and standard deviation 1 over the training examples,
        each of which counts as often as its weight says.
      centred: whether a `Dataset.shift` stays subtracted without `standardize`, too. That moves no
        optimum, as the bias absorbs it.
      dtype: of the features on the device.
      placement: on the devices.
      divided: on a mesh, each device of its batch axis has a share of the training examples (those
        that are only evaluated are always divided).

    Returns:
      The inputs, and mean and scale: numbers, [D], or [R, D] where each resample has its own.
    """
    train, val = _of_mean_one(train), val and _of_mean_one(val)
    own = None
    if standardize:
        of_counts = None if resamples is None else resamples.counts
        train, val, own = _standardised(train, val, of_counts, dtype)
    elif centred and train.shift is not None:
        train = dataclasses.replace(train, mean=train.shift)
        val = val and dataclasses.replace(val, mean=train.shift)
    counts = None if resamples is None else np.asarray(resamples.counts, np.uint8)
    inputs = Inputs(train, class_weight, counts, placement, dtype, divided)
    inputs = inputs._replace(mean_weight=_mean_weight(train, class_weight, counts)).kept()
    normalisation = train.mean, train.scale
    if resamples is None:
        held_out = None
        if val is not None:
            held_out = Inputs(val, class_weight, None, placement, dtype, divided=True).kept()
        return InputPair(inputs, held_out), *normalisation
    out = resamples.held_out
    held_out = inputs._replace(resamples=out)
    if inputs.resident is not None:  # the examples are there once
        put = placement.examples if divided else placement.everywhere
        held_out = held_out._replace(resident=inputs.resident._replace(resamples=put(out)))
    return InputPair(inputs, held_out, *(own or (None, None))), *(own or normalisation)


def _of_mean_one(dataset):
    """The dataset with its weights divided by their mean, in float64."""
    if dataset.weights is None:
        return dataset
    weights, _ = relative(example_weights(dataset))
    return dataclasses.replace(dataset, weights=weights / weights.mean())


def _mean_weight(train, class_weight, counts):
    """The mean weight of the examples in each resample, in the objective: [R], or None."""
    weights = objective_weights(train, class_weight)
    if weights is None:
        return None
    if counts is None:
        return weights.mean(keepdims=True)
    return weights @ counts / counts.sum(0)


def _standardised(train, val, resamples, dtype):
    """The datasets with the moments of the training examples; and those of each resample.

    They are those that the device computes with, to the bit: what `dtype` rounds the bias absorbs.
    """
    shift = 0.0 if train.shift is None else train.shift

    def of(counts):
        blocks = train.blocks("mean and scale")
        mean, scale = moments(blocks, counts, train.scale, train.weights)
        mean, scale = (values.astype(dtype).astype(np.float64) for values in (mean - shift, scale))
        return shift + mean, scale

    mean, scale = (values[0] for values in of(None))
    own = None if resamples is None else of(resamples)
    train = dataclasses.replace(train, mean=mean, scale=scale)
    val = val and dataclasses.replace(val, mean=mean, scale=scale)
    return train, val, own
