"""What makes a job the same job: its config and the data really used, compared as JSON text."""

import hashlib
import json

from softmax_jax import data

# Where the data come from (they are compared themselves), on which devices and in what portions the
# trials run, what is kept and shown meanwhile: fields on which no number depends.
WITHOUT_EFFECT = (
    "checkpoint_seconds",
    "chunk",
    "data_dir",
    "dataset_fallback",
    "keep",
    "mesh",
    "tensorboard",
)


def of(config: dict, splits: data.Splits) -> dict:
    """The identity of the job with this config on these data, as it comes back out of JSON."""
    fields = {name: value for name, value in config.items() if name not in WITHOUT_EFFECT}
    roles = {role: getattr(splits, role) for role in ("train", "val", "test")}
    used = {
        "name": splits.name,
        "part_size": splits.train.part_size,  # decides the order of what is read in parts
        "shapes": {role: split.x.shape for role, split in roles.items() if split is not None},
        "fingerprint": data.fingerprint(splits),
    }
    return json.loads(json.dumps({"config": fields, "data": used}))


def digest(job: dict) -> str:
    """SHA-256 of an identity as JSON text, in hexadecimal; the order of its fields is nothing.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(_text(job).encode()).hexdigest()


def differences(old: dict, new: dict) -> list[str]:
    """Each field in which two identities differ, as 'field: old → new', by name.

    >>> differences({"config": {"l2": 0.0, "sweep": {"seed": [0]}}}, {"config": {"l2": 0.1}})
    ['l2: 0.0 → 0.1', 'sweep.seed: [0] → nothing']
    """
    before, after = _fields(old), _fields(new)
    return [
        f"{name.removeprefix('config.')}: {before.get(name, 'nothing')} → "
        f"{after.get(name, 'nothing')}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def _fields(value, name=""):
    """{path: JSON text} of everything in it that is not itself a dictionary."""
    if not isinstance(value, dict):
        return {name: _text(value)}
    fields = {}
    for key, item in value.items():
        fields |= _fields(item, f"{name}.{key}" if name else key)
    return fields


def _text(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
