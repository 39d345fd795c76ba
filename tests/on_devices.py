"""Trains sweeps on meshes of the devices there are: python on_devices.py FOLDER MESH[:CASE...] ...

Writes what each mesh found to FOLDER/MESH.npz, and prints a line of JSON per mesh: for each case
the bytes of the states (all of them, and those on the first device), and of every program its
buffers on one device and the kinds of communication in it.
"""

import collections
import json
import re
import sys

import jax
import numpy as np

from softmax_jax import data, sweep
from softmax_jax.configs import bigram  # noqa: F401
from softmax_jax.sweep import full_batch, inputs, program
from softmax_jax.sweep.result import Collection

_DIGITS = data.load("digits", "train[:500]", "train[500:703]")
_WORDS = data.load("bigram:400", "train[:500]", "test[:203]")
_FOLDS = {"val": inputs.fold_counts(_DIGITS.train.y, 3)}
_SETTINGS = sweep.grid(learning_rate=(0.02, 0.05, 0.1), momentum=(0.0, 0.5))
_EARLY = _SETTINGS._replace(averaging=np.float32([0, 0.5] * 3), patience=np.float32([0, 2, 1] * 2))
_BALANCED = {"objective": sweep.Objective(class_weight="balanced")}
_STANDARDIZED = {"objective": sweep.Objective(standardize=True)}
_SHORT = {"num_epochs": 3, "batch_size": 60}
_EXACT = {"solver": sweep.LBFGS(tolerance=1e-5), "num_epochs": 100}
_SAMPLED = {
    "objective": sweep.Objective(loss="sampled_softmax"),
    "solver": sweep.SGD(num_samples=(20, 50)),
}
_TWO_SEEDS = {"seeds": (0, 1), "devices": sweep.Devices(chunk=6, steps_per_call=4)}
CASES = {
    "seeds": (_EARLY, {**_TWO_SEEDS, **_SHORT}),
    "many seeds": (sweep.grid(l2=(0.0, 0.1)), {"seeds": range(8), **_SHORT}),
    "folds": (_SETTINGS, {**_BALANCED, **_FOLDS, **_SHORT}),
    "folds apart": (_SETTINGS, {**_STANDARDIZED, **_FOLDS, **_SHORT}),
    "words": (_SETTINGS, {"objective": sweep.Objective(loss="cross_entropy"), **_SHORT}),
    "sampled words": (_SETTINGS, {**_SAMPLED, **_SHORT}),
    "all logits": (_SETTINGS, {**_BALANCED, **_SHORT}),
    "optimum": (sweep.grid(l2=(0.03, 0.1, 1.0)), {**_FOLDS, **_EXACT}),
}
_PROGRAMS = (
    (program, "create"),
    (program, "train_epoch"),
    (program, "evaluate"),
    (full_batch, "start_divided"),
    (full_batch, "advance_divided"),
    (full_batch, "choose_trials"),
)


def watch(module, name, seen):
    """Records every first call of a program in `seen`."""
    function = getattr(module, name)

    def call(*arguments, **options):
        if name not in seen:
            seen[name] = facts(function.lower(*arguments, **options).compile())
        return function(*arguments, **options)

    setattr(module, name, call)


def facts(compiled):
    """Buffers on one device, in bytes, and how often the devices communicate in which way."""
    memory = compiled.memory_analysis()
    pattern = r" (all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\("
    return {
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "communication": collections.Counter(re.findall(pattern, compiled.as_text())),
    }


def held(tree):
    """[bytes of a tree, those of them that the first device has]."""
    leaves, first = jax.tree.leaves(tree), jax.devices()[0]
    shards = [shard for leaf in leaves for shard in leaf.addressable_shards]
    here = [shard.data.nbytes for shard in shards if shard.device == first]
    return [sum(leaf.nbytes for leaf in leaves), sum(here)]


def run(case, mesh, seen):
    """(the result of a case, the facts to print about it)."""
    settings, options = CASES[case]
    splits = _WORDS if case in ("words", "sampled words", "all logits") else _DIGITS
    options = {"val": splits.val, "devices": sweep.Devices()} | options
    options["devices"] = options["devices"]._replace(mesh=mesh)
    epochs = sweep.epochs(splits.train, settings=settings, **options)
    seen.clear()
    collection = Collection(epochs.run)
    for epoch in epochs:
        collection.add(epoch)
        told = {"progress": held(epoch.progress), "models": held((epoch.states, epoch.best))}
    return collection.result(), told | {"programs": dict(seen)}


def main(folder, *meshes):
    seen = {}
    for module, name in _PROGRAMS:
        watch(module, name, seen)
    for text in meshes:
        name, *cases = text.split(":")
        arrays, told = {}, {}
        for case in cases or CASES:
            result, told[case] = run(case, tuple(map(int, name.split(","))), seen)
            kept = {"params": result.params, "best": result.best_params} | result.metrics
            kept |= {"best_epoch": result.best_epoch, "reached": result.reached}
            for path, leaf in jax.tree_util.tree_flatten_with_path(kept)[0]:
                arrays[f"{case}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = leaf
        np.savez(f"{folder}/{name}.npz", **arrays)
        print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
