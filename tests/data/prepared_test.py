import numpy as np
import pytest

from softmax_jax.data import tfds
from softmax_jax.host import DataError


def make(folder):
    """What `find` looks for, without the records."""
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_the_highest_version_by_number_is_taken(tmp_path):
    for version in ("1.0.0", "9.0.0", "10.0.0", "10.0.0.incompleteABC"):
        make(tmp_path / "toy" / version)
    (tmp_path / "toy" / "11.0.0").mkdir()  # still being prepared
    assert tfds.find_prepared("toy", [tmp_path]).name == "10.0.0"
    assert tfds.find_prepared("toy:1.0.0", [tmp_path]).name == "1.0.0"
    assert tfds.find_prepared("toy:2.0.0", [tmp_path]) is None


def test_configs(tmp_path):
    small = make(tmp_path / "toy" / "small" / "1.0.0")
    assert tfds.find_prepared("toy", [tmp_path]) == small
    large = make(tmp_path / "toy" / "large" / "1.2.0")
    assert tfds.find_prepared("toy/large", [tmp_path]) == large
    assert tfds.find_prepared("toy/large:1.2.0", [tmp_path]) == large
    assert tfds.find_prepared("toy/other", [tmp_path]) is None
    with pytest.raises(DataError, match="'toy/large', 'toy/small'"):
        tfds.find_prepared("toy", [tmp_path])


def test_the_first_folder_wins(tmp_path):
    first = make(tmp_path / "a" / "toy" / "1.0.0")
    make(tmp_path / "b" / "toy" / "2.0.0")
    folders = [tmp_path / "absent", tmp_path / "a", tmp_path / "b"]
    assert tfds.find_prepared("toy", folders) == first


@pytest.mark.parametrize("name", ["", "..", "../toy", "/toy", "toy/../toy", "to", "*"])
def test_what_is_no_name_is_not_found(tmp_path, name):
    make(tmp_path / "toy" / "1.0.0")
    assert tfds.find_prepared(name, [tmp_path]) is None


def test_names_lists_what_is_there(tmp_path):
    make(tmp_path / "toy" / "1.0.0")
    make(tmp_path / "other" / "config" / "1.0.0")
    (tmp_path / "downloads").mkdir()
    assert tfds.prepared_names([tmp_path, tmp_path / "absent"]) == {"toy", "other"}


def test_arrays_are_decoded_once(tmp_path, write_prepared, images):
    x, y = images
    folder = write_prepared(tmp_path, "toy", {"train": (x, y), "test": (x[:2], y[:2])})
    source = tfds.prepared_source("toy", folder)
    assert source.shard_lengths == {"train": (7,), "test": (2,)}
    assert (source.scale, source.label_names) == (255.0, ("ant", "bee", "cat"))
    np.testing.assert_array_equal(source.read("train")[0], x)
    cached = {path.name for path in (folder / "softmax_jax_cache").iterdir()}
    assert {"facts.json", "split-train.json", "split-train-x.npy"} <= cached
    assert "split-test.json" not in cached  # a split that nobody wants is not decoded
    again = tfds.prepared_source("toy", folder)
    np.testing.assert_array_equal(again.read("train")[0], x)
    np.testing.assert_array_equal(again.read("train")[1], y)
