"""`python -m softmax_jax predict`: predictions of a trained model for a file of examples."""

import contextlib
import csv
import io
import math
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32, Int32, Shaped
from numpy.typing import DTypeLike

from softmax_jax import host, losses
from softmax_jax.classifier import Classifier, load
from softmax_jax.data import DataError, npz, tables, validation
from softmax_jax.host import WORKDIR, JobError, csv_cell, open_regular, reading, replacing

_BATCH_VALUES = 1 << 24  # in a batch of examples: 64 MiB as float32


def predict(folder: Path, source: Path | None, target: Path, *, raw: bool = False) -> int:
    """Writes the predictions of a trained model for the examples in a file.

    An .npz holds `probabilities` float32 [N, C], `predicted` int32 [N], the most probable classes,
    `predicted_names` [N], their names, and `label_names` [C]. A .csv holds a row per example:
    `predicted`, `predicted_name`, and a column p(NAME) for each class; see `host.csv_cell`. Of a
    fit with class weights the probabilities are corrected, and the predicted classes are those that
    it was trained to find: see `Classifier`. The file appears whole or not at all.

    Args:
      folder: the folder of a finished run.
      source: the examples: a table (.csv, .tsv, .parquet), whose columns are found by the names of
        the model's features; or see `read_examples`. None: the standard input.
      target: the file to write, .npz or .csv.
      raw: whether names in a .csv stay as they are, formulas included.

    Returns:
      N.

    Raises:
      DataError: the model or the examples cannot be read, or do not fit each other.
      JobError: `target` is neither .npz nor .csv (exit code 2), or cannot be written (3).
    """
    if target.suffix not in _WRITERS:
        raise JobError(f"--output={target} must end in .npz or .csv.")
    classifier = load(folder)
    write = _WRITERS[target.suffix]
    if target.suffix == ".csv" and not raw:
        names = tuple(map(csv_cell, classifier.label_names))
        classifier = classifier._replace(label_names=names)
    with contextlib.ExitStack() as held:
        path = held.enter_context(_standard_input()) if source is None else source
        x = _read_inputs(path, classifier)
        try:
            with replacing(target) as file:
                write(file, classifier, _predictions(classifier, x), x.shape[0])
        except OSError as error:
            message = f"{target} cannot be written: {error.strerror or error}."
            raise JobError(message, WORKDIR) from error
        return x.shape[0]


_ENDINGS = {b"PK": ".npz", b"\x93N": ".npy", b"PA": ".parquet"}  # by how a file starts
_MOST_INPUT = 1 << 32  # bytes of the standard input, which has no size that could be asked for


