"""Every example in the documents and in the docstrings runs, and prints what it says."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import softmax_jax

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "docs" / "book.md"
DOCUMENTS = [
    path
    for path in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
    if path.is_file() and ">>>" in path.read_text("utf-8")
]
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
def test_examples_of_document(path):
    assert_pass([read_examples(path)])


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name):
    assert_pass(doctest.DocTestFinder().find(importlib.import_module(name)))


def test_book_is_told_in_examples():
    assert len(read_examples(BOOK).examples) >= 20


def test_the_readme_example_runs(capsys):
    """And prints a test accuracy that softmax regression has on the digits."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["result"].refit.refit
    assert names["result"].test(names["splits"].test)["accuracy"] > 0.85
    assert "accuracy_interval" in capsys.readouterr().out
