"""`softmax-jax compare`: finished runs against each other, paired by test example.

Two models that are measured on the same examples mostly err on the same ones: the interval of their
difference by example is far narrower than two intervals side by side.

Sources: Quinn McNemar (1947) for equal accuracies; Sture Holm, "A simple sequentially rejective
multiple test procedure" (1979), for several pairs; Peter Hall (1992), see `metrics.mean_interval`,
for the intervals.
"""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from softmax_jax import host, metrics, plots
from softmax_jax.data import npz
from softmax_jax.host import WORKDIR, DataError, JobError

_TRAIN_AGAIN = "Train it again with --config.predictions=True and a --config.test_split."


class Tested(NamedTuple):
    """A model on N test examples.

    Attributes:
      name: of the run.
      losses: of each example.
      hits: whether each is predicted right.
      labels, label_names: of the examples.
      weights: how often each counts.
      digest: of the examples, see `data.digest`.
    """

    name: str
    losses: Float[np.ndarray, " N"]
    hits: Bool[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]
    label_names: tuple[str, ...]
    weights: Float[np.ndarray, " N"]
    digest: str


def compare(folders: Sequence[Path], target: Path | None = None, *, labels_alone=False) -> str:
    """Compares the models of finished runs on their test examples, every pair of them.

    Args:
      folders: of two runs or more, with predictions.npz.
      target: the picture to write, a .png; None: none.
      labels_alone: whether runs on other features of the same examples are compared, such as of
        several layers of a network: only the labels are then held to be the same.

    Returns:
      A table of the runs, and one of their differences, as text.

    Raises:
      DataError: a folder holds no predictions for test, or they are of other examples.
      JobError: fewer than two runs (exit code 2), or the picture cannot be written (2 or 3).
    """
    if len(folders) < 2:
        raise JobError("compare needs the folders of two runs or more.")
    if target is not None and target.suffix != ".png":
        raise JobError(f"--output={target} must end in .png.")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    tested = [read(folder, name) for folder, name in zip(folders, names, strict=True)]
    check_same_examples(tested, labels_alone)
    rows = differences(tested)
    if target is not None:
        figure = draw(rows, f"{len(tested[0].labels):,} test examples")
        try:
            with host.replacing(target) as file:
                figure.savefig(file, format="png")
        except OSError as error:
            message = f"{target} cannot be written: {error.strerror or error}."
            raise JobError(message, WORKDIR) from error
    return _text(tested, rows)


def read(folder: Path, name: str) -> Tested:
    """What predictions.npz of a run says of its test examples.

    Raises:
      DataError: there is no such file, it is damaged, or the run had no test split.
    """
    path = folder / "predictions.npz"
    if not os.path.lexists(path):
        raise DataError(f"{folder} has no predictions.npz. {_TRAIN_AGAIN}")
    with host.reading(path):
        host.open_regular(path, follow=False).close()
        there = npz.array_names(path)
        wanted = [
            "label_names",
            *(f"test_{n}" for n in ("losses", "predicted", "labels", "digest")),
        ]
        if not {*wanted} <= {*there}:
            raise DataError(f"{path} has no losses of test examples. {_TRAIN_AGAIN}")
        wanted += ["test_weights"] * ("test_weights" in there)
        stored = [npz.find_array(path, array) for array in wanted]
        needed = sum(array.header.nbytes for array in stored)
        host.require_memory(needed, f"What {path} holds", "Compare runs with fewer examples.")
        names, losses, predicted, labels, digest, *weights = (array.read() for array in stored)
        if not losses.shape == predicted.shape == labels.shape == (len(labels),):
            raise ValueError("its arrays are of several lengths")
        own = weights[0].astype(np.float64) if weights else np.ones(len(labels))
        if own.shape != labels.shape or not (np.isfinite(losses).all() and own.sum() > 0):
            raise ValueError("its losses are not finite, or its weights do not fit them")
        return Tested(
            name=name,
            losses=losses.astype(np.float64),
            hits=predicted == labels,
            labels=labels.astype(np.int64),
            label_names=tuple(map(str, names.tolist())),
            weights=own,
            digest=str(digest),
        )


