"""The report in a real browser, headless: Chromium, as Debian has it (apt-get install chromium)."""

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from softmax_jax.report import report

pytestmark = pytest.mark.slow

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--enable-logging=stderr", "--v=0"),
    "--proxy-server=http://127.0.0.1:9",  # a closed port: what the browser itself looks for
)
_HOSTILE = ("<script>document.title = 'taken'</script>", "<img src=x onerror=taken()>", "a & b")
_LIGHT, _DARK = 1, 0


@pytest.fixture(scope="module")
def folders(write_run, tmp_path_factory):
    """A sweep with hostile labels and a wide picture, and an interrupted run."""
    home = tmp_path_factory.mktemp("runs")
    write_run(home / "sweep", _HOSTILE)
    Image.new("RGB", (3000, 400), "white").save(home / "sweep" / "mistakes.png")
    (home / "broken").mkdir()
    for name in ("config.json", "metrics.jsonl"):
        content = (home / "sweep" / name).read_bytes()
        (home / "broken" / name).write_bytes(content[:-20] if "metrics" in name else content)
    return home / "sweep", home / "broken"


@pytest.fixture(scope="module")
def pages(folders, tmp_path_factory):
    """The report of the sweep, and the one of both runs."""
    home = tmp_path_factory.mktemp("pages")
    for name, runs in (("one", folders[:1]), ("both", folders)):
        report(list(runs), home / f"{name}.html")
    return home / "one.html", home / "both.html"


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """browse(page, *flags) -> (output, console): runs Chromium once, with a profile of its own."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")

    def browse(page, *flags):
        profile = tmp_path_factory.mktemp("profile")
        command = [program, *_FLAGS, f"--user-data-dir={profile}", *flags, f"file://{page}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, re.findall(r"CONSOLE.*", done.stderr)

    return browse


@pytest.fixture
def ask(browse, tmp_path):
    """ask(page, script) -> the result of the script in a copy of the page without its policy."""

    def ask(page, script, *flags):
        source = page.read_text("utf-8")
        source = re.sub(r"<meta http-equiv[^>]*>", "", source)
        run = f"document.title = JSON.stringify((() => {{{script}}})())"
        copy = tmp_path / "copy.html"
        copy.write_text(source.replace("</body>", f"<script>{run}</script></body>"), "utf-8")
        output, console = browse(copy, "--dump-dom", *flags)
        assert console == []
        title = re.search(r"<title>(.*?)</title>", output, re.DOTALL)[1]
        return json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))

    return ask


@pytest.fixture
def proxy():
    """A server that answers 404 and records the requests: (port, [requests])."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            self.send_error(404)

        do_CONNECT = do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_page_logs_nothing_and_makes_no_requests(browse, pages, proxy, tmp_path):
    """The policy would log an attempt; a page without one shows that the proxy sees it."""
    port, asked = proxy
    through = f"--proxy-server=http://127.0.0.1:{port}"
    for page in pages:
        _, console = browse(page, "--dump-dom", through)
        assert console == []
    image = "<img src='http://example.test/x.png'>"
    loud, louder = tmp_path / "loud.html", tmp_path / "louder.html"
    loud.write_text(pages[0].read_text("utf-8").replace("</body>", f"{image}</body>"), "utf-8")
    _, (line,) = browse(loud, "--dump-dom", through)
    assert "http://example.test/x.png" in line and "Content Security Policy" in line
    assert "http://example.test/x.png" not in asked
    louder.write_text(f"{image}<script>nothing()</script>")
    _, console = browse(louder, "--dump-dom", through)
    assert "http://example.test/x.png" in asked
    assert any("nothing is not defined" in line for line in console)


def test_foreign_script_does_not_run(browse, pages, tmp_path):
    """The policy blocks even a script that got into the page."""
    attacked = tmp_path / "attacked.html"
    attack = "<script>document.title = 'taken'</script></body>"
    attacked.write_text(pages[0].read_text("utf-8").replace("</body>", attack), "utf-8")
    output, console = browse(attacked, "--dump-dom")
    assert "<title>taken" not in output
    (line,) = console
    assert "Content Security Policy" in line


