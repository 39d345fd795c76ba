from pathlib import Path

import pytest

from softmax_jax.data import DataError
from softmax_jax.host import reading


@pytest.mark.parametrize(
    "error, message",
    [
        (FileNotFoundError(2, "No such file"), "^a/b.json is not there.$"),
        (PermissionError(13, "Permission denied"), "^a/b.json cannot be read: Permission denied.$"),
        (ValueError("line 3\n is odd"), "^a/b.json is damaged, or of another kind: line 3 is odd$"),
        (RecursionError(), "^a/b.json is damaged, or of another kind: RecursionError$"),
        (DataError("as it is"), "^as it is$"),
    ],
)
def test_whatever_is_raised_is_one_line_that_names_the_file(error, message):
    with pytest.raises(DataError, match=message), reading(Path("a/b.json")):
        raise error


def test_an_interrupt_passes():
    with pytest.raises(KeyboardInterrupt), reading(Path("a")):
        raise KeyboardInterrupt
