"""The notebooks tell what docs/book.md tells, run from top to bottom, and hold what came out."""

import ast
import base64
import collections
import doctest
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = ("from_scratch", "concise", "probe")
EACH = pytest.mark.parametrize("name", NAMES)
BOOK = (ROOT / "docs" / "book.md").read_text("utf-8").split("## 10.")[0]
MEASURED = BOOK + (ROOT / "docs" / "exercises.md").read_text("utf-8")

# What the notebooks do in their own way: they load either dataset, and draw.
OWN_STATEMENTS = {
    "from softmax_jax import data, losses, metrics, model, sweep, train",
    "splits = data.load('digits')",
    "(splits.train.x.shape, splits.train.x.dtype, splits.val.x.shape)",
    "names[:5]",
    "figure = data.show_images(splits.train.x[:18], names)",
    "figure = data.show_images(splits.val.x[wrong], titles)",
    "len(figure.axes)",
    "print(losses.cross_entropy_by_definition(y_hat, y))",
    "from softmax_jax import plots",
    "epochs = sweep.epochs(splits.train, splits.val, num_epochs=2, batch_size=256)",
    "of_two = sweep.collect(plots.LiveCurves(epochs))",
    "for epoch in epochs:\n    names = ('train_loss', 'val_loss', 'val_accuracy')\n"
    "    print(epoch.epoch, *(f'{epoch.metrics[name][0]:.3f}' for name in names))",
}
OWN_PARAGRAPHS = (
    "Two sections of",
    "`digits` comes with",
    "Labels are integers",
    "`sweep.epochs` is an iterator",
    "The loop is yours",
    "On Fashion-MNIST, with",
    "A notebook shows the book's curves",
    "The images that the model",
)


def cells(name, kind, folder=FOLDER):
    notebook = json.loads((folder / f"{name}.ipynb").read_text("utf-8"))
    return [
        cell | {"source": "".join(cell["source"])}
        for cell in notebook["cells"]
        if cell["cell_type"] == kind
    ]


def statements(source):
    """Each statement of a cell or an example as Python writes it; magics are left out."""
    source = re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)
    return [ast.unparse(node) for node in ast.parse(source).body]


def examples():
    text = re.sub(r"^```.*$", "", BOOK, flags=re.MULTILINE)
    return doctest.DocTestParser().get_examples(text)


def paragraphs(text):
    """The paragraphs of prose, a line each, without headings and code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", prose))
    return [part for part in found if part and not part.startswith("#")]


def texts(cell):
    """What a cell printed and what it returned, in order."""
    found = []
    for output in cell["outputs"]:
        text = output["text"] if "text" in output else output["data"]["text/plain"]
        found.append("".join(text).rstrip("\n"))
    return "\n".join(found)


def test_the_statements_of_the_book_are_in_the_notebooks():
    told = {s for example in examples() for s in statements(example.source)}
    held = {s for name in NAMES for c in cells(name, "code") for s in statements(c["source"])}
    assert told - held == OWN_STATEMENTS


def test_the_prose_of_the_book_is_in_the_notebooks():
    prose = (cell["source"] for name in NAMES for cell in cells(name, "markdown"))
    held = "\n".join(part for text in prose for part in paragraphs(text))
    missing = [p for p in paragraphs(BOOK) if p not in held]
    assert [p for p in missing if not p.startswith(OWN_PARAGRAPHS)] == []
    assert len(missing) == len(OWN_PARAGRAPHS)


@EACH
def test_a_number_that_a_notebook_tells_is_one_that_was_measured(name):
    prose = "\n".join(cell["source"] for cell in cells(name, "markdown"))
    for number in re.findall(r"(?<![\w.])(?:\d+(?:,\d{3})*)?\.\d+", re.sub(r"`.*?`", "", prose)):
        assert number in MEASURED, number


@EACH
def test_links_of_a_notebook_lead_somewhere(name):
    prose = "\n".join(cell["source"] for cell in cells(name, "markdown"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        file, _, anchor = target.partition("#")
        text = (FOLDER / file).read_text("utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert not anchor or anchor in {h.lower().replace(" ", "-") for h in headings}, target


@EACH
def test_a_notebook_holds_the_outputs_of_one_run_from_top_to_bottom(name):
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {
        *("stream", "execute_result", "display_data")
    }
    assert not [output for output in outputs if output.get("name") == "stderr"]
    content = (FOLDER / f"{name}.ipynb").read_text("utf-8")
    for private in ("/tmp/", "/home/", "/root/", "site-packages", str(ROOT)):
        assert private not in content
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures and all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)


def test_the_notebooks_are_small():
    assert sum((FOLDER / f"{name}.ipynb").stat().st_size for name in NAMES) < 500_000


def render(folder, environment, *names):
    command = [sys.executable, "-m", "notebooks.render", f"--output={folder}", *names]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["from_scratch", "concise"])
def test_a_notebook_runs_on_the_digits_and_prints_what_the_book_prints(name, offline, tmp_path):
    render(tmp_path, offline, name)
    told = collections.defaultdict(set)  # a statement may come twice
    for example in examples():
        told["\n".join(statements(example.source))].add(example.want.strip())
    compared = 0
    for cell in cells(name, "code", tmp_path):
        wants = [told.get(statement, set()) for statement in statements(cell["source"])]
        choices = {"\n".join(filter(None, choice)) for choice in itertools.product(*wants)}
        if choices - {""} and cell["outputs"]:
            assert texts(cell) in choices, cell["source"]
            compared += 1
    assert compared >= 5
    live = [c for c in cells(name, "code", tmp_path) if "LiveCurves(epochs, splits" in c["source"]]
    for cell in live:  # one output, redrawn up to the last epoch
        (output,) = cell["outputs"]
        assert "image/png" in output["data"] and texts(cell).startswith("epoch 10 of 10")
    assert live


@pytest.mark.slow
def test_the_probe_runs_on_the_digits(offline, tmp_path):
    render(tmp_path, offline, "probe")
    printed = "\n".join(map(texts, cells("probe", "code", tmp_path)))
    accuracies = re.findall(r"accuracy (0\.\d+)", printed)
    assert accuracies and min(map(float, accuracies)) > 0.8


@pytest.mark.slow
@EACH
def test_the_outputs_that_are_kept_are_those_of_a_run(
    name, environment, fashion_mnist_dir, tmp_path
):
    """Up to rounding; what is timed differs."""
    render(tmp_path, environment | {"TFDS_DATA_DIR": str(fashion_mnist_dir)}, name)
    for kept, run in zip(cells(name, "code"), cells(name, "code", tmp_path), strict=True):
        assert kept["source"] == run["source"]
        if re.search("timeit|--mode=check", kept["source"]):
            continue
        # Rounding moves how many iterations there are, and what is left of them is timed.
        timed = re.compile(r"^iteration.*\n|  \d+ s left$", re.M)
        printed = [timed.sub("", texts(c)) for c in (kept, run)]
        pattern = r"-?\d*\.?\d+(?:e-?\d+)?"
        assert re.sub(pattern, "#", printed[0]) == re.sub(pattern, "#", printed[1])
        numbers = [[float(n) for n in re.findall(pattern, text)] for text in printed]
        np.testing.assert_allclose(*numbers, rtol=0.05, atol=0.02, err_msg=kept["source"])
        kinds = [[sorted(o.get("data", {})) for o in c["outputs"]] for c in (kept, run)]
        assert kinds[0] == kinds[1]
