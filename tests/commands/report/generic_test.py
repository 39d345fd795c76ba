from softmax_jax.commands.report import generic
from softmax_jax.commands.report.markup import tag

NAMES = ("ant", "bee", "cat")


def shown(parse, value):
    return parse(tag("div", generic.show(value, NAMES)))


def test_figures_by_class_are_a_row_per_class(parse):
    parsed = shown(parse, {"precision": [0.5, 0.25, None], "support": [10, 20, 1000]})
    assert parsed.texts == [
        *("precision", "support", "ant", "0.5000", "10", "bee", "0.2500", "20"),
        *("cat", "–", "1,000"),
    ]


def test_a_matrix_is_shaded_by_the_share_of_each_row(parse):
    parsed = shown(parse, [[8, 2, 0], [0, 0, 0], [1, 1, 2]])
    shares = [a["style"] for name, a in parsed.elements if name == "td"]
    assert shares[:3] == ["--share:80%", "--share:20%", "--share:0%"]
    assert shares[8] == "--share:50%"
    assert parsed.texts[:3] == list(NAMES)


def test_records_are_a_sortable_table(parse):
    parsed = shown(parse, [{"action": "wait", "cost": 0.5}, {"action": "treat", "cost": 2}])
    assert parsed.with_class("sortable")
    assert {"wait", "treat", "0.5000", "2"} <= set(parsed.texts)


def test_anything_else_is_told_in_lines(parse):
    parsed = shown(parse, {"mean": 0.125, "of": {"interval": [0.1, 0.2], "note": "<b>"}})
    assert {"mean", "0.1250", "interval", "0.1000, 0.2000", "<b>"} <= set(parsed.texts)
    assert shown(parse, list(range(60))).texts == [", ".join(map(str, range(50))) + ", …"]
    assert shown(parse, [[1], [2, 3], {}]).count("li") == 3


def test_what_is_too_large_or_too_deep_is_only_named(parse):
    parsed = shown(parse, [[0] * 200] * 200)
    assert parsed.texts == ["a matrix of 200 × 200"]
    value = 1
    for _ in range(19):
        value = {"a": value, "b": [value]}
    assert "…" in shown(parse, value).texts
