"""From arrays to datasets: types, labels, weights, what is refused, and the fingerprint."""

import dataclasses
import hashlib

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_jax import data
from softmax_jax.data import DataError, Dataset, from_arrays, validation
from softmax_jax.data import dataset as dataset_module
from softmax_jax.data.validation import check_alike, check_dataset, encode_labels

RNG = np.random.default_rng(0)
FEATURES, LABELS = RNG.normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
TRAIN, VAL = (FEATURES[:4], LABELS[:4]), (FEATURES[4:], LABELS[4:])
IMAGES = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)
LIBRARIES = pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])


def split(x, y=LABELS):
    """The first four examples for training, the others for validation."""
    return (x[:4], y[:4]), (x[4:], y[4:])


def make(**changes):
    """A dataset of four examples of three features, with changes."""
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    dataset = Dataset(x, np.array([0, 1, 2, 1], np.int32), 1.0, ("ant", "bee", "cat"), "toy")
    return dataclasses.replace(dataset, **changes)


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


X, Y, ONES = make().x, make().y, np.ones(4, np.float32)


def test_features_of_the_right_type_are_not_copied():
    splits = from_arrays(TRAIN, VAL)
    assert splits.train.x is TRAIN[0]
    assert (splits.train.scale, splits.train.mean, splits.train.weights) == (1.0, 0.0, None)
    assert splits.train.y.dtype == np.int32
    np.testing.assert_array_equal(splits.val.y, [1, 2])
    assert splits.test is None and not splits.val_is_test


def test_uint8_is_taken_for_images_and_floats_are_not():
    train = from_arrays(*split(IMAGES)).train
    assert train.x.dtype == np.uint8 and train.scale == 255.0 and train.is_image
    train = from_arrays(*split(IMAGES.astype(np.float32))).train
    assert train.x.dtype == np.float32 and train.scale == 1.0 and not train.is_image


@LIBRARIES
@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.int8, bool, ml_dtypes.bfloat16])
def test_other_numbers_become_float32(dtype, convert):
    train = from_arrays(*split(convert((FEATURES > 0).astype(dtype)))).train
    assert train.x.dtype == np.float32 and train.scale == 1.0
    np.testing.assert_array_equal(train.x, FEATURES[:4] > 0)


@LIBRARIES
def test_float64_is_kept_where_it_is_asked_for(convert):
    x = FEATURES.astype(np.float64) + (1e-12 if convert is np.asarray else 0)
    given = convert(x) if convert is np.asarray else jnp.asarray(FEATURES)
    weights = np.full(4, 1 / 3)
    splits = from_arrays((given[:4], LABELS[:4], weights), (given[4:], LABELS[4:]), dtype="float64")
    assert splits.train.dtype == splits.val.x.dtype == splits.train.x.dtype == np.float64
    np.testing.assert_array_equal(splits.train.x, x[:4])
    np.testing.assert_array_equal(splits.train.weights, weights)


def test_other_types_of_features_are_refused():
    with pytest.raises(DataError, match="dtype must be 'float32' or 'float64'; it is 'float16'"):
        from_arrays(TRAIN, VAL, dtype="float16")


def test_bfloat16_from_a_file_of_numpy_is_recognised(tmp_path):
    x = FEATURES.astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "x.npy", x)
    train = from_arrays(*split(np.load(tmp_path / "x.npy"))).train
    np.testing.assert_array_equal(train.x, x[:4].astype(np.float32))


def test_lists_are_accepted():
    splits = from_arrays(([[1, 2], [3, 4]], [0, 1]), ([[5, 6]], [1]))
    np.testing.assert_array_equal(splits.train.x, [[1.0, 2.0], [3.0, 4.0]])


