import os

import ml_dtypes
import numpy as np
import pytest

from softmax_jax import data, host
from softmax_jax.data import npz

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3
SPLITS = {"x_train": X[:20], "y_train": Y[:20], "x_val": X[20:25], "y_val": Y[20:25]}
TEST = {"x_test": X[25:], "y_test": Y[25:]}


@pytest.fixture(params=["npz", "folder"])
def write(request, tmp_path):
    """write({name: array}) puts arrays into a file or folder and returns its path as text."""

    def write(arrays):
        if request.param == "npz":
            np.savez(tmp_path / "features.npz", **arrays)
            return str(tmp_path / "features.npz")
        folder = tmp_path / "features"
        folder.mkdir(exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        return str(folder)

    return write


def test_three_lines_of_numpy_are_a_dataset(write):
    splits = data.load(write(SPLITS), "auto", "auto", "auto")
    np.testing.assert_array_equal(splits.train.x, X[:20])
    np.testing.assert_array_equal(splits.val.y, Y[20:25])
    assert splits.test is None and splits.label_names == ("0", "1", "2")
    assert (splits.train.scale, splits.train.mean, splits.train.is_image) == (1.0, 0.0, False)
    assert splits.train.x.dtype == np.float32 and splits.train.y.dtype == np.int32


def test_splits_of_the_file_are_addressed_by_name(write):
    path = write(SPLITS | TEST)
    splits = data.load(path, "train[:10]+val", "train[10:]", "test[1:]")
    np.testing.assert_array_equal(splits.train.x, np.concatenate([X[:10], X[20:25]]))
    np.testing.assert_array_equal(splits.val.x, X[10:20])
    np.testing.assert_array_equal(splits.test.x, X[26:])


def test_the_defaults_are_those_of_any_other_dataset(write):
    splits = data.load(write(SPLITS | TEST))
    np.testing.assert_array_equal(splits.val.x, X[25:])
    assert splits.test is None


def test_a_split_that_is_not_there_is_answered_with_those_that_are(write):
    with pytest.raises(
        data.DataError, match=r"^val: .*'test'.*'auto'.*'train' \(20\), 'val' \(5\)"
    ):
        data.load(write(SPLITS))


@pytest.mark.parametrize("more", [{}, TEST])
def test_x_and_y_alone_are_the_split_train(write, more):
    path = write({"x": X, "y": Y, "w": np.arange(30.0)} | more)
    splits = data.load(path, "train[:80%]", "train[80%:]", "test" if more else "")
    np.testing.assert_array_equal(splits.train.x, X[:24])
    np.testing.assert_array_equal(splits.val.x, X[24:])
    np.testing.assert_array_equal(splits.train.weights, np.arange(24, dtype=np.float32))
    assert splits.val.weights is None
    assert (splits.test is None) == (not more)
    assert data.fingerprint(splits) == data.fingerprint(data.load(path, "auto", "auto", "auto"))


def test_weights_belong_to_train(write):
    weights = RNG.uniform(size=20)
    path = write(SPLITS | {"w_train": weights})
    splits = data.load(path, val="val")
    np.testing.assert_array_equal(splits.train.weights, weights.astype(np.float32))
    assert splits.val.weights is None
    with pytest.raises(data.DataError, match="train: some of its splits have weights"):
        data.load(path, "train[:10]+val", "train[10:]")
    for wrong, why in ((-weights, "weight .* is negative"), (weights[1:], r"shape \(19,\)")):
        with pytest.raises(data.DataError, match=why):
            data.load(write(SPLITS | {"w_train": wrong}), val="val")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "stored", [np.float16, np.float32, ">f4", np.float64, ml_dtypes.bfloat16, np.int32, bool]
)
def test_features_of_any_type_become_floats(write, stored, dtype):
    x = (4 * X).astype(stored)
    arrays = SPLITS | {"x_train": x[:20], "x_val": x[20:25]}
    train = data.load(write(arrays), val="val", dtype=dtype).train
    assert train.x.dtype == train.dtype == dtype
    np.testing.assert_array_equal(train.x, x[:20].astype(np.float64).astype(dtype))


