"""Split strings: the examples that TFDS selects, and the laws of their slices."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softmax_jax import data
from softmax_jax.data import validation
from softmax_jax.data.loading import Slice, _merge_touching, overlap, replace_auto, resolve_split
from softmax_jax.host import DataError

SHARDS = {"train": (400, 603), "test": (101,), "extra-1": (7,)}


def rows(slices):
    """Every example that the slices name, in order, as (split, number)."""
    return [(split, number) for split, start, stop in slices for number in range(start, stop)]


def slices_of(size):
    """Lists of slices that are not empty, of two splits of `size` examples."""
    bounds = st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True).map(sorted)
    one = st.builds(lambda split, ends: Slice(split, *ends), st.sampled_from("ab"), bounds)
    return st.lists(one, max_size=6)


@settings(deadline=None, database=None)
@given(slices_of(12))
def test_merged_slices_are_the_same_rows_and_no_two_neighbours_touch(slices):
    merged = _merge_touching(slices)
    assert rows(merged) == rows(slices)
    neighbours = list(zip(merged, merged[1:], strict=False))
    assert not any(a.split == b.split and a.stop == b.start for a, b in neighbours)


@settings(deadline=None, database=None)
@given(slices_of(12), slices_of(12))
def test_overlap_is_the_intersection_of_the_rows(ours, theirs):
    common = overlap(ours, theirs)
    assert set(rows(common)) == set(rows(ours)) & set(rows(theirs))
    assert all(start < stop for _, start, stop in common)


END = st.none() | st.integers(-40, 40)


@settings(deadline=None, database=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["train", "test"]), END, END), min_size=1, max_size=3))
def test_a_spec_selects_the_rows_of_pythons_slices(parts):
    """'train[a:b]+test[c:]' is the rows [a:b] of train, and then the rows [c:] of test."""
    lengths = {"train": (25, 8), "test": (9,)}
    every = {name: rows([Slice(name, 0, sum(sizes))]) for name, sizes in lengths.items()}
    spec, expected = [], []
    for name, start, stop in parts:
        ends = ":".join("" if end is None else str(end) for end in (start, stop))
        spec.append(name if ends == ":" else f"{name}[{ends}]")
        expected += every[name][start:stop]
    beyond = any(abs(end or 0) > sum(lengths[name]) for name, *ends in parts for end in ends)
    if beyond or not expected:
        with pytest.raises(DataError):
            resolve_split("+".join(spec), lengths)
        return
    assert rows(resolve_split("+".join(spec), lengths)) == expected


@pytest.mark.parametrize(
    "spec",
    [
        "train",
        "train[:500]",
        "train[-1:]",
        "train[10:20]+test[-5:]",
        "train[:33%]",
        "train[12.5%:]",
        "train[-10%:]",
        "test[:50%]",
        "test[50%:]",
        "train[:1shard]",
        "train[1shard]",
        "train[-1shard:]",
        "train [:5]+test",
        "extra-1 + test[3:]",
        "all",
        "train[1_000:]",
        "test+train",
    ],
)
def test_a_spec_selects_the_rows_that_tfds_selects(spec):
    import tensorflow_datasets as tfds

    infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=list(lengths),
            num_bytes=0,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir="/", dataset_name="d", split=name, filetype_suffix="array_record"
            ),
        )
        for name, lengths in SHARDS.items()
    ]
    starts = {
        f"d-{name}.array_record-{i:05d}-of-{len(lengths):05d}": (name, sum(lengths[:i]))
        for name, lengths in SHARDS.items()
        for i in range(len(lengths))
    }
    try:
        files = tfds.core.splits.SplitDict(infos)[spec].file_instructions
    except ValueError:
        with pytest.raises(DataError):
            resolve_split(spec, SHARDS)
        return
    expected = []
    for file in files:
        name, start = starts[file.filename.rsplit("/", 1)[-1]]
        last = file.examples_in_shard if file.take == -1 else file.skip + file.take
        expected += [(name, start + i) for i in range(file.skip, last)]
    assert rows(resolve_split(spec, SHARDS)) == expected


KINDS = (
    st.integers(-9, 9).map(str),
    st.integers(-100, 100).map("{}%".format),
    st.floats(-100, 100).map("{:.2f}%".format),
    st.sampled_from(["1shard", "-1shard"]),
)
ENDS = st.one_of(st.tuples(kind | st.just(""), kind | st.just("")) for kind in KINDS)


@settings(deadline=None, database=None)
@given(st.sampled_from([*SHARDS]), ENDS)
def test_ends_of_every_kind_select_what_tfds_selects(name, ends):
    """Numbers, percentages, which round to the nearest example, and shards."""
    import tensorflow_datasets as tfds

    infos = {
        split: tfds.core.SplitInfo(
            name=split, shard_lengths=list(lengths), num_bytes=0, filename_template=None
        )
        for split, lengths in SHARDS.items()
    }
    spec = f"{name}[{ends[0]}:{ends[1]}]" if any(ends) else name
    try:
        (theirs,) = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
    except ValueError:
        expected = []
    else:
        first, last = theirs.from_ or 0, sum(SHARDS[name]) if theirs.to is None else theirs.to
        expected = [Slice(name, first, last)] if first < last else []
    try:
        found = resolve_split(spec, SHARDS)
    except DataError:
        found = []
    assert found == expected


@pytest.mark.parametrize(
    "spec",
    ["", "tran", "train[", "train[5]", "train[:2000]", "train[:101%]", "train[a:b]", "train++test"]
    + ["train[1:2:3]", "all[:5]", "../train"],
)
def test_a_malformed_spec_is_refused_with_the_choices(spec):
    with pytest.raises(DataError, match=r"'train' \(1,003\), 'test' \(101\)"):
        resolve_split(spec, SHARDS)


@pytest.mark.parametrize("spec", ["train[:0]", "train[5:5]", "train[9:5]", "test[:0%]"])
def test_an_empty_split_is_refused(spec):
    with pytest.raises(DataError, match="empty"):
        resolve_split(spec, SHARDS)


def test_slices_that_touch_are_one_so_that_no_copy_is_needed():
    assert resolve_split("train[:5]+train[5:9]", SHARDS) == [Slice("train", 0, 9)]
    assert len(resolve_split("train[:5]+train[6:9]", SHARDS)) == 2
    assert len(resolve_split("train[:5]+train[3:9]", SHARDS)) == 2  # 3 and 4 count twice


@pytest.mark.parametrize(
    "names, given, expected",
    [
        (("train", "val", "test"), ("auto", "auto", "auto"), ("train", "val", "test")),
        (("train", "validation"), ("auto", "auto", "auto"), ("train", "validation", "")),
        (("train", "test"), ("auto", "auto", "auto"), ("train[:80%]", "train[80%:]", "test")),
        (("train",), ("auto", "auto", ""), ("train[:80%]", "train[80%:]", "")),
        (("train", "test"), ("auto", "test", "auto"), ("train", "test", "test")),
        (("train", "test"), ("train[:50%]", "auto", ""), ("train[:50%]", "train[80%:]", "")),
        (("train", "val", "test"), ("train", "test", ""), ("train", "test", "")),
    ],
)
def test_auto_takes_the_splits_that_the_data_has(names, given, expected):
    roles = ("train", "val", "test")
    specs = dict(zip(roles, given, strict=True))
    assert tuple(replace_auto(specs, names).values()) == expected


def saved(folder, y):
    """A file of examples with the labels y, no two of them alike."""
    x = np.random.default_rng(0).normal(size=(len(y), 2)).astype(np.float32)
    np.savez(folder / "x.npz", x=x, y=y)
    return str(folder / "x.npz")


AUTO = {"train": "auto", "val": "auto", "test": "auto"}


@pytest.mark.parametrize("sizes", [(50, 50), (10, 10), (70, 30), (30, 30, 40), (90, 1000)])
def test_rows_sorted_by_label_are_not_divided_by_auto(tmp_path, sizes):
    y = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(DataError, match="'auto' takes the last fifth.*Shuffle the rows"):
        data.load(saved(tmp_path, y), **AUTO)
    shuffled = np.random.default_rng(0).permutation(y)
    assert len(data.load(saved(tmp_path, shuffled), **AUTO).val) == round(sum(sizes) / 5)


def test_a_whole_class_beyond_the_cut_is_refused_too(tmp_path):
    with pytest.raises(DataError, match="does not occur in train.*shuffle them"):
        data.load(saved(tmp_path, np.repeat(np.arange(10), 10)), **AUTO)


@settings(deadline=None, database=None, derandomize=True, max_examples=50)
@given(st.integers(0, 999), st.integers(2, 4), st.integers(20, 200))
def test_shuffled_rows_are_never_taken_for_sorted(seed, C, size):
    y = np.random.default_rng(seed).permutation(np.arange(size) % C)
    validation.check_shuffled(y[: -(size // 5)], y[-(size // 5) :])


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    D=st.integers(1, 6),
    values=st.integers(2, 300),
    seed=st.integers(0, 99),
)
def test_copies_are_counted(dtype, D, values, seed):
    """By their hashes as by comparing every row with every other; -0 is 0."""
    rng = np.random.default_rng(seed)
    x = rng.integers(min(values, 256), size=(50, D)).astype(dtype)
    if dtype != np.uint8:
        x = (x * rng.choice([1.0, -1.0], size=(50, 1)) * 0.1).astype(dtype)
    train, val = (x[:30], np.arange(30) % 2), (x[30:], np.arange(20) % 2)
    copies = sum((train[0] == row).all(1).any() for row in val[0])
    splits = data.from_arrays(train, val)
    assert validation.count_copies(splits.train, {"val": splits.val}) == {"val": copies}


@pytest.mark.parametrize(
    "spec, twice",
    [("train[:12]+train[:12]", "train[0:12]"), ("train[:12]+train[8:20]", "train[8:12]")],
)
def test_examples_that_train_takes_twice_are_said(tmp_path, spec, twice):
    path = saved(tmp_path, np.arange(40) % 2)
    with pytest.warns(UserWarning, match="takes examples twice: ") as said:
        data.load(path, train=spec, val="train[20:]")
    assert twice in str(said[0].message) and len(said) == 1
    data.load(path, train="train[:12]+train[12:20]", val="train[20:]")


@pytest.fixture
def uneven(tmp_path):
    """20 to 65 examples of four classes, called by name; the first 30 examples count nothing."""
    y = np.repeat(["ant", "bee", "cow", "doe"], [20, 25, 50, 65])
    y = y[np.random.default_rng(0).permutation(160)]
    x = np.arange(160.0)[:, None]
    w = np.where(np.arange(160) < 30, 0.0, 2.0)
    file = tmp_path / "x.npz"
    np.savez(file, x_train=x, y_train=y, w_train=w, x_test=x[:40] + 0.5, y_test=y[:40])
    return str(file)


@settings(
    deadline=None,
    database=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(1, 5), st.integers(0, 99), st.sampled_from(["", ":90%,", "40:,"]))
def test_shots_are_as_many_of_each_class(uneven, k, seed, ends):
    """Of weight above 0 and within the slice; fewer of one seed lie within more."""
    few, more, whole = (
        data.load(uneven, spec, "test").train
        for spec in (
            f"train[{ends}k={k},seed={seed}]",
            f"train[{ends}k={k + 1},seed={seed}]",
            f"train[{ends.rstrip(',') or ':'}]",
        )
    )
    assert np.bincount(few.y).tolist() == [k] * 4 and (few.weights > 0).all()
    rows = [set(np.asarray(one.x)[:, 0].tolist()) for one in (few, more, whole)]
    assert rows[0] < rows[1] < rows[2] and len(few.y) == 4 * k
    assert list(rows[0]) != [] and sorted(few.x[:, 0]) == few.x[:, 0].tolist()


def test_shots_without_a_seed_are_those_of_seed_0(uneven):
    drawn = [
        data.load(uneven, spec, "test").train.x[:, 0].tolist()
        for spec in ("train[k=4]", "train[k=4,seed=0]", "train[k=4,seed=1]")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "train, val, words",
    [
        ("train[k=30]", "test", "the class 'ant' has"),
        ("train[k=0]", "test", "Ask for 1 to"),
        ("train[k=-1]", "test", "cannot be read"),
        ("train[k=2.5]", "test", "cannot be read"),
        ("train[k=]", "test", "cannot be read"),
        ("train[k=99999999999999]", "test", "cannot be read"),
        ("nothing[k=2]", "test", "no split"),
        ("train", "test[k=2]", "val: .* cannot be read"),
        ("train[k=2]", "train[90%:]", "share examples"),
    ],
)
def test_shots_that_cannot_be_drawn_are_refused(uneven, train, val, words):
    with pytest.raises(DataError, match=words):
        data.load(uneven, train, val)