def test_arrays_on_a_device_stay_there():
    x, y = jnp.asarray(FEATURES), jnp.asarray(LABELS, jnp.int32)
    train = from_arrays((x, y), (jnp.asarray(FEATURES[4:] + 1), y[4:])).train
    assert train.x is x and train.y is y


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint64])
def test_labels_may_be_of_any_integer_type(dtype):
    splits = from_arrays((TRAIN[0], TRAIN[1].astype(dtype)), VAL)
    assert splits.train.y.dtype == np.int32
    np.testing.assert_array_equal(splits.train.y, TRAIN[1])


def test_classes_are_counted_over_all_splits_or_given():
    with pytest.warns(UserWarning, match="label of val or test is 7.*no model can learn"):
        splits = from_arrays(TRAIN, VAL, (FEATURES[4:] + 1, np.array([0, 7])))
    assert splits.label_names == splits.val.label_names == tuple("01234567")
    splits = from_arrays(TRAIN, VAL, label_names=["ant", "bee", "cat", "dog"])
    assert splits.train.num_classes == 4 and splits.label_names[3] == "dog"


def test_every_split_may_have_weights():
    weights = [3, 1, 2, 0.5]
    splits = from_arrays((*TRAIN, weights), (*VAL, [1, 1 / 3]))
    assert splits.train.weights.dtype == np.float64
    np.testing.assert_array_equal(splits.train.weights, weights)
    assert splits.val.weights.tolist() == [1, 1 / 3] and splits.train.present is None


def test_examples_of_weight_zero_are_left_out_whatever_they_hold():
    x = np.concatenate([np.full((1, 3), np.nan), FEATURES[:4], np.full((1, 3), 1e300)])
    y = np.concatenate([[9], LABELS[:4], [-1]])
    with pytest.warns(UserWarning, match="the classes -1, 9 have weight 0"):
        train = from_arrays((x, y, [0, 1, 2, 3, 4, 0]), VAL).train
    np.testing.assert_array_equal(train.x, FEATURES[:4])
    assert train.num_classes == from_arrays(TRAIN, VAL).train.num_classes
    assert train.weights.tolist() == [1, 2, 3, 4]
    assert train.rows.tolist() == [1, 2, 3, 4] and len(train.present) == 6
    assert train.aligned(np.arange(6)).tolist() == [1, 2, 3, 4]
    assert train.aligned(np.arange(4)).tolist() == [0, 1, 2, 3]
    again = dataclasses.replace(train, weights=np.array([1.0, 0, 0, 4])).without_absent()
    assert again.rows.tolist() == [1, 4] and again.y.tolist() == train.y[[0, 3]].tolist()
    assert train[1:].rows.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="label 9 of example 2 is outside"):
        from_arrays((x[:3], np.array([1, 1, 9]), [0, 1, 1]), VAL, label_names="abc")


def test_val_and_test_may_be_the_same_and_the_result_says_so():
    assert from_arrays(TRAIN, VAL, VAL).val_is_test
    assert not from_arrays(TRAIN, VAL, (VAL[0].copy(), VAL[1])).val_is_test
    on_device = (jnp.asarray(VAL[0]), VAL[1])
    assert from_arrays(TRAIN, on_device, on_device).val_is_test


def test_train_shares_no_examples_with_the_rest():
    from_arrays((FEATURES[::2], LABELS[::2]), (FEATURES[1::2], LABELS[1::2]))
    with pytest.raises(DataError, match="train and val share examples"):
        from_arrays(TRAIN, (FEATURES[3:], LABELS[3:]))
    with pytest.raises(DataError, match="train and test share examples"):
        from_arrays(TRAIN, VAL, TRAIN)


