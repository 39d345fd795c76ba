"""Random inputs of every kind, and the promises of docs/reliability.md as the judge of each.

    SOFTMAX_JAX_FUZZ=20000 python -m pytest -m slow tests/fuzz             # cases, in all kinds
    SOFTMAX_JAX_FUZZ=1 SOFTMAX_JAX_FUZZ_SEED=1234 python -m pytest -m slow tests/fuzz -k tables

The second line repeats one case: a failure prints its kind and its seed. Cases run in this process,
each within a limit of time and of memory; only the command lines of main.py run in forks.
"""

import contextlib
import gzip
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import traceback
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs import default
from softmax_jax import host
from softmax_jax.__main__ import main as run_command
from softmax_jax.job import checkpoint, run
from softmax_jax.job.config import AXES, RULES
from tests import programs
from tests.data_on_disk import IMAGES, LABELS, write_idx, write_prepared

CASES = int(os.environ.get("SOFTMAX_JAX_FUZZ", 500))
SEED = int(os.environ.get("SOFTMAX_JAX_FUZZ_SEED", 0))
SHOWN = 10  # failures of a kind
SECONDS, BYTES = 20, 4 << 30  # that a case may take beyond what the process has
MEMORY = 2 << 30  # that the program takes for that of the machine

pytestmark = pytest.mark.slow


