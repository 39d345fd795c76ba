"""`python -m softmax_jax predict`: a trained model put to work on a file of examples."""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from softmax_jax import losses
from softmax_jax.commands import examples
from softmax_jax.commands.parameters import load
from softmax_jax.data.files import replacing
from softmax_jax.job.errors import WORKDIR, JobError


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
    x = examples.read(source, len(classifier.W))
    try:
        with replacing(target) as file:
            _WRITERS[target.suffix](file, classifier, _predictions(classifier, x), len(x))
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror or error}."
        raise JobError(message, WORKDIR) from error
    return len(x)


def _predictions(classifier, x):
    """(probabilities [n, C], predicted [n]) of one block after the other."""
    for number, block in enumerate(examples.blocks(x)):
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
