"""`python -m softmax_jax predict`: a trained model put to work on a file of examples."""

import csv
import io
import math
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from softmax_jax import host, losses
from softmax_jax.classifier import load
from softmax_jax.data import DataError, npz
from softmax_jax.host import WORKDIR, JobError, reading, replacing

_BLOCK_VALUES = 1 << 24  # in a block of examples: 64 MiB as float32


def read_examples(path: Path, num_features: int) -> np.ndarray:
    """The array [N, ...] of a .npy, mapped into memory, or of an .npz: `x`, or the only one.

    Raises:
      DataError: the file is missing, damaged or a pickle, there is no such array, its examples are
        not of `num_features` numbers each, or there is no memory for what an .npz unpacks to.
    """
    with reading(path):
        with open(path, "rb") as file:
            zipped = file.read(2) == b"PK"
        if not zipped and path.suffix != ".npy":
            raise DataError(f"{path} is neither .npy nor .npz. Save it with np.save.")
        part = (
            npz.find_array(path, _array_name(path))
            if zipped
            else npz.find_array(path.parent, path.stem)
        )
        _check_header(path, part.header.shape, part.header.dtype, num_features)
        if zipped:
            remedy = "Save it as .npy, which is read by shards."
            host.require_memory(part.header.nbytes, f"What {path} unpacks to", remedy)
        return part.read()


def batches(x: np.ndarray) -> Iterator[np.ndarray]:
    """The examples some at a time, as uint8 or float32.

    Raises:
      DataError: a value is not a finite float32; it says in which row and column.
    """
    size = max(1, _BLOCK_VALUES // math.prod(x.shape[1:]))
    for start in range(0, len(x), size):
        block = np.asarray(x[start : start + size])
        if block.dtype != np.uint8:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
                block = block.astype(np.float32)
            _check_finite(block, start)
        yield block


def _array_name(path):
    names = npz.array_names(path)
    if "x" in names or len(names) == 1:
        return "x" if "x" in names else names[0]
    raise DataError(
        f"{path} holds the arrays {', '.join(names) or '(none)'}. Name the one to use 'x'."
    )


def _check_header(path, shape, dtype, num_features):
    if not npz.is_number(dtype):
        raise DataError(f"{path} holds {dtype}, and numbers are needed.")
    if len(shape) < 2:
        raise DataError(
            f"{path} has shape {shape}, and [N, ...] is needed: a row per example. "
            "A single example is x[None]."
        )
    if math.prod(shape[1:]) != num_features:
        raise DataError(
            f"The model was trained on {num_features} features an example; {path} of shape "
            f"{shape} has {math.prod(shape[1:])}."
        )


def _check_finite(block, start):
    if not np.isfinite(block).all():
        rows = block.reshape(len(block), -1)
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise DataError(
            f"Feature {rows[row, column]} in row {start + row}, column {column} is not a finite "
            "float32. Fill in or leave out what is missing."
        )


def predict(folder: Path, source: Path, target: Path) -> int:
    """Writes what the model of the run in `folder` makes of the examples in `source`.

    Into an .npz go `probabilities` float32 [N, C], `predicted` int32 [N], the most probable
    classes, `predicted_names` [N], their names, and `label_names` [C]; into a .csv a row per
    example: `predicted`, `predicted_name`, and a column p(NAME) for each class. The file appears
    whole or not at all. Returns N.

    Raises:
      DataError: the model or the examples cannot be read, or do not fit each other.
      JobError: `target` is neither .npz nor .csv (exit code 2), or cannot be written (3).
    """
    if target.suffix not in _WRITERS:
        raise JobError(f"--output={target} must end in .npz or .csv.")
    classifier = load(folder)
    x = read_examples(source, len(classifier.W))
    try:
        with replacing(target) as file:
            _WRITERS[target.suffix](file, classifier, _predictions(classifier, x), len(x))
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror or error}."
        raise JobError(message, WORKDIR) from error
    return len(x)


def _predictions(classifier, x):
    """(probabilities [n, C], predicted [n]) of one block after the other."""
    for number, block in enumerate(batches(x)):
        if number == 0 and classifier.scale.ndim == 0 and block.max() <= 1 < classifier.scale:
            print(
                f"Note: the model divides its input by {classifier.scale:g}, and none of the first "
                f"{len(block):,} examples has a value above 1. It expects raw values.",
                file=sys.stderr,
            )
        logits = classifier.logits(block)
        probabilities = np.asarray(losses.softmax(logits), np.float32)
        yield probabilities, logits.argmax(-1).astype(np.int32)


def _write_csv(file, classifier, predictions, _):
    names = classifier.label_names
    rows = [["predicted", "predicted_name", *(f"p({name})" for name in names)]]
    _write_rows(file, rows)
    for probabilities, predicted in predictions:
        pairs = zip(predicted, probabilities, strict=True)
        _write_rows(file, ([label, names[label], *map(str, p)] for label, p in pairs))


def _write_rows(file, rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode("utf-8", "backslashreplace"))


def _write_npz(file, classifier, predictions, num_examples):
    """Block by block, so that only the classes of all examples are ever in memory."""
    names, done = np.array(classifier.label_names), 0
    predicted = np.empty(num_examples, np.int32)
    with zipfile.ZipFile(file, "w") as archive:
        with _member(archive, "probabilities", np.float32, (num_examples, len(names))) as member:
            for probabilities, block in predictions:
                member.write(probabilities.tobytes())
                predicted[done : done + len(block)] = block
                done += len(block)
        with _member(archive, "predicted_names", names.dtype, (num_examples,)) as member:
            for block in np.array_split(predicted, num_examples // 100_000 + 1):
                member.write(names[block].tobytes())
        for name, values in (("predicted", predicted), ("label_names", names)):
            with _member(archive, name, values.dtype, values.shape) as member:
                member.write(values.tobytes())


def _member(archive, name, dtype, shape):
    """An array in an .npz, of which the header is written and the values are still to come."""
    member = archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
    return member


_WRITERS = {".npz": _write_npz, ".csv": _write_csv}