@pytest.mark.parametrize(
    "train, why",
    [
        ((FEATURES[:4], LABELS[:3]), "4 examples, and y has shape"),
        ((FEATURES[:0], LABELS[:0]), "no examples"),
        (
            (FEATURES[:4], LABELS[:4] / 2),
            "labels must be integers or text, and are float64",
        ),
        ((FEATURES[:4], list("abca")), "labels of train are text, and those of val integers"),
        ((FEATURES[:4], [0, 1, np.nan, np.nan]), "example 2 is NaN, and 2 of 4 are. Leave these"),
        (
            (FEATURES[:4], [0.5, 0.75, 1.5, 1]),
            r"example 0 is 0\.5, which y.astype\('int64'\) would not keep",
        ),
        ((FEATURES[:4], [0, 1, 1, np.inf]), "example 3 is inf, which .* would not keep apart"),
        ((FEATURES[:4], np.array(["a", None, "b", "a"], object)), "example 1 is NaN.*pandas.isna"),
        (
            (FEATURES[:4], np.array(["a", "b", np.nan, "a"], object)),
            "the label of example 2 is NaN",
        ),
        ((FEATURES[:4], [0, 1, 2, -1]), "label -1 of example 3"),
        ((FEATURES[:4], [0, 1, 2, 2**32]), "largest label is 4294967296"),
        ((FEATURES[:4].astype(str), LABELS[:4]), "x must be numbers, and are <U"),
        ((FEATURES[:4] * 1j, LABELS[:4]), "x must be numbers, and are complex"),
        ((np.full((4, 3), 1e300), LABELS[:4]), "feature inf in row 0, column 0"),
        ((FEATURES[:4, :2], LABELS[:4]), "Prepare both in the same way"),
        ((FEATURES[:4], LABELS[:4], [1, 1, 1]), "weights have shape"),
        ((FEATURES[:4],), r"train must be \(x, y\) or \(x, y, weights\)"),
        (FEATURES[:4], r"train must be \(x, y\) or \(x, y, weights\), and is a ndarray"),
    ],
)
def test_bad_arrays_are_refused(train, why):
    with pytest.raises(DataError, match=why):
        from_arrays(train, VAL)


@settings(deadline=None, database=None, derandomize=True, max_examples=40)
@given(st.lists(st.text("abé", max_size=2), min_size=4, max_size=9), st.sampled_from("USO"))
def test_text_labels_are_taken_as_a_file_takes_them(texts, kind):
    y = np.array(texts)
    y = {"U": y, "S": np.char.encode(y), "O": y.astype(object)}[kind]
    x = np.arange(len(y), dtype=np.float32)[:, None]
    if len(set(texts)) < 2:
        return
    splits = from_arrays((x, y), (x + 100, y))
    assert splits.label_names == tuple(sorted(set(texts)))
    assert splits.train.y.dtype == np.int32
    assert splits.val.text_labels(splits.val.y) == texts
    names = ["never", *sorted(set(texts), reverse=True)]
    named = from_arrays((x, y), (x + 100, y), label_names=names)
    assert named.label_names == tuple(names) and named.val.text_labels(named.val.y) == texts


def test_text_labels_without_a_name_are_refused():
    y = np.array(list("abab"))
    with pytest.raises(DataError, match="train has the label 'b', which label_names lacks"):
        from_arrays((FEATURES[:4], y), (FEATURES[4:], y[:2]), label_names=["a", "c"])
    with pytest.raises(DataError, match="val: label 'c' of example 0 does not occur in train"):
        from_arrays((FEATURES[:4], y), (FEATURES[4:], ["c", "a"]))


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=3), min_size=2, max_size=8))
def test_different_labels_have_different_names(labels):
    labels = np.array(labels)  # NumPy drops zeros at the end
    try:
        names = encode_labels({"train": labels})[1]
    except DataError as error:
        assert "have one name" in str(error)
    else:
        assert len(set(names)) == len(set(labels.tolist()))


def test_bytes_that_are_no_text_keep_apart():
    codes, names = encode_labels({"train": np.array([b"\xff", b"\xfe"])})
    assert names == ("\\xfe", "\\xff") and codes["train"].tolist() == [1, 0]
    with pytest.raises(DataError, match=r"labels b'.*' and b'.*' have one name"):
        encode_labels({"train": np.array([b"\xff", b"\\xff"])})


def test_a_large_label_does_not_wrap_round():
    with pytest.raises(DataError, match=r"label 4294967297 of example 0 is outside 0\.\.2"):
        from_arrays((FEATURES[:4], [2**32 + 1, 0, 1, 2]), VAL, label_names=["ant", "bee", "cat"])


