"""`load`: the trained model of a run, from its params.npz alone."""

import os
from pathlib import Path

import numpy as np

from softmax_jax.classifier import Classifier
from softmax_jax.commands.opening import reading
from softmax_jax.data import DataError, memory, stored

_NAMES = ("W", "b", "mean", "scale", "label_names")


def load(folder: str | os.PathLike) -> Classifier:
    """The selected model of a finished run, as `softmax_jax.load(folder)`.

    `load(folder).predict(x)` gives class numbers, int32 [N]; `.predict_proba(x)` probabilities
    [N, C]; `.label_names` the names of the classes. x [N, ...] is raw, as the dataset has it: what
    is subtracted and divided by comes from the folder, too.

    Raises:
      DataError: params.npz is missing, damaged, or not the parameters of a model.
    """
    path = Path(folder) / "params.npz"
    with reading(path):
        missing = [name for name in _NAMES if name not in stored.names(path)]
        if missing:
            raise DataError(f"{path} is not the model of a run: it has no {', '.join(missing)}.")
        parts = {name: stored.find(path, name) for name in _NAMES}
        _check_headers(path, {name: part.header for name, part in parts.items()})
        found = {name: part.read() for name, part in parts.items()}
    numbers = {name: found[name] for name in _NAMES[:-1]}
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            raise DataError(f"{path} is damaged: {name} has values that are not finite.")
    if not numbers["scale"].all():
        raise DataError(f"{path} is damaged: scale has a zero.")
    return Classifier(**numbers, label_names=tuple(found["label_names"].tolist()))


def _check_headers(path, headers):
    """That the parts fit each other, and the memory: before any of them is read."""
    W = headers["W"]
    if len(W.shape) != 2 or 0 in W.shape:
        raise DataError(f"{path} is damaged: W has shape {W.shape}, and [D, C] is needed.")
    D, C = W.shape
    fitting = {"W": [(D, C)], "b": [(C,)], "mean": [(), (D,)], "scale": [(), (D,)]}
    fitting["label_names"] = [(C,)]
    for name, header in headers.items():
        kind = "U" if name == "label_names" else "f"
        if header.shape not in fitting[name] or header.dtype.kind != kind:
            raise DataError(
                f"{path} is damaged: W has shape {W.shape}, and {name} is {header.dtype} of "
                f"shape {header.shape}."
            )
    needed = sum(header.nbytes for header in headers.values())
    memory.require(needed, f"The model in {path}", "No run writes such a one.")
