"""Checks of the data before anything is compiled, and the encoding of labels as classes 0..C−1.

Every error is a DataError that names the split, the rule, what was found and the remedy. Arrays of
JAX are checked on their device.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Integer, Shaped

from softmax_jax.data.dataset import Dataset, column_moments
from softmax_jax.host import DataError


def check_dataset(dataset: Dataset, role: str) -> None:
    """Checks one split.

    Args:
      dataset: the split.
      role: what the split is called in messages: 'train', 'val' or 'test'.

    Raises:
      DataError: it is empty, counts differ, labels are outside 0..C−1, features are not finite,
        or weights are negative, not finite or all zero.
    """
    _check_shapes(dataset, role)
    _check_label_range(dataset, role)
    if dataset.x.dtype != np.uint8:
        _check_finite(dataset, role)
    if dataset.weights is not None:
        check_weights(dataset.weights, (dataset.num_examples,), role)


def check_alike(datasets: Mapping[str, Dataset]) -> None:
    """Checks that the examples of all splits have the shape and type of those in train.

    Args:
      datasets: by role; 'train' is one of them.

    Raises:
      DataError: the examples of a split differ from those in train.
    """
    train = datasets["train"]
    for role, dataset in datasets.items():
        shape, expected = dataset.x.shape[1:], train.x.shape[1:]
        if (shape, dataset.form) != (expected, train.form):
            raise DataError(
                f"An example in train is {train.form} of shape {expected}, and one in {role} is "
                f"{dataset.form} of shape {shape}. Prepare both in the same way."
            )


def check_same_classes(who: str, known: Sequence[str], found: Sequence[str]) -> None:
    """Raises DataError where a label means one class on one side and another on the other.

    Only the labels that both have are looked at. Names on one side and mere numbers on the other
    may mean the same classes.

    Args:
      who: has the known names, in messages.
      known, found: names of classes, in the order of the labels.
    """
    num = min(len(known), len(found))
    known, found = tuple(known[:num]), tuple(found[:num])
    numbers = [all(name.lstrip("-").isdigit() for name in names) for names in (known, found)]
    if known == found or numbers[0] != numbers[1]:
        return
    label = next(label for label in range(num) if known[label] != found[label])
    raise DataError(
        f"Class {label} is {known[label]!r} to {who}, and {found[label]!r} to the other dataset. "
        "Make all splits by one call of data.load or data.from_arrays, or give both the same "
        "label_names."
    )


def count_copies(train: Dataset, others: Mapping[str, Dataset]) -> dict[str, int]:
    """How many examples of each of the others have the very features of one of train, by hashes.

    Features that take few values are equal by chance. Arrays of JAX, which stay on their device,
    are not looked at: 0.
    """
    if not all(isinstance(one.x, np.ndarray) for one in (train, *others.values())):
        return dict.fromkeys(others, 0)
    hashes = train.row_hashes
    return {role: int(np.isin(one.row_hashes, hashes).sum()) for role, one in others.items()}


def copies(dataset: Dataset) -> Int[np.ndarray, " N"] | None:
    """The number of each example's features, in order of appearance: equal rows have equal ones.

    None where all rows differ, where they are arrays of JAX, which stay on their device, and where
    rows are equal by chance: the columns have too few values to tell N examples apart (their
    numbers of values multiply to less than N²).
    """
    if not isinstance(dataset.x, np.ndarray):
        return None
    first, number = numbered(dataset.row_hashes)
    if len(first) == len(dataset) or _few_values(dataset.x[first[:_TOLD_APART]], len(dataset)):
        return None
    return number


def numbered(
    values: Shaped[np.ndarray, " N"],
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " N"]]:
    """Where each of the M values appears first, in order, and its number there for each of the N.

    >>> first, number = numbered(np.array([7, 5, 7]))
    >>> first.tolist(), number.tolist()
    ([0, 1], [0, 1, 0])
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.sort(first), np.argsort(np.argsort(first))[inverse]


def together(dataset: Dataset) -> Int[np.ndarray, " N"] | None:
    """A number for each example: those of one number are in one group, or have the same features.

    Or are linked by a chain of such examples. None: each example is on its own.
    """
    copied = copies(dataset)
    if copied is None or dataset.groups is None:
        return copied if dataset.groups is None else numbered(dataset.groups)[1]
    from scipy import sparse

    groups = numbered(dataset.groups)[1]
    ends = copied, groups + copied.max() + 1
    size = int(ends[1].max()) + 1
    links = sparse.coo_array((np.ones(len(groups), bool), ends), (size, size))
    linked = sparse.csgraph.connected_components(links, directed=False)[1]
    return numbered(linked[copied])[1]