def check_same_examples(tested: Sequence[Tested], labels_alone: bool = False) -> None:
    """Raises DataError unless all models are measured on the same examples.

    labels_alone: whether their features may be others.
    """
    first = tested[0]
    for other in tested[1:]:
        pair = f"{first.name} and {other.name} cannot be compared"
        if first.label_names != other.label_names:
            own, its = map(host.brief, (first.label_names, other.label_names))
            raise DataError(f"{pair}: their classes are {own} and {its}.")
        if len(first.labels) != len(other.labels):
            raise DataError(
                f"{pair}: they are tested on {len(first.labels):,} and {len(other.labels):,} "
                "examples. Train both with one test_split."
            )
        same_labels = np.array_equal(first.labels, other.labels)
        if not same_labels or not np.array_equal(first.weights, other.weights):
            what = "weights" if same_labels else "labels"
            raise DataError(
                f"{pair}: the {what} of their test examples differ. Train both with one test_split."
            )
        if not labels_alone and first.digest != other.digest:
            raise DataError(
                f"{pair}: their test examples have the same labels, but other features. If these "
                "are other features of the same examples in the same order, say --labels-alone."
            )


def differences(tested: Sequence[Tested]) -> list[dict[str, Any]]:
    """Every pair of models, the later one less the earlier one, on the same examples.

    Returns:
      A dict for each pair: `first`, `second`, the names; `loss` and `accuracy`, the differences,
      each with its 95 % interval for this pair alone (`metrics.mean_interval` of the differences by
      example); `p_value` of equal accuracies (`metrics.mcnemar`, which counts every example once),
      and `holm`, the same corrected for the number of pairs.
    """
    rows = []
    for first, second in itertools.combinations(tested, 2):
        row: dict[str, Any] = {"first": first.name, "second": second.name}
        for name, own, its in (
            ("loss", first.losses, second.losses),
            ("accuracy", first.hits, second.hits),
        ):
            each = its.astype(np.float64) - own
            row[name] = float(np.average(each, weights=first.weights))
            row[f"{name}_interval"] = metrics.mean_interval(each, first.weights)
        counted = first.weights > 0
        rows.append(row | {"p_value": metrics.mcnemar(first.hits[counted], second.hits[counted])})
    corrected = holm(np.array([row["p_value"] for row in rows]))
    return [row | {"holm": float(p)} for row, p in zip(rows, corrected, strict=True)]


def draw(rows: list[dict[str, Any]], title: str) -> Any:
    """A picture of differences of loss and accuracy with their intervals: a row per pair."""
    Figure = host.require("matplotlib.figure", "plots").Figure
    size = 10, min(1.2 + 0.35 * len(rows), 40)
    figure = Figure(layout="constrained", dpi=110, figsize=size)
    figure.suptitle(plots.plain_text(title), fontsize=11)
    names = [plots.plain_text(f"{row['second']} − {row['first']}", 60) for row in rows]
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("loss", "accuracy"), strict=True):
        for place, row in enumerate(rows):
            axes.plot(row[f"{name}_interval"], (place, place), color="tab:blue", linewidth=2)
            axes.plot(row[name], place, "o", color="tab:blue")
        axes.axvline(0, color="0.3", linestyle="--", linewidth=1)
        axes.set(xlabel=f"difference of {name}", ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), names)
        axes.grid(alpha=0.3, axis="x")
    return figure


def holm(p_values: Real[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Holm's p-values of m tests: where they are below α, at most α is the chance of any error.

    The k-th smallest is multiplied by m + 1 − k, and is no smaller than the one before it.

    >>> holm(np.array([0.04, 0.01, 0.03])).round(2).tolist()
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p_values)
    scaled = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    found = np.empty(len(p_values))
    found[order] = np.minimum(scaled, 1)
    return found


def _text(tested, rows):
    """The two tables."""
    lines = [f"{len(tested[0].labels):,} test examples, 95 % intervals by example."]
    measured = [["run", "loss", "accuracy"]]
    for one in tested:
        means = (np.average(values, weights=one.weights) for values in (one.losses, one.hits))
        measured.append([host.shown(one.name), *(f"{mean:.4f}" for mean in means)])
    lines += ["", *host.aligned(measured), ""]
    several = ["Holm"] * (len(rows) > 1)
    compared = [["difference", "loss", "accuracy", "McNemar p", *several]]
    for row in rows:
        cells = [_with_interval(row[n], row[f"{n}_interval"]) for n in ("loss", "accuracy")]
        values = [f"{row[name]:.3g}" for name in ("p_value", "holm")[: 1 + len(several)]]
        compared.append([host.shown(f"{row['second']} - {row['first']}"), *cells, *values])
    lines += host.aligned(compared)
    if several:
        lines += [
            "",
            f"Holm: p corrected for {len(rows)} pairs. Each interval is for its pair alone.",
        ]
    return "\n".join(lines)


def _with_interval(value, interval):
    return f"{value:+.4f} [{interval[0]:+.4f}, {interval[1]:+.4f}]"