def test_good_data_passes():
    assert check_dataset(make(), "train") is None
    assert check_dataset(make(weights=changed(ONES, 0, 0)), "train") is None
    assert check_dataset(make(x=np.zeros((4, 2, 2, 3), np.uint8)), "train") is None


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"x": X[:0], "y": Y[:0]}, "no examples"),
        ({"x": X[:3]}, r"3 examples, and y has shape \(4,\)"),
        ({"y": np.eye(4, dtype=np.int32)}, r"y has shape \(4, 4\).*one integer label"),
        ({"x": X[:, 0]}, r"x has shape \(4,\).*reshape\(-1, 1\)"),
        ({"x": X[:, :0]}, "at least one feature"),
        ({"y": changed(Y, 2, 3)}, r"label 3 of example 2 is outside 0\.\.2"),
        ({"y": changed(Y, 1, -1)}, r"label -1 of example 1 is outside 0\.\.2"),
        ({"label_names": ("ant",), "y": 0 * Y}, "only one class, 'ant'.*at least two"),
        ({"x": changed(X, (3, 1), np.nan)}, "feature nan in row 3, column 1"),
        ({"x": changed(X, (0, 2), -np.inf)}, "feature -inf in row 0, column 2"),
        ({"x": changed(np.ones((4, 2, 5)), (3, 1, 2), np.nan)}, "row 3, column 7"),
        ({"x": changed(X.astype(ml_dtypes.bfloat16), (3, 1), np.nan)}, "nan in row 3, column 1"),
        ({"x": changed(X.astype(np.float16), (1, 0), np.inf)}, "inf in row 1, column 0"),
        ({"weights": ONES[:3]}, r"weights have shape \(3,\)"),
        ({"weights": changed(ONES, 1, -1)}, "weight -1.0 of example 1"),
        ({"weights": changed(ONES, 3, np.inf)}, "weight inf of example 3"),
        ({"weights": 0 * ONES}, "all weights are 0"),
    ],
)
@LIBRARIES
def test_bad_data_is_refused_by_split_place_and_rule(changes, why, convert):
    changes = {
        name: value if name == "label_names" else convert(value) for name, value in changes.items()
    }
    with pytest.raises(DataError, match=f"^train: .*{why}"):
        check_dataset(make(**changes), "train")


def test_rows_are_counted_over_all_blocks(monkeypatch):
    monkeypatch.setattr(dataset_module, "_BLOCK_VALUES", 3 * 300)
    x, y = np.zeros((1000, 3), np.float16), np.zeros(1000, np.int32)
    check_dataset(make(x=x, y=y), "train")
    for row in (0, 299, 300, 999):
        with pytest.raises(DataError, match=f"nan in row {row}, column 2 is not a finite float32"):
            check_dataset(make(x=changed(x, (row, 2), np.nan), y=y), "train")


def test_a_value_beyond_the_type_in_memory_is_not_finite():
    x = changed(X.astype(np.float64), (2, 0), 1e300)
    assert check_dataset(make(x=x, dtype="float64"), "train") is None
    with pytest.raises(DataError, match="feature inf in row 2, column 0"):
        check_dataset(make(x=x), "train")


def test_splits_are_alike_in_the_type_of_memory():
    """A file of another float type is read as the same; bytes are not."""
    check_alike({"train": make(shard_size=2), "val": make(x=X.astype(np.float16), shard_size=2)})
    check_alike({"train": make(), "val": make(x=X[:2])})
    for x in (X[:, :2], X.reshape(4, 3, 1), X.astype(np.uint8)):
        with pytest.raises(DataError, match="float32 of shape.*one in val is"):
            check_alike({"train": make(), "val": make(x=x)})


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
def test_labels_of_any_type_become_classes_in_ascending_order(train, val, names):
    codes, found = encode_labels({"train": np.array(train), "val": np.array(val)})
    assert found == names
    assert codes["train"].dtype == codes["val"].dtype == np.int32
    for role, labels in (("train", train), ("val", val)):
        texts = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
        assert [names[code] for code in codes[role]] == texts