def assign_folds(
    labels: Shaped[np.ndarray, " N"],
    folds: Any,
    *,
    stratified: bool = True,
    seed: int | tuple[int, ...] = 0,
    together: Integer[np.ndarray, " N"] | None = None,
) -> Int[np.ndarray, " N"]:
    """The fold of each example: shuffled, then assigned in turn (class by class).

    Of several examples of one number in `together` the largest sets come first, each into the fold
    that has least of the classes it brings; examples on their own then even out the folds.

    Raises:
      ValueError: folds is not a whole number from 2 to that of the examples (or sets).
    """
    first, unit = numbered(np.arange(len(labels)) if together is None else together)
    if type(folds) is not int or not 2 <= folds <= len(first):
        what = "examples" if len(first) == len(labels) else "distinct examples or groups"
        raise ValueError(
            f"folds must be a whole number from 2 to the {len(first)} {what}; it is {folds}."
        )
    classes = np.unique(labels, return_inverse=True)[1] if stratified else 0 * first[unit]
    order = np.random.default_rng(seed).permutation(len(first))
    if len(first) == len(labels):
        order = order[np.argsort(classes[order], kind="stable")]
        member = np.empty(len(labels), np.int64)
        member[order] = np.arange(len(labels)) % folds
        return member
    return _assign_units(unit, classes, folds, order)[unit]


def _assign_units(unit, classes, folds, order):
    """The fold of each unit, a set of examples; classes [N] of the examples. Units in `order`."""
    sizes, sums = np.bincount(unit), np.bincount(classes)
    place = np.argsort(unit, kind="stable")
    parts = np.split(place, np.cumsum(sizes)[:-1])
    member, held = np.empty(len(sizes), np.int64), np.zeros((folds, len(sums)))
    order = order[np.argsort(-sizes[order], kind="stable")]
    several = order[sizes[order] > 1]
    for number in several:
        own, counts = np.unique(classes[parts[number]], return_counts=True)
        costs = held[:, own] @ (counts / sums[own])
        member[number] = fold = min(range(folds), key=lambda k: (costs[k], held[k].sum()))
        held[fold, own] += counts
    alone = order[len(several) :]
    of = classes[place[np.cumsum(sizes) - 1]][alone]
    for label in np.unique(of):
        # The lowest places, where a fold that holds n of the class has the places n, n + 1, ...
        own, by_size = alone[of == label], np.argsort(held.sum(1), kind="stable")
        places = held[by_size, label] + np.arange(len(own))[:, None]
        chosen = np.argsort(places.ravel(), kind="stable")[: len(own)] % folds
        member[own] = by_size[chosen]
        held[:, label] += np.bincount(member[own], minlength=folds)
    return member


def warn_rare(
    labels: Shaped[np.ndarray, " N"],
    folds: int,
    together: Integer[np.ndarray, " N"] | None = None,
) -> None:
    """Warns of the classes with fewer examples (or sets of them) than there are folds."""
    of_unit = np.arange(len(labels)) if together is None else together
    pairs = np.unique(np.stack([labels, of_unit], 1), axis=0)
    present, counts = np.unique(pairs[:, 0], return_counts=True)
    rare = counts < folds
    if rare.any():
        many = f" ({int(rare.sum())} classes have too few)" if rare.sum() > 1 else ""
        what = "examples" if together is None else "distinct examples or groups"
        warnings.warn(
            f"The rarest class, with label {present[counts.argmin()]}, has {counts.min()} {what}, "
            f"fewer than folds = {folds}{many}: they are in as many folds as there are, and the "
            "other folds say nothing of the class.",
            stacklevel=3,
        )


_TOLD_APART = 1000  # distinct rows whose values are counted


def _few_values(rows, num_examples):
    """Whether the columns of these distinct rows have too few values to tell the examples apart."""
    columns = np.sort(np.asarray(rows).reshape(len(rows), -1), 0)
    num_values = 1 + (columns[1:] != columns[:-1]).sum(0)
    return np.log(num_values).sum() < 2 * np.log(num_examples)


_FEWEST_TO_JUDGE = 20  # examples: fewer may be in the order of their labels by chance
_LOG_CHANCE = -14.0  # one in a million: the logarithm of a probability taken for impossible


