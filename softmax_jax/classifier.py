"""A trained model: weights, the normalisation of its inputs, names of classes; and `load`."""

import functools
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Shaped

from softmax_jax import host, losses, metrics, model
from softmax_jax.data import DataError, Dataset, npz, validation
from softmax_jax.data.dataset import example_weights, normalised
from softmax_jax.host import reading

_AT_ONCE = 1000  # examples at a time: memory does not grow with N
_Array = Array | np.ndarray


class Classifier(NamedTuple):
    """logits = ((x - mean) / scale) @ W + b, for x [N, ...] flattened to [N, D].

    Inputs of a type wider than that of W are normalised on the host, in float64, before they become
    of that type: a mean of 1.7e9 beside a scale of 30 costs no precision.

    Class weights v of the fit are corrected for: a model that learned p' ∝ v · p has the biases of
    p, so that its probabilities are those of data as they are (`losses.weight_offsets` is what was
    subtracted). Its predictions are the classes that it was trained to find, the largest p', as
    whoever weighs the classes wants them. Without class weights both are one.

    Attributes:
      W: the weights.
      b: the biases.
      mean: what is subtracted from the inputs: a scalar, or one number per feature.
      scale: what they are divided by: a scalar, or one number per feature.
      label_names: the names of the C classes.
      class_weight: the weights that the biases are corrected for; None: there were none.
    """

    W: Float[np.ndarray, "D C"]
    b: Float[np.ndarray, " C"]
    mean: float | int | Float[np.ndarray, "*D"]
    scale: float | int | Float[np.ndarray, "*D"]
    label_names: tuple[str, ...]
    class_weight: Float[np.ndarray, " C"] | None = None

    def corrected(self, class_weight: Float[np.ndarray, " C"] | None) -> "Classifier":
        """The same model, if the biases are those of a fit with these class weights."""
        if class_weight is None:
            return self
        b = (self.b - losses.weight_offsets(class_weight)).astype(self.b.dtype)
        return self._replace(b=b, class_weight=np.asarray(class_weight, np.float64))

    def logits(self, x: Shaped[_Array, "N ..."]) -> Float[np.ndarray, "N C"]:
        """Logits [N, C] of raw inputs x [N, ...]: pixels or features, as the dataset has them."""
        logits = np.asarray(_logits(*self._for_device(x)))
        self._check_finite(logits, x)
        return logits

    def predict_proba(self, x: Shaped[_Array, "N ..."]) -> Float[np.ndarray, "N C"]:
        """Probabilities [N, C] of raw inputs x [N, ...]."""
        return np.asarray(losses.softmax(self.logits(x)))

    def predict(self, x: Shaped[_Array, "N ..."]) -> Int32[np.ndarray, " N"]:
        """The most probable class, int32 [N]; `label_names[class]` is its name.

        With class weights, of the `weighted_proba`.
        """
        return self.decide(self.logits(x))

    def weighted_proba(self, x: Shaped[_Array, "N ..."]) -> Float[np.ndarray, "N C"]:
        """Probabilities [N, C] as trained: of data in which each class counts as it was weighed."""
        return np.asarray(losses.softmax(self._as_trained(self.logits(x))))

    def decide(self, logits: Float[np.ndarray, "N C"]) -> Int32[np.ndarray, " N"]:
        """What `predict` says where the logits are these: int32 [N]."""
        return self._as_trained(logits).argmax(-1).astype(np.int32)

    def _as_trained(self, logits):
        if self.class_weight is None:
            return logits
        return logits + losses.weight_offsets(self.class_weight).astype(logits.dtype)

    def test(self, dataset: Dataset) -> dict[str, float | list[float]]:
        """Loss and accuracy on a dataset, each with a 95 % interval (normal; Wilson).

        Every example counts as often as its weight says. The intervals are those of as many equal
        weights as say as much: `metrics.effective_size`.

        Raises:
          DataError: the dataset has more classes than the model, or other features.
        """
        if dataset.num_classes > len(self.b):
            raise DataError(
                f"The model knows {len(self.b)} classes, and the dataset {dataset.num_classes}. "
                "Test it on examples of the classes that it was trained on."
            )
        dataset = dataset.without_absent()
        shards = [
            jax.device_get(_measured(*self._for_device(shard.dataset.x), shard.dataset.y))
            for shard in dataset.in_order()
        ]
        loss, hit = (np.concatenate(values) for values in zip(*shards, strict=True))
        weights = example_weights(dataset)
        mean, spread, n = metrics.mean_and_spread(loss, weights)
        accuracy = float(np.average(hit, weights=weights))
        return {
            "loss": mean,
            "accuracy": accuracy,
            "loss_interval": metrics.normal_interval(mean, spread, n),
            "accuracy_interval": metrics.wilson_interval(accuracy * n, n),
        }

    def _for_device(self, x):
        """(a classifier, x): the arrays of this one; or x is normalised, and they say so."""
        self._check(x)
        dtype = self.W.dtype
        one, arrays = np.ones((), dtype), self._replace(label_names=())
        rounds = validation.is_wide(x.dtype) or np.any(self.mean != np.asarray(self.mean, dtype))
        if dtype != np.float32 or not rounds:
            return arrays, x
        x = normalised(x, self.mean, self.scale, dtype)
        return arrays._replace(mean=0 * one, scale=one), x

    def _check_finite(self, logits, x):
        """Raises DataError for the first example whose logits are not finite, with the reason."""
        wrong = ~np.isfinite(logits).all(-1)
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        example = np.asarray(x[row]).reshape(-1)
        odd = np.flatnonzero(~np.isfinite(example))
        if len(odd):
            raise DataError(
                f"Feature {example[odd[0]]} in row {row}, column {odd[0]} is not finite. Fill in "
                "or leave out what is missing."
            )
        if not (np.isfinite(self.W).all() and np.isfinite(self.b).all()):
            raise DataError("The weights of the model are not finite: its training diverged.")
        raise DataError(
            f"The logits of row {row} overflow {self.W.dtype}: its features are too large for the "
            "weights of the model. Are they in the units that the model was trained on?"
        )

    def _check(self, x):
        if not npz.is_number(x.dtype):
            raise DataError(f"The input holds {x.dtype}, and real numbers are needed.")
        num_features = int(np.prod(x.shape[1:]))
        if num_features != len(self.W):
            raise ValueError(
                f"The model was trained on {len(self.W)} features per example; "
                f"the input of shape {tuple(x.shape)} has {num_features}."
            )


