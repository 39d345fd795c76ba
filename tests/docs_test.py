"""Every example in the documents and docstrings runs; what the documents point to is there."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
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


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name):
    assert_pass(doctest.DocTestFinder().find(importlib.import_module(name)))


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


def test_the_scripts_of_the_batch_jobs_parse():
    text = (ROOT / "docs" / "batch_jobs.md").read_text("utf-8")
    scripts = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for script in scripts:
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert len(scripts) == 3