def check_shuffled(train: Int[np.ndarray, " n"], val: Int[np.ndarray, " m"]) -> None:
    """Raises DataError where val is the end of rows that are sorted by label.

    Then it has examples of one class only: so many as chance would not have put there.

    Args:
      train, val: classes of neighbouring examples, those of val last.
    """
    labels = np.concatenate([train, val])
    if len(labels) < _FEWEST_TO_JUDGE or (val != val[0]).any() or not (train != val[0]).any():
        return
    changes = int((labels[1:] != labels[:-1]).sum())
    chance = len(val) * np.log((labels == val[0]).mean())
    if chance < _LOG_CHANCE or changes + 1 == len(np.unique(labels)):
        raise DataError(
            f"val: 'auto' takes the last fifth of the rows, and all {len(val):,} of them are of "
            "one class: the rows are sorted by label. Shuffle the rows, or give val of its own."
        )


def _check_shapes(dataset: Dataset, role: str) -> None:
    x, y = dataset.x, dataset.y
    if x.ndim < 2 or dataset.num_features == 0:
        raise DataError(
            f"{role}: x has shape {x.shape}, and [N, D] or [N, H, W] with at least one feature "
            "is needed. Reshape it; a single feature is x.reshape(-1, 1)."
        )
    if y.shape != x.shape[:1]:
        raise DataError(
            f"{role}: x holds {x.shape[0]:,} examples, and y has shape {y.shape}. Give each "
            "example one integer label."
        )
    if dataset.num_examples == 0:
        raise DataError(f"{role}: there are no examples. Give at least one.")


def _check_label_range(dataset: Dataset, role: str) -> None:
    y, num_classes = dataset.y, dataset.num_classes
    if int(y.min()) < 0 or int(y.max()) >= num_classes:
        y = np.asarray(y)
        row = int(np.argmax((y < 0) | (y >= num_classes)))
        raise DataError(
            f"{role}: label {y[row]} of example {dataset.rows[row]} is outside "
            f"0..{num_classes - 1}, the labels of the classes. Number the classes from 0, "
            "give all their names, and leave out examples without a label."
        )
    if num_classes < 2:
        raise DataError(
            f"{role}: there is only one class, {dataset.label_names[0]!r}. Give examples of at "
            "least two."
        )


def _check_finite(dataset: Dataset, role: str) -> None:
    on_device = not isinstance(dataset.x, np.ndarray)
    if on_device and bool(dataset.x.__array_namespace__().isfinite(dataset.x).all()):
        return
    for start, block in dataset.blocks(f"checking {role}"):
        with np.errstate(over="ignore"):
            block = block.astype(dataset.dtype, copy=False)
        finite = np.isfinite(block)
        if not finite.all():
            row, column = np.argwhere(~finite.reshape(len(block), -1))[0]
            value, row = block.reshape(len(block), -1)[row, column], dataset.rows[start + row]
            named = dataset.features and repr(dataset.features.names[column])
            raise DataError(
                f"{role}: feature {value} in row {row}, column {named or column} is not a finite "
                f"{dataset.dtype}. Fill in or leave out what is missing, and scale down what is "
                "too large."
            )


_LARGEST_WEIGHT = 1e30  # of an example: float32 holds it, and float64 the sum of all


def check_weights(weights: Any, shape: tuple[int, ...], role: str) -> None:
    """Raises DataError unless the weights are finite numbers of 0 or more, of this shape [N]."""
    weights = np.asarray(weights)
    if weights.shape != shape:
        raise DataError(
            f"{role}: weights have shape {weights.shape}, and there are {shape[0]:,} examples. "
            "Give each example one weight."
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{role}: weight {weights[row]} of example {row} is negative or not finite. "
            "A weight says how often an example counts: give 0 or more."
        )
    if not weights.any():
        raise DataError(f"{role}: all weights are 0. Give at least one example a weight.")
    if weights.max() > _LARGEST_WEIGHT:
        raise DataError(
            f"{role}: weight {weights.max():.3g} of example {int(weights.argmax())} is larger than "
            f"{_LARGEST_WEIGHT:g}. Divide all weights by the largest: only their ratios count."
        )


def check_groups(groups: Shaped[Any, "..."], role: str) -> None:
    """Raises DataError for groups that are neither whole numbers nor text, or missing."""
    missing = np.zeros(1, bool)
    if groups.dtype.kind in "fO":
        missing = np.array([one is None or one != one for one in groups.flat])
    if missing.any() or groups.dtype.kind not in "biufUS":
        what = (
            f"that of example {int(np.argmax(missing))} is NaN" if missing.any() else groups.dtype
        )
        raise DataError(f"{role}: groups must be whole numbers or text: {what}. Correct them.")


