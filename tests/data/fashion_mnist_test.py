import gzip

import numpy as np
import pytest

from softmax_jax.data import sources
from softmax_jax.host import DataError


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("place", ["", "fashion_mnist"])
def test_reads_the_four_files(tmp_path, write_idx, images, compressed, place):
    write_idx(tmp_path / place, compressed)
    source = sources.fashion_mnist_source(
        sources.find_fashion_mnist_files([tmp_path / "absent", tmp_path])
    )
    assert source.shard_lengths == {"train": (7,), "test": (3,)}
    for split, n in (("train", 7), ("test", 3)):
        x, y = source.read(split)
        np.testing.assert_array_equal(x, images[0][:n])
        np.testing.assert_array_equal(y, images[1][:n])
        assert (x.dtype, y.dtype) == (np.uint8, np.int32)


def test_the_second_read_comes_from_the_cache(tmp_path, write_idx):
    files = write_idx(tmp_path)
    sources.fashion_mnist_source(files).read("train")
    assert (tmp_path / "softmax_jax_cache" / "split-train.json").is_file()
    x, _ = sources.fashion_mnist_source(files).read("train")
    assert x.shape == (7, 4, 5)


@pytest.mark.parametrize("missing", range(4))
def test_three_of_four_files_are_not_the_dataset(tmp_path, write_idx, missing):
    list(write_idx(tmp_path).values())[missing].unlink()
    assert sources.find_fashion_mnist_files([tmp_path]) is None


def test_counts_that_differ_are_refused_and_both_files_named(tmp_path, write_idx):
    files = write_idx(tmp_path)
    files["train-labels-idx1-ubyte"].write_bytes(files["t10k-labels-idx1-ubyte"].read_bytes())
    with pytest.raises(DataError, match=r"train-images.* 7 images.*train-labels.* 3 labels"):
        sources.fashion_mnist_source(files)


def test_images_in_the_place_of_labels_are_refused(tmp_path, write_idx):
    files = write_idx(tmp_path)
    files["t10k-labels-idx1-ubyte"].write_bytes(files["t10k-images-idx3-ubyte"].read_bytes())
    with pytest.raises(DataError, match=r"t10k-labels.*rank 3"):
        sources.fashion_mnist_source(files)


def test_damaged_files_are_refused_when_read_and_leave_no_cache(tmp_path, write_idx):
    files = write_idx(tmp_path)
    path = files["train-images-idx3-ubyte"]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(DataError, match="train-images.*139 are there"):
        sources.fashion_mnist_source(files).read("train")
    assert not (tmp_path / "softmax_jax_cache").exists()
