"""Every example in the documents and docstrings runs; what the documents point to is there."""

import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import softmax_jax
from configs import default

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "docs" / "book.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [path for path in PAGES if ">>>" in path.read_text("utf-8")]
MODULES = [
    "softmax_jax",
    *(module.name for module in pkgutil.walk_packages(softmax_jax.__path__, "softmax_jax.")),
]


def read_examples(path) -> doctest.DocTest:
    """The examples of a Markdown file, as one session; the fences around them are blanked."""
    text = re.sub(r"^```.*$", "", path.read_text("utf-8"), flags=re.MULTILINE)
    return doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)


def assert_pass(tests):
    report = []
    with np.printoptions():  # an example may set them
        for test in tests:
            doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_examples_of_document(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write files
    assert_pass([read_examples(path)])


class ExampleFinder(doctest.DocTestFinder):
    """Finds the examples of decorated functions, too: that their types are checked hides them."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name):
    module = importlib.import_module(name)
    found = ExampleFinder().find(module)
    written = re.findall(r"^ *>>> ", Path(module.__file__).read_text("utf-8"), re.MULTILINE)
    assert sum(len(test.examples) for test in found) == len(written), "none is missed"
    assert_pass(found)


def prose(path) -> str:
    """A Markdown file without its fenced code."""
    return re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def targets(path) -> list[str]:
    """What the links and images of a Markdown file point to, within the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    return [target for target in found if "://" not in target]


def anchors(path) -> set[str]:
    """The names of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_images_lead_somewhere(path):
    for target in targets(path):
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_image_is_shown():
    shown = {(path.parent / target).resolve() for path in PAGES for target in targets(path)}
    assert shown >= {path.resolve() for path in (ROOT / "docs" / "images").iterdir()}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_name_configs_fields_and_modules_that_exist(path):
    text = path.read_text("utf-8")
    config = default.get_config()
    fields = {*config}
    for name, held in config.items():
        fields |= {f"{name}.{inner}" for inner in held} if isinstance(held, ConfigDict) else set()
    assert set(re.findall(r"--config\.([a-z][\w.]*\w)", text)) <= fields
    for name in re.findall(r"--config=(\S+?\.py)\b", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"python -m ([\w.]*\w)", text):
        assert importlib.util.find_spec(name), name


def test_book_is_told_in_examples():
    assert len(read_examples(BOOK).examples) >= 20


def test_the_readme_examples_run(capsys, monkeypatch, tmp_path):
    """And the last one prints a test accuracy that softmax regression has on the digits."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    assert names["result"].refit.refit
    assert names["result"].test(names["splits"].test)["accuracy"] > 0.85
    assert "accuracy_interval" in capsys.readouterr().out


def test_the_source_of_contributing_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr("softmax_jax.data.sources._REGISTERED", {})
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "CONTRIBUTING.md", "exec"), {})
    assert "two_clouds" in capsys.readouterr().out


def test_the_diff_of_contributing_adds_a_hyperparameter(tmp_path):
    """At 0 it changes nothing; the larger it is, the smaller is W; and the config has it."""
    shutil.copytree(ROOT / "softmax_jax", tmp_path / "softmax_jax")
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (diff,) = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    subprocess.run(["git", "apply"], input=diff, text=True, cwd=tmp_path, check=True)
    program = """
import numpy as np
from softmax_jax import data, hyperparameters, sweep
splits = data.load("digits", "train[:500]", "train[500:]")
options = {"num_epochs": 5, "batch_size": 50}
grid = sweep.grid(huber=(0.0, 0.1, 1.0))
W = [sweep.fit(splits.train, splits.val, grid, **options).classifier(i).W for i in range(3)]
plain = sweep.fit(splits.train, splits.val, sweep.grid(), **options).classifier(0).W
assert np.allclose(W[0], plain, atol=1e-6)
norms = [abs(w).sum() for w in W]
assert norms[0] > 1.05 * norms[1] > 1.1 * norms[2], norms
assert hyperparameters.config_defaults()["huber"] == 0
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_scripts_of_the_batch_jobs_parse():
    text = (ROOT / "docs" / "batch_jobs.md").read_text("utf-8")
    scripts = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for script in scripts:
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert len(scripts) == 3
