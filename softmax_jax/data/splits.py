"""Split strings: from `'train[:80%]+test'` to ranges of examples."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from softmax_jax.data.errors import DataError


class Piece(NamedTuple):
    """Examples start, ..., stop − 1 of one split of the source."""

    split: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.split}[{self.start}:{self.stop}]"


def resolve(spec: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[Piece]:
    """Reads a split string as TFDS does.

    Args:
      spec: `'train'`, `'train[:50000]'`, `'train[10%:20%]+test[-500:]'`, `'all'`, ...; see
        https://www.tensorflow.org/datasets/splits. Percentages round to the nearest example.
      shard_lengths: for each split of the source, the number of examples in each of its files.

    Returns:
      The pieces in the order given; neighbours that touch are joined.

    Raises:
      DataError: the string is malformed, names a split that the source lacks, reaches beyond
        its end, or selects nothing.
    """
    if spec in shard_lengths:  # a plain name, the common case, needs no parser: TFDS takes 0.2 s
        pieces = [Piece(spec, 0, sum(shard_lengths[spec]))]
    else:
        pieces = _resolve_with_tfds(spec, shard_lengths)
    pieces = _join([piece for piece in pieces if piece.start < piece.stop])
    if not pieces:
        raise DataError(
            f"The split {spec!r} is empty. Give one that selects at least one example; "
            f"there are {_sizes(shard_lengths)}."
        )
    return pieces


def as_they_are(specs: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Puts split strings in the place of `'auto'`, which takes the splits as the data has them.

    Args:
      specs: split strings or `'auto'` for train, val and test.
      names: the splits of the source.

    Returns:
      train is `'train'`; val is `'val'` or `'validation'`, whichever is there; test is `'test'`, or
      none if there is none. Where there is no val, and both train and val are `'auto'`, they share
      train: its last fifth is val.

    >>> as_they_are({"train": "auto", "val": "auto", "test": "auto"}, ["train", "test"])
    {'train': 'train[:80%]', 'val': 'train[80%:]', 'test': 'test'}
    """
    own = [name for name in ("val", "validation") if name in names]
    shared = not own and specs["train"] == specs["val"] == "auto"
    meant = {
        "train": "train[:80%]" if shared else "train",
        "val": own[0] if own else "train[80%:]",
        "test": "test" if "test" in names else "",
    }
    return {role: meant[role] if spec == "auto" else spec for role, spec in specs.items()}


def overlap(ours: Sequence[Piece], theirs: Sequence[Piece]) -> list[Piece]:
    """The examples that both have, as pieces."""
    common = [
        Piece(a.split, max(a.start, b.start), min(a.stop, b.stop))
        for a in ours
        for b in theirs
        if a.split == b.split
    ]
    return [piece for piece in common if piece.start < piece.stop]


def _resolve_with_tfds(spec: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[Piece]:
    import tensorflow_datasets as tfds

    infos = {
        name: tfds.core.SplitInfo(
            name=name, shard_lengths=list(lengths), num_bytes=0, filename_template=None
        )
        for name, lengths in shard_lengths.items()
    }
    try:
        slices = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[-1].rstrip(".")
        raise DataError(
            f"The split {spec!r} cannot be read: {reason}. Write for example 'train', "
            f"'train[:80%]' or 'auto' (the splits as they are); there are {_sizes(shard_lengths)}."
        ) from error
    return [
        Piece(s.splitname, s.from_ or 0, infos[s.splitname].num_examples if s.to is None else s.to)
        for s in slices
    ]


def _join(pieces: Sequence[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].split == piece.split and joined[-1].stop == piece.start:
            piece = joined.pop()._replace(stop=piece.stop)
        joined.append(piece)
    return joined


def _sizes(shard_lengths: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name!r} ({sum(sizes):,})" for name, sizes in shard_lengths.items())
