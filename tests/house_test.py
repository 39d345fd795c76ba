"""The laws of the house, read from the imports and the names in its source with `ast`."""

import ast
import collections
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1] / "softmax_jax"
PATHS = sorted(HOME.rglob("*.py"))
FILES = pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(HOME)))

# From the bottom of the house to its top: a room imports from its own floor and from those below.
FLOORS = (
    ("host", "hyperparameters"),
    ("checks", "losses", "metrics", "model"),
    ("train",),
    ("vocabulary", "optimum"),
    ("data",),
    ("calibration", "classifier", "conformal", "decisions", "estimator_fit", "inference"),
    ("sweep",),
    ("charts", "plots", "studies"),
    ("job",),
    ("comparison", "estimator", "predict", "report", "runs"),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# The rooms that open files, read the clock or the environment, or print.
WORLDLY = ("data", "job", "host", "predict", "report", "runs", "__main__")


def module_of(path):
    parts = path.relative_to(HOME.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in PATHS}


def room_of(module):
    """'softmax_jax.sweep.loop' -> 'sweep'; 'softmax_jax.losses.softmax' -> 'losses'."""
    return module.split(".")[1] if "." in module else ""


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


def own_imports(path):
    """The modules of this package that a file imports."""
    names = [name for name in imports_of(path.read_text()) if name.startswith("softmax_jax.")]
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


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


def test_every_room_has_a_floor():
    assert {room_of(module) for module in MODULES} - {""} == set(FLOOR)


def test_modules_are_few_and_can_be_read_in_one_sitting():
    assert len(PATHS) <= 61
    lengths = {module_of(path): len(path.read_text().splitlines()) for path in PATHS}
    assert {name: n for name, n in lengths.items() if n > 800} == {}


def test_no_two_public_modules_have_one_name():
    names = collections.Counter(path.stem for path in PATHS if not path.stem.startswith("_"))
    assert [name for name, count in names.items() if count > 1] == []


@FILES
def test_imports_point_downwards(path):
    imported = imports_of(path.read_text())
    assert not [name for name in imported if name.startswith(".")], "imports are absolute"
    floor = FLOOR.get(room_of(module_of(path)), len(FLOORS))
    assert [name for name in own_imports(path) if FLOOR.get(room_of(name), 0) > floor] == []


def test_modules_do_not_import_each_other_in_circles():
    above = {module_of(path): own_imports(path) for path in PATHS if path.stem != "__init__"}
    remaining = {module: imported & set(above) for module, imported in above.items()}
    while remaining:
        free = [module for module, imported in remaining.items() if not imported & set(remaining)]
        assert free, f"in circles: {sorted(remaining)}"
        for module in free:
            del remaining[module]


@FILES
def test_the_config_stops_at_the_job(path):
    imported = {name.split(".")[0] for name in imports_of(path.read_text())}
    assert room_of(module_of(path)) == "job" or not imported & {"absl", "ml_collections"}


@FILES
def test_scikit_learn_is_for_the_estimator_and_the_embedded_datasets(path):
    imported = {name.split(".")[0] for name in imports_of(path.read_text())}
    assert (
        room_of(module_of(path)) in ("estimator", "estimator_fit", "data")
        or "sklearn" not in imported
    )


@FILES
def test_only_a_few_rooms_touch_the_world(path):
    if room_of(module_of(path)) not in WORLDLY:
        assert uses_of_the_world(path.read_text()) == []


@FILES
def test_private_rooms_of_other_packages_stay_closed(path):
    """`jax._src` and the like, neither imported nor looked up by name."""
    assert not re.search(r"\b(jax|jaxlib|flax|optax)(\.\w+)*\._", path.read_text())


@pytest.mark.parametrize("name", ["losses", "metrics", "model", "train"])
def test_one_model_and_one_batch_know_nothing_of_trials(name):
    source = (HOME / f"{name}.py").read_text()
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert "vmap" not in names


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


def python(program):
    """The words that a program prints in a fresh interpreter, which may not complain."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    "room, packages",
    [
        ("softmax_jax", ["jax", "numpy", "sklearn", "tensorflow_datasets", "matplotlib", "absl"]),
        ("softmax_jax.data", ["jax", "sklearn", "tensorflow_datasets", "matplotlib", "absl"]),
        ("softmax_jax.sweep", ["sklearn", "tensorflow_datasets", "matplotlib"]),
    ],
)
def test_an_import_brings_none_of_the_slow_packages(room, packages):
    program = f"import sys, {room}; print(*(p for p in {packages} if p in sys.modules))"
    assert python(program) == []


def test_the_package_gives_its_public_names_when_they_are_asked_for():
    program = (
        "import sys, softmax_jax; before = 'sklearn' in sys.modules; softmax_jax.SoftmaxRegression;"
        "print(before, 'sklearn' in sys.modules, *sorted(softmax_jax.__all__));"
        "[getattr(softmax_jax, name) for name in softmax_jax.__all__]"
    )
    names = "SoftmaxRegression SoftmaxRegressionCV __version__ data load losses optimum sweep"
    assert python(program) == ["False", "True", *names.split()]


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import softmax_jax

    with pytest.raises(AttributeError, match="softmax_jax.*'Softmax'"):
        _ = softmax_jax.Softmax
