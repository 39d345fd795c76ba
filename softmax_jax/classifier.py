"""A trained model: weights, the normalisation of its inputs, names of classes; and `load`."""

import functools
import json
import os
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Shaped

from softmax_jax import host, losses, metrics, model
from softmax_jax.data import DataError, Dataset, npz, tables, validation
from softmax_jax.data.dataset import Features, example_weights, normalised
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
      labels: what the data call them, in their type: text, 1..10, booleans; None: int32 0..C−1.
      class_weight: the weights that the biases are corrected for; None: there were none.
      features: what the inputs are called, so that a data frame of pandas, polars or PyArrow is an
        input, too, whose columns are found by name; None: they have no names.
    """

    W: Float[np.ndarray, "D C"]
    b: Float[np.ndarray, " C"]
    mean: float | int | Float[np.ndarray, "*D"]
    scale: float | int | Float[np.ndarray, "*D"]
    label_names: tuple[str, ...]
    labels: Shaped[np.ndarray, " C"] | None = None
    class_weight: Float[np.ndarray, " C"] | None = None
    features: Features | None = None

    def corrected(self, class_weight: Float[np.ndarray, " C"] | None) -> "Classifier":
        """The same model, if the biases are those of a fit with these class weights."""
        if class_weight is None:
            return self
        b = (self.b - losses.weight_offsets(class_weight)).astype(self.b.dtype)
        return self._replace(b=b, class_weight=np.asarray(class_weight, np.float64))

    def arrays(self) -> dict[str, np.ndarray]:
        """What params.npz holds, by name: logits = ((x - mean) / scale) @ W + b in NumPy.

        Mean and scale are float64: a mean of 1.7e9 beside a scale of 30 needs its digits.
        """
        kept = {
            "W": self.W,
            "b": self.b,
            "mean": np.asarray(self.mean, np.float64),
            "scale": np.asarray(self.scale, np.float64),
            "label_names": np.array(self.label_names),
        }
        more = {"labels": self.labels, "class_weight": self.class_weight}
        if self.features is not None:
            more["feature_names"] = np.array(self.features.names)
            more["feature_columns"] = np.array(self.features.columns)
        return kept | {name: values for name, values in more.items() if values is not None}

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model into a file, whole or not at all.

        Args:
          path: by its ending one of
            `.npz`: as params.npz of a run, for `softmax_jax.load`;
            `.safetensors`: W, b, mean, scale and class_weight; in its metadata JSON of label_names;
            `.onnx`: one Gemm and a Softmax from `x` [N, D], raw and flattened, to `logits` and
            `probabilities` [N, C]: the normalisation is within the weights. They are float32, or
            float64 where float32 would round the features away. Its metadata have JSON of
            label_names, and of class_weight where there is one: the predicted class is then that
            of the largest probability times weight.

        Raises:
          DataError: another ending, or the path is none.
          OSError: the file cannot be written.
        """
        target = host.as_path(path, "The path")
        if target.suffix not in _FORMATS:
            raise DataError(f"{target} must end in {', '.join(_FORMATS)}.")
        with host.replacing(target) as file:
            _FORMATS[target.suffix](self, file)

    def logits(self, x: Any) -> Float[np.ndarray, "N C"]:
        """Logits [N, C] of raw inputs x [N, ...]: pixels or features, as the dataset has them.

        They are an array of NumPy or JAX, lists, a sparse matrix of SciPy, which stays sparse,
        or a data frame.
        """
        host.begin()
        if host.is_sparse(x):
            return self._sparse_logits(npz.valid_rows(x, "The input"))
        x = self._as_array(x)
        logits = np.asarray(_logits(*self._for_device(x)))
        self._check_finite(logits, lambda row: x[row])
        return logits

    def predict_proba(self, x: Any) -> Float[np.ndarray, "N C"]:
        """Probabilities [N, C] of raw inputs x [N, ...]."""
        return np.asarray(losses.softmax(self.logits(x)))

    def predict(self, x: Any) -> Shaped[np.ndarray, " N"]:
        """The label of the most probable class [N], as the data have it: see `labels`.

        With class weights, of the `weighted_proba`.
        """
        classes = self.classes(x)
        return classes if self.labels is None else self.labels[classes]

    def classes(self, x: Any) -> Int32[np.ndarray, " N"]:
        """The class that `predict` means: int32 [N] in 0..C-1."""
        return self.decide(self.logits(x))

    def weighted_proba(self, x: Any) -> Float[np.ndarray, "N C"]:
        """Probabilities [N, C] as trained: of data in which each class counts as it was weighed."""
        return np.asarray(losses.softmax(self._as_trained(self.logits(x))))

    def decide(self, logits: Float[np.ndarray, "N C"]) -> Int32[np.ndarray, " N"]:
        """The class that `predict` means where the logits are these: int32 [N] in 0..C-1."""
        return self._as_trained(logits).argmax(-1).astype(np.int32)

    def _as_trained(self, logits):
        if self.class_weight is None:
            return logits
        return logits + losses.weight_offsets(self.class_weight).astype(logits.dtype)

    def test(self, dataset: Dataset) -> dict[str, float | list[float]]:
        """Loss and accuracy on a dataset, each with a 95 % interval.

        See `metrics.mean_interval` and `metrics.wilson_interval`. Where a few examples decide the
        loss, so that its interval cannot be relied on, a warning says so.

        Every example counts as often as its weight says. The intervals are those of as many equal
        weights as say as much: `metrics.effective_size`.

        Raises:
          DataError: see `by_example`.
        """
        dataset = dataset.without_absent()
        loss, hit = self.by_example(dataset)
        weights = example_weights(dataset)
        if metrics.is_heavy_tailed(loss, weights):
            warnings.warn(
                f"A few of the {len(loss):,} examples decide the loss: the largest is "
                f"{loss.max():.4g}, the mean {np.average(loss, weights=weights):.4g}. Its interval "
                "cannot be relied on: use more examples.",
                stacklevel=2,
            )
        low, high = metrics.mean_interval(loss, weights)
        n, accuracy = metrics.effective_size(weights), float(np.average(hit, weights=weights))
        return {
            "loss": float(np.average(loss.astype(np.float64), weights=weights)),
            "accuracy": accuracy,
            "loss_interval": [max(low, 0.0), high],
            "accuracy_interval": metrics.wilson_interval(accuracy * n, n),
        }

    def compare(self, other: "Classifier", dataset: Dataset) -> dict[str, float | list[float]]:
        """How much better the other model is on the same examples, paired by example.

        Returns:
          `loss` and `accuracy`, the differences other - self, each with its 95 % interval
          (`metrics.mean_interval` of the differences by example), which is far narrower than
          two intervals side by side; and `p_value` of equal accuracies (`metrics.mcnemar`, which
          counts every example once).

        Raises:
          DataError: see `by_example`.
        """
        dataset = dataset.without_absent()
        (loss, hit), (others_loss, others_hit) = self.by_example(dataset), other.by_example(dataset)
        weights = example_weights(dataset)
        more_loss = others_loss.astype(np.float64) - loss
        more_hits = others_hit.astype(np.float64) - hit
        return {
            "loss": float(np.average(more_loss, weights=weights)),
            "loss_interval": metrics.mean_interval(more_loss, weights),
            "accuracy": float(np.average(more_hits, weights=weights)),
            "accuracy_interval": metrics.mean_interval(more_hits, weights),
            "p_value": metrics.mcnemar(hit, others_hit),
        }

    def summary(self, X: Any, y: Any, **options: Any) -> Any:
        """`inference.summary` of the training examples: `print` it, or look at it in a notebook.

        Raises:
          ValueError: see there; the model is not at the optimum, for one.
        """
        from softmax_jax import inference

        return inference.summary(self, X, y, **options)

    def by_example(
        self, dataset: Dataset
    ) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """The loss of each example, and whether the predicted class is its label.

        Raises:
          DataError: the dataset has more classes than the model, or others, or other features; or
            the logits of an example overflow.
        """
        if dataset.num_classes > len(self.b):
            raise DataError(
                f"The model knows {len(self.b)} classes, and the dataset {dataset.num_classes}. "
                "Test it on examples of the classes that it was trained on."
            )
        validation.check_same_classes("the model", self.label_names, dataset.label_names)
        shards = [
            jax.device_get(_measured(*self._for_device(shard.dataset.x), shard.dataset.y))
            for shard in dataset.in_order()
        ]
        loss, hit = (np.concatenate(values) for values in zip(*shards, strict=True))
        if not np.isfinite(loss).all():
            row = int(np.argmin(np.isfinite(loss)))
            self.logits(dataset.x[row : row + 1])  # says why
            raise DataError(f"The loss of row {row} overflows {self.W.dtype}.")
        return loss, hit

    def _as_array(self, x):
        if not tables.is_frame(x):
            return x if hasattr(x, "dtype") else np.asarray(x)
        if self.features is None:
            raise DataError("The model does not know its features by name: give an array.")
        return tables.encode(tables.from_frame(x, "The input"), self.features, unknown=True)

    def _sparse_logits(self, x):
        """In float64 on the host: the mean moves into the bias, and x stays sparse."""
        self._check(x)
        W = np.asarray(self.W, np.float64) / np.reshape(self.scale, (-1, 1))
        shift = np.broadcast_to(np.asarray(self.mean, np.float64), len(W)) @ W
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            logits = (x.astype(np.float64) @ W + (self.b - shift)).astype(self.W.dtype)
        self._check_finite(logits, lambda row: x[[row]].toarray())
        return logits

    def _for_device(self, x):
        """(a classifier, x): the arrays of this one; or x is normalised, and they say so."""
        self._check(x)
        dtype = self.W.dtype
        one, arrays = np.ones((), dtype), self._replace(label_names=(), labels=None, features=None)
        rounds = validation.is_wide(x.dtype) or np.any(self.mean != np.asarray(self.mean, dtype))
        if dtype != np.float32 or not rounds:
            return arrays, x
        x = normalised(x, self.mean, self.scale, dtype)
        return arrays._replace(mean=0 * one, scale=one), x

    def _check_finite(self, logits, example_of):
        """Raises DataError for the first example whose logits are not finite, with the reason."""
        wrong = ~np.isfinite(logits).all(-1)
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        example = np.asarray(example_of(row)).reshape(-1)
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


