"""Tables: files (.csv, .tsv, .parquet, Hugging Face folders) and frames of pandas, polars, PyArrow.

A column of numbers is a feature, a column of text makes a feature for each of its categories, and a
column of lists one for each place. Features keep their names, so that a model finds the columns of
another table by them. What is missing is refused, named by row (from 0) and column.
"""

import csv
import io
import json
import math
import os
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Num, Shaped

from softmax_jax import host
from softmax_jax.data.dataset import Features
from softmax_jax.data.sources import Source
from softmax_jax.host import DataError, DatasetNotFoundError, as_path, brief, cut, open_regular


class Column(NamedTuple):
    """Numbers, or text as Python objects, and which of them are missing."""

    values: Shaped[np.ndarray, " N"]
    missing: Bool[np.ndarray, " N"]

    @property
    def is_text(self) -> bool:
        """Whether it makes categories."""
        return self.values.dtype.kind == "O"


class Table(NamedTuple):
    """Columns of N rows by name.

    Attributes:
      where: the file, or what else it is called in messages.
      columns: by name, in their order.
      label_names: of the labels by number, for each column of which the file says so.
    """

    where: str
    columns: dict[str, Column]
    label_names: dict[str, tuple[str, ...]]

    @property
    def num_rows(self) -> int:
        """N."""
        return len(next(iter(self.columns.values())).values)


_SUFFIXES = (".csv", ".tsv", ".parquet")
_FRAMES = ("DataFrame", "LazyFrame", "Table", "RecordBatch")
_LIBRARIES = ("pandas", "polars", "pyarrow")


def is_path(name: str) -> bool:
    """Whether a dataset's name is the path of a table."""
    if name.endswith(_SUFFIXES):
        return True
    path = as_path(name, "The dataset")
    return any(os.path.isfile(path / file) for file in ("dataset_dict.json", "dataset_info.json"))


def is_frame(value: Any) -> bool:
    """Whether it is a data frame of pandas, polars or PyArrow; none of them is imported for it."""
    return any(
        kind.__name__ in _FRAMES and kind.__module__.split(".")[0] in _LIBRARIES
        for kind in type(value).__mro__
    )


def table_source(name: str, label_column: str, group_column: str = "") -> Source:
    """The dataset in a table: its features, and the labels and groups in columns of their own.

    A file is one split, 'train'; of a Hugging Face folder with several, each is one.

    Args:
      name: the path.
      label_column: the name of the column with the labels.
      group_column: of that with the groups, which stay in one fold; '': there is none.

    Raises:
      DatasetNotFoundError: there is no such file.
      DataError: it is damaged, has no such column, or a value is missing.
    """
    path = as_path(name, "The dataset")
    if not path.exists():
        raise DatasetNotFoundError(f"There is no file or folder {path}. Check the path.")
    own = [column for column in (label_column, group_column) if column]
    tables = {split: read_table(file, as_text=own) for split, file in _split_files(path).items()}
    if "train" not in tables:
        raise DataError(f"{path} has no split train; there are: {', '.join(tables)}.")
    for table in tables.values():
        _check_columns(table, label_column, group_column)
    inputs = {split: _without(table, own) for split, table in tables.items()}
    features = features_of(inputs.values())
    for split, table in inputs.items():
        check_extra(table, features, split)

    def read(split: str) -> tuple[np.ndarray | None, ...]:
        columns = tables[split].columns
        x = encode(inputs[split], features)
        y = as_labels(columns[label_column], label_column, tables[split].where)
        groups = columns[group_column] if group_column else None
        return x, y, None, None if groups is None else _present(groups, group_column, path)

    lengths = {split: (table.num_rows,) for split, table in tables.items()}
    names = tables["train"].label_names.get(label_column)
    return Source(name, names, 1.0, lengths, read, features=features, draws=True)


def _without(table, names):
    kept = {name: column for name, column in table.columns.items() if name not in names}
    if not kept:
        raise DataError(f"{table.where} has no columns beside {', '.join(names)}: no features.")
    return table._replace(columns=kept)


def _check_columns(table, label_column, group_column):
    there = ", ".join(map(repr, table.columns))
    if not label_column:
        raise DataError(
            f"{table.where} is a table: say which column has the labels, as in "
            f"--config.label_column=NAME (label_column= in Python). There are: {there}."
        )
    for field, name in (("label_column", label_column), ("group_column", group_column)):
        if name and name not in table.columns:
            raise DataError(
                f"{table.where} has no column {brief(name)}, as {field} says; there are: {there}."
            )
    if label_column == group_column:
        raise DataError(f"label_column and group_column are both {label_column!r}. Name two.")


