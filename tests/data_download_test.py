"""The download of Fashion-MNIST: whole files with the right checksum, or one clear error, soon."""

import hashlib
import os
import select
import signal
import socket
import sys
import termios
import threading
import time

import pytest

from softmax_jax.data.sources import FASHION_FILES, PUBLISHED, Published, download
from softmax_jax.host import DatasetNotFoundError
from tests.data_on_disk import isolate, start_server  # noqa: F401

CONTENT = {"one.gz": b"1" * 50_000, "two.gz": b"2" * 7}
FILES_PUBLISHED = {
    name: Published(len(content), hashlib.sha256(content).hexdigest())
    for name, content in CONTENT.items()
}


def answer_with(contents, seen=None):
    """A server of these files, which notes the paths that it was asked for."""

    def answer(request):
        if seen is not None:
            seen.append(request.path)
        send(request, contents[request.path[1:]])

    return answer


def send(request, content):
    request.send_response(200)
    request.end_headers()
    request.wfile.write(content)
    request.wfile.flush()


def fail(folder, address, patience=0.5):
    """Runs a download that must fail; its message and how long it took."""
    start = time.monotonic()
    with pytest.raises(DatasetNotFoundError) as error:
        download(folder, address, FILES_PUBLISHED, patience)
    assert not folder.is_dir() or os.listdir(folder) == []
    return str(error.value), time.monotonic() - start


def test_the_published_files_are_those_that_are_looked_for():
    assert set(PUBLISHED) == {f"{name}.gz" for name in FASHION_FILES}


def test_checksums_are_those_of_tfds():
    import tensorflow_datasets as tfds

    path = tfds.core.tfds_path() / "url_checksums" / "fashion_mnist.txt"
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert PUBLISHED == {name: (int(size), sha256) for _, size, sha256, name in lines}


def test_only_missing_files_are_fetched(tmp_path, serve, capfd):
    seen = []
    address = serve(answer_with(CONTENT, seen))
    folder = tmp_path / "new" / "folder"
    download(folder, address, FILES_PUBLISHED)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    (folder / "two.gz").unlink()
    download(folder, address, FILES_PUBLISHED)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert seen == ["/one.gz", "/two.gz", "/two.gz"]
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_a_terminal_shows_a_progress_bar(tmp_path, serve, monkeypatch):
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with open(terminal, "w") as stderr, open(screen, "rb", buffering=0) as shown:
        monkeypatch.setattr(sys, "stderr", stderr)
        download(tmp_path, serve(answer_with(CONTENT)), FILES_PUBLISHED)
        text = b""
        while b"downloading: 100%" not in text:
            assert select.select([shown], [], [], 2)[0], text
            text += shown.read(10_000)


@pytest.mark.parametrize("content", [b"0" + CONTENT["one.gz"][1:], CONTENT["one.gz"][:-1], b""])
def test_another_file_under_the_name_is_deleted_and_reported(tmp_path, serve, content):
    message, _ = fail(tmp_path, serve(answer_with({"one.gz": content})))
    assert "not the published file" in message and "one.gz" in message


def test_an_endless_answer_is_cut_off(tmp_path, serve):
    hung_up = threading.Event()

    def answer(request):
        try:
            send(request, b"")
            while True:
                request.wfile.write(b"1" * 100_000)
        except OSError:
            hung_up.set()

    _, seconds = fail(tmp_path, serve(answer), patience=5)
    assert seconds < 2
    assert hung_up.wait(2)  # nobody goes on receiving in the background


def test_a_refusal_is_reported(tmp_path, serve):
    message, _ = fail(tmp_path, serve(lambda request: request.send_error(404)))
    assert "404" in message


def test_a_closed_port_fails_at_once(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        _, seconds = fail(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert seconds < 0.5


def test_a_silent_server_times_out(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        message, seconds = fail(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert seconds < 1.5
    assert "127.0.0.1" in message


@pytest.mark.parametrize("pause", [0.1, 60])
def test_a_stalled_or_trickling_server_times_out(tmp_path, serve, pause):
    over = threading.Event()

    def answer(request):
        send(request, b"")
        while not over.wait(pause):
            request.wfile.write(b"1")

    message, seconds = fail(tmp_path, serve(answer))
    over.set()
    assert seconds < 1.5
    assert "within 0.5 seconds" in message or "timed out" in message


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    message, _ = fail(tmp_path / "file" / "folder", "http://127.0.0.1:9")
    assert "NotADirectoryError" in message or "FileExistsError" in message


def test_an_interrupt_leaves_no_file(tmp_path, serve):
    over = threading.Event()

    def answer(request):
        send(request, b"1" * 20_000)
        while not any(tmp_path.glob("*.tmp")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(5)

    address = serve(answer)
    # Whoever starts the tests in the background may have had them ignore this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            download(tmp_path, address, FILES_PUBLISHED)
    finally:
        signal.signal(signal.SIGINT, before)
        over.set()
    assert os.listdir(tmp_path) == []
