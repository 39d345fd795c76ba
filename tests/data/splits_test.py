import pytest

from softmax_jax.data.loading import Slice, overlap, replace_auto, resolve_split
from softmax_jax.host import DataError

SHARDS = {"train": (400, 603), "test": (101,), "extra-1": (7,)}


@pytest.mark.parametrize(
    "spec",
    [
        "train",
        "train[:500]",
        "train[-1:]",
        "train[:-3]",
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
def test_selects_the_examples_that_tfds_selects(spec):
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
    ours = resolve_split(spec, SHARDS)
    assert [(split, i) for split, start, stop in ours for i in range(start, stop)] == expected


@pytest.mark.parametrize(
    "spec",
    ["", "tran", "train[", "train[5]", "train[:2000]", "train[:101%]", "train[a:b]", "train++test"]
    + ["train[1:2:3]", "all[:5]", "../train"],
)
def test_a_split_that_tfds_refuses_is_refused_with_the_choices(spec):
    with pytest.raises(DataError, match=r"'train' \(1,003\), 'test' \(101\)"):
        resolve_split(spec, SHARDS)


@pytest.mark.parametrize("spec", ["train[:0]", "train[5:5]", "train[9:5]", "test[:0%]"])
def test_an_empty_split_is_refused(spec):
    with pytest.raises(DataError, match="empty"):
        resolve_split(spec, SHARDS)


def test_neighbours_are_joined_so_that_no_copy_is_needed():
    assert resolve_split("train[:5]+train[5:9]", SHARDS) == [Slice("train", 0, 9)]
    assert len(resolve_split("train[:5]+train[6:9]", SHARDS)) == 2


def test_overlap_is_exact():
    train, test = resolve_split("train[:80%]", SHARDS), resolve_split("test", SHARDS)
    assert overlap(train, resolve_split("train[80%:]+test", SHARDS)) == []
    assert overlap(train, resolve_split("test+train[801:]", SHARDS)) == [Slice("train", 801, 802)]
    assert overlap(test, test) == test


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
def test_auto_takes_the_splits_as_they_are(names, given, expected):
    roles = ("train", "val", "test")
    specs = dict(zip(roles, given, strict=True))
    assert tuple(replace_auto(specs, names).values()) == expected