class Late(BaseException):
    """A case has taken too long."""


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory):
    """No network, no home but an empty one, a small machine."""
    home = tmp_path_factory.mktemp("home")
    names = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TFDS_DATA_DIR": ""}
    names |= {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        patch.setattr(host, "available_memory", lambda *_: MEMORY)
        yield home


def tiny(folder):
    """A dataset of 24 + 24 examples of four features in three classes."""
    draw = np.random.default_rng(0)
    x, y = draw.random((48, 4), np.float32), np.arange(24) % 3
    np.savez(folder / "tiny.npz", x_train=x[:24], y_train=y, x_val=x[24:], y_val=y)
    return folder / "tiny.npz"


def a_config(dataset, **fields):
    config = default.get_config().unlock()
    config.dataset, config.val_split, config.batch_size, config.num_epochs = (
        str(dataset),
        "val",
        8,
        1,
    )
    with config.ignore_type():
        for name, value in fields.items():
            config[name] = value
    return config


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """A finished job of two settings, its dataset, prepared sets: what the cases begin with."""
    home = tmp_path_factory.mktemp("templates")
    (home / "idx").mkdir()
    write_idx(home / "idx" / "packed")
    write_idx(home / "idx" / "plain", compressed=False)
    write_prepared(home / "tfds", "toy", {"train": (IMAGES, LABELS)})
    dataset = tiny(home)
    config = a_config(dataset)
    config.sweep.learning_rate = (0.01, 0.1)
    with quiet():
        assert run.main(config, home / "done") == 0
    return SimpleNamespace(home=home, dataset=dataset, config=config, done=home / "done")


@contextlib.contextmanager
def quiet():
    """Takes what is said: (standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield out, err


@contextlib.contextmanager
def limits():
    """Time and memory of a case."""

    def late(*_):
        raise Late

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


# The judge.

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")


def broken_promise(code, out, err):
    """What an ended case has broken, or ''."""
    messages = err.count("main.py: ") + err.count("softmax_jax: ")
    if code not in (0, 2, 3, 4):
        return f"exit code {code}"
    if code in (2, 3) and messages != 1:
        return f"{messages} messages"
    if "Traceback (most" in out + err or "nobody foresaw" in err:
        return "a traceback"
    if "memory does not suffice" in err:
        return "memory was taken before it was asked for"
    if found := _CONTROL.search(out + err):
        return f"a control character, {found[0]!r}"
    if max(map(len, err.splitlines()), default=0) > 1500 or len(err) > 20_000:
        return f"a message of {len(err):,} characters"
    return ""


def judged(kind, case, templates, folder, seed):
    """A line about what the case has broken, or ''."""
    rng = random.Random(f"{kind} {seed}")
    folder.mkdir()
    outside = folder / "outside"
    outside.mkdir()
    for name in ("precious.txt", "00000007.npz", "summary.json"):
        (outside / name).write_text("precious")
    code, out, err = None, "", ""
    try:
        with quiet() as said, limits():
            try:
                code = case(rng, folder, templates)
            except SystemExit as left:  # argparse
                code = left.code
            out, err = (stream.getvalue() for stream in said)
        found = broken_promise(code, out, err)
    except Late:
        found = f"more than {SECONDS} seconds\n{traceback.format_exc()[-1500:]}"
    except Exception:
        found = traceback.format_exc()[-1500:]
    if not found and sorted(path.read_text() for path in outside.iterdir()) != ["precious"] * 3:
        found = "something outside was changed"
    for path in [*folder.rglob(host.ERROR_FILE)] if found else []:
        err += path.read_text(errors="replace") if path.is_file() else ""
    shutil.rmtree(folder, ignore_errors=True)
    return found and f"{kind}, seed {seed}: {found}\n{err[-1500:]}"


# What the cases are made of.

_TEXTS = (
    *(
        "",
        "x",
        "$",
        "$$x$",
        "\x1b[31m",
        "a\nb",
        "\ud800",
        "=1+1",
        "猫",
        "\u202e",
        "../..",
        "~",
        "\0",
    ),
    *(
        "~nobody_here/x",
        "a" * 300,
        "b" * 100_000,
        "{0}%s",
        "<b>",
        "/dev/zero",
        "/",
        ".",
        "-",
        "NaN",
    ),
)
_NUMBERS = (
    *(
        0,
        1,
        -1,
        2,
        3,
        7,
        8,
        24,
        25,
        1000,
        2**31,
        2**32,
        2**53,
        2**62,
        2**63,
        2**64,
        10**400,
        -(2**63),
    ),
    *(0.0, -0.0, 0.5, 1.0, 1e-320, 1e-8, 1e30, 1e38, 1e39, 1e300, 1.8e308, -1e308, float("nan")),
    *(float("inf"), float("-inf")),
)


def any_value(rng, depth=2):
    """A value that a config or JSON may hold, or only a config file."""
    kind = rng.randrange(8 if depth else 5)
    if kind < 2:
        return rng.choice(_NUMBERS)
    if kind == 2:
        return rng.choice(_TEXTS)
    if kind == 3:
        return rng.choice((None, True, False, "balanced", (), "auto"))
    if kind == 4:
        return rng.choice(
            (b"x", np.arange(3), np.float32(2), np.int64(3), 1j, {1}, object(), range(3))
        )
    several = [any_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 3, 10)))]
    if kind == 5:
        return {rng.choice(("a", "l2", 1, "", "\x1b")): value for value in several}
    return (tuple if kind == 6 else list)(several)


def plain_value(rng, depth=2):
    """A value that JSON may hold."""
    kind = rng.randrange(7 if depth else 4)
    if kind < 2:
        return rng.choice([value for value in _NUMBERS if value != 10**400])
    if kind < 4:
        return rng.choice((*_TEXTS[:19], None, True, False))
    several = [plain_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 3, 10)))]
    return several if kind < 6 else {rng.choice(_TEXTS[:10]): value for value in several}


def mutated_bytes(rng, content):
    """Bytes flipped, cut off, doubled, inserted, or exchanged for a size of an array."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place, kind = rng.randrange(len(content) + 1), rng.randrange(6)
        if kind == 0 and content:
            content[place % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            content[place:place] = content[place : place + 64]
        elif kind == 3:
            content[place:place] = rng.randbytes(rng.choice((1, 4, 1000)))
        elif kind == 4:
            content[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
        elif digits := list(re.finditer(rb"\d+", bytes(content))):
            found = rng.choice(digits)
            more = rng.choice((b"0", b"-1", b"9" * 20, b"9" * 5000, b"1e999", b"2147483648"))
            content[found.start() : found.end()] = more
    return bytes(content)


def mutated_json(rng, value):
    """The value with one of its parts, wherever it is, exchanged, dropped or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if rng.random() < 0.05:
            return value | {rng.choice(_TEXTS[:19]): plain_value(rng)}
        return value | {key: mutated_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], mutated_json(rng, value[place]), *value[place + 1 :]]
    deep = plain_value(rng)
    for _ in range(rng.choice((0, 0, 0, 5, 30))):
        deep = rng.choice(([deep], {"a": deep}))
    return deep


def json_text(rng, value):
    return rng.choice((json.dumps(value), json.dumps(value, indent=1), json.dumps([value])[1:-1]))


def odd_file(rng, path, outside):
    """Puts something else in the place of a file."""
    kind = rng.choice(("link", "dangling", "pipe", "folder", "gone", "empty", "device", "long"))
    content = path.read_bytes() if path.is_file() else b"?"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(outside / rng.choice(("precious.txt", "none", "summary.json")))
    elif kind == "dangling":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind in ("empty", "long"):
        path.write_bytes(content * 40 if kind == "long" else b"")


def any_array(rng, like):
    """An array to be saved: of another type, shape or content than the one given, if it can be."""
    with contextlib.suppress(ValueError, TypeError, ArithmeticError):
        return _changed(rng, like)
    return np.array(like)


def _changed(rng, like):
    types = "?bBhHiIlLqQefdgFD" + "OUSV"
    with np.errstate(all="ignore"):
        kind, array = rng.randrange(6), np.array(like)
        if kind == 0:
            array = array.astype(
                rng.choice(("f2", "f4", "f8", "f16", ">f4", "i1", "u8", "?", "c8"))
            )
        elif kind == 1:
            array = array.astype(rng.choice(types.replace("V", "")))
        elif kind == 2:
            array = array.reshape(rng.choice(((-1,), (1, -1), (-1, 1), array.shape[::-1])))
        elif kind == 3 and array.size and array.dtype.kind == "f":
            array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, 1e38, -1e38, 1e-45))
        elif kind == 4:
            array = np.atleast_1d(array)[: rng.randrange(3)]
        else:
            value = rng.choice(
                [0, 1, -1, 300, 2**40, 1e300, "$", "\ud800", "=1", b"\xff", None, 1j]
            )
            array = np.full(array.shape, value)
        if rng.random() < 0.1:
            array = np.zeros(array.shape, [("a", "f4"), ("b", "i4")])
    return array


# The kinds of cases: each takes a random number generator, a folder and the templates, and returns
# the exit code of what it called.


def fields(rng, folder, templates):
    """Any values in the fields of a config."""
    names = [*RULES, *(f"sweep.{axis}" for axis in AXES), "sweep", "mesh", "learning_curve"]
    config = a_config(templates.dataset)
    some = {}
    for name in rng.sample(names, rng.choice((1, 1, 2, 3, 5))):
        value = any_value(rng)
        if rng.random() < 0.3 and name.startswith("sweep."):
            value = tuple(any_value(rng, 0) for _ in range(rng.choice((1, 2, 3))))
        some[name] = value
        holder, _, leaf = name.rpartition(".")
        with (
            config.ignore_type(),
            contextlib.suppress(TypeError, LookupError, AttributeError, ArithmeticError),
        ):
            (config[holder] if holder else config)[leaf] = value
    if rng.random() < 0.9 or "num_epochs" in some:
        return run.main(config, folder / "w", mode="check")
    return run.main(config, folder / "w", overwrite=rng.random() < 0.5)


def tables(rng, folder, templates):
    """A .npz or a folder of .npy files: other arrays, damaged bytes, odd files."""
    with np.load(templates.dataset) as stored:
        arrays = dict(stored)
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice([*arrays, "w_train", "x", "y", "w", "x_test", "w_val"])
        arrays[name] = any_array(rng, arrays.get(name, np.ones(24)))
    if rng.random() < 0.2:
        del arrays[rng.choice(list(arrays))]
    if rng.random() < 0.6:
        path, content = folder / "set.npz", io.BytesIO()
        rng.choice((np.savez, np.savez_compressed))(content, **arrays)
        content = content.getvalue()
        path.write_bytes(mutated_bytes(rng, content) if rng.random() < 0.7 else content)
        if rng.random() < 0.1:
            odd_file(rng, path, folder / "outside")
    else:
        path = folder / "set"
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
        chosen = path / f"{rng.choice(list(arrays))}.npy" if arrays else path / "x.npy"
        if chosen.exists():
            chosen.write_bytes(mutated_bytes(rng, chosen.read_bytes()))
        if rng.random() < 0.2:
            odd_file(rng, chosen, folder / "outside")
    mode = "run" if rng.random() < 0.1 else "check"
    return run.main(a_config(path), folder / "w", mode=mode)


def images(rng, folder, templates):
    """Damaged IDX files, compressed or not."""
    place = folder / "idx"
    shutil.copytree(templates.home / "idx" / rng.choice(("packed", "plain")), place)
    path = rng.choice(sorted(place.iterdir()))
    content = path.read_bytes()
    if path.suffix == ".gz" and rng.random() < 0.5:
        unpacked = mutated_bytes(rng, gzip.decompress(content))
        path.write_bytes(gzip.compress(unpacked + bytes(rng.choice((0, 1, 50 << 20)))))
    elif rng.random() < 0.15:
        path.write_bytes(
            content[:4] + struct.pack(">I", rng.choice((0, 1, 8, 2**31, 2**32 - 1))) + content[8:]
        )
    else:
        path.write_bytes(mutated_bytes(rng, content))
    if rng.random() < 0.1:
        odd_file(rng, path, folder / "outside")
    config = a_config("fashion_mnist", data_dir=str(place), val_split="test", batch_size=2)
    config.dataset_fallback = ""
    return run.main(config, folder / "w", mode="check")


def prepared(rng, folder, templates):
    """A prepared set of TFDS with another description, or damaged records."""
    shutil.copytree(templates.home / "tfds", folder / "tfds")
    place = folder / "tfds" / "toy" / "1.0.0"
    path = rng.choice([*place.glob("*.json"), *place.glob("*.json"), *place.iterdir()])
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_text(json_text(rng, mutated_json(rng, json.loads(path.read_text()))))
    elif rng.random() < 0.2:
        odd_file(rng, path, folder / "outside")
    else:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    config = a_config("toy", data_dir=str(folder / "tfds"), train_split="train[:5]", batch_size=2)
    config.val_split = "train[5:]"
    return run.main(config, folder / "w", mode="check")


def work_folders(rng, folder, templates):
    """A folder of a job, finished or not, in which something is changed; then any command on it."""
    work = folder / "w"
    shutil.copytree(templates.done, work)
    names = [*(path.relative_to(work) for path in work.rglob("*")), "tensorboard", "error.txt"]
    for _ in range(rng.choice((1, 1, 2, 4))):
        path = work / rng.choice(names)
        with contextlib.suppress(ValueError, UnicodeDecodeError):
            if path.suffix == ".json" and path.is_file() and rng.random() < 0.7:
                path.write_text(json_text(rng, mutated_json(rng, json.loads(path.read_text()))))
            elif path.is_file() and not path.is_symlink() and rng.random() < 0.6:
                path.write_bytes(mutated_bytes(rng, path.read_bytes()))
            elif path.parent.is_dir():
                odd_file(rng, path, folder / "outside")
    if rng.random() < 0.3 and not (work / "summary.json").is_dir():
        (work / "summary.json").unlink(missing_ok=True)
    if rng.random() < 0.1:
        if (work / "checkpoints").is_dir():
            shutil.rmtree(work / "checkpoints", ignore_errors=True)
        with contextlib.suppress(OSError):
            (work / "checkpoints").symlink_to(folder / "outside")
    chosen = rng.random()
    if chosen < 0.5:
        return run_command(["report", str(work), f"--output={folder}/r.html"])
    if chosen < 0.6:
        np.save(folder / "x.npy", np.zeros((3, 4)))
        return run_command(
            ["predict", str(work), f"--input={folder}/x.npy", f"--output={folder}/p.csv"]
        )
    return run.main(templates.config, work, overwrite=rng.random() < 0.3)


def metrics(rng, folder, templates):
    """A report on extreme values in metrics, tables and summary."""
    work = folder / "w"
    shutil.copytree(templates.done, work)
    extreme = [v for v in _NUMBERS if isinstance(v, float)] + [2**62, -1, 1e308, -1e308, None]

    def poisoned(value, chance):
        if isinstance(value, dict):
            return {key: poisoned(item, chance) for key, item in value.items()}
        if isinstance(value, list):
            return [poisoned(item, chance) for item in value]
        return rng.choice(extreme) if rng.random() < chance else value

    chance = rng.choice((0.02, 0.2, 0.8))
    for name in ("summary.json", "config.json"):
        value = poisoned(json.loads((work / name).read_text()), chance / 2)
        (work / name).write_text(json.dumps(value))
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    lines = [poisoned(line, chance) for line in lines]
    (work / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("trials.csv", "settings.csv"):
        text = (work / name).read_text()
        exchange = lambda m: str(rng.choice(extreme)) if rng.random() < chance else m[0]  # noqa: E731
        (work / name).write_text(re.sub(r"[\d.]+", exchange, text))
    return run_command(["report", str(work), str(templates.done), f"--output={folder}/r.html"])


def checkpoints(rng, folder, templates):
    """A checkpoint with a right digest and other content: a forger's."""
    work = folder / "w"
    shutil.copytree(templates.done, work)
    (work / "summary.json").unlink()
    path = checkpoint.saved_files(work / "checkpoints")[-1]
    found = checkpoint.read_sealed(path)
    arrays, facts = dict(found.arrays), found.facts
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice(list(arrays))
        if rng.random() < 0.2:
            del arrays[name]
        else:
            changed = any_array(rng, arrays[name])
            arrays[name] = changed if changed.dtype.kind not in "OV" else np.zeros(3)
    if rng.random() < 0.5:
        facts = mutated_json(rng, facts)
    with contextlib.suppress(ValueError), open(path, "wb") as file:
        checkpoint.write_sealed(file, found._replace(arrays=arrays, facts=facts))
    return run.main(templates.config, work)


def inputs(rng, folder, templates):
    """Files and names for `predict`."""
    x = np.random.default_rng(0).random((5, 4))
    x = x if rng.random() < 0.3 else any_array(rng, x)
    path = folder / rng.choice(
        ("x.npy", "x.npz", "x.txt", "x\x1b[31m.npy", os.fsdecode(b"\xff.npy"))
    )
    content = io.BytesIO()
    with contextlib.suppress(ValueError):
        (np.savez(content, x=x) if rng.random() < 0.4 else np.save(content, x))
    content = content.getvalue()
    path.write_bytes(mutated_bytes(rng, content) if rng.random() < 0.6 else content)
    if rng.random() < 0.1:
        odd_file(rng, path, folder / "outside")
    target = rng.choice(
        ("p.csv", "p.npz", "p.txt", "none/p.csv", ".", "*.csv", "a**.csv", "\x1b.npz")
    )
    given = [f"--input={path}", f"--output={folder}/{target}", *["--raw"] * (rng.random() < 0.2)]
    return run_command(["predict", str(templates.done), *given])


def parameters(rng, folder, templates):
    """A model from elsewhere, for `predict` and `report`."""
    work = folder / "w"
    shutil.copytree(templates.done, work)
    with np.load(work / "params.npz") as stored:
        arrays = dict(stored)
    for _ in range(rng.choice((0, 1, 1, 3))):
        name = rng.choice(list(arrays))
        arrays[name] = any_array(rng, arrays[name])
        if name == "label_names" and rng.random() < 0.8:
            texts = [rng.choice(_TEXTS[:19]) for _ in range(3)]
            arrays[name] = np.array(texts)
    content = io.BytesIO()
    np.savez(content, **arrays)
    content = content.getvalue()
    (work / "params.npz").write_bytes(
        mutated_bytes(rng, content) if rng.random() < 0.4 else content
    )
    if rng.random() < 0.4:
        return run_command(["report", str(work), f"--output={folder}/r.html"])
    np.save(folder / "x.npy", np.zeros((3, 4)))
    output = f"--output={folder}/p.{rng.choice(('csv', 'npz'))}"
    return run_command(["predict", str(work), f"--input={folder}/x.npy", output])


def archives(rng, folder, templates):
    """Zip files whose directory lies."""
    del templates
    path, content = folder / "set.npz", io.BytesIO()
    with zipfile.ZipFile(content, "w", rng.choice((0, 8, 12, 14))) as archive:
        for name in ("x_train", "y_train", "x_val", "y_val"):
            array, member = io.BytesIO(), f"{name}.npy"
            np.save(array, np.zeros((24, 4), "f4") if name[0] == "x" else np.arange(24) % 3)
            data = mutated_bytes(rng, array.getvalue()) if rng.random() < 0.3 else array.getvalue()
            for _ in range(rng.choice((1, 1, 1, 2))):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    archive.writestr(member, data)
    content = bytearray(content.getvalue())
    for found in list(re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", bytes(content))):
        if rng.random() < 0.2:
            place = found.start() + rng.randrange(4, 30)
            new = rng.choice((b"\xff" * 4, bytes(4), b"\0\0\0\x7f", rng.randbytes(4)))
            content[place : place + 4] = new
    path.write_bytes(content)
    return run.main(a_config(path), folder / "w", mode="check")


def labels(rng, folder, templates):
    """Classes of any name, images or features: a whole job with its pictures."""
    del templates
    characters = "$\\{}_^%&#~ abc\x1b\n\t\r\ud800猫é=+-@<>\"'\u202e\ufffe0"
    names = [
        "".join(rng.choice(characters) for _ in range(rng.choice((1, 2, 5, 30)))) for _ in range(3)
    ]
    y, draw = np.array(names)[np.arange(24) % 3], np.random.default_rng(0)
    x = draw.integers(0, 256, (48, 3, 4), np.uint8) if rng.random() < 0.5 else draw.random((48, 4))
    name = "".join(rng.choice(characters.replace("\ud800", "\udcff")) for _ in range(5))
    path = folder / f"{name}.npz"
    np.savez(path, x_train=x[:24], y_train=y, x_val=x[24:], y_val=y)
    code = run.main(a_config(path), folder / "w")
    shown = set(os.listdir(folder / "w")) if (folder / "w").is_dir() else set()
    assert code or {"curves.png", "confusion.png", "summary.json"} <= shown, shown
    if code == 0:
        return run_command(["report", str(folder / "w"), f"--output={folder}/r.html"])
    return code


KINDS = {  # with the fraction of all cases that are of the kind
    fields: 0.2,
    tables: 0.15,
    archives: 0.05,
    images: 0.1,
    prepared: 0.1,
    work_folders: 0.15,
    metrics: 0.04,
    checkpoints: 0.05,
    inputs: 0.05,
    parameters: 0.05,
    labels: 0.02,
}
COMMANDS = 0.04  # the fraction of command lines


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_promise_is_broken_by(kind, templates, tmp_path):
    broken = []
    for number in range(max(1, round(CASES * KINDS[kind]))):
        line = judged(kind.__name__, kind, templates, tmp_path / str(number), SEED + number)
        broken += [line] * bool(line)
        if len(broken) == SHOWN:
            break
    assert not broken, "\n".join(broken)


def a_command(rng, folder, number):
    """The arguments of main.py, with a config file of random lines."""
    lines = ["    config.dataset = 'digits'", "    config.num_epochs = 1"]
    values = ("1", "-1", "'x'", "None", "()", "(1,)", "1e400", "10**400", "b''", "[]", "{}", "nan")
    values += ("config", "object()", "lambda: 0", "1j", "'\\x1b[31m'", "'\\ud800'", "range(9**9)")
    names = [*RULES, *(f"sweep.{axis}" for axis in AXES), "sweep", "new", "mesh"]
    for _ in range(rng.choice((1, 2, 3))):
        name, value = rng.choice(names), rng.choice(values)
        # Of a key that it does not know, the library would look through all 9**9 numbers.
        key = "b''" if value.startswith("range") else value
        lines += rng.choice(
            (
                [f"    config.{name} = {value}"],
                [f"    config['{name}'] = {value}"],
                [f"    config = {value}"],
                [f"    raise {rng.choice(('ValueError', 'OSError', 'KeyError', 'MemoryError'))}()"],
                [f"    raise ValueError({value})"],
                [f"    config.update({{{key}: 1}})"],
                [f"    del config['{name}']", f"    config['{name}'] = {value}"],
                [f"  {rng.choice(('(', 'def', '1/0', 'import x', chr(0), 'é'))}"],
            )
        )
    path = folder / f"config_{number}.py"
    head = "from configs import default\ndef get_config():\n    config = default.get_config()\n"
    head += "    config.unlock()\n" * (rng.random() < 0.7)
    path.write_text(head + "\n".join(lines) + "\n    return config\n")
    files = (
        str(path),
        str(path),
        "configs/digits.py",
        "configs/none.py",
        "configs",
        "",
        ".",
        "\x1b",
    )
    arguments = [f"--config={rng.choice(files)}{rng.choice(('', '', '', ':x', ':'))}"]
    for _ in range(rng.choice((0, 1, 2))):
        name, value = rng.choice(names), rng.choice((*_TEXTS, *map(repr, _NUMBERS[:30])))[:2000]
        flags = (
            f"--config.{name}={value}",
            f"--config.{name}",
            f"--{value}",
            value,
            "--overwrite=x",
        )
        argument = rng.choice(
            (*flags, f"--flagfile={value}", f"--mode={value}", f"--{name}={value}")
        )
        arguments.append(argument.replace("\0", "").encode("utf-8", "replace").decode())
    return [*arguments, f"--workdir={folder}/w{number}", "--mode=check"]


def test_no_promise_is_broken_by_command_lines(surroundings, environment, tmp_path):
    numbers = range(SEED, SEED + max(1, round(CASES * COMMANDS)))
    commands = [a_command(random.Random(f"commands {n}"), tmp_path, n) for n in numbers]
    hidden = {"HOME": str(surroundings), "TFDS_DATA_DIR": "", "http_proxy": "http://127.0.0.1:9"}
    broken = []
    for start in range(0, len(commands), 50):
        some = commands[start : start + 50]
        for number, done in enumerate(programs.run_each(environment | hidden, some), start):
            found = broken_promise(done.returncode, done.stdout, done.stderr)
            if found and "FULL HELP" not in done.stdout and "--help" not in commands[number]:
                text = f"commands, seed {SEED + number}: {found}\n{commands[number]}"
                broken.append(f"{text[:1000]}\n{done.stderr[-800:]}")
    assert not broken, "\n".join(broken[:SHOWN])