def warn_absent_classes(
    labels: Shaped[np.ndarray, " N"],
    there: Bool[np.ndarray, " N"],
    names: Sequence | None = None,
) -> None:
    """Warns of classes all of whose examples have weight 0.

    Args:
      labels: those of the training examples.
      there: whether the weight of each is above 0.
      names: of the classes, by label; None: the labels are the names.
    """
    absent = sorted(
        set(np.unique(labels[~there]).tolist()) - set(np.unique(labels[there]).tolist())
    )
    if absent:
        shown = [repr(label if names is None else names[label]) for label in absent]
        several, them = ("es", "them") if len(shown) > 1 else ("", "it")
        warnings.warn(
            f"All training examples of the class{several} {', '.join(shown)} have weight 0, "
            f"which is the same as leaving them out: no model can learn {them}.",
            stacklevel=3,
        )


_KEPT = 1e-5  # of a column's standard deviation: what float32 may round away unnoticed
_LOST = 1e-3  # of it: what is worth a warning
_SAMPLE = 4096  # examples that tell whether float32 features have lost digits already
_MOST_COLUMNS = 5  # named in a warning


def is_wide(dtype: np.dtype) -> bool:
    """Whether float32 cannot hold all numbers of this type."""
    return (dtype.kind == "f" and dtype.itemsize > 4) or (dtype.kind in "iu" and dtype.itemsize > 2)


def find_shift(
    mean: Float[np.ndarray, " D"], deviation: Float[np.ndarray, " D"]
) -> Float[np.ndarray, " D"] | None:
    """What to subtract in float64 from columns that are to become float32; None: nothing.

    The mean of those columns that float32 would round by more than a hundred-thousandth of their
    deviation, and zero for the others.
    """
    rounded = _rounded(mean, deviation, np.float32, _KEPT)
    return np.where(rounded, mean, 0.0) if rounded.any() else None