@contextlib.contextmanager
def _standard_input() -> Iterator[Path]:
    """The standard input as a file among the temporary ones: a pipe cannot be mapped or unzipped.

    Raises:
      DataError: it is longer than 4 GiB, closed, or there is no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="softmax_jax_") as folder:
        with reading(Path("The standard input")):
            content = sys.stdin.buffer
            start = content.read(2)
            path = Path(folder) / f"input{_ENDINGS.get(start, '.csv')}"
            with open(path, "wb") as file:
                size = file.write(start)
                while block := content.read(1 << 20):
                    size += file.write(block)
                    if size > _MOST_INPUT:
                        raise DataError("The standard input is longer than 4 GiB: give a file.")
        yield path


def _read_inputs(path: Path, classifier: Classifier) -> Any:
    """The examples of a table by the names of its columns, or those of an array."""
    if not tables.is_path(str(path)):
        return read_examples(path, len(classifier.W))
    features = classifier.features
    if features is None:
        raise DataError(
            f"{path} is a table, and the model does not know its features by name: it was trained "
            "on arrays. Give it a .npy, with the columns in the order of the training."
        )
    with reading(path):
        of_text = [name for name, found in features.categories.items() if found is not None]
        table = tables.read_table(path, only=features.columns, as_text=of_text)
        return tables.encode(table, features, unknown=True)


Predictions = Iterable[tuple[Float32[np.ndarray, "n C"], Int32[np.ndarray, " n"]]]


def _predictions(classifier: Classifier, x: Any) -> Predictions:
    """Probabilities and classes, one batch after the other."""
    for number, batch in enumerate(batches(x)):
        if number == 0 and np.ndim(classifier.scale) == 0 and batch.max() <= 1 < classifier.scale:
            host.write_line(
                f"Note: the model divides its input by {classifier.scale:g}, and none of the first "
                f"{len(batch):,} examples has a value above 1. It expects raw values.",
                sys.stderr,
            )
        logits = classifier.logits(batch)
        probabilities = np.asarray(losses.softmax(logits), np.float32)
        yield probabilities, classifier.decide(logits)


def _write_csv(
    file: IO[bytes], classifier: Classifier, predictions: Predictions, num_examples: int
) -> None:
    del num_examples
    names = classifier.label_names
    _write_rows(file, [["predicted", "predicted_name", *(f"p({name})" for name in names)]])
    for probabilities, predicted in predictions:
        pairs = zip(predicted, probabilities, strict=True)
        _write_rows(file, ([label, names[label], *map(str, p)] for label, p in pairs))


def _write_rows(file: IO[bytes], rows: Iterable[list]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode("utf-8", "backslashreplace"))


def _write_npz(
    file: IO[bytes], classifier: Classifier, predictions: Predictions, num_examples: int
) -> None:
    """Writes batch by batch: of all examples, only the classes are ever in memory."""
    names, done = np.array(classifier.label_names), 0
    predicted = np.empty(num_examples, np.int32)
    with zipfile.ZipFile(file, "w") as archive:
        with _member(archive, "probabilities", np.float32, (num_examples, len(names))) as member:
            for probabilities, classes in predictions:
                member.write(probabilities.tobytes())
                predicted[done : done + len(classes)] = classes
                done += len(classes)
        with _member(archive, "predicted_names", names.dtype, (num_examples,)) as member:
            for classes in np.array_split(predicted, num_examples // 100_000 + 1):
                member.write(names[classes].tobytes())
        for name, values in (("predicted", predicted), ("label_names", names)):
            with _member(archive, name, values.dtype, values.shape) as member:
                member.write(values.tobytes())


def _member(
    archive: zipfile.ZipFile, name: str, dtype: DTypeLike, shape: tuple[int, ...]
) -> io.BufferedIOBase | IO[bytes]:
    """Opens an array in an .npz: its header is written, its values must follow."""
    member = archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
    return member


_WRITERS = {".npz": _write_npz, ".csv": _write_csv}


def read_examples(path: Path, num_features: int) -> Any:
    """Reads examples [N, ...] from a file.

    Args:
      path: a .npy, which is mapped into memory; or an .npz, of which `x` or the only array is read,
        or the sparse matrix that `scipy.sparse.save_npz` saved, which stays sparse.
      num_features: D, of the model.

    Raises:
      DataError: the file is missing, damaged or a pickle, there is no such array, its examples are
        not of `num_features` numbers each, or memory does not suffice to unpack an .npz.
    """
    with reading(path):
        with open_regular(path) as file:
            zipped = file.read(2) == b"PK"
        if not zipped and path.suffix != ".npy":
            raise DataError(f"{path} is neither .npy nor .npz, .csv, .tsv or .parquet.")
        if zipped and npz.holds_sparse(path):
            _check_header(path, npz.find_sparse(path).header, num_features)
            return npz.read_sparse(path)
        place = (path, _array_name(path)) if zipped else (path.parent, path.stem)
        stored = npz.find_array(*place)
        _check_header(path, stored.header, num_features)
        if zipped:
            remedy = "Save it as .npy, which is read by shards."
            host.require_memory(stored.header.nbytes, f"What {path} unpacks to", remedy)
        return stored.read()


def batches(x: Any) -> Iterator[Shaped[np.ndarray, "n ..."]]:
    """The examples, in order, in batches of uint8 or float32, or of float64 if they are wider.

    Of a sparse matrix, only a batch is ever dense.

    Raises:
      DataError: a value is not a finite float32; the message names its row and column.
    """
    size = max(1, _BATCH_VALUES // math.prod(x.shape[1:]))
    for start in range(0, x.shape[0], size):
        batch = x[start : start + size]
        batch = batch.toarray() if host.is_sparse(batch) else np.asarray(batch)
        if batch.dtype != np.uint8:
            batch = batch.astype(np.float64 if validation.is_wide(batch.dtype) else np.float32)
            _check_finite(batch, start)
        yield batch


def _array_name(path: Path) -> str:
    names = npz.array_names(path)
    if "x" in names or len(names) == 1:
        return "x" if "x" in names else names[0]
    raise DataError(
        f"{path} holds the arrays {', '.join(names) or '(none)'}. Name the one to use 'x'."
    )


def _check_header(path: Path, header: npz.Header, num_features: int) -> None:
    shape, dtype = header.shape, header.dtype
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


def _check_finite(batch: Shaped[np.ndarray, "n ..."], start: int) -> None:
    with np.errstate(over="ignore"):  # too large a value becomes infinite
        rows = batch.reshape(len(batch), -1).astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise DataError(
            f"Feature {rows[row, column]} in row {start + row}, column {column} is not a finite "
            "float32. Fill in or leave out what is missing."
        )
