"""From the name of a dataset to its splits: where it is found, what is read, what is refused."""

import gzip
import hashlib
import os
import shutil
import socket
import time

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn import datasets

from softmax_jax import data
from softmax_jax.data import sources
from softmax_jax.data.sources import FASHION_LABELS
from tests.data_on_disk import (  # noqa: F401
    IMAGES,
    LABELS,
    isolate,
    start_server,
    write_idx,
    write_prepared,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3
SPLITS = {"x_train": X[:20], "y_train": Y[:20], "x_val": X[20:25], "y_val": Y[20:25]}
TEST = {"x_test": X[25:], "y_test": Y[25:]}
TOY = {"train": (IMAGES, LABELS), "test": (IMAGES[:3], LABELS[:3])}


@pytest.fixture
def folder(tmp_path):
    """A TFDS data folder with a dataset `toy`: 7 examples in train, 3 in test."""
    write_prepared(tmp_path, "toy", TOY)
    return tmp_path


# Datasets prepared by TFDS, and how their splits are taken.


def test_a_prepared_dataset_is_loaded(folder):
    splits = data.load("toy", train="train[:4]", val="train[4:]", test="test", data_dir=folder)
    for dataset, rows in ((splits.train, IMAGES[:4]), (splits.val, IMAGES[4:])):
        assert_array_equal(dataset.x, rows)
        assert (dataset.scale, dataset.mean, dataset.name) == (255.0, 0.0, "toy")
        assert dataset.x.dtype == np.uint8 and dataset.y.dtype == np.int32
    assert_array_equal(splits.test.x, IMAGES[:3])
    assert_array_equal(splits.val.y, LABELS[4:])
    assert (splits.name, splits.label_names) == ("toy", ("ant", "bee", "cat"))
    assert not splits.val_is_test
    assert splits.train.x.base is splits.val.x.base is not None  # views, no copies


def test_slices_are_put_together_in_order(folder):
    splits = data.load("toy", train="train[5:]+train[:2]", val="test", data_dir=folder)
    assert_array_equal(splits.train.x, IMAGES[[5, 6, 0, 1]])
    assert_array_equal(splits.train.y, LABELS[[5, 6, 0, 1]])


def test_by_default_val_is_the_split_test_and_there_is_no_test(folder):
    splits = data.load("toy", data_dir=folder)
    assert (splits.train.num_examples, splits.val.num_examples, splits.test) == (7, 3, None)


def test_val_and_test_may_share_examples_and_the_result_says_so(folder):
    for val, test, same in (
        ("test", "test", True),
        ("test[:2]", "test[1:]", True),
        ("test[:2]", "test[2:]", False),
    ):
        assert data.load("toy", val=val, test=test, data_dir=folder).val_is_test == same


@pytest.mark.parametrize(
    "specs, why",
    [
        ({"train": "train", "val": "train[5:]"}, r"val='train\[5:\]' share.*train\[5:7\]"),
        ({"train": "train[:6]", "val": "test", "test": "train[-2:]"}, r"test=.*train\[5:6\]"),
        ({"train": ""}, "must be a train split"),
        ({"val": ""}, "must be a val split"),
        ({"val": "tset"}, r"'tset' cannot be read.*there are 'train' \(7\), 'test' \(3\)"),
        ({"val": "test[:0]"}, "empty"),
    ],
)
def test_impossible_splits_are_refused(folder, specs, why):
    with pytest.raises(data.DataError, match=why):
        data.load("toy", **specs, data_dir=folder)


def test_labels_out_of_range_are_refused(tmp_path):
    folder = write_prepared(tmp_path, "toy", TOY)
    (folder / "label.labels.txt").write_text("ant\nbee\n")
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"3"', '"2"'))
    with pytest.raises(data.DataError, match=r"train: label 2 of example 2 is outside 0\.\.1"):
        data.load("toy", data_dir=tmp_path)


def test_the_first_place_that_has_the_dataset_is_used(tmp_path, monkeypatch):
    for n, place in ((2, "a"), (3, "b")):
        split = IMAGES[:n], LABELS[:n]
        write_prepared(tmp_path / place, "toy", {"train": split, "test": split})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "b"))
    assert data.load("toy").train.num_examples == 3
    assert data.load("toy", data_dir=tmp_path / "a").train.num_examples == 2
    assert data.load("toy", data_dir=tmp_path / "absent").train.num_examples == 3


