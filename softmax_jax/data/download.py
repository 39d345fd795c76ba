"""Fashion-MNIST from the network, with a limit to every wait."""

import contextlib
import hashlib
import http.client
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from softmax_jax.data.errors import DatasetNotFoundError
from softmax_jax.data.files import replacing

# Address, sizes and checksums as published; `url_checksums/fashion_mnist.txt` in TFDS has the same.
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"


class Published(NamedTuple):
    """What a file must be: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


PUBLISHED = {
    "train-images-idx3-ubyte.gz": Published(
        26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": Published(
        29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": Published(
        4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte.gz": Published(
        5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}
_BLOCK = 1 << 14  # bytes


def download(
    folder: Path,
    address: str = ADDRESS,
    published: Mapping[str, Published] = PUBLISHED,
    patience: float = 5.0,
) -> None:
    """Downloads those of the published files that the folder lacks.

    A file gets its name only when it is complete and its checksum right; an interrupt leaves
    nothing half-done. A progress bar is shown if stderr is a terminal.

    Args:
      folder: made if need be.
      address: the URL that the files' names are appended to.
      published: the files.
      patience: seconds to wait for the first and for every further block of 16 KiB.

    Raises:
      DatasetNotFoundError: a file cannot be fetched, is not the published one, or cannot be
        written.
    """
    from tqdm import tqdm

    missing = {name: file for name, file in published.items() if not (folder / name).exists()}
    size = sum(file.size for file in missing.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # disable=None: no bar unless stderr is a terminal
        with tqdm(desc="downloading", total=size, unit="B", unit_scale=True, disable=None) as bar:
            for name, file in missing.items():
                _fetch(f"{address}/{name}", folder / name, file, patience, bar.update)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DatasetNotFoundError(
            f"Fashion-MNIST cannot be downloaded from {address} into {folder}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _fetch(
    url: str, path: Path, published: Published, patience: float, progress: Callable[[int], object]
) -> None:
    digest, size = hashlib.sha256(), 0
    with replacing(path) as file, contextlib.closing(_blocks(url, patience)) as blocks:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
            progress(len(block))
            if size > published.size:
                break
        if (size, digest.hexdigest()) != published:
            raise ValueError(
                f"what {url} sends is not the published file ({published.size:,} bytes, SHA-256 "
                f"{published.sha256}), and was deleted"
            )


def _blocks(url: str, patience: float) -> Iterator[bytes]:
    """The content of a URL. No wait is longer than `patience`, whatever it is for.

    A socket's own timeout covers neither the search for the host's address nor a server that
    sends a byte now and then; so a thread receives, and this one watches the clock.
    """
    received: queue.SimpleQueue = queue.SimpleQueue()
    given_up = threading.Event()
    arguments = (url, patience, received, given_up)
    threading.Thread(target=_receive, args=arguments, daemon=True).start()
    try:
        while item := received.get(timeout=patience):
            if isinstance(item, Exception):
                raise item
            yield item
    except queue.Empty:
        raise TimeoutError(f"nothing came from {url} within {patience:g} seconds") from None
    finally:
        given_up.set()


def _receive(
    url: str, patience: float, received: queue.SimpleQueue, given_up: threading.Event
) -> None:
    try:
        opener = urllib.request.build_opener()  # a new one, as urlopen remembers old proxies
        with opener.open(url, timeout=patience) as response:
            while not given_up.is_set() and (block := response.read(_BLOCK)):
                received.put(block)
        received.put(b"")
    except urllib.error.HTTPError as error:
        error.close()
        received.put(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        received.put(error)