def test_float64_keeps_all_digits(write):
    x = X.astype(np.float64) + 1e-12
    arrays = SPLITS | {"x_train": x[:20], "x_val": x[20:25], "w_train": np.full(20, 1 / 3)}
    splits = data.load(write(arrays), val="val", dtype="float64")
    np.testing.assert_array_equal(splits.train.x, x[:20])
    assert splits.train.weights[0] == 1 / 3


@pytest.mark.parametrize(
    "shape, dtype, is_image",
    [
        ((5, 6), np.uint8, True),
        ((5, 6, 3), np.uint8, True),
        ((5, 6), np.float32, False),
        ((5, 6, 3), np.float16, False),
        ((24,), np.uint8, False),
        ((2, 3, 2, 2), np.float32, False),
    ],
)
def test_only_bytes_are_pictures(write, shape, dtype, is_image):
    x = RNG.integers(0, 256, (30, *shape)).astype(dtype)
    train = data.load(write({"x": x, "y": Y}), "auto", "auto").train
    assert train.is_image == is_image and train.x.shape == (24, *shape)
    assert train.num_features == np.prod(shape)
    assert train.x.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert train.scale == (255 if dtype == np.uint8 else 1)


def test_labels_may_be_names(write):
    names = np.array(["cat", "ant", "bee"])
    path = write({"x": X, "y": names[Y]})
    splits = data.load(path, "auto", "auto")
    assert splits.label_names == splits.val.label_names == ("ant", "bee", "cat")
    assert splits.train.text_labels(splits.train.y[:4]) == ["cat", "ant", "bee", "cat"]


def test_a_label_that_only_other_splits_have_makes_no_class(write):
    y_test = np.array([0, 1, 2, 9, 0])
    path = write(SPLITS | TEST | {"y_test": y_test})
    assert data.load(path, val="val").train.num_classes == 3
    with pytest.raises(data.DataError, match="test: label '9' of example 3 does not occur"):
        data.load(path, val="val", test="test")


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"y_train": None}, r"has no y_train; it holds: x_train, x_val, y_val\. Needed are"),
        ({"x_train": None}, "has no x_train; it holds: x_val, y_train, y_val"),
        ({"x_train": None, "y_train": None}, r"has no x_train \(or x\) and no y_train \(or y\)"),
        ({"x_val": None}, "has no x_val"),
        ({"y_train": Y[:19]}, r"y_train.* has shape \(19,\), and .*x_train.* \(20, 4\)"),
        ({"y_val": Y[:5, None]}, r"y_val.* has shape \(5, 1\)"),
        ({"x_train": np.float32(3)}, r"x_train.* has shape \(\)"),
        ({"x_train": X[:20, 0]}, r"train: x has shape \(20,\).*reshape\(-1, 1\)"),
        ({"x_val": X[20:25, :3]}, r"of shape \(4,\), and one in val is float32 of shape \(3,\)"),
        ({"x_val": X[20:25].astype(np.uint8)}, "float32 .* and one in val is uint8"),
        ({"x_train": X[:20].astype(str)}, "x_train.* must hold numbers, and holds <U"),
        ({"x_train": X[:20] * 1j}, "x_train.* must hold numbers, and holds complex64"),
        ({"y_train": Y[:20] / 2}, "train: labels must be integers or text, and are float64"),
        ({"y_train": 0 * Y[:20], "y_val": 0 * Y[:5]}, "train: there is only one class, '0'"),
        ({"x_train": X[:0], "y_train": Y[:0]}, r"train: The split 'train' is empty.*'train' \(0\)"),
        ({"x_train": np.full((20, 4), 1e300)}, "train: feature inf in row 0, column 0"),
    ],
)
def test_each_mistake_has_its_message(write, changes, why):
    arrays = {name: value for name, value in (SPLITS | changes).items() if value is not None}
    with pytest.raises(data.DataError, match=why):
        data.load(write(arrays), val="val")


