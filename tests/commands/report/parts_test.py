import base64

from softmax_jax.commands.report import parts
from softmax_jax.commands.report.markup import tag


def parsed(parse, content):
    return parse(tag("div", content))


def test_the_tables_mark_what_was_selected(run, parse):
    selected = run.summary["selected"]
    found = parsed(parse, parts.trials(run))
    assert found.count("tr") == 1 + 8
    assert len(found.with_class("chosen")) == 1
    at = found.elements.index(found.with_class("chosen")[0])
    assert float(found.elements[at + 1][1]["data-v"]) == selected["trial"]
    found = parsed(parse, parts.settings(run))
    assert found.count("tr") == 1 + 4
    at = found.elements.index(found.with_class("chosen")[0])
    assert float(found.elements[at + 1][1]["data-v"]) == selected["trial"] // 2
    assert found.elements[at - 1][0] == "tbody"  # it is the best, and so the first


def test_a_table_of_one_row_or_of_none_is_left_out(run, unfinished):
    assert parts.trials(unfinished) is None
    assert parts.trials(run._replace(trials=run.trials[:1])) is None


def test_pictures_are_inlined_less_those_that_are_drawn_anew(run, parse, picture):
    found = parsed(parse, parts.pictures([run, run]))
    images = [attributes for name, attributes in found.elements if name == "img"]
    assert [image["alt"] for image in images] == [
        *("my run: confusion", "my run: confusion", "my run: weights", "my run: weights")
    ]
    kind, content = images[0]["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == picture


def test_phases_are_as_long_as_their_seconds(run, parse):
    longer = run._replace(summary=run.summary | {"seconds": {"training": 8.0}})
    found = parsed(parse, parts.seconds([run, longer]))
    widths = [a["style"] for name, a in found.elements if "style" in a]
    assert widths == ["width:6.25%", "width:18.75%", "width:100.00%"]
    assert "my run: 2.0 s" in found.texts
    assert parts.seconds([run._replace(summary={})]) is None


def test_what_else_the_summary_holds_is_shown(run, parse):
    assert parts.rest(run) == []
    run.summary["expected_cost"] = 0.125
    run.summary["test"]["confusion"] = [[1, 2, 0], [3, 4, 0], [0, 0, 5]]
    found = parsed(parse, parts.rest(run))
    assert {"expected cost", "0.1250", "test: confusion", "ant", "5"} <= set(found.texts)