# Features.


_MANY_FEATURES = 20  # categories of a column, or rows: more are looked at


def features_of(tables: Collection[Table]) -> Features:
    """What the columns of the first table make, with the categories that occur in any of them.

    Raises:
      DataError: a text column looks like numbers, or two features would have one name.
    """
    first = next(iter(tables))
    for table in tables:
        _check_missing(table, table.columns)
    names: list[str] = []
    columns: list[str] = []
    for name, column in first.columns.items():
        if column.is_text:
            found: set[str] = set()
            for table in tables:
                if name in table.columns:
                    found |= set(table.columns[name].values.astype(str).tolist())
            _check_categories(first, name, found)
            own = [f"{name}={category}" for category in sorted(found)]
        else:
            _warn_of_index(first, name)
            own = [name]
        names += own
        columns += [name] * len(own)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{first.where}: two features would be called {twice!r}. Rename a column.")
    return Features(tuple(names), tuple(columns))


def _warn_of_index(table, name):
    """Warns of a column that counts the rows: a model may learn the order of a file by it."""
    values = table.columns[name].values
    if len(values) >= _MANY_FEATURES and (values == values[0] + np.arange(len(values))).all():
        warnings.warn(
            f"{table.where}: column {name!r} counts the rows, and is a feature as any other. Leave "
            "it out if it is their number.",
            stacklevel=4,
        )


def encode(table: Table, features: Features, *, unknown: bool = False) -> Num[np.ndarray, "N D"]:
    """The features of a table, found by the names of its columns: float32, or float64 if wider.

    Args:
      table: other columns of it are left alone.
      features: as `features_of` found them.
      unknown: whether a category that the features lack, which is 0 in all of them, is a warning;
        else it cannot occur.

    Raises:
      DataError: a column is missing, a value is missing, or text where numbers are needed.
    """
    wanted = features.categories
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        raise DataError(
            f"{table.where} lacks the column{'s' * (len(absent) > 1)} "
            f"{', '.join(map(repr, absent))}; there are: {', '.join(map(repr, table.columns))}."
        )
    _check_missing(table, wanted)
    own = {name: table.columns[name] for name in wanted}
    numbers = [own[name].values.dtype for name, found in wanted.items() if found is None]
    for name, found in wanted.items():
        if found is None and own[name].is_text:
            _refuse_text(table, name)
    dtype = np.result_type(np.float32, *numbers)
    size = table.num_rows * len(features.names) * dtype.itemsize
    remedy = "Leave out columns of many categories, or save features as .npy files in a folder."
    host.require_memory(size, f"{table.where}, as {len(features.names):,} features,", remedy)
    x, place = np.zeros((table.num_rows, len(features.names)), dtype), 0
    for name, categories in wanted.items():
        if categories is None:
            x[:, place] = own[name].values
            place += 1
            continue
        places = {category: n for n, category in enumerate(categories)}
        codes = np.array([places.get(str(value), -1) for value in own[name].values], np.int64)
        if unknown and (codes < 0).any():
            _warn_unknown(table, name, codes, categories)
        known = np.flatnonzero(codes >= 0)
        x[known, place + codes[known]] = 1
        place += len(categories)
    return x


def check_extra(table: Table, features: Features, role: str) -> None:
    """Raises DataError for columns that the features lack: those of train."""
    extra = [name for name in table.columns if name not in features.columns]
    if extra:
        raise DataError(
            f"{role} has the column{'s' * (len(extra) > 1)} {', '.join(map(repr, extra))}, which "
            "train lacks. Give both the same columns."
        )


def _warn_unknown(table, name, codes, categories):
    row, number = int(np.argmax(codes < 0)), int((codes < 0).sum())
    value = str(table.columns[name].values[row])
    warnings.warn(
        f"{table.where}: column {name!r} holds {brief(value)} in row {row}, a category that the "
        f"model does not know{f' (in {number:,} rows some)' if number > 1 else ''}: it counts as "
        f"none of the {len(categories)} it knows.",
        stacklevel=4,
    )


def _check_missing(table, names):
    """Raises DataError where values of these columns are missing: the first row of each column."""
    texts = []
    for name in names:
        column = table.columns[name]
        missing = column.missing
        if missing.any():
            more = f" and {missing.sum() - 1:,} more" if missing.sum() > 1 else ""
            texts.append(f"column {name!r} in row {int(np.argmax(missing))}{more}")
    if texts:
        raise DataError(
            f"{table.where}: values are missing: {'; '.join(texts)}. Fill them in, or leave out "
            "these rows or columns. (Rows are counted from 0, without the header.)"
        )


