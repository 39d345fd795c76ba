import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from softmax_jax.data import DataError, from_arrays, loading

RNG = np.random.default_rng(0)
FEATURES, LABELS = RNG.normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
TRAIN, VAL = (FEATURES[:4], LABELS[:4]), (FEATURES[4:], LABELS[4:])
IMAGES = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)


def test_features_of_the_right_type_are_not_copied():
    splits = from_arrays(TRAIN, VAL)
    assert splits.train.x is TRAIN[0]
    assert (splits.train.scale, splits.train.mean, splits.train.weights) == (1.0, 0.0, None)
    assert splits.train.y.dtype == np.int32
    np.testing.assert_array_equal(splits.val.y, [1, 2])
    assert splits.test is None and not splits.val_is_test


def test_uint8_is_taken_for_images():
    train = from_arrays((IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])).train
    assert train.x.dtype == np.uint8 and train.scale == 255.0 and train.is_image


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.int8, bool, ml_dtypes.bfloat16])
def test_other_numbers_become_float32(dtype, convert):
    x = convert((FEATURES > 0).astype(dtype))
    train = from_arrays((x[:4], LABELS[:4]), (x[4:], LABELS[4:])).train
    assert train.x.dtype == np.float32 and train.scale == 1.0
    np.testing.assert_array_equal(train.x, FEATURES[:4] > 0)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
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
    loaded = np.load(tmp_path / "x.npy")
    train = from_arrays((loaded[:4], LABELS[:4]), (loaded[4:], LABELS[4:])).train
    np.testing.assert_array_equal(train.x, x[:4].astype(np.float32))


def test_a_mapped_array_may_be_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_SHARD_BYTES", 3 * FEATURES[0].nbytes)
    np.save(tmp_path / "x.npy", FEATURES)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    given = (x[:4], LABELS[:4]), (x[4:], LABELS[4:])
    splits = from_arrays(*given, stream=True)
    assert isinstance(splits.train.x, np.memmap) and splits.train.shard_size == 3
    assert splits.val.shard_size is None  # it is no larger than a part
    assert from_arrays(*given).train.shard_size is None  # it is no larger than the memory
    with pytest.raises(DataError, match="stream must be 'auto', True or False; it is 'yes'"):
        from_arrays(*given, stream="yes")


def test_lists_will_do():
    splits = from_arrays(([[1, 2], [3, 4]], [0, 1]), ([[5, 6]], [1]))
    np.testing.assert_array_equal(splits.train.x, [[1.0, 2.0], [3.0, 4.0]])


def test_arrays_on_a_device_stay_there():
    x, y = jnp.asarray(FEATURES), jnp.asarray(LABELS, jnp.int32)
    x_val, y_val = jnp.asarray(IMAGES[4:, 0, :3], jnp.float32), y[4:]
    train = from_arrays((x, y), (x_val, y_val)).train
    assert train.x is x and train.y is y


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint64])
def test_labels_of_any_integer_type(dtype):
    splits = from_arrays((TRAIN[0], TRAIN[1].astype(dtype)), VAL)
    assert splits.train.y.dtype == np.int32
    np.testing.assert_array_equal(splits.train.y, TRAIN[1])


def test_classes_are_counted_over_all_splits_or_given():
    y_test = np.array([0, 7])
    splits = from_arrays(TRAIN, VAL, (FEATURES[4:] + 1, y_test))
    assert splits.label_names == splits.val.label_names == tuple("01234567")
    splits = from_arrays(TRAIN, VAL, label_names=["ant", "bee", "cat", "dog"])
    assert splits.train.num_classes == 4 and splits.label_names[3] == "dog"


def test_weights_belong_to_train():
    weights = [0, 1, 2, 0.5]
    splits = from_arrays((*TRAIN, weights), VAL)
    assert splits.train.weights.dtype == np.float32 and splits.val.weights is None
    np.testing.assert_array_equal(splits.train.weights, weights)
    with pytest.raises(DataError, match=r"val must be \(x, y\), "):
        from_arrays(TRAIN, (*VAL, [1, 1]))


def test_val_and_test_may_be_the_same_which_the_result_says():
    assert from_arrays(TRAIN, VAL, VAL).val_is_test
    assert not from_arrays(TRAIN, VAL, (VAL[0].copy(), VAL[1])).val_is_test
    on_device = (jnp.asarray(VAL[0]), VAL[1])
    assert from_arrays(TRAIN, on_device, on_device).val_is_test


def test_train_shares_no_examples_with_the_rest():
    interleaved = (FEATURES[::2], LABELS[::2]), (FEATURES[1::2], LABELS[1::2])
    from_arrays(*interleaved)
    with pytest.raises(DataError, match="train and val share examples"):
        from_arrays(TRAIN, (FEATURES[3:], LABELS[3:]))
    with pytest.raises(DataError, match="train and test share examples"):
        from_arrays(TRAIN, VAL, TRAIN)


@pytest.mark.parametrize(
    "train, why",
    [
        ((FEATURES[:4], LABELS[:3]), "4 examples, and y has shape"),
        ((FEATURES[:0], LABELS[:0]), "no examples"),
        ((FEATURES[:4], LABELS[:4] / 2), r"labels must be integers, and are float64.*astype"),
        ((FEATURES[:4], list("abca")), r"labels must be integers.*np\.unique"),
        ((FEATURES[:4], [True] * 4), "labels must be integers, and are bool"),
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


def test_a_large_label_does_not_wrap_round():
    with pytest.raises(DataError, match=r"label 4294967297 of example 0 is outside 0\.\.2"):
        from_arrays((FEATURES[:4], [2**32 + 1, 0, 1, 2]), VAL, label_names=["ant", "bee", "cat"])