def shift_of(train: Dataset) -> Float[np.ndarray, " D"] | None:
    """The `Dataset.shift` for all splits; None where float32 holds the features well enough.

    Warns of columns that stay rounded: because they came as float32, or because float64 is not
    enough either.
    """
    dtype = train.x.dtype
    wide = is_wide(dtype)
    if not (wide or dtype.name == "float32") or train.x.ndim < 2 or not len(train):
        return None
    x = train.x if wide else train.x[:: len(train) // _SAMPLE + 1]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused elsewhere
        blocks = dataclasses.replace(train, x=x, dtype="float64").blocks("column means")
        mean, deviation = column_moments(block for _, block in blocks)
    warn_rounded(mean, deviation, np.float64 if wide else np.float32)
    return find_shift(mean, deviation) if wide and train.dtype == "float32" else None


def warn_rounded(
    mean: Float[np.ndarray, " D"], deviation: Float[np.ndarray, " D"], dtype: type[np.floating]
) -> None:
    """Warns of columns of which `dtype` rounds away a thousandth of their standard deviation."""
    columns = np.flatnonzero(_rounded(mean, deviation, dtype, _LOST))
    if len(columns):
        name = np.dtype(dtype).name
        warnings.warn(
            f"{columns_text(columns, mean, deviation)}: {name} rounds such numbers by more than a "
            "thousandth of their standard deviation, and what was rounded away is lost. Subtract a "
            f"constant from the column before it becomes {name}"
            + (", or save it as float64." if name == "float32" else "."),
            stacklevel=2,
        )


def _rounded(mean, deviation, dtype, most):
    """Of which columns `dtype` rounds away more than a fraction `most` of the deviation."""
    return (deviation > 0) & (np.finfo(dtype).eps * np.abs(mean) > most * deviation)


def columns_text(
    columns: Int[np.ndarray, " n"],
    mean: Float[np.ndarray, " D"],
    deviation: Float[np.ndarray, " D"],
) -> str:
    """'Column 3 (mean 1.7e+09, standard deviation 30)'; the first of them where they are many."""
    texts = [f"{c} (mean {mean[c]:.3g}, standard deviation {deviation[c]:.2g})" for c in columns]
    more = [f"{len(texts) - _MOST_COLUMNS:,} more"] if len(texts) > _MOST_COLUMNS else []
    return f"Column{'s' * (len(texts) > 1)} " + ", ".join(texts[:_MOST_COLUMNS] + more)


_LABELS_AT_ONCE = 1 << 20  # labels encoded at a time
_MOST_CLASSES = 1 << 20  # more are taken for a mistake, such as row numbers
_KINDS = {"i": "integers", "u": "integers", "b": "booleans", "U": "text", "S": "bytes"}


def encode_labels(
    labels: Mapping[str, Shaped[np.ndarray, " _"]],
) -> tuple[dict[str, Int32[np.ndarray, " _"]], tuple[str, ...]]:
    """Encodes labels as classes: the labels that occur in train, in ascending order.

    Args:
      labels: for `'train'` and other splits, [N] integers, booleans or text.

    Returns:
      For each split int32 [N] in 0..C−1; and the names of the C classes: text as it is, the
      integer 7 as `'7'`; bytes as UTF-8, or escaped where they are not.

    Raises:
      DataError: labels are of another type, or NaN, the types of two splits differ, two labels
        would have one name, or a split has a label that train lacks.

    >>> encode_labels({"train": np.array([7, 3, 7]), "val": np.array([3])})[1]
    ('3', '7')
    """
    for role, values in labels.items():
        _check_label_kind(values, role, labels["train"])
    classes = _classes(labels["train"])
    if len(classes) > _MOST_CLASSES:
        raise DataError(
            f"train has {len(classes):,} different labels. That many classes are taken for a "
            "mistake: give each example the label of its class."
        )
    names = tuple(_label_name(label) for label in classes.tolist())
    for first, second in itertools.pairwise(np.argsort(names, kind="stable")):
        if names[first] == names[second]:
            both = " and ".join(repr(classes[label].item()) for label in (first, second))
            raise DataError(f"train: the labels {both} have one name. Rename one of them.")
    return {role: _codes(values, classes, role) for role, values in labels.items()}, names


def _check_label_kind(values: np.ndarray, role: str, train: np.ndarray) -> None:
    check_label_type(values, role)
    kind, expected = (_KINDS.get(array.dtype.kind) for array in (values, train))
    if kind != expected:
        raise DataError(f"The labels of train are {expected}, and those of {role} {kind}.")


def check_label_type(values: Shaped[Any, "..."], role: str) -> None:
    """Raises DataError unless labels are integers, booleans, text or bytes.

    What no conversion makes labels is named first: absent ones, NaN, fractions.
    """
    if values.dtype.kind in _KINDS:
        return
    kept = "Leave these examples out: kept = ~{}(y), and then x[kept], y[kept]."
    missing, remedy = np.zeros(values.shape, bool), kept.format("np.isnan")
    if values.dtype.kind == "f":
        missing = np.isnan(values)
    elif values.dtype.kind == "O":  # as Pandas has text or numbers, some of them absent
        remedy = kept.format("pandas.isna")
        missing = np.reshape([one is None or one != one for one in values.flat], values.shape)
    if missing.any():
        raise DataError(
            f"{role}: the label of example {int(np.argmax(missing))} is NaN, and "
            f"{int(missing.sum()):,} of {missing.size:,} are. {remedy}"
        )
    remedy = "Convert them: y.astype('int64')."
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (np.floor(values) == values)
        if not whole.all():
            row = int(np.argmin(whole))
            remedy = (
                f"That of example {row} is {values[row]}, which y.astype('int64') would not keep "
                "apart from others: name the classes."
            )
    raise DataError(f"{role}: labels must be integers or text, and are {values.dtype}. {remedy}")


def _classes(values: np.ndarray) -> np.ndarray:
    classes = values[:0]
    for _, block in _label_blocks(values):
        classes = np.union1d(classes, block)
    return classes


def _codes(values: np.ndarray, classes: np.ndarray, role: str) -> np.ndarray:
    codes = np.empty(len(values), np.int32)
    for start, block in _label_blocks(values):
        # In the type of the classes, lest the classes be converted for every block.
        found = np.searchsorted(classes, block.astype(classes.dtype))
        found = np.minimum(found, len(classes) - 1)
        unknown = classes[found] != block
        if unknown.any():
            row = int(np.argmax(unknown))
            raise DataError(
                f"{role}: label {_label_name(block[row].item())!r} of example {start + row} does "
                f"not occur in train, where there are {len(classes)} classes, and no model can "
                "learn it. Leave such examples out, or divide the examples otherwise: shuffle them "
                "first if they are sorted by label."
            )
        codes[start : start + len(block)] = found
    return codes


def _label_blocks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    values = np.asarray(values)
    for start in range(0, len(values), _LABELS_AT_ONCE):
        yield start, values[start : start + _LABELS_AT_ONCE]


def _label_name(label: int | str | bytes) -> str:
    return label.decode(errors="backslashreplace") if isinstance(label, bytes) else str(label)