def test_data_folders_come_in_order(isolated, monkeypatch):
    assert sources.data_folders(None) == [isolated / "tensorflow_datasets"]
    monkeypatch.setenv("TFDS_DATA_DIR", str(isolated / "elsewhere"))
    names = ["mine", "elsewhere", "tensorflow_datasets"]
    assert sources.data_folders("~/mine") == [isolated / name for name in names]


def test_an_unknown_name_is_answered_with_places_and_near_names(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    for name, near in (
        ("tor", "toy"),
        ("digit", "digits"),
        ("fashionmnist", "fashion_mnist"),
        ("zzz", "breast_cancer, digits, fashion_mnist, iris, toy, wine"),
    ):
        with pytest.raises(data.DatasetNotFoundError) as error:
            data.load(name, data_dir="/elsewhere")
        message = str(error.value)
        assert f"Names nearest to it here: {near}." in message
        assert "/elsewhere" in message and str(folder) in message


# Fashion-MNIST: prepared by TFDS, in its own files, or from the network.


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("place", ["", "fashion_mnist"])
def test_fashion_mnist_is_read_from_its_four_files(tmp_path, compressed, place):
    write_idx(tmp_path / place, compressed)
    files = sources.find_fashion_mnist_files([tmp_path / "absent", tmp_path])
    source = sources.fashion_mnist_source(files)
    assert source.shard_lengths == {"train": (7,), "test": (3,)}
    for split, n in (("train", 7), ("test", 3)):
        x, y = source.read(split)
        assert_array_equal(x, IMAGES[:n])
        assert_array_equal(y, LABELS[:n])
        assert (x.dtype, y.dtype) == (np.uint8, np.int32)
    assert (tmp_path / place / "softmax_jax_cache" / "split-train.json").is_file()
    x, _ = sources.fashion_mnist_source(files).read("train")  # from the cache
    assert_array_equal(x, IMAGES)


@pytest.mark.parametrize("missing", range(4))
def test_three_of_the_four_files_are_not_fashion_mnist(tmp_path, missing):
    list(write_idx(tmp_path).values())[missing].unlink()
    assert sources.find_fashion_mnist_files([tmp_path]) is None


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path):
    files = write_idx(tmp_path)
    labels = files["train-labels-idx1-ubyte"]
    labels.write_bytes(files["t10k-labels-idx1-ubyte"].read_bytes())
    with pytest.raises(data.DataError, match=r"train-images.* 7 images.*train-labels.* 3 labels"):
        sources.fashion_mnist_source(files)
    labels.write_bytes(files["train-images-idx3-ubyte"].read_bytes())
    with pytest.raises(data.DataError, match=r"train-labels.*rank 3"):
        sources.fashion_mnist_source(files)


def test_damaged_images_are_refused_when_read_and_leave_no_cache(tmp_path):
    files = write_idx(tmp_path)
    path = files["train-images-idx3-ubyte"]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(data.DataError, match="train-images.*139 are there"):
        sources.fashion_mnist_source(files).read("train")
    assert not (tmp_path / "softmax_jax_cache").exists()


def test_a_damaged_file_beside_a_cache_is_a_data_error(tmp_path):
    files = write_idx(tmp_path)
    assert data.load("fashion_mnist", data_dir=tmp_path).train.num_examples == 7
    os.truncate(files["train-labels-idx1-ubyte"], 0)
    with pytest.raises(data.DataError, match="train-labels.*truncated") as error:
        data.load("fashion_mnist", data_dir=tmp_path)
    assert type(error.value) is data.DataError  # there, but damaged: no reason for a fallback


def test_fashion_mnist_has_the_books_names_from_any_source(tmp_path):
    split = np.zeros((2, 28, 28), np.uint8), np.array([0, 1])
    write_prepared(tmp_path / "a", "fashion_mnist", {"train": split, "test": split})
    write_idx(tmp_path / "b")
    for place in ("a", "b"):
        splits = data.load("fashion_mnist", data_dir=tmp_path / place)
        assert splits.label_names == splits.train.label_names == FASHION_LABELS
        assert splits.train.text_labels([0, 1, 9]) == ["t-shirt", "trouser", "ankle boot"]


