"""Tables and frames: names, categories, missing values, groups, sparse matrices; a job."""

import csv
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import softmax_jax
from configs import probe
from softmax_jax import data
from softmax_jax.data import DataError, tables
from softmax_jax.host import DONE
from softmax_jax.job import run
from softmax_jax.predict import predict

pyarrow = pytest.importorskip("pyarrow")
RNG = np.random.default_rng(0)
N = 60
COLUMNS = {
    "age": RNG.integers(18, 80, N).astype(float),
    "colour": RNG.choice(["red", "=blue", "green"], N),
    "member": RNG.random(N) < 0.5,
    "size": RNG.normal(size=N),
}
SPECIES = np.where(COLUMNS["size"] + (COLUMNS["colour"] == "red") > 0.5, "wren", "owl")
NAMES = ("age", "colour==blue", "colour=green", "colour=red", "member", "size")
AUTO = {"train": "auto", "val": "auto", "test": "auto"}


def by_hand(columns):
    one_hot = [columns["colour"] == c for c in ("=blue", "green", "red")]
    return np.stack([columns["age"], *one_hot, columns["member"], columns["size"]], 1)


def write(path, columns, separator=","):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(zip(*(np.asarray(own).tolist() for own in columns.values()), strict=True))
    return str(path)


def saved(folder, kind, columns):
    if kind != "parquet":
        separator = {"csv": ",", "tsv": "\t", "excel.csv": ";"}[kind]
        return write(folder / f"t.{kind}", columns, separator)
    from pyarrow import parquet

    own = {name: np.asarray(values).tolist() for name, values in columns.items()}
    parquet.write_table(pyarrow.table(own), folder / "t.parquet")
    return str(folder / "t.parquet")


def frame(library, columns):
    own = {name: np.asarray(values).tolist() for name, values in columns.items()}
    if library == "pyarrow":
        return pyarrow.table(own)
    return pytest.importorskip(library).DataFrame(own)


@pytest.mark.parametrize("kind", ["csv", "tsv", "excel.csv", "parquet"])
def test_columns_become_features_by_their_names(tmp_path, kind):
    path = saved(tmp_path, kind, {"species": SPECIES, **COLUMNS})
    splits = data.load(path, "train[:50]", "train[50:]", label_column="species")
    assert splits.train.features.names == NAMES
    assert splits.train.features.columns == ("age", *["colour"] * 3, "member", "size")
    x = np.concatenate([splits.train.x, splits.val.x])
    assert_allclose(x, by_hand(COLUMNS), rtol=1e-6)
    assert splits.label_names == ("owl", "wren")
    assert_array_equal(splits.train.labels[splits.train.y], SPECIES[:50])


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_are_taken_with_the_categories_of_train(library):
    cut = {role: {n: own[rows] for n, own in COLUMNS.items()} for role, rows in HALVES.items()}
    cut["val"]["colour"] = np.where(np.arange(20) == 7, "violet", cut["val"]["colour"])
    train = frame(library, cut["train"]), SPECIES[:40]
    with pytest.warns(UserWarning, match="val: column 'colour' holds 'violet' in row 7, a categor"):
        splits = data.from_arrays(train, (frame(library, cut["val"]), SPECIES[40:]))
    assert splits.train.features.names == NAMES
    assert_allclose(splits.val.x, by_hand(cut["val"]), rtol=1e-6)
    assert not splits.val.x[7, 1:4].any()
    with pytest.raises(DataError, match="val lacks the columns 'age', 'colour', 'member'"):
        data.from_arrays(train, (frame(library, {"size": [1.0]}), SPECIES[:1]))
    more = cut["val"] | {"more": cut["val"]["age"]}
    with pytest.raises(DataError, match="val has the column 'more', which train lacks"):
        data.from_arrays(train, (frame(library, more), SPECIES[40:]))


HALVES = {"train": slice(40), "val": slice(40, 60)}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_what_is_missing_in_a_frame_is_named_by_row_and_column(library):
    columns = {name: own.tolist() for name, own in COLUMNS.items()}
    for name, row in ("age", 3), ("colour", 9), ("colour", 11):
        columns[name][row] = None
    library = pyarrow if library == "pyarrow" else pytest.importorskip(library)
    make = library.table if library is pyarrow else library.DataFrame
    with pytest.raises(DataError, match="column 'age' in row 3; column 'colour' in row 9 and 1 mo"):
        data.from_arrays((make(columns), SPECIES), (make(columns), SPECIES))


ROWS = [f"{n * 0.5},{'ab'[n % 2]},{n % 3}" for n in range(30)]


