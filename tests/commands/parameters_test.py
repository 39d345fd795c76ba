import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import softmax_jax
from softmax_jax.classifier import load
from softmax_jax.data import DataError

NAMES = ("ant", "bee", "cat")


def test_the_model_of_a_run_does_what_its_parameters_say(run_folder):
    """logits = ((x - mean) / scale) @ W + b, for images as for features."""
    model = softmax_jax.load(run_folder)
    x = np.random.default_rng(0).normal(size=(7, 2, 2)).astype(np.float32)
    with np.load(run_folder / "params.npz") as file:
        logits = ((x.reshape(7, 4) - file["mean"]) / file["scale"]) @ file["W"] + file["b"]
    assert_allclose(model.logits(x), logits, rtol=1e-5, atol=1e-5)
    assert_array_equal(model.predict(x), logits.argmax(-1))
    assert model.label_names == NAMES


def test_a_folder_may_be_given_as_text(run_folder):
    assert load(str(run_folder)).label_names == load(run_folder).label_names


def test_the_package_has_nothing_else_of_the_kind():
    with pytest.raises(AttributeError, match="'softmax_jax' has no attribute 'lode'"):
        softmax_jax.lode  # noqa: B018


def test_a_folder_without_a_model_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"params.npz is not there"):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"W": np.ones((5, 3), np.float32)}, r"W has shape \(5, 3\), and mean is float32 of"),
        ({"W": np.ones(3, np.float32)}, r"W has shape \(3,\), and \[D, C\] is needed"),
        ({"W": np.ones((0, 3), np.float32)}, r"W has shape \(0, 3\)"),
        ({"b": np.ones(4, np.float32)}, r"b is float32 of shape \(4,\)"),
        ({"b": np.array([1.0, np.nan, 0.0])}, "b has values that are not finite"),
        ({"scale": np.float32(0)}, "scale has a zero"),
        ({"label_names": np.array(["ant", "bee"])}, r"label_names is <U3 of shape \(2,\)"),
        ({"label_names": np.arange(3)}, "label_names is int64"),
        ({"label_names": np.array(NAMES, object)}, "never loaded|pickle"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(tmp_path, write_params, changes, message):
    write_params(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_an_archive_without_a_model_is_refused(tmp_path):
    np.savez(tmp_path / "params.npz", W=np.ones((2, 2)))
    with pytest.raises(DataError, match="it has no b, mean, scale, label_names"):
        load(tmp_path)


def test_every_bit_flip_and_every_truncation_is_noticed_or_harmless(tmp_path, write_params):
    """Harmless: in fields of the zip format that nobody reads. Never another exception."""
    write_params(tmp_path)
    path, whole = tmp_path / "params.npz", (tmp_path / "params.npz").read_bytes()
    expected, rng = load(tmp_path), np.random.default_rng(0)
    for bit in rng.choice(8 * len(whole), 300, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        _assert_noticed_or_equal(tmp_path, expected)
    for sixteenth in range(16):
        path.write_bytes(whole[: len(whole) * sixteenth // 16])
        with pytest.raises(DataError, match="params.npz"):
            load(tmp_path)


def _assert_noticed_or_equal(folder, expected):
    try:
        found = load(folder)
    except DataError as error:
        assert "params.npz" in str(error)
    else:
        for actual, value in zip(found, expected, strict=True):
            assert_array_equal(actual, value)