@jax.jit
def _logits(classifier, x):
    return jax.lax.map(functools.partial(_of_one, classifier), x, batch_size=min(_AT_ONCE, len(x)))


@jax.jit
def _measured(classifier, x, y):
    """Of each example its loss, and whether it is correct, without an array [N, C]."""

    def one(example):
        logits = _of_one(classifier, example[0])
        loss = losses.cross_entropy(logits, example[1])
        return loss, classifier._as_trained(logits).argmax() == example[1]

    return jax.lax.map(one, (x, y), batch_size=min(_AT_ONCE, len(x)))


def _of_one(classifier, example):
    features = example.reshape(-1).astype(classifier.W.dtype)
    mean, scale = (values.astype(features.dtype) for values in (classifier.mean, classifier.scale))
    features = (features - mean) / scale
    return model.product(features[None], classifier.W)[0] + classifier.b


_PARAMETERS = ("W", "b", "mean", "scale", "label_names")


def load(folder: str | os.PathLike) -> Classifier:
    """The selected model of a finished run, also as `softmax_jax.load(folder)`.

    `load(folder).predict(x)` gives class numbers, int32 [N]; `.predict_proba(x)` probabilities
    [N, C]; `.label_names` the names of the classes. x [N, ...] is raw, as the dataset has it: its
    normalisation is part of the model. The probabilities are corrected for class weights, the
    predictions are not (see `Classifier`); `.weighted_proba(x)` has those as trained.

    Args:
      folder: the work folder, which holds params.npz.

    Raises:
      DataError: params.npz is missing, damaged, or not the parameters of a model.
    """
    path = Path(folder) / "params.npz"
    with reading(path):
        missing = [name for name in _PARAMETERS if name not in npz.array_names(path)]
        if missing:
            raise DataError(f"{path} is not the model of a run: it has no {', '.join(missing)}.")
        there = _PARAMETERS
        if "class_weight" in npz.array_names(path):
            there = (*there, "class_weight")
        stored = {name: npz.find_array(path, name) for name in there}
        _check_headers(path, {name: array.header for name, array in stored.items()})
        found = {name: array.read() for name, array in stored.items()}
    numbers = {name: found[name] for name in there if name != "label_names"}
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            raise DataError(f"{path} is damaged: {name} has values that are not finite.")
    weights = numbers.get("class_weight", np.ones(1))
    if not ((weights >= 0).all() and weights.any()):
        raise DataError(f"{path} is damaged: class_weight has negative numbers, or only zeros.")
    if not numbers["scale"].all():
        raise DataError(f"{path} is damaged: scale has a zero.")
    return Classifier(**numbers, label_names=tuple(found["label_names"].tolist()))


def _check_headers(path, headers):
    """Raises DataError unless the arrays fit each other and the memory, before any is read."""
    W = headers["W"]
    if len(W.shape) != 2 or 0 in W.shape:
        raise DataError(f"{path} is damaged: W has shape {W.shape}, and [D, C] is needed.")
    D, C = W.shape
    moment: list[tuple[int, ...]] = [(), (D,)]
    fitting = {"W": [W.shape], "b": [(C,)], "mean": moment, "scale": moment, "label_names": [(C,)]}
    fitting["class_weight"] = [(C,)]
    for name, header in headers.items():
        kind = "U" if name == "label_names" else "f"
        if header.shape not in fitting[name] or header.dtype.kind != kind:
            raise DataError(
                f"{path} is damaged: W has shape {W.shape}, and {name} is {header.dtype} of "
                f"shape {header.shape}."
            )
    needed = sum(header.nbytes for header in headers.values())
    host.require_memory(needed, f"The model in {path}", "No run writes a model this large.")
