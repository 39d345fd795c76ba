"""A sealed file comes back to the bit, or is refused: damaged, cut off, forged or foreign."""

import hashlib
import io
import json
import os
import zipfile

import ml_dtypes
import numpy as np
import pytest

from softmax_jax.host import WORKDIR, JobError
from softmax_jax.job import checkpoint
from softmax_jax.job.checkpoint import Checkpoint, DamagedError

ARRAYS = {
    "params/W": np.array([[1.5, -0.0, np.nan], [np.inf, 1e-45, 3]], np.float32),
    "params/b": np.zeros(0),
    "step": np.array(7, np.int32),
    "key": np.array([1, 2**32 - 1], np.uint32),
    "low": np.arange(5).astype(ml_dtypes.bfloat16),
    "count": np.array([-1, 2**62]),
    "columns": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "done": np.array([True, False]),
    "names": np.array(["shirt", "ä"]),
}
FACTS = {"position": [3, 0.1, None], "name": "ä"}


@pytest.fixture
def path(tmp_path):
    """A small sealed file."""
    with open(tmp_path / "00000003.npz", "xb") as file:
        checkpoint.write_sealed(file, Checkpoint(3, "job", ARRAYS, FACTS))
    return tmp_path / "00000003.npz"


def forge(path, members, manifest=None):
    """A file with a right digest, yet with whatever is wanted in it."""
    whole = {"format": 2, "number": 3, "job": "job", "facts": {}, "dtypes": {}}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.comment = checkpoint._MARK + checkpoint._BLANK
        if manifest != "none":
            archive.writestr("manifest.json", json.dumps(whole | (manifest or {})))
        for name, data in members.items():
            archive.writestr(name, data)
    seal(path, content.getvalue())


def seal(path, content):
    body = content[:-64]
    path.unlink()  # quicker than to write over it, which a file system may take care to make safe
    path.write_bytes(body + hashlib.sha256(body + b"0" * 64).hexdigest().encode())


def npy(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def test_every_type_comes_back_to_the_bit(path):
    number, job, arrays, facts = checkpoint.read_sealed(path)
    assert (number, job, facts) == (3, "job", FACTS)
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes(), name
        assert arrays[name].flags.writeable


def test_it_is_an_npz_for_numpy(path):
    with np.load(path, allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["params/W"], ARRAYS["params/W"])


def test_equal_states_are_equal_files(path, tmp_path):
    with open(tmp_path / "again", "xb") as file:
        checkpoint.write_sealed(file, checkpoint.read_sealed(path))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_every_single_bit_flip_is_noticed(path):
    silent = []
    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(path.read_bytes()):
            for bit in range(8):
                file.seek(place)
                file.write(bytes([byte ^ 1 << bit]))
                try:
                    checkpoint.read_sealed(path)
                    silent.append((place, bit))
                except DamagedError:
                    pass
            file.seek(place)
            file.write(bytes([byte]))
    assert checkpoint.read_sealed(path).number == 3 and silent == []


def test_every_other_length_is_noticed(path):
    content = path.read_bytes()
    path.write_bytes(content + b"0")
    for length in (len(content) + 1, *reversed(range(len(content)))):
        os.truncate(path, length)
        with pytest.raises(DamagedError):
            checkpoint.read_sealed(path)


def test_a_foreign_file_is_not_a_checkpoint(path):
    np.savez(path, W=np.eye(2))
    with pytest.raises(DamagedError, match="does not end as a checkpoint does"):
        checkpoint.read_sealed(path)


@pytest.mark.parametrize("other", [1, 3])
def test_another_format_is_no_damage_but_an_error_that_says_so(path, other):
    forge(path, {"W.new": b"?"}, {"format": other})
    with pytest.raises(JobError, match=f"format {other}, and this program reads format 2") as error:
        checkpoint.read_sealed(path)
    assert error.value.exit_code == WORKDIR


@pytest.mark.parametrize(
    "members, manifest, reason",
    [
        ({"W.npy": npy(0)}, "none", "manifest"),
        ({"W.npy": npy(0)}, {"format": 2, "dtypes": {"b": "bfloat16"}}, "KeyError: 'b'"),
        ({"W.npy": npy(0)[:-1]}, {}, "ValueError"),
        ({"W.npy": b"?"}, {}, "ValueError"),
        ({"W.npy": npy([{}])}, {}, "allow_pickle"),
    ],
)
def test_a_sealed_file_that_makes_no_sense_is_damaged(path, members, manifest, reason):
    forge(path, {"W.npy": npy(0)})
    assert checkpoint.read_sealed(path).arrays["W"] == 0
    forge(path, members, manifest)
    with pytest.raises(DamagedError, match=reason):
        checkpoint.read_sealed(path)


def test_something_sealed_that_is_no_zip_is_damaged(path):
    seal(path, checkpoint._MARK + checkpoint._BLANK)
    with pytest.raises(DamagedError, match="BadZipFile"):
        checkpoint.read_sealed(path)


def test_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"), open(tmp_path / "x", "xb") as file:
        checkpoint.write_sealed(file, Checkpoint(0, "", {"a": np.array([print])}, {}))
