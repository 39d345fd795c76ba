from pathlib import Path

import pytest

from softmax_jax import data
from softmax_jax.host import reading


def test_a_dataset_that_is_not_found_is_a_data_error_which_is_a_value_error():
    assert issubclass(data.DatasetNotFoundError, data.DataError)
    assert issubclass(data.DataError, ValueError)


@pytest.mark.parametrize(
    "error, message",
    [
        (FileNotFoundError(2, "No such file"), "^a/b.json is not there.$"),
        (PermissionError(13, "Permission denied"), "^a/b.json cannot be read: Permission denied.$"),
        (ValueError("line 3\n is odd"), "^a/b.json is damaged, or of another kind: line 3 is odd$"),
        (RecursionError(), "^a/b.json is damaged, or of another kind: RecursionError$"),
        (data.DataError("as it is"), "^as it is$"),
    ],
)
def test_reading_makes_any_error_one_line_that_names_the_file(error, message):
    with pytest.raises(data.DataError, match=message), reading(Path("a/b.json")):
        raise error


def test_reading_lets_an_interrupt_pass():
    with pytest.raises(KeyboardInterrupt), reading(Path("a")):
        raise KeyboardInterrupt