@settings(deadline=None, database=None, max_examples=60)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=40), st.lists(st.integers(-9, 9)))
def test_codes_are_those_of_numpy_unique_whatever_the_blocks(train, val):
    given = {"train": np.array(train), "val": np.array(val, int)}
    unknown = [row for row, label in enumerate(val) if label not in train]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_LABELS_AT_ONCE", 7)
        if unknown:
            why = f"label '{val[unknown[0]]}' of example {unknown[0]} does not occur in train"
            with pytest.raises(DataError, match=why):
                encode_labels(given)
            return
        codes, names = encode_labels(given)
    classes, expected = np.unique(train, return_inverse=True)
    np.testing.assert_array_equal(codes["train"], expected)
    assert names == tuple(map(str, classes))
    assert [int(names[code]) for code in codes["val"]] == val


@pytest.mark.parametrize(
    "train, val, why",
    [
        ([3, 7], [3, 7, 5, 6], "val: label '5' of example 2 does not occur in train, where there"),
        ([3, 7], np.array([2**32 + 3]), "val: label '4294967299'"),
        (np.int8([3, 7]), [259], "val: label '259'"),
        (["ant", "bee"], ["ants"], "val: label 'ants'"),
        ([3, 7], ["3"], "labels of train are integers, and those of val text"),
        ([3, 7], [0.5], r"val: labels must be integers or text, and are float64.*astype"),
        ([0.0, np.nan], [0.0], "train: the label of example 1 is NaN.*Leave these examples out"),
        ([3, 7], [3, np.nan], "val: the label of example 1 is NaN.*Leave these examples out"),
        ([1j, 2], [3], "train: labels must be integers or text, and are complex"),
    ],
)
def test_labels_that_nobody_can_learn_are_refused(train, val, why):
    with pytest.raises(DataError, match=why):
        encode_labels({"train": np.array(train), "val": np.array(val)})


def test_a_number_per_row_is_no_label(monkeypatch):
    monkeypatch.setattr(validation, "_MOST_CLASSES", 100)
    with pytest.raises(DataError, match="101 different labels"):
        encode_labels({"train": np.arange(101)})


@pytest.mark.parametrize(
    "shape, dtype, num_features, is_image",
    [
        ((28, 28), np.uint8, 784, True),
        ((28, 28, 1), np.uint8, 784, True),
        ((32, 32, 3), np.uint8, 3072, True),
        ((32, 32, 7), np.uint8, 7168, False),
        ((784,), np.uint8, 784, False),
        ((2, 2, 2, 3), np.uint8, 24, False),
        ((28, 28), np.float32, 784, False),
    ],
)
def test_a_dataset_knows_its_sizes_and_whether_it_can_be_drawn(
    shape, dtype, num_features, is_image
):
    dataset = make(x=np.zeros((4, *shape), dtype))
    assert (dataset.num_examples, dataset.num_features) == (4, num_features)
    assert (dataset.num_classes, dataset.is_image) == (3, is_image)


def test_a_dataset_has_a_length_slices_and_an_iterator():
    dataset = make(weights=ONES * np.arange(4))
    assert len(dataset) == 4 and [y for _, y in dataset] == [0, 1, 2, 1]
    np.testing.assert_array_equal(dataset[np.int64(2)][0], X[2])
    for index in (slice(1, 3), [0, 3], Y == 1):
        part = dataset[index]
        for name in ("x", "y", "weights"):
            np.testing.assert_array_equal(getattr(part, name), getattr(dataset, name)[index])
    with pytest.raises(DataError, match="by shards cannot be indexed by more than one"):
        make(shard_size=2)[:2]
    assert make(shard_size=2)[1][1] == 1