def test_prepared_goes_before_idx_files(tmp_path):
    write_idx(tmp_path)
    write_prepared(
        tmp_path, "fashion_mnist", {"train": (IMAGES[:2], LABELS[:2]), "test": (IMAGES, LABELS)}
    )
    assert data.load("fashion_mnist", data_dir=tmp_path).train.num_examples == 2


def test_idx_files_are_found_where_downloads_go(isolated):
    write_idx(isolated / "cache" / "softmax_jax" / "fashion_mnist")
    assert data.load("fashion_mnist").train.num_examples == 7
    assert data.load("fashion_mnist", data_dir=isolated / "other").train.num_examples == 7


def assert_not_found(folder, match=None):
    """Loading must fail with an error that names the folder and the remedies."""
    with pytest.raises(data.DatasetNotFoundError, match=match) as error:
        data.load("fashion_mnist", data_dir=folder)
    assert type(error.value) is data.DatasetNotFoundError
    remedies = ("TFDS_DATA_DIR", "four IDX files", "data_dir", "allow the network")
    for part in (str(folder), *remedies):
        assert part in str(error.value)


def test_without_a_network_the_error_names_three_remedies(tmp_path):
    assert_not_found(tmp_path)


def test_a_silent_network_costs_less_than_8_seconds(tmp_path, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert_not_found(tmp_path)
    assert time.monotonic() - start < 8


def test_a_login_page_in_place_of_the_network_is_no_dataset(tmp_path, serve, monkeypatch):
    def login(request):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"<html>Please pay for the Wi-Fi</html>")

    monkeypatch.setenv("http_proxy", serve(login))
    assert_not_found(tmp_path, "not the published file")
    assert os.listdir(tmp_path / "fashion_mnist") == []


@pytest.mark.slow
def test_the_real_fashion_mnist_is_as_published(fashion_mnist_dir, tmp_path):
    shutil.copytree(fashion_mnist_dir / "fashion_mnist", tmp_path / "fashion_mnist")
    splits = data.load("fashion_mnist", data_dir=tmp_path, test="test[:5000]")
    x = splits.train.x
    assert x.shape == (60000, 28, 28) and splits.val.x.shape == (10000, 28, 28)
    assert abs(np.mean(x) / 255 - 0.28604) < 1e-5
    assert abs(np.std(x) / 255 - 0.35302) < 1e-5
    assert (np.bincount(splits.train.y) == 6000).all() and (np.bincount(splits.val.y) == 1000).all()
    assert splits.label_names == FASHION_LABELS and splits.val_is_test
    start = time.monotonic()
    again = data.load("fashion_mnist", data_dir=tmp_path, test="test[:5000]")
    assert time.monotonic() - start < 1.0  # 0.1 s on an idle machine; decoding takes 4 s or more
    assert data.fingerprint(again) == data.fingerprint(splits)


# scikit-learn's datasets.