def test_hostile_labels_are_shown_as_text(ask, pages):
    """Escaping alone is enough, without the policy."""
    found = ask(
        pages[0],
        "return {text: document.body.innerText, images: document.querySelectorAll('img[onerror]')"
        ".length, scripts: document.scripts.length}",
    )
    assert all(name in found["text"] for name in _HOSTILE)
    assert found["images"] == 0
    assert found["scripts"] == 2  # that of the page and the one that asks


_COLUMN = """
    const table = document.querySelectorAll("#trials table")[0];
    const heads = [...table.tHead.rows[0].cells];
    const head = heads.find((cell) => cell.textContent.startsWith("learning_rate"));
    const text = (row) => row.cells[head.cellIndex].textContent;
    const column = () => [...table.tBodies[0].rows].map(text);
"""


def test_click_sorts_and_second_click_reverses(ask, pages):
    found = ask(
        pages[0],
        _COLUMN
        + """
        const button = head.querySelector("[role=button]");
        const seen = [];
        button.click();
        seen.push([head.ariaSort, column()]);
        button.click();
        seen.push([head.ariaSort, column()]);
        button.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
        seen.push([head.ariaSort, column()]);
        const sorted = heads.filter((cell) => cell.ariaSort !== "none").length;
        return [seen, sorted];
        """,
    )
    up = 4 * ["0.1"] + 4 * ["0.5"]
    (first, second, third), sorted_columns = found
    assert first == third == ["ascending", up]
    assert second == ["descending", up[::-1]]
    assert sorted_columns == 1


def test_missing_values_are_sorted_last_in_both_orders(ask, pages):
    found = ask(
        pages[0],
        _COLUMN
        + """
        const cell = table.tBodies[0].rows[2].cells[head.cellIndex];
        delete cell.dataset.v;
        cell.textContent = "nan";
        const button = head.querySelector("[role=button]");
        button.click();
        const up = column();
        button.click();
        return [up, column()];
        """,
    )
    assert [rows[-1] for rows in found] == ["nan", "nan"]
    assert found[0][:-1] == found[1][-2::-1]


@pytest.mark.parametrize("width", [500, 900, 1600])
def test_page_fits_any_window_width(ask, pages, width):
    script = (
        "const right = (element) => element.getBoundingClientRect().right;"
        "return [document.documentElement.scrollWidth, innerWidth, "
        "[...document.querySelectorAll('section, .card')].map(right)]"
    )
    for page in pages:
        total, inner, rights = ask(page, script, f"--window-size={width},900")
        assert inner == width
        assert total <= width
        assert max(rights) <= width


def test_colours_follow_the_system_scheme(browse, pages, tmp_path):
    """The background in a corner, and the darkest or brightest ink."""
    shades = {}
    for scheme in (_LIGHT, _DARK):
        shot = tmp_path / f"{scheme}.png"
        chosen = f"--blink-settings=preferredColorScheme={scheme}"
        browse(pages[0], f"--screenshot={shot}", "--window-size=900,600", chosen)
        with Image.open(shot) as image:
            pixels = np.asarray(image.convert("L"))
        shades[scheme] = pixels[0, 0], pixels.min(), pixels.max()
    ground, ink, _ = shades[_LIGHT]
    assert ground > 235 and ink < 60
    ground, _, ink = shades[_DARK]
    assert ground < 40 and ink > 200


def test_page_prints_dark_on_white_under_either_scheme(browse, pages, tmp_path):
    """The PDF has the ink of the light page and neither background of the dark one."""
    printed = tmp_path / "report.pdf"
    browse(pages[1], f"--print-to-pdf={printed}", f"--blink-settings=preferredColorScheme={_DARK}")
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    fills = _fills(content)
    assert (0x1C, 0x21, 0x28) in fills  # --ink in report.css, and below --page and --card
    assert not fills & {(0x0F, 0x13, 0x18), (0x18, 0x1D, 0x24)}


def _fills(pdf):
    """The fill colours (0 to 255) in a PDF."""
    drawn = b""
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        with contextlib.suppress(zlib.error):  # what is not compressed is no drawing
            drawn += zlib.decompressobj().decompress(stream)
    colours = re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) rg", drawn)
    return {tuple(round(255 * float(part)) for part in colour) for colour in colours}
