import numpy as np
import pytest

from softmax_jax.data import validation
from softmax_jax.host import DataError


@pytest.mark.parametrize(
    "train, val, names",
    [
        ([7, 3, 7], [3], ("3", "7")),
        ([-1, 1, -1], [1], ("-1", "1")),
        (["bee", "ant", "bee"], ["ant"], ("ant", "bee")),
        ([b"bee", b"ant", b"bee"], [b"ant"], ("ant", "bee")),
        ([True, False, True], [False], ("False", "True")),
        (np.uint64([2**64 - 1, 5, 2**64 - 1]), [5], ("5", "18446744073709551615")),
        (np.int8([7, 3, 7]), np.uint64([3]), ("3", "7")),
        (["cat", "catfish", "cat"], np.array(["catfish"], "<U30"), ("cat", "catfish")),
    ],
)
def test_labels_become_classes_in_ascending_order(train, val, names):
    codes, found = validation.encode_labels({"train": np.array(train), "val": np.array(val)})
    assert found == names
    assert codes["train"].dtype == codes["val"].dtype == np.int32
    for role, given in (("train", train), ("val", val)):
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in given]
        assert [names[code] for code in codes[role]] == texts


def test_classes_0_to_c_stay_as_they_are():
    y = np.random.default_rng(0).permutation(1000) % 12
    codes, names = validation.encode_labels({"train": y})
    np.testing.assert_array_equal(codes["train"], y)
    assert names == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    "train, val, why",
    [
        ([3, 7], [3, 7, 5, 6], "val: label '5' of example 2 does not occur in train, where there"),
        ([3, 7], [9], "val: label '9' of example 0"),
        ([3, 7], np.array([2**32 + 3]), "val: label '4294967299'"),
        (np.int8([3, 7]), [259], "val: label '259'"),
        (["ant", "bee"], ["ants"], "val: label 'ants'"),
        ([3, 7], ["3"], "labels of train are integers, and those of val text"),
        ([3, 7], [0.5], r"val: labels must be integers or text, and are float64.*astype"),
        ([1j, 2], [3], "train: labels must be integers or text, and are complex"),
    ],
)
def test_labels_that_nobody_can_learn_are_refused(train, val, why):
    with pytest.raises(DataError, match=why):
        validation.encode_labels({"train": np.array(train), "val": np.array(val)})


def test_blocks_do_not_show(monkeypatch):
    monkeypatch.setattr(validation, "_LABELS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    y, y_val = rng.integers(-3, 6, 50), rng.integers(-3, 6, 20)
    codes, names = validation.encode_labels({"train": y, "val": y_val})
    expected, classes = np.unique(y, return_inverse=True)[::-1], np.unique(y)
    np.testing.assert_array_equal(codes["train"], expected[0])
    np.testing.assert_array_equal(np.array(names, int)[codes["val"]], y_val)
    assert names == tuple(map(str, classes))
    y_val[9] = 100
    with pytest.raises(DataError, match="label '100' of example 9"):
        validation.encode_labels({"train": y, "val": y_val})


def test_a_number_per_row_is_no_label(monkeypatch):
    monkeypatch.setattr(validation, "_MOST_CLASSES", 100)
    with pytest.raises(DataError, match="101 different labels"):
        validation.encode_labels({"train": np.arange(101)})