def _write_npz(classifier, file):
    np.savez(file, **classifier.arrays())


def _metadata(classifier):
    names = {"label_names": json.dumps(classifier.label_names)}
    weights = classifier.class_weight
    return names if weights is None else names | {"class_weight": json.dumps(weights.tolist())}


def _write_safetensors(classifier, file):
    """The length of a header, the header in JSON, the numbers, one tensor after the other."""
    kept = classifier.arrays()
    tensors = {name: kept[name] for name in kept if name not in _TEXT}
    header: dict[str, dict] = {"__metadata__": _metadata(classifier)}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + values.nbytes
        dtype = f"F{8 * values.dtype.itemsize}"
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for values in tensors.values():
        file.write(values.astype(values.dtype.newbyteorder("<")).tobytes())


_FAR = 100.0  # standard deviations that a mean may be from zero for float32 features


def _write_onnx(classifier, file):
    """A ModelProto by the numbers of its fields: onnx/onnx.proto of the ONNX project has them."""
    W, b = (np.asarray(values, np.float64) for values in (classifier.W, classifier.b))
    ratio = np.broadcast_to(classifier.mean / np.float64(classifier.scale), len(W))
    wide = classifier.W.dtype == np.float64 or abs(ratio).max() > _FAR
    dtype, code = (np.float64, 11) if wide else (np.float32, 1)
    W, b = W / np.reshape(classifier.scale, (-1, 1)), b - ratio @ W

    def tensor(name, values):
        values = values.astype(np.dtype(dtype).newbyteorder("<"))
        dims = b"".join(_field(1, size) for size in values.shape)
        return dims + _field(2, code) + _field(8, name) + _field(9, values.tobytes())

    def value(name, size):
        dims = _field(1, _field(2, "N")) + _field(1, _field(1, size))
        return _field(1, name) + _field(2, _field(1, _field(1, code) + _field(2, dims)))

    def node(kind, inputs, output, attribute=b""):
        names = b"".join(_field(1, name) for name in inputs) + _field(2, output)
        return _field(1, names + _field(3, kind) + _field(4, kind) + attribute)

    last = _field(5, _field(1, "axis") + _field(3, 1) + _field(20, 2))  # Softmax over the classes
    D, C = W.shape
    graph = node("Gemm", ("x", "W", "b"), "logits")
    graph += node("Softmax", ("logits",), "probabilities", last)
    graph += _field(2, "softmax_regression") + _field(5, tensor("W", W)) + _field(5, tensor("b", b))
    graph += _field(11, value("x", D))
    graph += _field(12, value("logits", C)) + _field(12, value("probabilities", C))
    facts = (_field(1, name) + _field(2, text) for name, text in _metadata(classifier).items())
    model = _field(1, 8) + _field(2, "softmax_jax") + _field(7, graph) + _field(8, _field(2, 13))
    file.write(model + b"".join(_field(14, fact) for fact in facts))


