import copy
import json
import re

import pytest

from softmax_jax.commands.report import page
from softmax_jax.commands.run import read

HOSTILE = "</script><script>alert('1')</script>\"><img src=x onerror=alert(2)>&amp;\u202e{"


@pytest.fixture
def hostile(write_run, tmp_path):
    """A run of which every text that comes from a file is an attack."""
    folder = write_run(tmp_path / "<b>evil", [f"{HOSTILE}{n}" for n in range(3)])
    for name in ("config.json", "summary.json"):
        value = _poison(json.loads((folder / name).read_text()))
        (folder / name).write_text(json.dumps(value))
    for name in ("trials.csv", "settings.csv"):
        text = (folder / name).read_text().replace("batch_size", '"<i>""size"')
        (folder / name).write_text(text.replace("seed", "<script>"))
    (folder / "weights.png").rename(folder / "<img src=x onerror=alert(3)>.png")
    return read(folder)


def _poison(value):
    """Every text becomes an attack, and every dictionary gets a key that is one."""
    if isinstance(value, dict):
        return {key: _poison(item) for key, item in value.items()} | {HOSTILE: HOSTILE}
    return HOSTILE if isinstance(value, str) else value


def test_the_page_tells_all_of_a_run(run, parse):
    parsed = parse(page.render([run]))
    headings = [parsed.elements[k + 1] for k, e in enumerate(parsed.elements) if e[0] == "section"]
    assert {name for name, _ in headings} == {"h2"}
    ids = [attributes["id"] for name, attributes in parsed.elements if name == "section"]
    assert ids == [
        *("figures", "curves", "sweep", "pictures", "settings", "trials", "time", "configuration")
    ]
    links = [attributes["href"] for name, attributes in parsed.elements if name == "a"]
    assert links == [f"#{name}" for name in ids]


def test_several_runs_are_compared_first(run, unfinished, parse):
    parsed = parse(page.render([run, unfinished]))
    ids = [attributes["id"] for name, attributes in parsed.elements if name == "section"]
    assert ids[:2] == ["figures", "curves-compared"]
    assert len(parsed.with_class("card")) == 2
    assert "2 runs compared" in parsed.texts


def test_what_differs_leads_the_comparison(run, parse):
    other = run._replace(config=run.config | {"backend": "gpu"})
    parsed = parse(page.render([run, other]))
    assert next(a["id"] for name, a in parsed.elements if name == "section") == "what-differs"


def test_nothing_is_loaded_from_anywhere(run, parse):
    html = page.render([run])
    parsed = parse(html)
    sources = [a[key] for _, a in parsed.elements for key in ("src", "href", "data") if key in a]
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not re.search(r"https?:|url\(|@import|<link|fetch\(|import\(", html)
    names = {name for name, _ in parsed.elements}
    assert not names & {"iframe", "object", "embed", "link", "form", "base"}


def test_only_the_script_of_the_page_may_run(run, parse):
    """The policy names it by its hash; there are no handlers in attributes."""
    parsed = parse(page.render([run]))
    (policy,) = [a["content"] for _, a in parsed.elements if "http-equiv" in a]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='$", policy)
    assert parsed.count("script") == 1
    assert not [key for _, a in parsed.elements for key in a if key.startswith("on")]


def test_an_attack_in_any_text_is_text(hostile, parse):
    """The page has no element and no attribute that it would not have had anyway."""
    html = page.render([hostile, hostile])
    parsed = parse(html)
    assert parsed.count("script") == html.count("<script") == 1
    assert parsed.count("img") == html.count("<img") == 4
    assert not {"b", "i<"} & {name for name, _ in parsed.elements}
    keys = {key for _, attributes in parsed.elements for key in attributes}
    assert not [key for key in keys if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]*", key)]
    assert not [key for key in keys if key.startswith("on")]
    whole = "".join(parsed.texts)
    for number in range(3):
        assert f"{HOSTILE}{number}" in whole
    assert "<b>evil" in whole
    assert "<img src=x onerror=alert(3)>" in whole


@pytest.mark.parametrize("part", ["config", "summary"])
def test_values_of_any_kind_make_a_page(run, parse, part):
    """Each value of config.json and summary.json in turn becomes what no run would write."""
    whole = getattr(run, part)
    count = 0
    for path in _paths(whole):
        for value in (None, "x", 1e308, [[1, 2], [3]], [{"a": {}}], {"b": [None]}):
            changed = copy.deepcopy(whole)
            _set(changed, path, value)
            odd = run._replace(**{part: changed})
            for runs in ([odd], [odd, run]):
                html = page.render(runs)
                assert html.endswith("</html>\n")
            count += 1
        parse(html)
    assert count > 100


def _paths(value, start=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*start, key)
        if isinstance(item, dict | list):
            yield from _paths(item, (*start, key))


def _set(value, path, new):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def test_a_run_with_nothing_but_its_config_makes_a_page(unfinished, parse):
    parsed = parse(page.render([unfinished._replace(metrics={})]))
    assert "unfinished" in parsed.texts
    assert "No epoch has been finished yet." in parsed.texts


def test_the_same_runs_make_the_same_page(run):
    assert page.render([run]) == page.render([run])
