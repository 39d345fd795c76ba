"""A pytree as arrays by name, and back: the form in which a checkpoint holds it."""

import jax
import numpy as np


class MisfitError(ValueError):
    """Arrays that are not those of the tree that they are to become."""


def flatten(tree) -> dict[str, np.ndarray]:
    """The leaves of a tree of arrays by their paths, on the host; of random keys their data.

    >>> {name: leaf.tolist() for name, leaf in flatten({"layer": {"b": np.zeros(2)}}).items()}
    {'layer/b': [0.0, 0.0]}
    """
    names, leaves, _ = _named(tree)
    data = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in leaves]
    return dict(zip(names, map(np.asarray, jax.device_get(data)), strict=True))


def unflatten(like, arrays: dict[str, np.ndarray]):
    """A tree of the structure of `like`, with the arrays for leaves.

    like: a tree of arrays, or of what `jax.eval_shape` gives (random keys must be keys). Raises
    MisfitError that names each leaf that is missing, too many, or of another shape or type.

    >>> unflatten({"b": np.ones(2)}, {"b": np.zeros(2)})
    {'b': array([0., 0.])}
    """
    names, leaves, structure = _named(like)
    wanted = {name: _stored_form(leaf) for name, leaf in zip(names, leaves, strict=True)}
    problems = [f"{name} is missing" for name in names if name not in arrays]
    problems += [f"{name} has no place in it" for name in arrays if name not in wanted]
    problems += [
        f"{name} is {_describe(arrays[name])} and should be {_describe(form)}"
        for name, form in wanted.items()
        if name in arrays and _describe(arrays[name]) != _describe(form)
    ]
    if problems:
        raise MisfitError(
            "What was saved does not fit this program: " + "; ".join(problems) + ". Go on with "
            "the version that wrote it."
        )
    return structure.unflatten(
        jax.random.wrap_key_data(arrays[name], impl=jax.random.key_impl(leaf))
        if _is_key(leaf)
        else arrays[name]
        for name, leaf in zip(names, leaves, strict=True)
    )


def _named(tree):
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"Two leaves of the tree have one name: {sorted(names)}.")
    return names, [leaf for _, leaf in paths], structure


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored_form(leaf):
    return jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf


def _describe(array):
    return f"{array.dtype}{list(array.shape)}"
