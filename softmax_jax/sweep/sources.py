"""The data of a sweep on their way to the device: what is trained on, and evaluated on."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from softmax_jax.batches import Data
from softmax_jax.moments import moments
from softmax_jax.sweep import resampling
from softmax_jax.sweep.placement import ONE, Placement


class Feed(NamedTuple):
    """A `data.Dataset` for the device: at once, or, where it is too large for that, in parts.

    divided: whether each device of the mesh's batch axis has a share of the examples, instead of
    all. resident: all of it, on the device, or None. dtype: of the features there.
    """

    dataset: Any
    importance: np.ndarray | None
    resamples: np.ndarray | None
    placement: Placement
    dtype: Any
    divided: bool = False
    resident: Data | None = None

    def parts(self, epoch=None, batch_size=1) -> Iterator[tuple[int, Data]]:
        """(number, examples) of each part: in the order of an epoch, or (None) in their own."""
        if self.resident is not None:
            yield 0, self.resident
            return
        dataset = self.dataset
        parts = dataset.in_order() if epoch is None else dataset.shuffled(epoch, batch_size)
        for part in parts:
            yield part.number, self._on_device(part.dataset, part.rows)

    def kept(self):
        """The same feed, with its dataset on the device if it is not read in parts."""
        if self.dataset.part_size is not None:
            return self
        return self._replace(resident=self._on_device(self.dataset, slice(None)))

    def normalised(self, mean, scale):
        """The same feed with another mean and scale [D]."""
        dataset = dataclasses.replace(self.dataset, mean=mean, scale=scale)
        resident = self.resident
        if resident is not None:
            own = self.placement.everywhere((mean.astype(self.dtype), scale.astype(self.dtype)))
            resident = resident._replace(mean=own[0], scale=own[1])
        return self._replace(dataset=dataset, resident=resident)

    def _on_device(self, dataset, rows):
        importance = None if self.importance is None else self.importance[rows]
        resamples = None if self.resamples is None else self.resamples[rows]
        lie = self.dtype, self.placement, self.divided
        return device_data(dataset, importance, resamples, *lie)


def device_data(
    dataset, importance=None, resamples=None, dtype=np.float32, placement=ONE, divided=False
) -> Data:
    """A `data.Dataset` on the device; arrays that are there already stay where they are."""
    mean, scale = np.asarray(dataset.mean, dtype), np.asarray(dataset.scale, dtype)
    whole = {"mean": mean if np.any(mean) else None, "scale": scale}
    examples = {
        "x": dataset.x,
        "y": dataset.y,
        "weights": np.ones(len(dataset.y), np.float32),
        "resamples": resamples,
        "importance": importance,
    }
    put = placement.examples if divided else placement.everywhere
    return Data(**put(examples), **placement.everywhere(whole))


class Sources(NamedTuple):
    """The training data and the held-out data (None: nothing is evaluated).

    mean, scale: None, or [R, D]: those of the training part of each resample, where every resample
    is standardised by its own.
    """

    train: Feed
    held_out: Feed | None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    @property
    def differ(self):
        """Whether every resample is normalised in its own way."""
        return self.mean is not None

    def of(self, fold):
        """(training feed, held-out feed) for the trials of a fold (-1: there are no folds)."""
        if not self.differ:
            return self.train, self.held_out
        own = self.mean[fold], self.scale[fold]
        return self.train.normalised(*own), self.held_out.normalised(*own)


def make(
    train,
    val,
    *,
    class_weight=None,
    resamples=None,
    standardize=False,
    dtype=np.float32,
    placement=ONE,
    divided=False,
):
    """(sources, mean, scale): the data on the device, and how an input is normalised.

    mean and scale are [R, D] where each resample has its own. divided: on a mesh, each device of
    its batch axis has a share of the training examples (what is only evaluated is always so).
    Raises ValueError for weights that do not fit.
    """
    importance = resampling.importance(train, class_weight)
    own = None
    if standardize:
        train, val, own = _standardised(train, val, resamples)
    counts = None if resamples is None else np.asarray(resamples, np.uint8)
    feed = Feed(train, importance, counts, placement, dtype, divided).kept()
    normalisation = train.mean, train.scale
    if resamples is None:
        held_out = val and Feed(val, None, None, placement, dtype, divided=True).kept()
        return Sources(feed, held_out), *normalisation
    out = (counts == 0).astype(np.uint8)
    held_out = feed._replace(importance=None, resamples=out)
    if feed.resident is not None:  # the examples are there once
        put = placement.examples if divided else placement.everywhere
        shared = feed.resident._replace(importance=None, resamples=put(out))
        held_out = held_out._replace(resident=shared)
    return Sources(feed, held_out, *(own or (None, None))), *(own or normalisation)


def _standardised(train, val, resamples):
    """The datasets with the moments of the training examples; and those of each resample."""

    def of(counts):
        return moments(train.blocks("mean and scale"), counts, constant=train.scale)

    mean, scale = (values[0] for values in of(None))
    own = None if resamples is None else of(resamples)
    train = dataclasses.replace(train, mean=mean, scale=scale)
    val = val and dataclasses.replace(val, mean=mean, scale=scale)
    return train, val, own