@pytest.mark.parametrize(
    "text, message",
    [
        (["a,b,y", *ROWS, ",a,1", "1,NA,2"], "column 'a' in row 30; column 'b' in row 31"),
        (["a,b,y", *ROWS, "1,a,"], "column 'y' is missing in row 30"),
        (["a,b,y", *ROWS, "x,a,1"], "column 'a' holds 'x' in row 30"),
        (["a,b,y", *ROWS, "1 234,a,1"], "column 'a' holds '1 234' in row 30"),
        (["a,b,y", *ROWS, "1,a"], r"row 30 \(line 32\) has 2 cells, and the header 3"),
        (["a,a,y", *ROWS], "two columns 'a'"),
        (["a,,y", *ROWS], "column 1 has no name"),
        (["1,2,3", *ROWS], "has no header"),
        ([], "is empty"),
        (["a,b,y"], "has no rows"),
        (["a,b,z", *ROWS], "has no column 'y', as label_column says; there are: 'a', 'b', 'z'"),
        (["a,b,y", *[f"1,a,{n}.5" for n in range(9)]], "label column 'y' holds 0.5 in row 0"),
        (["a;b;y", *[f"{n},5;a;1" for n in range(9)]], "column 'a' holds '0,5' in row 0"),
        (["y", *"0101"], "has no columns beside y"),
        (["a,a=b,y", *["b,1,0", "c,2,1"]], "two features would be called 'a=b'"),
    ],
)
def test_bad_tables_are_refused_in_one_message(tmp_path, text, message):
    (tmp_path / "t.csv").write_text("\n".join(text))
    with pytest.raises(DataError, match=message):
        data.load(str(tmp_path / "t.csv"), **AUTO, label_column="y")


def test_bytes_that_are_no_table_are_refused(tmp_path):
    for name, content in ("t.csv", b"a,y\n\xff,1\n"), ("t.parquet", b"PAR1 and more"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} is (not UTF-8|damaged)"):
            data.load(str(tmp_path / name), **AUTO, label_column="y")
    with pytest.raises(DataError, match="say which column has the labels"):
        data.load(write(tmp_path / "t.csv", COLUMNS), **AUTO)
    with pytest.raises(DataError, match="is for tables"):
        data.load("digits", **AUTO, label_column="y")


@pytest.mark.parametrize(
    "column, message",
    [
        ("", "the numbers of the rows, is left out"),
        ("id", "column 'id' counts the rows"),
        ("name", "60 different texts in 60 rows"),
    ],
)
def test_columns_that_number_the_rows_are_said(tmp_path, column, message):
    first = [f"n{n}" for n in range(N)] if column == "name" else np.arange(N) + (column == "id")
    path = write(tmp_path / "t.csv", {column: first, **COLUMNS, "y": SPECIES})
    with pytest.warns(UserWarning, match=message):
        splits = data.load(path, **AUTO, label_column="y")
    assert ("" in splits.train.features.columns) is False


CELLS = st.floats(-1e6, 1e6).map(repr) | st.integers(-999, 999).map(str)


@settings(deadline=None, max_examples=40)
@given(st.lists(CELLS, min_size=1, max_size=50), st.integers(1, 7))
def test_numbers_are_read_exactly_wherever_chunks_end(cells, size):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_AT_ONCE", size)
        path = Path(folder) / "t.csv"
        late = [*["1"] * (len(cells) - 1), "B"]  # text shows in the last row
        rows = "\n".join(f"{a},{b}" for a, b in zip(cells, late, strict=True))
        path.write_text(f"a,b\n{rows}\n")
        found = tables.read_table(path)
        assert_array_equal(found.columns["a"].values, [float(cell) for cell in cells])
        assert found.columns["b"].values.tolist() == late


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=50, max_size=50).map(np.array))
def test_auto_has_no_group_in_train_and_val(groups):
    import tempfile

    if len(np.unique(groups)) < 2:
        return
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = f"{folder}/g.npz"
        np.savez(path, x=np.arange(100.0).reshape(50, 2), y=np.arange(50) % 2, g=groups)
        try:
            splits = data.load(path, **AUTO, group_column="g")
        except DataError as error:  # a class in val alone
            assert "does not occur in train" in str(error)
            return
    assert not set(splits.train.groups) & set(splits.val.groups)
    assert len(splits.train) + len(splits.val) == 50


