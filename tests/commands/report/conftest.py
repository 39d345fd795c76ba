"""What the tests of a report share: a run that has been read, and pages taken apart."""

from html.parser import HTMLParser
from typing import NamedTuple

import pytest

from softmax_jax.commands.run import read

_VOID = ("meta", "img", "wbr")


class Parsed(NamedTuple):
    """The elements of a page as (name, attributes), in order, and its texts."""

    elements: list
    texts: list

    def count(self, name):
        """How many elements have that name."""
        return sum(element == name for element, _ in self.elements)

    def with_class(self, name):
        """The elements that have that class."""
        return [e for e in self.elements if name in (e[1].get("class") or "").split()]


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.parsed, self.open = Parsed([], []), []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), "an attribute is there twice"
        self.parsed.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "an element is closed that is not the last opened"

    def handle_data(self, data):
        self.parsed.texts.append(data)


@pytest.fixture(scope="session")
def parse():
    """parse(html) -> Parsed; fails where an element is not closed, or an attribute doubled."""

    def parse(html):
        reader = _Reader()
        reader.feed(html)
        reader.close()
        assert reader.open == []
        return reader.parsed

    return parse


@pytest.fixture
def run(run_folder):
    """A finished sweep."""
    return read(run_folder)


@pytest.fixture
def unfinished(run):
    """The same sweep after three epochs."""
    metrics = {
        trial: {epoch: figures for epoch, figures in epochs.items() if epoch < 4}
        for trial, epochs in run.metrics.items()
    }
    return run._replace(
        name="broken off",
        metrics=metrics,
        summary={},
        trials=[],
        settings=[],
        label_names=(),
        pictures={},
    )
