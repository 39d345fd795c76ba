"""Whatever a foreign file makes a reader raise becomes one message that names the file."""

import contextlib
from pathlib import Path

from softmax_jax.data import DataError


@contextlib.contextmanager
def reading(path: Path):
    """Turns every error of the block that reads `path` into a DataError of one line.

    >>> with reading(Path("no/such.npz")) as path:
    ...     path.read_bytes()
    Traceback (most recent call last):
    softmax_jax.data.errors.DataError: no/such.npz is not there.
    """
    try:
        yield path
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # bad zips, bad JSON, bad text, too deep, too large: all damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is damaged, or of another kind: {reason}") from error