def _refuse_text(table, name):
    column = table.columns[name]
    row = next(n for n, value in enumerate(column.values) if _number(value) is None)
    raise DataError(
        f"{table.where}: column {name!r} must hold numbers, and holds "
        f"{brief(column.values[row])} in row {row}. Correct it."
    )


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


_WRITTEN = str.maketrans("", "", ",.%$€£ '\xa0")  # with digits: a number in writing


def _check_categories(table, name, found):
    """Raises DataError for text that is numbers, most of it; warns of as many texts as rows."""
    values = table.columns[name].values
    numeric = {text for text in found if any(c.isdigit() for c in text)}
    numeric = {text for text in numeric if _number(text.translate(_WRITTEN)) is not None}
    is_number = np.array([text in numeric for text in values], bool)
    if 2 * is_number.sum() > len(values) and len(numeric) > 2:
        odd = np.array([_number(text) is None for text in values], bool)
        if odd.any():
            row = int(np.argmax(odd))
            raise DataError(
                f"{table.where}: column {name!r} holds {brief(values[row])} in row {row}, where "
                "most of it are numbers. Write all of it as plain numbers (1234.5), and leave out "
                "rows where it is missing."
            )
    if len(found) > max(_MANY_FEATURES, len(values) // 2):
        warnings.warn(
            f"{table.where}: column {name!r} has {len(found):,} different texts in {len(values):,} "
            "rows, and each becomes a feature. If these are names or numbers of rows, leave the "
            "column out.",
            stacklevel=4,
        )


_WHOLE, _DECIMAL = re.compile(r"0|-?[1-9]\d{0,17}"), re.compile(r"-?\d+(\.\d*)?(e[-+]?\d+)?")


def as_labels(column: Column, name: str, where: str) -> Shaped[np.ndarray, " N"]:
    """The labels in a column: whole numbers, booleans or text.

    Raises:
      DataError: some are missing, or numbers with a fraction.
    """
    values = _present(column, name, where)
    if values.dtype.kind != "U":
        if values.dtype.kind != "f":
            return values
        fractions = values % 1 != 0
        if fractions.any():
            row = int(np.argmax(fractions))
            raise DataError(
                f"{where}: the label column {name!r} holds {values[row]:g} in row {row}. Labels "
                "are classes: whole numbers or text. Make classes of it, such as ranges."
            )
        return values.astype(np.int64)
    texts = values.tolist()
    if all(_WHOLE.fullmatch(text) for text in set(texts)):
        return np.array([int(text) for text in texts], np.int64)
    if all(_DECIMAL.fullmatch(text) for text in set(texts)):
        return as_labels(Column(np.array(texts).astype(np.float64), column.missing), name, where)
    longest = max(map(len, texts))
    host.require_memory(4 * longest * len(texts), f"The labels in {where}", "Shorten them.")
    return np.array(texts)


def _present(column, name, where):
    if column.missing.any():
        row, number = int(np.argmax(column.missing)), int(column.missing.sum())
        raise DataError(
            f"{where}: column {name!r} is missing in row {row}"
            f"{f' and {number - 1:,} more' if number > 1 else ''}. Leave these rows out."
        )
    return column.values.astype(str) if column.is_text else column.values


# Reading.


def read_table(
    path: Path, *, only: Collection[str] | None = None, as_text: Collection[str] = ()
) -> Table:
    """Reads a table from a file, or from a folder of `datasets.Dataset.save_to_disk`.

    Args:
      path: a .parquet or such a folder; anything else is text, with a header.
      only: of a text file, the columns to read; None: all.
      as_text: of a text file, the columns that are text, whatever they look like.

    Raises:
      DataError: it is damaged, has no rows, or needs a library that is not installed.
    """
    if path.is_dir():
        return _read_arrow(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return _read_csv(path, only, set(as_text))


_AT_ONCE = 1 << 14  # rows of a text file
_COPIES = 4  # times its size: what the content of a text file takes in memory
_MISSING = frozenset(["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>", "#N/A"])
_BOOLEANS = {"true": 1.0, "false": 0.0}


def _read_csv(path, only, as_text):
    """The columns are read as numbers; anew, as text, where later rows show that they are not."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    remedy = "Save its features as .npy files in a folder: those are read by shards."
    host.require_memory(_COPIES * size, f"What {path} holds", remedy)
    while True:
        try:
            columns, more = _read_columns(path, only, as_text)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8 text ({error.reason}). Save it as such."
            ) from error
        except csv.Error as error:
            raise DataError(f"{path} is damaged or no table: {cut(str(error), 200)}.") from error
        if not more:
            return Table(str(path), columns, {})
        as_text = as_text | more


def _read_columns(path, only, as_text):
    """(columns, those that must be read anew, as text)."""
    raw: Any = open_regular(path)
    with raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
        rows = _rows(path, file)
        header = next(rows, [])
        chosen = [n for n, name in enumerate(header) if only is None or name in only]
        parts: dict[int, list] = {n: [] for n in chosen}
        text, more = {n for n in chosen if header[n] in as_text}, set()
        seen: dict[str, str] = {}
        for chunk in _chunks(rows):
            for n, cells in enumerate(zip(*chunk, strict=True)):
                if n not in parts:
                    continue
                numbers = None if n in text else _numbers(cells)
                if numbers is not None:
                    parts[n].append(numbers)
                    continue
                if n not in text and parts[n]:
                    more.add(header[n])
                text.add(n)
                parts[n].append(np.array([seen.setdefault(c, c) for c in cells], object))
    if not all(parts.values()) or not parts:
        raise DataError(f"{path} has no rows. Give at least one, below the header.")
    whole = {header[n]: np.concatenate(own) for n, own in parts.items()}
    if more:
        return {}, more
    return _without_index(path, {name: _of_text(values) for name, values in whole.items()}), more


def _of_text(values):
    if values.dtype.kind != "O":
        return Column(values, np.isnan(values))
    return Column(values, np.array([value in _MISSING for value in values], bool))


def _rows(path, file) -> Iterator[list[str]]:
    """The header, checked, and then the rows, each as long as it."""
    start = file.readline()
    separator = "\t" if path.suffix == ".tsv" else ","
    if separator not in start:
        separator = next((other for other in ";\t" if other in start), separator)
    file.seek(0)
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
    header = [name.strip() for name in next(reader, [])]
    _check_header(path, header)
    yield header
    number = 0
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}: row {number} (line {reader.line_num}) has {len(row)} cells, and the "
                f"header {len(header)}. Correct it, or quote cells that hold the separator "
                f"{separator!r}."
            )
        yield row
        number += 1


def _check_header(path, header):
    if not header:
        raise DataError(f"{path} is empty. A table has a header, and a row per example.")
    if all(_number(name) is not None for name in header):
        raise DataError(
            f"{path} has no header: its first row holds numbers. Write the names of the columns "
            "above them."
        )
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise DataError(f"{path} has two columns {brief(twice[0])}. Rename one of them.")
    if "" in header[1:]:
        raise DataError(f"{path}: column {header.index('', 1)} has no name. Give it one.")


def _without_index(path, columns):
    """The columns but a first one that has no name and counts the rows, as pandas writes it."""
    index = columns.get("")
    if index is None:
        return columns
    if index.is_text or (index.values != np.arange(len(index.values))).any():
        raise DataError(f"{path}: the first column has no name. Give it one.")
    warnings.warn(f"{path}: the first column, the numbers of the rows, is left out.", stacklevel=2)
    return {name: column for name, column in columns.items() if name}


def _chunks(rows):
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    """Cells as float64, NaN for those that are missing; None: they are not all numbers."""
    try:
        numbers = [math.nan if cell in _MISSING else float(cell) for cell in cells]
        return None if any("_" in cell for cell in cells) else np.array(numbers)
    except ValueError:
        pass
    given = [cell.lower() for cell in cells if cell not in _MISSING]
    if not all(cell in _BOOLEANS for cell in given):
        return None
    return np.array([_BOOLEANS.get(cell.lower(), math.nan) for cell in cells])


def _read_parquet(path):
    with host.reading(path), open_regular(path) as file:
        try:
            from pyarrow import parquet
        except ImportError:
            return from_frame(_read_with_polars(path, file), str(path))
        found = parquet.ParquetFile(file)
        size = 8 * found.metadata.num_rows * found.metadata.num_columns
        host.require_memory(size, f"What {path} unpacks to", "Leave out rows or columns.")
        return from_frame(found.read(), str(path))


def _read_with_polars(path, file):
    try:
        import polars
    except ImportError as error:
        raise DataError(
            f"{path} needs a library that reads it: pip install pyarrow (or polars)."
        ) from error
    return polars.read_parquet(file)


def from_frame(frame: Any, where: str) -> Table:
    """A data frame of pandas, polars or PyArrow as a table; an index of pandas is left out.

    Raises:
      DataError: a column holds what is neither numbers nor text, or the frame is lazy or empty.
    """
    try:
        import narwhals
    except ImportError as error:
        raise DataError(f"{where} needs a library: pip install narwhals.") from error
    columns: dict[str, Column] = {}
    try:
        own = narwhals.from_native(frame, eager_only=True)
        every = list(own.iter_columns())
    except Exception as error:
        raise DataError(f"{where} cannot be read as a table: {cut(str(error), 200)}.") from error
    for series in every:
        name = str(series.name)
        found = _column(series, where, name)
        if found.values.ndim == 1:
            columns[name] = found
        else:
            numbered = enumerate(found.values.T)
            columns |= {f"{name}[{k}]": Column(own, found.missing) for k, own in numbered}
    if not columns or not len(next(iter(columns.values())).values):
        raise DataError(f"{where} has no rows or no columns. Give at least one of each.")
    return Table(where, columns, {})


def _column(series, where, name):
    """The numbers, or the text, of a series of narwhals."""
    kind, missing = series.dtype, np.asarray(series.is_null().to_numpy(), bool)
    if kind.is_numeric() or str(kind) == "Boolean":
        values = series.to_numpy()
        if values.dtype.kind not in "biuf":  # decimals, and numbers with gaps
            values = np.array([math.nan if v is None else v for v in values.tolist()], np.float64)
        if values.dtype.kind == "f":
            missing = missing | np.isnan(values)
        return Column(values, missing)
    if str(kind).split("(")[0] in ("String", "Categorical", "Enum", "Object", "List", "Array"):
        return _of_objects(series.to_list(), missing, where, name)
    raise DataError(
        f"{where}: column {name!r} holds {kind}, and numbers or text are needed. Make numbers of "
        "it, or leave it out."
    )


def _of_objects(values, missing, where, name):
    """Text, numbers, or lists of numbers of one length, as Python objects."""
    given = [v for v, absent in zip(values, missing, strict=True) if not absent]
    kinds = {type(value) for value in given}
    if kinds & {list, tuple, np.ndarray} or any(hasattr(v, "to_list") for v in given[:1]):
        if missing.any():
            raise DataError(
                f"{where}: column {name!r} is missing in row {int(np.argmax(missing))}. Leave this "
                "row out."
            )
        try:
            return Column(np.array([list(value) for value in given], np.float64), missing)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}: the lists in column {name!r} are not numbers, as many in each row."
            ) from error
    is_number = [isinstance(v, bool | int | float | np.number | np.bool_) for v in given]
    if given and all(is_number):
        numbers = [math.nan if absent else v for v, absent in zip(values, missing, strict=True)]
        return Column(np.array(numbers, np.float64), missing)
    if any(is_number):
        row = next(n for n, v in enumerate(values) if isinstance(v, str) or not missing[n])
        row = next((n for n, v in enumerate(values) if isinstance(v, str)), row)
        raise DataError(
            f"{where}: column {name!r} mixes numbers and text: row {row} is "
            f"{brief(values[row])}. Make it one of them."
        )
    texts = np.empty(len(values), object)
    texts[:] = ["" if absent else str(v) for v, absent in zip(values, missing, strict=True)]
    return Column(texts, missing)


# Folders as `datasets` of Hugging Face saves them: Arrow streams, named in state.json.


def _split_files(path: Path) -> dict[str, Path]:
    """The files or folders of the splits."""
    if not (path.is_dir() and (path / "dataset_dict.json").is_file()):
        return {"train": path}
    with host.reading(path / "dataset_dict.json"):
        names = host.read_json(path / "dataset_dict.json")["splits"]
        if not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise ValueError("its splits are no names")
    return {name: path / name for name in names}


def _read_arrow(path):
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError as error:
        raise DataError(f"{path} needs a library that reads it: pip install pyarrow.") from error
    tables, names = [], {}
    with host.reading(path / "state.json"):
        files = [entry["filename"] for entry in host.read_json(path / "state.json")["_data_files"]]
        if not all(isinstance(name, str) and name == os.path.basename(name) for name in files):
            raise ValueError("its files are not beside it")
    for name in files:
        with host.reading(path / name), open_regular(path / name) as file:
            size = os.fstat(file.fileno()).st_size
            host.require_memory(_COPIES * size, f"What {path / name} holds", "Save it as .npy.")
            tables.append(ipc.open_stream(file).read_all())
    found = pyarrow.concat_tables(tables)
    metadata = (found.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        kinds = json.loads(metadata).get("info", {}).get("features", {})
        names = {n: tuple(map(str, kind["names"])) for n, kind in kinds.items() if "names" in kind}
    except (ValueError, AttributeError, TypeError, RecursionError):
        names = {}
    return from_frame(found, str(path))._replace(label_names=names)