def test_groups_of_an_npz_are_used_and_change_the_fingerprint(tmp_path):
    arrays = {"x": RNG.normal(size=(40, 3)), "y": np.arange(40) % 2}
    np.savez(tmp_path / "a.npz", **arrays, groups=np.arange(40) // 5)
    np.savez(tmp_path / "b.npz", **arrays, groups=np.arange(40) // 10)
    one, other = (
        data.load(str(tmp_path / f"{name}.npz"), "train[:30]", "train[30:]") for name in "ab"
    )
    assert_array_equal(one.train.groups, np.arange(30) // 5)
    assert data.fingerprint(one) != data.fingerprint(other)
    with pytest.warns(UserWarning, match="1 of the groups of val are in train too"):
        data.load(str(tmp_path / "b.npz"), "train[:33]", "train[33:]")
    np.savez(tmp_path / "c.npz", **arrays, groups=np.arange(39))
    with pytest.raises(DataError, match="shape"):
        data.load(str(tmp_path / "c.npz"), **AUTO)


def test_groups_and_copies_stay_together():
    x = np.arange(60.0).reshape(20, 3)
    x[7] = x[0]  # a copy links groups 0 and 3
    groups = np.arange(20) // 2
    splits = data.from_arrays((x, np.arange(20) % 2, None, groups), (x + 100, np.arange(20) % 2))
    number = data.validation.together(splits.train)
    assert number[0] == number[1] == number[6] == number[7]
    assert len(np.unique(number)) == 9


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse_matrices_become_dense(tmp_path, kind):
    x = sparse.random_array((30, 5), density=0.4, format=kind, rng=0)
    sparse.save_npz(tmp_path / "x.npz", x)
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    splits = data.load(str(tmp_path), "train[:20]", "train[20:]")
    assert_allclose(np.concatenate([splits.train.x, splits.val.x]), x.toarray(), rtol=1e-6)
    x = x.tocsr()
    own = data.from_arrays((x[:20], np.arange(20) % 3), (x[20:], np.arange(10) % 3))
    assert_array_equal(own.train.x, splits.train.x)
    huge = sparse.csr_array((10**6, 10**6))
    with pytest.raises(DataError, match="train, as a dense array, would take"):
        data.from_arrays((huge, np.zeros(10**6, int)), (x[20:], np.arange(10) % 3))
    with pytest.raises(DataError, match="holds a sparse matrix, and no labels"):
        data.load(str(tmp_path / "x.npz"), **AUTO)


def test_sparse_matrices_with_indices_outside_their_shape_are_refused(tmp_path):
    wrong = {"indices": np.arange(10) * 9, "indptr": np.arange(11), "data": np.ones(10)}
    np.savez(tmp_path / "x.npz", **wrong, shape=np.array([10, 3]), format=np.array(b"csr"))
    np.save(tmp_path / "y.npy", np.arange(10) % 2)
    with pytest.raises(DataError, match="x.npz is"):
        data.load(str(tmp_path), **AUTO)


def test_a_folder_of_hugging_face_datasets_is_read(tmp_path):
    for split, rows in ("train", slice(40)), ("test", slice(40, 60)):
        (tmp_path / split).mkdir()
        own = {name: pyarrow.array(values[rows].tolist()) for name, values in COLUMNS.items()}
        own["label"] = pyarrow.array((SPECIES[rows] == "wren").astype(int))
        kinds = {"label": {"names": ["owl", "wren"], "_type": "ClassLabel"}}
        about = json.dumps({"info": {"features": kinds}}).encode()
        table = pyarrow.table(own).replace_schema_metadata({b"huggingface": about})
        name = tmp_path / split / "data-00000-of-00001.arrow"
        with pyarrow.ipc.new_stream(str(name), table.schema) as stream:
            stream.write_table(table)
        state = {"_data_files": [{"filename": name.name}]}
        (tmp_path / split / "state.json").write_text(json.dumps(state))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    splits = data.load(str(tmp_path), "train", "test", label_column="label")
    assert splits.label_names == ("owl", "wren") and splits.train.features.names == NAMES
    assert_allclose(splits.val.x, by_hand({n: own[40:] for n, own in COLUMNS.items()}), rtol=1e-6)
    (tmp_path / "train" / "state.json").write_text('{"_data_files": [{"filename": "../../x"}]}')
    with pytest.raises(DataError, match="its files are not beside it"):
        data.load(str(tmp_path), "train", "test", label_column="label")


def test_a_job_on_a_table_keeps_names_and_predicts_by_them(tmp_path):
    """The stranger's path: rows sorted by class, text labels, groups, folds; predict on a .csv."""
    order = np.argsort(SPECIES, kind="stable")
    columns = {name: own[order] for name, own in COLUMNS.items()}
    patients = [f"p{n % 20}" for n in range(N)]
    every = columns | {"patient": patients, "species": SPECIES[order]}
    config = probe.get_config().unlock()
    config.dataset, config.label_column = write(tmp_path / "t.csv", every), "species"
    config.group_column, config.l2_path, config.folds = "patient", 2, 3
    assert run.main(config, tmp_path / "w") == DONE
    model = softmax_jax.load(tmp_path / "w")
    assert model.features.names == NAMES
    with open(tmp_path / "w/weights.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["feature"] for row in rows] == list(NAMES)
    assert_allclose([float(row["W(wren)"]) for row in rows], model.W[:, 1], rtol=1e-6)
    proba = model.predict_proba(by_hand(columns))

    shuffled = {name: every[name] for name in reversed(every)}  # other columns, in another order
    write(tmp_path / "new.csv", shuffled)
    assert predict(tmp_path / "w", tmp_path / "new.csv", tmp_path / "o.npz") == N
    assert_allclose(np.load(tmp_path / "o.npz")["probabilities"], proba, atol=1e-6)
    assert_allclose(model.predict_proba(pyarrow.table(shuffled)), proba, atol=1e-6)
    del shuffled["age"]
    with pytest.raises(DataError, match="lacks the column 'age'"):
        predict(tmp_path / "w", write_path(tmp_path, shuffled), tmp_path / "o.npz")
    shuffled |= {"age": every["age"], "colour": np.full(N, "violet")}
    with pytest.warns(UserWarning, match="column 'colour' holds 'violet' in row 0, a category"):
        predict(tmp_path / "w", write_path(tmp_path, shuffled), tmp_path / "o.npz")


def write_path(folder, columns):
    write(folder / "new.csv", columns)
    return folder / "new.csv"