@pytest.mark.parametrize("stored", [np.float16, np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_named_by_row_and_column(write, stored, value):
    x = X.reshape(30, 2, 2).astype(stored)
    x[22, 1, 0] = value
    with pytest.raises(data.DataError, match=f"val: feature {value} in row 2, column 2"):
        data.load(write(SPLITS | {"x_train": x[:20], "x_val": x[20:25]}), val="val")


def test_pickles_are_refused(write):
    objects = np.array([{}, *Y[:19]], object)
    with pytest.raises(data.DataError, match="y_train.* holds pickled Python objects"):
        data.load(write(SPLITS | {"y_train": objects}), val="val")


def test_what_is_not_asked_for_is_not_read(write):
    path = write(SPLITS | {"notes": np.array([{}], object)})
    assert data.load(path, val="val").train.num_examples == 20


def test_a_file_that_unpacks_to_more_than_the_memory_is_refused_unread(tmp_path, monkeypatch):
    x = np.zeros((1 << 14, 64), np.float16)
    np.savez_compressed(tmp_path / "bomb.npz", x=x, y=np.arange(1 << 14) % 2)
    assert (tmp_path / "bomb.npz").stat().st_size < x.nbytes / 20
    monkeypatch.setattr(host, "available_memory", lambda: x.nbytes)
    with pytest.raises(data.DataError, match=r"bomb\.npz unpacks to would take .*folder"):
        npz.file_source(str(tmp_path / "bomb.npz"))


def test_a_folder_larger_than_the_memory_is_read_in_parts(tmp_path, monkeypatch):
    """With the same checks, and the same fingerprint as in memory."""
    for name, array in SPLITS.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.float16) if name[0] == "x" else array)
    in_memory = data.load(str(tmp_path), val="val")
    monkeypatch.setattr(host, "available_memory", lambda: 4 * 25 * 16 - 1)
    splits = data.load(str(tmp_path), val="val")
    assert isinstance(splits.train.x, np.memmap) and splits.train.x.dtype == np.float16
    assert splits.train.shard_size == 12 and splits.val.shard_size is None
    assert data.fingerprint(splits) == data.fingerprint(in_memory)
    rows = [part.dataset.x for part in splits.train.in_order()]
    np.testing.assert_array_equal(np.concatenate(rows), in_memory.train.x)
    x = np.where(np.arange(20)[:, None] == 13, np.nan, X[:20]).astype(np.float16)
    np.save(tmp_path / "x_train.npy", x)
    with pytest.raises(data.DataError, match="train: feature nan in row 13, column 0"):
        data.load(str(tmp_path), val="val")


@pytest.mark.parametrize("name", ["missing.npz", "/missing/folder", "./missing", "~/missing"])
def test_a_file_that_is_not_there_is_not_found(name):
    with pytest.raises(data.DatasetNotFoundError, match="There is no file or folder .*missing"):
        data.load(name)


def test_a_home_folder_may_be_written_short(isolated):
    np.savez(isolated / "features.npz", x=X, y=Y)
    assert data.load("~/features.npz", "auto", "auto").train.num_examples == 24


def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "features.npz"
    path.mkdir()  # opening it fails, for root as well
    (path / "x_train.npy").mkdir()
    (path / "y_train.npy").mkdir()
    with pytest.raises(data.DataError, match="features.npz' cannot be read: .*directory"):
        data.load(str(path))


def test_paths_are_told_from_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("features", "set/features", "fashion_mnist"):
        os.makedirs(folder)
    np.save("features/x_train.npy", X)
    np.save("set/features/x.npy", X)
    paths = ["a.npz", "set/a.npz", "features", "features/", "set/features", "./a", "/a", "../a"]
    assert [name for name in paths if not npz.is_path(name)] == []
    names = ["digits", "fashion_mnist", "set/config", "set/config:1.0.0", "toy:1.0.0", "set", ""]
    assert [name for name in names if npz.is_path(name)] == []