EMBEDDED = {  # N, D, scale, names
    "digits": (1797, 64, 16, tuple("0123456789")),
    "breast_cancer": (569, 30, 1, ("malignant", "benign")),
    "iris": (150, 4, 1, ("setosa", "versicolor", "virginica")),
    "wine": (178, 13, 1, ("class_0", "class_1", "class_2")),
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_datasets_are_what_the_docstring_says(name, isolated):
    splits = data.load(name, train="train[:80%]", val="train[80%:]", test="test")
    N, D, scale, label_names = EMBEDDED[name]
    assert sum(map(len, (splits.train, splits.val, splits.test))) == N
    for dataset in (splits.train, splits.val, splits.test):
        assert (dataset.num_features, dataset.scale, dataset.name) == (D, scale, name)
        assert dataset.is_image == (name == "digits")
        assert dataset.x.dtype == (np.uint8 if name == "digits" else np.float32)
        assert dataset.y.dtype == np.int32 and dataset.label_names == label_names
    assert os.listdir(isolated) == []


@pytest.mark.parametrize("name", sources.EMBEDDED)
def test_the_division_of_an_embedded_dataset_is_a_stratified_partition(name):
    source = sources.embedded_source(name)
    (x, y), (x_test, y_test) = source.read("train"), source.read("test")
    assert source.shard_lengths == {"train": (len(x),), "test": (len(x_test),)}
    counts = np.bincount(y) + np.bincount(y_test)
    assert (np.abs(np.bincount(y_test) - counts / 5) < 1).all()
    everything = getattr(datasets, f"load_{name}")()
    both = np.concatenate([x, x_test]).reshape(len(everything.target), -1)
    labels = np.concatenate([y, y_test])
    ours = sorted((label, bytes(row)) for label, row in zip(labels, both, strict=True))
    theirs = zip(everything.target, everything.data.astype(x.dtype), strict=True)
    assert ours == sorted((label, bytes(row)) for label, row in theirs)


def test_the_division_of_the_digits_is_fixed():
    x, y = sources.embedded_source("digits").read("test")
    assert x.shape == (360, 8, 8) and (x.min(), x.max()) == (0, 16)
    content = x.tobytes() + y.astype(np.uint8).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "5ccada37b7bb7f1f"


def test_a_malignant_tumour_is_class_zero():
    """As in scikit-learn: 212 of them, larger than the 357 benign ones."""
    train = data.load("breast_cancer").train
    radius = [train.x[train.y == label, 0].mean() for label in (0, 1)]
    assert radius[0] > 17 > 13 > radius[1]


# Files of your own.


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


def test_arrays_in_a_file_are_a_dataset(write):
    splits = data.load(write(SPLITS), "auto", "auto", "auto")
    assert_array_equal(splits.train.x, X[:20])
    assert_array_equal(splits.val.y, Y[20:25])
    assert splits.test is None and splits.label_names == ("0", "1", "2")
    assert (splits.train.scale, splits.train.mean, splits.train.is_image) == (1.0, 0.0, False)
    assert splits.train.x.dtype == np.float32 and splits.train.y.dtype == np.int32


def test_splits_of_a_file_are_addressed_by_name(write):
    path = write(SPLITS | TEST)
    splits = data.load(path, "train[:10]+val", "train[10:]", "test[1:]")
    assert_array_equal(splits.train.x, np.concatenate([X[:10], X[20:25]]))
    assert_array_equal(splits.val.x, X[10:20])
    assert_array_equal(splits.test.x, X[26:])
    splits = data.load(path)  # the defaults are those of any other dataset
    assert_array_equal(splits.val.x, X[25:])
    assert splits.test is None


def test_a_split_that_is_not_there_is_answered_with_those_that_are(write):
    why = r"^val: .*'test'.*'auto'.*'train' \(20\), 'val' \(5\)"
    with pytest.raises(data.DataError, match=why):
        data.load(write(SPLITS))


@pytest.mark.parametrize("more", [{}, TEST])
def test_x_and_y_alone_are_the_split_train(write, more):
    path = write({"x": X, "y": Y, "w": np.arange(1.0, 31)} | more)
    splits = data.load(path, "train[:80%]", "train[80%:]", "test" if more else "")
    assert_array_equal(splits.train.x, X[:24])
    assert_array_equal(splits.val.x, X[24:])
    assert_array_equal(splits.train.weights, np.arange(1, 25))
    assert_array_equal(splits.val.weights, np.arange(25, 31))
    assert (splits.test is None) == (not more)
    assert data.fingerprint(splits) == data.fingerprint(data.load(path, "auto", "auto", "auto"))


def test_weights_in_a_file_go_with_their_examples(write):
    weights = RNG.uniform(size=20)
    path = write(SPLITS | {"w_train": weights})
    splits = data.load(path, val="val")
    assert_array_equal(splits.train.weights, weights)
    assert splits.val.weights is None
    with pytest.raises(data.DataError, match="train: some of its splits have weights"):
        data.load(path, "train[:10]+val", "train[10:]")
    for wrong, why in ((-weights, "weight .* is negative"), (weights[1:], r"shape \(19,\)")):
        with pytest.raises(data.DataError, match=why):
            data.load(write(SPLITS | {"w_train": wrong}), val="val")
    more = {"w_val": np.arange(len(SPLITS["y_val"]))}
    val = data.load(write(SPLITS | {"w_train": weights} | more), val="val").val
    assert_array_equal(val.weights, more["w_val"][1:])
    assert_array_equal(val.x, SPLITS["x_val"][1:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "stored", [np.float16, np.float32, ">f4", np.float64, ml_dtypes.bfloat16, np.int32, bool]
)
def test_features_of_any_type_become_floats(write, stored, dtype):
    x = (4 * X + 1e-12).astype(stored)
    arrays = SPLITS | {"x_train": x[:20], "x_val": x[20:25], "w_train": np.full(20, 1 / 3)}
    train = data.load(write(arrays), val="val", dtype=dtype).train
    assert train.x.dtype == train.dtype == dtype
    assert_array_equal(train.x, x[:20].astype(np.float64).astype(dtype))
    assert train.weights[0] == 1 / 3


@pytest.mark.parametrize("dtype, in_memory", [(np.uint8, np.uint8), (np.float16, np.float32)])
def test_only_bytes_in_a_file_are_images(write, dtype, in_memory):
    x = RNG.integers(0, 256, (30, 5, 6, 3)).astype(dtype)
    train = data.load(write({"x": x, "y": Y}), "auto", "auto").train
    assert train.is_image == (dtype == np.uint8) and train.x.shape == (24, 5, 6, 3)
    assert train.x.dtype == in_memory and train.scale == (255 if train.is_image else 1)


def test_labels_in_a_file_may_be_names(write):
    path = write({"x": X, "y": np.array(["cat", "ant", "bee"])[Y]})
    splits = data.load(path, "auto", "auto")
    assert splits.label_names == splits.val.label_names == ("ant", "bee", "cat")
    assert splits.train.text_labels(splits.train.y[:4]) == ["cat", "ant", "bee", "cat"]


def test_a_label_that_only_other_splits_have_makes_no_class(write):
    path = write(SPLITS | TEST | {"y_test": np.array([0, 1, 2, 9, 0])})
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
        ({"x_train": X[:20].astype(str)}, "x_train.* must hold numbers, and holds <U"),
        ({"x_train": X[:20] * 1j}, "x_train.* must hold numbers, and holds complex64"),
        ({"y_train": Y[:20] / 2}, "train: labels must be integers or text, and are float64"),
        ({"y_train": np.array([{}, *Y[:19]], object)}, "y_train.* holds pickled Python objects"),
        ({"y_train": 0 * Y[:20], "y_val": 0 * Y[:5]}, "train: there is only one class, '0'"),
        ({"x_train": X[:0], "y_train": Y[:0]}, r"train: The split 'train' is empty.*'train' \(0\)"),
        ({"x_train": np.full((20, 4), 1e300)}, "train: feature inf in row 0, column 0"),
        ({"x_val": np.full((5, 4), np.nan, np.float16)}, "val: feature nan in row 0, column 0"),
    ],
)
def test_each_mistake_in_a_file_has_its_message(write, changes, why):
    arrays = {name: value for name, value in (SPLITS | changes).items() if value is not None}
    with pytest.raises(data.DataError, match=why):
        data.load(write(arrays), val="val")


def test_only_the_arrays_that_are_asked_for_are_read(write):
    path = write(SPLITS | {"notes": np.array([{}], object)})
    assert data.load(path, val="val").train.num_examples == 20


@pytest.mark.parametrize("name", ["missing.npz", "/missing/folder", "./missing", "~/missing"])
def test_a_file_that_is_not_there_is_not_found(name):
    with pytest.raises(data.DatasetNotFoundError, match="There is no file or folder .*missing"):
        data.load(name)


def test_a_path_may_begin_with_the_home_folder(isolated):
    np.savez(isolated / "features.npz", x=X, y=Y)
    assert data.load("~/features.npz", "auto", "auto").train.num_examples == 24


def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "features.npz"
    path.mkdir()  # opening it fails, for root as well
    (path / "x_train.npy").mkdir()
    (path / "y_train.npy").mkdir()
    with pytest.raises(data.DataError, match="features.npz' cannot be read: .*directory"):
        data.load(str(path))
