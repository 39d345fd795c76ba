import os
import socket
import time

import numpy as np
import pytest

from softmax_jax import data
from softmax_jax.data.sources import FASHION_LABELS


def test_an_unknown_name_is_answered_with_places_and_near_names(
    tmp_path, write_prepared, images, monkeypatch
):
    folder = tmp_path
    write_prepared(folder, "toy", {"train": images})
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


def test_fashion_mnist_has_the_books_names_from_any_source(tmp_path, write_prepared, write_idx):
    x, y = np.zeros((2, 28, 28), np.uint8), np.array([0, 1])
    write_prepared(tmp_path / "a", "fashion_mnist", {"train": (x, y), "test": (x, y)})
    write_idx(tmp_path / "b")
    for place in ("a", "b"):
        splits = data.load("fashion_mnist", data_dir=tmp_path / place)
        assert splits.label_names == splits.train.label_names == FASHION_LABELS
        assert splits.train.text_labels([0, 1, 9]) == ["t-shirt", "trouser", "ankle boot"]


def test_the_first_place_that_has_the_dataset_is_used(
    tmp_path, write_prepared, images, monkeypatch
):
    for n, place in ((2, "a"), (3, "b")):
        split = images[0][:n], images[1][:n]
        write_prepared(tmp_path / place, "toy", {"train": split, "test": split})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "b"))
    assert data.load("toy").train.num_examples == 3
    assert data.load("toy", data_dir=tmp_path / "a").train.num_examples == 2
    assert data.load("toy", data_dir=tmp_path / "absent").train.num_examples == 3


def test_prepared_goes_before_idx_files(tmp_path, write_prepared, write_idx, images):
    write_idx(tmp_path)
    splits = {"train": (images[0][:2], images[1][:2]), "test": images}
    write_prepared(tmp_path, "fashion_mnist", splits)
    assert data.load("fashion_mnist", data_dir=tmp_path).train.num_examples == 2


def test_idx_files_are_found_where_downloads_go(isolated, write_idx):
    write_idx(isolated / "cache" / "softmax_jax" / "fashion_mnist")
    assert data.load("fashion_mnist").train.num_examples == 7
    assert data.load("fashion_mnist", data_dir=isolated / "other").train.num_examples == 7


def assert_names_the_remedies(error):
    assert type(error) is data.DatasetNotFoundError
    for remedy in ("TFDS_DATA_DIR", "four IDX files", "data_dir", "allow the network"):
        assert remedy in str(error)


def test_without_a_network_the_error_names_three_remedies(tmp_path):
    with pytest.raises(data.DatasetNotFoundError) as error:
        data.load("fashion_mnist", data_dir=tmp_path)
    assert_names_the_remedies(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_network_that_swallows_everything_costs_less_than_8_seconds(tmp_path, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(data.DatasetNotFoundError) as error:
            data.load("fashion_mnist", data_dir=tmp_path)
    assert time.monotonic() - start < 8
    assert_names_the_remedies(error.value)


def test_a_login_page_in_place_of_the_network_is_no_dataset(tmp_path, serve, monkeypatch):
    def login(request):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"<html>Please pay for the Wi-Fi</html>")

    monkeypatch.setenv("http_proxy", serve(login))
    with pytest.raises(data.DatasetNotFoundError, match="not the published file") as error:
        data.load("fashion_mnist", data_dir=tmp_path)
    assert_names_the_remedies(error.value)
    assert os.listdir(tmp_path / "fashion_mnist") == []