def _field(number, value):
    """A field of protobuf: a whole number, or text or bytes after their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number):
    """Seven bits in a byte, the lowest first; the eighth says that more follow."""
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127)
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


_FORMATS = {".npz": _write_npz, ".safetensors": _write_safetensors, ".onnx": _write_onnx}

_PARAMETERS = ("W", "b", "mean", "scale", "label_names")
_OPTIONAL = ("labels", "class_weight", "feature_names", "feature_columns")
_TEXT = ("label_names", "labels", "feature_names", "feature_columns")


def load(folder: str | os.PathLike) -> Classifier:
    """The selected model of a finished run, or of a file of `Classifier.save`: `softmax_jax.load`.

    `load(folder).predict(x)` gives labels [N] as the dataset had them: its text, its numbers;
    `.predict_proba(x)` probabilities [N, C]; `.label_names` the names of the classes. x [N, ...]
    is raw, as the dataset has it: its normalisation is part of the model. The probabilities are
    corrected for class weights, the predictions are not (see `Classifier`); `.weighted_proba(x)`
    has those as trained.

    Args:
      folder: the work folder, which holds params.npz; or such a file itself.

    Raises:
      DataError: the file is missing, damaged, or not the parameters of a model.
    """
    given = host.as_path(folder, "The folder")
    is_file = given.suffix == ".npz" and not given.is_dir()
    path = given if is_file else given / "params.npz"
    with reading(path):
        host.open_regular(path, follow=is_file).close()
        there = npz.array_names(path)
        missing = [name for name in _PARAMETERS if name not in there]
        if missing:
            raise DataError(f"{path} is not the model of a run: it has no {', '.join(missing)}.")
        kept = [*_PARAMETERS, *(name for name in _OPTIONAL if name in there)]
        stored = {name: npz.find_array(path, name) for name in kept}
        _check_headers(path, {name: array.header for name, array in stored.items()})
        found = {name: array.read() for name, array in stored.items()}
    # In the order of bytes of this machine, which JAX takes alone.
    numbers = {
        name: array.astype(array.dtype.newbyteorder("="))
        for name, array in found.items()
        if name not in _TEXT
    }
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            raise DataError(f"{path} is damaged: {name} has values that are not finite.")
    weights = numbers.get("class_weight", np.ones(1))
    if not ((weights >= 0).all() and weights.any()):
        raise DataError(f"{path} is damaged: class_weight has negative numbers, or only zeros.")
    if not numbers["scale"].all():
        raise DataError(f"{path} is damaged: scale has a zero.")
    names, labels = tuple(found["label_names"].tolist()), found.get("labels")
    called = [found[name].tolist() for name in _TEXT[2:] if name in found]
    features = Features(*map(tuple, called)) if len(called) == 2 else None
    return Classifier(**numbers, label_names=names, labels=labels, features=features)


def _check_headers(path, headers):
    """Raises DataError unless the arrays fit each other and the memory, before any is read."""
    W = headers["W"]
    if len(W.shape) != 2 or 0 in W.shape:
        raise DataError(f"{path} is damaged: W has shape {W.shape}, and [D, C] is needed.")
    D, C = W.shape
    moment: list[tuple[int, ...]] = [(), (D,)]
    shapes = {"W": [W.shape], "mean": moment, "scale": moment}
    shapes |= {"feature_names": [(D,)], "feature_columns": [(D,)]}
    kinds = {"label_names": "U", "labels": "iubUS", "feature_names": "U", "feature_columns": "U"}
    for name, header in headers.items():
        fits = header.shape in shapes.get(name, [(C,)])
        known = kinds.get(name)
        right = header.dtype.kind in known if known else header.dtype.str[1:] in ("f2", "f4", "f8")
        if not (fits and right):
            raise DataError(
                f"{path} is damaged: W has shape {W.shape}, and {name} is {header.dtype} of "
                f"shape {header.shape}."
            )
    needed = sum(header.nbytes for header in headers.values())
    host.require_memory(needed, f"The model in {path}", "No run writes a model this large.")
