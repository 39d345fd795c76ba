"""The report page: what it reads, what it shows, and that no text of a run becomes markup."""

import base64
import copy
import json
import math
import os
import re
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest

from softmax_jax import charts, report, runs
from softmax_jax.data import DataError
from softmax_jax.host import WORKDIR, JobError, shown
from softmax_jax.report import render
from softmax_jax.runs import read

_VOID = ("meta", "img", "wbr")


class Parsed(NamedTuple):
    """The elements of a page as (name, attributes), in order, and its texts."""

    elements: list
    texts: list

    def count(self, name):
        return sum(element == name for element, _ in self.elements)

    def with_class(self, name):
        return [e for e in self.elements if name in (e[1].get("class") or "").split()]

    def attributes(self, key):
        return [attributes[key] for _, attributes in self.elements if key in attributes]


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.parsed, self.open = Parsed([], []), []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), "an attribute occurs twice"
        self.parsed.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements are not nested"

    def handle_data(self, data):
        if data.strip():
            self.parsed.texts.append(data)


def parse(html):
    """Parses a page; fails on an unclosed element or a repeated attribute."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader.parsed


def topic(heading, *runs):
    """The section under a heading of the page about `runs`; None if there is none."""
    found = re.search(f'<section id="{heading}">.*?</section>', render(list(runs)), re.DOTALL)
    return found and parse(found[0])


@pytest.fixture
def run(run_folder):
    """A finished sweep of 4 settings and 2 seeds."""
    return read(run_folder)


@pytest.fixture
def unfinished(run):
    """The same sweep after three epochs."""
    metrics = {
        trial: {epoch: values for epoch, values in epochs.items() if epoch < 4}
        for trial, epochs in run.metrics.items()
    }
    nothing = {"summary": {}, "trials": [], "settings": [], "label_names": (), "figures": {}}
    return run._replace(name="interrupted", metrics=metrics, **nothing)


@pytest.fixture
def no_charts(monkeypatch):
    """Renders pages without charts, which have their own tests: much faster."""
    for name in ("curve_chart", "sweep_chart"):
        monkeypatch.setattr(charts, name, lambda *_: "<svg></svg>")


# Reading a folder.


def test_read_loads_a_finished_run(run, run_folder):
    assert run.name == "my run" and run.finished
    assert run.config["config"]["learning_rate"] == 0.1
    assert run.label_names == ("ant", "bee", "cat")
    assert (len(run.trials), len(run.settings)) == (8, 4)
    assert run.trials[3]["learning_rate"] == "0.1"
    assert sorted(run.figures) == ["confusion.png", "curves.png", "sweep.png", "weights.png"]
    for line in map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines()):
        assert run.metrics[line["trial"]][line["epoch"]]["val_loss"] == line["val_loss"]


def test_read_requires_only_the_config(run_folder, tmp_path):
    (tmp_path / "config.json").write_text((run_folder / "config.json").read_text())
    run = read(tmp_path)
    assert not run.finished
    assert (run.metrics, run.trials, run.label_names, run.figures) == ({}, [], (), {})
    assert "No epoch has been finished yet." in parse(render([run])).texts


def test_read_ignores_a_torn_last_line(run_folder):
    path = run_folder / "metrics.jsonl"
    whole, expected = path.read_bytes(), read(run_folder).metrics
    del expected[7][4]
    for end in range(whole.rindex(b"\n", 0, -1) + 1, len(whole)):
        path.write_bytes(whole[:end])
        assert read(run_folder).metrics == expected


def test_read_maps_null_to_nan_and_drops_non_numbers(run_folder):
    line = {"trial": 0, "epoch": 1, "val_loss": None, "why": "text", "train_loss": 1}
    (run_folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    values = read(run_folder).metrics[0][1]
    assert math.isnan(values.pop("val_loss"))
    assert values == {"train_loss": 1.0}


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "7", '{"trial": 0}', '{"trial": 0.5, "epoch": 1}', '{"trial": -1, "epoch": 1}',
        '{"trial": 0, "epoch": 1, "x": 1' + 400 * "0" + "}", "[" * 100_000, "",
    ],
)  # fmt: skip
def test_read_names_a_damaged_line(run_folder, line):
    path = run_folder / "metrics.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, line, *rest]) + "\n")
    with pytest.raises(DataError, match="metrics.jsonl is damaged.*: line 2 does not hold the"):
        read(run_folder)


@pytest.mark.parametrize(
    "name, content",
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"a": ' * 30 + "1" + "}" * 30),
        ("config.json", '{"a": ' * 100_000),
        ("summary.json", '{"trials": 1' + 5000 * "0" + "}"),
        ("trials.csv", "trial,seed\n1\n"),
        ("trials.csv", ""),
        ("settings.csv", 'setting\n"1'),
        ("params.npz", "PK"),
        ("weights.png", "GIF"),
        *((name, "\xff") for name in ("config.json", "metrics.jsonl", "trials.csv")),
    ],
)
def test_read_names_a_damaged_file(run_folder, name, content):
    (run_folder / name).write_bytes(content.encode("latin-1") + b"\n" * (content == "\xff"))
    with pytest.raises(DataError, match=name):
        read(run_folder)


def test_read_rejects_a_folder_without_a_run(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="holds no run: there is no config.json"):
            read(folder)


# Writing the page.


def test_report_is_one_utf8_file(run_folder, tmp_path):
    """JSON and .npz can hold halves of surrogate pairs, which have no UTF-8."""
    config = run_folder / "config.json"
    config.write_text(config.read_text().replace('"cpu"', '"\\ud800cpu"'))
    report.report([run_folder], tmp_path / "report.html")
    content = (tmp_path / "report.html").read_text("utf-8")
    assert content.startswith("<!DOCTYPE html>") and content.endswith("</html>\n")
    assert r"\ud800cpu" in content


def test_report_that_cannot_be_written_is_a_job_error(run_folder, tmp_path):
    with pytest.raises(JobError, match="cannot be written: No such file") as caught:
        report.report([run_folder], tmp_path / "none" / "report.html")
    assert caught.value.exit_code == WORKDIR


def test_report_of_a_damaged_run_keeps_the_old_page(run_folder, tmp_path):
    (tmp_path / "report.html").write_text("old")
    np.savez(run_folder / "params.npz", W=1)
    before = os.listdir(tmp_path)
    with pytest.raises(DataError, match="params.npz"):
        report.report([run_folder], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "old"
    assert os.listdir(tmp_path) == before


def test_page_has_a_section_and_a_link_for_every_topic(run):
    parsed = parse(render([run]))
    ids = [a["id"] for name, a in parsed.elements if name == "section"]
    assert ids == [
        *("metrics", "curves", "sweep", "figures", "settings", "trials", "time", "configuration")
    ]
    assert [a["href"] for name, a in parsed.elements if name == "a"] == [f"#{id}" for id in ids]


def test_page_compares_several_runs_first(run, unfinished):
    parsed = parse(render([run, unfinished]))
    ids = [a["id"] for name, a in parsed.elements if name == "section"]
    assert ids[:2] == ["metrics", "curves-compared"]
    assert len(parsed.with_class("card")) == 2
    assert "2 runs compared" in parsed.texts
    all_ids = parsed.attributes("id")
    assert len(set(all_ids)) == len(all_ids)


def test_page_loads_nothing_and_runs_only_its_own_script(run):
    html = render([run])
    parsed = parse(html)
    sources = [link for key in ("src", "href", "data") for link in parsed.attributes(key)]
    assert sources and all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert not re.search(r"https?:|url\((?!#)|@import|<link|fetch\(|import\(", html)
    assert not {"iframe", "object", "embed", "link", "form", "base"} & {
        n for n, _ in parsed.elements
    }
    (policy,) = [a["content"] for _, a in parsed.elements if "http-equiv" in a]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='$", policy)
    assert parsed.count("script") == 1
    assert not [key for _, a in parsed.elements for key in a if key.startswith("on")]


def test_page_is_deterministic(run):
    assert render([run]) == render([run])


HOSTILE = "</script><script>alert('1')</script>\"><img src=x onerror=alert(2)>&amp;\u202e{{"


def _poison(value):
    """Replaces every text by an attack, and adds an attacking key to every dictionary."""
    if isinstance(value, dict):
        return {key: _poison(item) for key, item in value.items()} | {HOSTILE: HOSTILE}
    return HOSTILE if isinstance(value, str) else value


def test_page_escapes_every_text(write_run, tmp_path):
    """The page gains no element and no attribute."""
    folder = write_run(tmp_path / "<b>evil", [f"{HOSTILE}{n}" for n in range(3)])
    for name in ("config.json", "summary.json"):
        content = _poison(json.loads((folder / name).read_text()))
        if name == "config.json":
            content["config"]["select_metric"] = "val_loss"
            content["config"]["sweep"]["<script>"] = 1
        (folder / name).write_text(json.dumps(content))
    for name in ("trials.csv", "settings.csv"):
        text = (folder / name).read_text().replace("batch_size", '"<i>""size"')
        (folder / name).write_text(text.replace("seed", "<script>").replace("l2", "<script>"))
    (folder / "weights.png").rename(folder / "<img src=x onerror=alert(3)>.png")
    html = render([read(folder), read(folder)])
    parsed = parse(html)
    assert parsed.count("script") == html.count("<script") == 1
    assert parsed.count("img") == html.count("<img") == 4
    assert parsed.count("svg") == 2 * 2 + 2 + 2 * 2
    assert not {"b", "i<"} & {name for name, _ in parsed.elements}
    keys = {key for _, attributes in parsed.elements for key in attributes}
    assert not [key for key in keys if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]*", key)]
    assert not [key for key in keys if key.startswith("on")]
    whole = "".join(parsed.texts)
    for text in (*(f"{HOSTILE}{n}" for n in range(3)), "<b>evil", "<img src=x onerror=alert(3)>"):
        assert shown(text) in whole


@pytest.mark.parametrize("part", ["config", "summary"])
@pytest.mark.usefixtures("no_charts")
def test_page_accepts_values_of_any_type(run, part):
    """Replaces each value of config.json and summary.json in turn by an unexpected one."""
    whole, count = getattr(run, part), 0
    for path in _paths(whole):
        for value in (None, "x", 1e308, [[1, 2], [3]], [{"a": {}}], {"b": [None]}):
            changed = copy.deepcopy(whole)
            _set(changed, path, value)
            odd = run._replace(**{part: changed})
            html = render([odd])
            assert html.endswith("</html>\n")
            count += 1
        parse(html)
        render([odd, run])
    assert count > 100


def _paths(value, start=()):
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*start, key)
        if isinstance(item, dict | list):
            yield from _paths(item, (*start, key))


def _set(value, path, new):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


@pytest.mark.parametrize("huge", [1e308, -1e308])
def test_page_accepts_losses_of_any_size(run, huge):
    run.metrics[0][1]["val_loss"] = run.metrics[0][2]["train_loss"] = huge
    for row, sign in zip(run.settings, (1, -1, 1, -1), strict=True):
        row["val_loss_mean"] = str(sign * huge)
    run.summary["seconds"] = {"data": 1e308, "training": 1e308}
    run.summary["matrix"] = [[1e308, 1e308], [-1e308, huge]]
    parse(render([run, run]))


# What the page shows.


def test_card_leads_with_the_test_metrics_and_their_intervals(run):
    texts = parse(render([run])).texts
    at = texts.index("finished")
    assert texts[at : at + 4] == ["finished", "test accuracy", "0.8222", "[0.7601, 0.8712]"]
    assert {"digits · 1,437 train, 360 val, 180 test", "ant, bee, cat"} <= set(texts)
    assert any("smallest val_loss of 4 settings" in text for text in texts)
    assert "extend l2 downwards" in texts
    run.summary["test"] = None
    texts = parse(render([run])).texts
    assert texts[texts.index("finished") + 1] == "val accuracy"


def test_card_of_an_unfinished_run_names_its_best_trial(unfinished):
    best = runs.chosen_trial(unfinished)
    losses = {trial: epochs[3]["val_loss"] for trial, epochs in unfinished.metrics.items()}
    assert losses[best] == min(losses.values())
    assert runs.final_metrics(unfinished)["val_loss"]["value"] == losses[best]
    assert {"unfinished", "epoch 3 of 4 of 8 trials", f"trial {best}"} <= set(
        parse(render([unfinished])).texts
    )
    unfinished.metrics[best][3]["val_loss"] = math.nan
    assert runs.chosen_trial(unfinished) != best


@pytest.mark.usefixtures("no_charts")
def test_notices_name_what_makes_the_metrics_doubtful(run):
    run.config["config"]["dataset"] = "fashion_mnist"
    run.summary.update(val_is_test=True, diverged=3)
    optimistic = "Validation and test share examples: the test metrics are optimistic."
    assert runs.notices(run) == [
        "Trained on digits: fashion_mnist was not found, and the download failed.",
        optimistic,
        "3 of 8 trials diverged.",
        "extend l2 downwards",
    ]
    run.summary["selected"]["refit"] = True
    assert optimistic not in runs.notices(run)
    run.summary["selected"] = run.summary["test"] = None
    assert "every trial diverged" in parse(render([run])).texts


def test_metrics_have_a_column_per_split_or_per_run(run, unfinished):
    texts = topic("metrics", run).texts
    assert texts[1:4] == ["train", "val", "test"]
    assert texts[texts.index("accuracy") + 3] == "0.8222"
    better = run._replace(name="better", summary=run.summary | {"test": {"accuracy": 0.9}})
    parsed = topic("metrics", run, better)
    at = parsed.texts.index("test accuracy")
    assert parsed.texts[at : at + 2] == ["test accuracy", "0.8222"]
    assert parsed.count("strong") == 6  # a tie is marked once, at its first run
    other = better._replace(config=better.config | {"fingerprint": "other"})
    parsed = topic("metrics", run, other)
    assert parsed.count("strong") == 0
    assert any("do not compare" in text for text in parsed.texts)
    assert "There are no metrics yet." in topic("metrics", unfinished._replace(metrics={})).texts


def test_configuration_lists_differing_fields_first(run):
    fields = runs.configuration([run])
    assert fields["sweep.l2"] == ["0.0, 0.01"] and fields["versions.jax"] == ["0.10.2"]
    config = run.config["config"] | {"learning_rate": 0.5, "note": "x", "dataset": "other"}
    changed = run._replace(config=run.config | {"config": config, "backend": "gpu"})
    assert runs.configuration([changed])["dataset used"] == ["digits"]
    html = render([run, changed])
    assert parse(html).attributes("id")[0] == "what-differs"
    assert topic("what-differs", run, changed).texts[3:] == [
        *("dataset", "digits", "other", "learning_rate", "0.1", "0.5"),
        *("backend", "cpu", "gpu", "note", "–", "x"),
    ]
    assert len(topic("configuration", run, changed).with_class("differs")) == 4


def test_each_difference_is_named_once(run):
    """Neither the copy that identifies the job, nor what follows from another field."""
    job = {"config": run.config["config"], "data": {"fingerprint": "3aeeb91e", "name": "digits"}}
    first = run._replace(config=run.config | {"job": job})
    config = run.config["config"] | {"learning_rate": 0.5, "train_split": "train[:9]"}
    job = {"config": config, "data": {"fingerprint": "other", "name": "digits"}}
    second = run._replace(
        config=run.config | {"config": config, "fingerprint": "other", "job": job}
    )
    found = runs.differences(runs.configuration([first, second]))
    assert sorted(found) == ["learning_rate", "train_split"]
    alone = run._replace(config=run.config | {"fingerprint": "other"})
    assert list(runs.differences(runs.configuration([run, alone]))) == ["fingerprint"]


def test_only_runs_on_the_same_data_share_axes(run):
    other = run._replace(name="elsewhere", config=run.config | {"fingerprint": "other"})
    unknown = run._replace(
        name="unknown", config={k: v for k, v in run.config.items() if k != "fingerprint"}
    )
    assert topic("curves-compared", run, other, unknown) is None
    again = run._replace(name="again")
    parsed = topic("curves-compared", run, other, again)
    assert len(parsed.with_class("line")) == 4 and "elsewhere" not in parsed.texts
    both = topic("curves-compared", run, other, again, other._replace(name="twin"))
    assert len([e for e in both.elements if e[0] == "svg"]) == 4


def test_curves_compared_ignore_the_scale_of_a_run_that_diverged(run):
    """The sound run still spans a quarter of the height."""
    metrics = {
        t: {e: v | {"val_loss": 1e30} for e, v in es.items()} for t, es in run.metrics.items()
    }
    bad = run._replace(name="bad", metrics=metrics, summary={"selected": None, "trials": 8})
    html = render([run, bad])
    svg = re.search(r'aria-label="loss against epoch".*?</svg>', html, re.DOTALL)[0]
    heights = re.findall(r'class="mark c0.*?<use [^>]*y="([^"]*)"', svg, re.DOTALL)
    assert len(heights) == 4 and np.ptp(np.array(heights, float)) > 224 / 4


CLASSES = {
    "on": "test",
    "selected_on": False,
    "by_class": {
        "ant": {
            **{"examples": 3, "precision": 0.75, "precision_interval": [0.3, 0.9]},
            **{"recall": 1.0, "recall_interval": [0.4, 1.0], "f1": None, "f1_interval": None},
            **{"taken_for": "bee", "taken_for_examples": 2},
        },
        "bee": {},
    },
    "confusion": [[3, 2], [0, 1]],
}


def test_classes_have_a_table_with_intervals_and_a_matrix_that_names_its_split(run):
    parsed = topic("classes", run._replace(summary=run.summary | {"classes": CLASSES}))
    assert "On test, with intervals of 95 %" in parsed.texts
    assert "Confusion on test: the true class by rows, the predicted one by columns" in parsed.texts
    assert {"ant", "0.7500", "bee (2)"} <= set(parsed.texts)
    assert "[0.3000, 0.9000]" in parsed.texts
    on_val = CLASSES | {"on": "val", "selected_on": True}
    parsed = topic("classes", run._replace(summary=run.summary | {"classes": on_val}))
    assert "On val, whose examples decided the choice: without intervals" in parsed.texts
    for odd in (3, {"by_class": 3}, {"by_class": {"a": 3}}, CLASSES | {"confusion": [[1], 2]}):
        render([run._replace(summary=run.summary | {"classes": odd})])


def test_curves_show_the_recorded_values_of_the_chosen_trial(run):
    parsed = topic("curves", run)
    for epoch, values in run.metrics[runs.chosen_trial(run)].items():
        for name, value in values.items():
            assert f"{name.replace('_', ' ')}: {value:.4f} at {epoch}" in parsed.texts
    assert len(parsed.with_class("mark")) == 4 * 4
    assert len([e for e in parsed.with_class("line") if "faint" in e[1]["class"]]) == 2 * 7


def test_curves_of_many_trials_are_sampled(run):
    parsed = topic("curves", run._replace(metrics={k: run.metrics[k % 8] for k in range(1000)}))
    faint = [e for e in parsed.with_class("line") if "faint" in e[1]["class"]]
    assert 100 <= len(faint) <= 200
    assert "100 of 999 other trials" in parsed.texts


def test_curves_ignore_the_scale_of_a_diverged_trial(run):
    """The chosen trial still spans a quarter of the height."""
    trial = runs.chosen_trial(run)
    run.metrics[5 if trial != 5 else 6][2]["val_loss"] = 1e6
    html = render([run])
    svg = re.search(r'aria-label="loss against epoch".*?</svg>', html, re.DOTALL)[0]
    heights = [
        float(y) for y in re.findall(r'class="mark c.*?<use [^>]*y="([^"]*)"', svg, re.DOTALL)
    ]
    assert len(heights) == 8
    assert max(heights) - min(heights) > 224 / 4


def test_curves_of_several_runs_are_overlaid(run, unfinished):
    parsed = topic("curves-compared", run, unfinished)
    assert len(parsed.with_class("line")) == 4
    assert {"my run, val loss", "interrupted, val accuracy"} <= set(parsed.texts)
    for metrics in unfinished.metrics.values():
        for values in metrics.values():
            del values["val_loss"], values["val_accuracy"]
    assert "interrupted, train loss" in topic("curves-compared", run, unfinished).texts
    assert not [t for t in topic("curves", unfinished).texts if t.startswith("val loss")]


def test_curves_without_a_finite_value_say_so(run):
    nothing = {0: {1: {"train_loss": math.nan, "val_loss": math.nan}}}
    texts = topic("curves", run._replace(metrics=nothing)).texts
    assert "There is no finite loss to draw." in texts


def test_sweep_has_a_panel_per_axis_and_a_heat_map(run):
    """Seeds are averaged over in settings.csv; batch_size is the same in all."""
    found, chosen = report.lay_out(run), run.summary["selected"]["hyperparameters"]
    assert found.axes == {"learning_rate": [0.1, 0.5], "l2": [0.0, 0.01]}
    assert found.winner == (chosen["learning_rate"], chosen["l2"])
    best = min(float(row["val_loss_mean"]) for row in run.settings)
    assert found.settings[found.winner][0] == best
    parsed = topic("sweep", run)
    assert (len(parsed.with_class("chart")), len(parsed.with_class("heat"))) == (2, 1)
    assert {f"{float(row['val_loss_mean']):.4f}" for row in run.settings} <= set(parsed.texts)
    assert len(parsed.with_class("band")) == len(parsed.with_class("star")) - 1 == 2
    (marked,) = [e for e in parsed.with_class("chosen") if e[0] == "td"]
    assert marked[1]["style"] == "--share:100%"  # the best is the darkest
    assert len([e for e in parsed.with_class("line") if "c1" in e[1]["class"]]) == 2
    assert {0.0: "l2 0.01", 0.01: "l2 0"}[chosen["l2"]] in parsed.texts  # the other, faint


def test_sweep_omits_a_diverged_setting(run):
    for row in run.settings:
        if (
            float(row["learning_rate"])
            != run.summary["selected"]["hyperparameters"]["learning_rate"]
        ):
            row["val_loss_mean"] = "inf"
    texts = topic("sweep", run).texts
    assert "–" in texts and not any("inf" in text for text in texts)


def test_sweep_without_a_winner_is_faint(run):
    run.summary["selected"] = None
    parsed = topic("sweep", run)
    assert {e[1]["class"] for e in parsed.with_class("line")} == {"line faint"}
    assert not parsed.with_class("star")


def test_sweep_of_random_draws_has_marks(run):
    """Every setting differs from every other in both axes: no lines, but a mark each."""
    draws = [{"learning_rate": str(0.01 * 1.1**k), "l2": str(1e-5 * 1.3**k)} for k in range(30)]
    parsed = topic("sweep", run._replace(settings=[run.settings[0] | draw for draw in draws]))
    assert len(parsed.with_class("mark")) >= 2 * 29
    assert not parsed.with_class("heat")


@pytest.mark.usefixtures("no_charts")
def test_sweep_and_tables_are_omitted_without_a_sweep(run, unfinished):
    assert topic("sweep", unfinished) is topic("trials", unfinished) is None
    single = run._replace(settings=run.settings[:1], trials=run.trials[:1])
    assert topic("sweep", single) is topic("trials", single) is topic("settings", single) is None
    run.config["config"]["sweep"] = {}
    assert topic("sweep", run) is None


@pytest.mark.usefixtures("no_charts")
def test_tables_mark_the_selected_row(run):
    trial = run.summary["selected"]["trial"]
    for heading, rows, number in (("trials", 8, trial), ("settings", 4, trial // 2)):
        parsed = topic(heading, run)
        assert parsed.count("tr") == 1 + rows
        (chosen,) = parsed.with_class("chosen")
        at = parsed.elements.index(chosen)
        assert float(parsed.elements[at + 1][1]["data-v"]) == number
    assert parsed.elements[at - 1][0] == "tbody"  # the best setting is the first


@pytest.mark.usefixtures("no_charts")
def test_figures_are_inlined_except_those_drawn_as_charts(run, picture):
    images = [a for name, a in topic("figures", run, run).elements if name == "img"]
    captions = ["my run: confusion", "my run: confusion", "my run: weights", "my run: weights"]
    assert [image["alt"] for image in images] == captions
    kind, content = images[0]["src"].split(",")
    assert kind == "data:image/png;base64" and base64.b64decode(content) == picture


@pytest.mark.usefixtures("no_charts")
def test_time_bars_are_proportional_to_seconds(run):
    longer = run._replace(summary=run.summary | {"seconds": {"training": 8.0}})
    parsed = topic("time", run, longer)
    assert parsed.attributes("style") == ["width:6.25%", "width:18.75%", "width:100.00%"]
    assert "my run: 2.0 s" in parsed.texts
    assert topic("time", run._replace(summary={})) is None


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(
    "value, texts, shades",
    [
        (0.125, ["0.1250"], []),
        (
            {"precision": [0.5, 0.25, None], "support": [10, 20, 1000]},
            [
                *("precision", "support", "ant", "0.5000", "10", "bee", "0.2500", "20"),
                *("cat", "–", "1,000"),
            ],
            [],
        ),
        (
            [[8, 2, 0], [0, 0, 0], [1, 1, 2]],
            [*("ant", "bee", "cat"), *("ant", "8", "2", "0"), *("bee", "0", "0", "0")],
            [80, 20, 0, 0, 0, 0, 25, 25, 50],
        ),
        (
            [{"action": "wait", "cost": 0.5}, {"action": "treat", "cost": 2}],
            ["action", "cost", "wait", "0.5000", "treat", "2"],
            [],
        ),
        (
            {"mean": 0.125, "of": {"interval": [0.1, 0.2], "note": "<b>"}},
            ["mean", "0.1250", "of", "interval", "0.1000, 0.2000", "note", "<b>"],
            [],
        ),
        (list(range(60)), [", ".join(map(str, range(50))) + ", …"], []),
        ([[1], [2, 3], {}], ["1", "2, 3", "–"], []),
        ([[0] * 200] * 200, ["a matrix of 200 × 200"], []),
        ({"a": {"a": {"a": {"a": {"a": 1}}}}}, ["a", "a", "a", "a", "…"], []),
    ],
)
def test_more_metrics_are_laid_out_by_shape(run, value, texts, shades):
    run.summary["test"]["new_metric"] = run.summary["new_metric"] = value
    parsed = topic("more-metrics", run)
    assert parsed.texts[1 : 2 + len(texts)] == ["new metric", *texts]
    assert parsed.attributes("style")[: len(shades)] == [f"--share:{s}%" for s in shades]
    assert ("test: new metric" in parsed.texts) == isinstance(value, dict | list)


def test_numbers_have_four_decimals_or_three_digits():
    values = [0.5, 0.12345, 12.5, 1e-5, 2e7, 0.0, 3, 1_234_567, True, "text", None, math.nan]
    assert [runs.number(value) for value in values] == [
        *("0.5000", "0.1235", "12.5000", "1e-05", "2e+07", "0", "3", "1,234,567"),
        *("True", "text", "–", "–"),
    ]


@pytest.mark.parametrize("value", [None, "x", "nan", math.inf, 10**400, [], {}])
def test_finite_is_none_for_anything_else(value):
    assert runs.finite(value) is None


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("metric, order", [("val_loss", [2, 3, 0, 1]), ("val_top5", [0, 3, 2, 1])])
def test_rows_are_ordered_by_the_metric_with_missing_values_last(run, metric, order):
    run.config["config"]["select_metric"] = metric
    values = ["0.3", "nan", "0.123456789", "0.2"]
    rows = [{"trial": str(k), metric: v, "l2": f"1e-0{k + 1}"} for k, v in enumerate(values)]
    rows = [row | {"momentum": "0.9", "note": ""} for row in rows]
    parsed = topic("trials", run._replace(trials=rows))
    assert [t for t in parsed.texts if t in ("0", "1", "2", "3")] == list(map(str, order))
    heads = [a["aria-sort"] for name, a in parsed.elements if name == "th"]
    assert heads == ["none", "ascending" if metric == "val_loss" else "descending", "none"]
    assert "0.123456789" in parsed.attributes("data-v")  # the exact number is there to sort by
    assert {"0.1235", "1e-04"} <= set(parsed.texts)  # metrics are rounded, settings are not
    assert parsed.texts[-1] == "The same in all rows: momentum 0.9, note –."


@pytest.mark.usefixtures("no_charts")
def test_rows_beyond_a_thousand_are_only_counted(run):
    rows = [{"trial": str(n), "val_loss": str(2000 - n)} for n in range(1500)]
    parsed = topic("trials", run._replace(trials=rows))
    assert parsed.count("tr") == 1001
    assert parsed.attributes("data-v")[0] == "1499.0"
    assert "1,000 of 1,500 rows are shown." in parsed.texts