@pytest.mark.parametrize("size", [1, 3, 4, 100])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_batches_are_all_examples_once_in_order_as_a_model_sees_them(size, dtype):
    x = RNG.integers(0, 256, (10, 2, 3)).astype(dtype)
    y = np.arange(10, dtype=np.int32) % 3
    precision = "float64" if dtype == np.float64 else "float32"
    mean = np.arange(6, dtype=precision)
    dataset = make(x=x, y=y, scale=255.0, mean=mean, dtype=precision)
    found = list(dataset.batches(size))
    assert [len(part) for part, _ in found] == [len(y[i : i + size]) for i in range(0, 10, size)]
    seen, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert seen.dtype == precision
    np.testing.assert_allclose(seen, (x - mean.reshape(2, 3)) / 255, rtol=1e-6)
    np.testing.assert_array_equal(labels, y)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
def test_batches_of_no_whole_number_are_refused_at_the_call(size):
    with pytest.raises(DataError, match="whole number"):
        make().batches(size)


def test_texts_of_datasets_and_splits_are_short_and_name_what_they_hold():
    names = tuple(f"class{label}" for label in range(1000))
    dataset = make(weights=ONES, label_names=names, shard_size=2)
    assert repr(dataset) == (
        "<Dataset toy: 4 examples of float32[3], weighted, read 2 at a time, 1,000 classes: "
        "class0, class1, class2, class3, class4, …>"
    )
    splits = data.Splits(make(), dataset, None, "toy", names, False)
    assert repr(splits).splitlines()[::2] == ["<Splits toy", f"  val: {dataset!r}>"]
    table = splits._repr_html_()
    assert table.count("<tr>") == 3 and "<td>float32</td>" in table


def test_a_dataset_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().scale = 2.0


def test_labels_have_names():
    assert make().text_labels(Y) == ["ant", "bee", "cat", "bee"]
    assert make().text_labels(jnp.array([1, 0])) == ["bee", "ant"]


@pytest.mark.parametrize(
    "stored, dtype, form",
    [
        (np.uint8, "float64", np.uint8),
        (np.float16, "float32", np.float32),
        (np.float64, "float32", np.float32),
        (ml_dtypes.bfloat16, "float64", np.float64),
        (np.int64, "float32", np.float32),
    ],
)
def test_blocks_are_all_of_x_in_its_form(monkeypatch, stored, dtype, form):
    monkeypatch.setattr(dataset_module, "_BLOCK_VALUES", 4 * 6 + 5)
    monkeypatch.setattr(dataset_module, "_FEWEST_EXAMPLES", 1)
    x = RNG.integers(0, 99, (11, 3, 2)).astype(stored)
    dataset = make(x=x, y=np.zeros(11, np.int32), dtype=dtype, shard_size=2)
    starts, blocks = zip(*dataset.blocks(), strict=True)
    assert starts == (0, 4, 8) and dataset.form == form
    assert {block.dtype for block in blocks} == {np.dtype(form)}
    np.testing.assert_array_equal(np.concatenate(blocks), x.astype(form))


def test_the_fingerprint_is_a_sha256_of_types_shapes_and_bytes():
    given = from_arrays(TRAIN, VAL)
    expected = hashlib.sha256()
    for dataset in (given.train, given.val):
        for array in (dataset.x, dataset.y):
            expected.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    assert data.fingerprint(given) == expected.hexdigest()


def test_the_fingerprint_knows_nothing_of_names_and_devices():
    given = from_arrays(TRAIN, VAL)
    named = from_arrays(TRAIN, VAL, name="other", label_names=("ant", "bee", "cat"))
    on_device = dataclasses.replace(given.train, x=jnp.asarray(given.train.x))
    others = (named, dataclasses.replace(given, train=on_device))
    assert {data.fingerprint(other) for other in others} == {data.fingerprint(given)}


