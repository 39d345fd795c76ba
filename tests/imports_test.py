"""The laws of the house, read from the imports and the names in its source with `ast`."""

import ast
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1] / "softmax_jax"
FILES = pytest.mark.parametrize(
    "path", sorted(HOME.rglob("*.py")), ids=lambda path: str(path.relative_to(HOME))
)

# What each room may import of the others; itself it always may.
MAY_IMPORT = {
    "the mathematics": set(),
    "data": {"the mathematics"},
    "estimator": {"the mathematics"},
    "sweep": {"the mathematics"},
    "job": {"the mathematics", "data", "sweep"},
    "commands": {"the mathematics", "data", "job"},
}


def room_of(module):
    """'softmax_jax.sweep.trials' -> 'sweep'; 'softmax_jax.losses' -> 'the mathematics'."""
    name = module.split(".")[1]
    if name == "__main__":
        return "commands"
    return name if name in MAY_IMPORT else "the mathematics"


def module_of(path):
    return ".".join(path.relative_to(HOME.parent).with_suffix("").parts)


def imports_of(source):
    """The full names of all that a file imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def uses_of_the_world(source):
    """The names by which a file opens files, prints, or reads the clock or the environment."""
    found = [name for name in imports_of(source) if name.split(".")[0] in ("time", "datetime")]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] if node.func.id in ("open", "print", "input") else []
        elif isinstance(node, ast.Attribute):
            attributes = ("open", "read_text", "read_bytes", "write_text", "write_bytes")
            found += [node.attr] if node.attr in (*attributes, "environ", "getenv") else []
    return found


def test_the_rooms_are_there():
    rooms = {room_of(module_of(path)) for path in HOME.rglob("*.py") if path.parent != HOME}
    assert rooms - {"the mathematics"} == {"data", "estimator", "sweep", "job", "commands"}


@FILES
def test_imports_point_one_way(path):
    imported = imports_of(path.read_text())
    assert not [name for name in imported if name.startswith(".")], "imports are absolute"
    own = room_of(module_of(path)) if path.name != "__init__.py" or path.parent != HOME else None
    ours = [name for name in imported if name.split(".")[0] == "softmax_jax"]
    allowed = MAY_IMPORT.get(own, set()) | {own}
    assert [name for name in ours if room_of(name) not in allowed] == []


@FILES
def test_the_config_stops_at_the_job(path):
    config_libraries = {"absl", "ml_collections"}
    imported = {name.split(".")[0] for name in imports_of(path.read_text())}
    assert path.is_relative_to(HOME / "job") or not imported & config_libraries


@FILES
def test_scikit_learn_is_for_the_estimator_and_the_embedded_datasets(path):
    imported = {name.split(".")[0] for name in imports_of(path.read_text())}
    assert room_of(module_of(path)) in ("estimator", "data") or "sklearn" not in imported


@FILES
def test_only_data_job_and_commands_touch_the_world(path):
    if room_of(module_of(path)) not in ("data", "job", "commands"):
        assert uses_of_the_world(path.read_text()) == []


@pytest.mark.parametrize(
    "source, found",
    [
        ("print(1)", ["print"]),
        ("with open('x') as f: pass", ["open"]),
        ("import time\ntime.time()", ["time"]),
        ("from time import perf_counter", ["time.perf_counter"]),
        ("import os\nos.environ['HOME']", ["environ"]),
        ("import os\nos.sysconf('SC_PAGE_SIZE')", []),
        ("def open_(x): return x.print", []),
    ],
)
def test_the_reader_of_this_test_sees_what_it_should(source, found):
    assert uses_of_the_world(source) == found


def test_rooms_are_told_by_the_name():
    assert room_of("softmax_jax.sweep.trials") == room_of("softmax_jax.sweep") == "sweep"
    assert room_of("softmax_jax.losses") == room_of("softmax_jax.losses.softmax")
    assert imports_of("from softmax_jax import data, sweep") == [
        "softmax_jax.data",
        "softmax_jax.sweep",
    ]
    assert imports_of("def f():\n    from . import x") == ["..x"]
