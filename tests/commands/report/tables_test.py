import math

from softmax_jax.commands.report import tables


def texts(parsed):
    return [text.strip() for text in parsed.texts if text.strip()]


def cells(parsed):
    return [attributes["data-v"] for name, attributes in parsed.elements if "data-v" in attributes]


def test_numbers_have_four_decimals_or_three_digits():
    values = [0.5, 0.12345, 12.5, 1e-5, 2e7, 0.0, 3, 1_234_567, True, "text", None, math.nan]
    assert [tables.number(value) for value in values] == [
        *("0.5000", "0.1235", "12.5000", "1e-05", "2e+07", "0", "3", "1,234,567"),
        *("True", "text", "–", "–"),
    ]


def test_rows_are_in_the_order_of_a_column_with_what_is_missing_last(parse):
    rows = [{"n": str(n), "val_loss": loss} for n, loss in enumerate(["0.3", "nan", "0.1", "0.2"])]
    for descending, order in ((False, ["2", "3", "0", "1"]), (True, ["0", "3", "2", "1"])):
        parsed = parse(tables.sortable(rows, "val_loss", descending))
        assert [text for text in texts(parsed) if text in "0123"] == order
        heads = {a["aria-sort"] for name, a in parsed.elements if name == "th"}
        assert heads == {"none", "descending" if descending else "ascending"}


def test_columns_that_are_the_same_in_all_rows_are_told_below(parse):
    rows = [{"trial": str(n), "momentum": "0.9", "note": ""} for n in range(3)]
    parsed = parse(tables.sortable(rows))
    assert parsed.count("th") == 1
    assert texts(parsed)[-1] == "The same in all rows: momentum 0.9, note –."


def test_the_exact_number_is_kept_for_sorting(parse):
    rows = [{"val_loss": "0.123456789"}, {"val_loss": "0.12345678"}]
    parsed = parse(tables.sortable(rows))
    assert cells(parsed) == ["0.123456789", "0.12345678"]
    assert texts(parsed).count("0.1235") == 2


def test_a_setting_is_shown_as_it_was_given(parse):
    rows = [{"l2": "0.0001", "val_loss": "0.5"}, {"l2": "1e-05", "val_loss": "0.25"}]
    shown = texts(parse(tables.sortable(rows)))
    assert {"0.0001", "1e-05", "0.5000", "0.2500"} <= set(shown)


def test_the_best_thousand_rows_of_more_are_shown(parse):
    rows = [{"trial": str(n), "val_loss": str(2000 - n)} for n in range(1500)]
    parsed = parse(tables.sortable(rows, "val_loss"))
    assert parsed.count("tr") == 1001
    assert cells(parsed)[0] == "1499.0"
    assert "1,000 of 1,500 rows are shown." in texts(parsed)


def test_chosen_rows_and_cells_are_marked(parse):
    rows = [{"n": "1"}, {"n": "2"}]
    parsed = parse(tables.sortable(rows, chosen=lambda row: row["n"] == "2"))
    assert len(parsed.with_class("chosen")) == 1
    shares = [[0.0, 1.0], [0.25, 0.5]]
    parsed = parse(tables.heat_map("ab", "cd", [[1, 2], [3, 4]], shares, chosen=(1, 0)))
    (marked,) = parsed.with_class("chosen")
    assert marked[1]["style"] == "--share:25%"
    assert len(parsed.with_class("strong")) == 1


def test_runs_stand_side_by_side(parse):
    parsed = parse(tables.side_by_side(["one", "two"], {"loss": ["1", "2"]}, {"loss"}))
    assert texts(parsed) == ["one", "two", "loss", "1", "2"]
    assert len(parsed.with_class("differs")) == 1