@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_fingerprint_is_that_of_the_data_in_memory(tmp_path, monkeypatch, stored):
    """However it is stored, and whether it is read by shards or not."""
    monkeypatch.setattr(dataset_module, "_FEWEST_EXAMPLES", 2)
    monkeypatch.setattr(dataset_module, "_BLOCK_VALUES", 1)
    in_memory = from_arrays((2 * X, Y), (X[:1] + 0.5, Y[:1]))
    np.save(tmp_path / "x.npy", np.asfortranarray((2 * X).astype(stored)))
    x = np.load(tmp_path / "x.npy", mmap_mode="r").view(stored)
    mapped = dataclasses.replace(in_memory.train, x=x, shard_size=2)
    stored_splits = dataclasses.replace(in_memory, train=mapped)
    assert data.fingerprint(stored_splits) == data.fingerprint(in_memory)


def test_the_fingerprint_changes_with_anything_in_the_data():
    x, y = np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([0, 1], np.int32)
    x_val = x + 100

    def of(train=(x, y), val=(x_val, y), test=None):
        return from_arrays(train, val, test)

    others = [
        of(),
        of((x[:, ::-1], y)),
        of((x, y[::-1])),
        of((x, y), (x_val + 1, y)),
        of((x.reshape(2, 3, 1), y), (x_val.reshape(2, 3, 1), y)),
        of((x.astype(np.float32), y), (x_val.astype(np.float32), y)),
        of((x_val, y), (x, y)),
        of((x, y), (x_val, y), (x_val, y)),
        of((x, y, np.array([1.0, 2.0]))),
        dataclasses.replace(of(), train=dataclasses.replace(of().train, x=x.view(np.int8))),
    ]
    assert len({data.fingerprint(other) for other in others}) == len(others)


def test_joined_datasets_are_in_order_and_an_example_without_a_weight_counts_once():
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 0, 1, 1, 0])
    splits = from_arrays((x[:4], y[:4], np.array([1.0, 2.0, 3.0, 2.0])), (x[4:], y[4:]))
    both = data.joined(splits.train, splits.val)
    np.testing.assert_array_equal(both.x, x)
    np.testing.assert_array_equal(both.y, y)
    assert both.weights.tolist() == [1, 2, 3, 2, 1, 1]
    assert data.joined(splits.val, splits.train).weights.tolist() == [1, 1, 1, 2, 3, 2]
    assert data.joined(dataclasses.replace(splits.train, weights=None), splits.val).weights is None
    with pytest.raises(DataError, match="read by shards"):
        data.joined(dataclasses.replace(splits.train, shard_size=2), splits.val)


def test_negative_labels_alone_are_refused():
    with pytest.raises(DataError, match="label -3 of example 0 is outside"):
        from_arrays((FEATURES[:4], [-3, -2, -3, -2]), (FEATURES[4:6], [-3, -2]))


def test_booleans_and_text_of_any_length_are_labels():
    """As in a file: the model answers with them."""
    for y, names in (
        (np.array([True, False, True, False]), ("False", "True")),
        (np.array(["yes", "no", "yes", "no"], np.dtypes.StringDType()), ("no", "yes")),
    ):
        splits = from_arrays((FEATURES[:4], y), (FEATURES[4:6], y[:2]))
        assert splits.label_names == names and splits.train.y.tolist() == [1, 0, 1, 0]
        assert splits.train.labels.tolist() == sorted(set(y.tolist()))
    y = np.array([True, False, True, False])
    named = from_arrays((FEATURES[:4], y), (FEATURES[4:6], y[:2]), label_names=["off", "on"])
    assert named.label_names == ("off", "on") and named.train.y.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("other", ["classes", "shape"])
def test_datasets_that_are_unlike_are_not_put_together(other):
    one = from_arrays((FEATURES[:4], [0, 1, 0, 1]), (FEATURES[4:6], [0, 1])).train
    x = FEATURES[:4, :1] if other == "shape" else FEATURES[:4]
    y = [0, 1, 2, 1] if other == "classes" else [0, 1, 0, 1]
    two = from_arrays((x, y), (x + 100, y)).train
    with pytest.raises(DataError, match=f"of other .*{other}.* cannot be put together"):
        data.joined(one, two)
