import json
import math

import pytest

from softmax_jax.commands.run import read
from softmax_jax.data import DataError


def test_a_finished_run_is_read_whole(run_folder):
    run = read(run_folder)
    assert run.name == "my run"
    assert run.finished
    assert run.config["config"]["learning_rate"] == 0.1
    assert run.summary["test"]["accuracy"] == 0.8222
    assert run.label_names == ("ant", "bee", "cat")
    assert (len(run.trials), len(run.settings)) == (8, 4)
    assert run.trials[3]["learning_rate"] == "0.1"
    assert sorted(run.pictures) == ["confusion.png", "curves.png", "sweep.png", "weights.png"]
    assert sorted(run.metrics) == list(range(8))
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert run.metrics[line["trial"]][line["epoch"]]["val_loss"] == line["val_loss"]


def test_the_config_alone_makes_an_unfinished_run(run_folder, tmp_path):
    (tmp_path / "config.json").write_text((run_folder / "config.json").read_text())
    run = read(tmp_path)
    assert not run.finished
    assert (run.metrics, run.trials, run.label_names, run.pictures) == ({}, [], (), {})


def test_a_line_that_is_still_being_written_is_not_read(run_folder):
    """The last line, torn at each of its bytes."""
    path = run_folder / "metrics.jsonl"
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    expected = read(run_folder).metrics
    del expected[7][4]
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert read(run_folder).metrics == expected


def test_a_figure_that_was_not_finite_is_nan_and_what_is_no_number_is_left_out(run_folder):
    line = {"trial": 0, "epoch": 1, "val_loss": None, "why": "text", "train_loss": 1}
    (run_folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    figures = read(run_folder).metrics[0][1]
    assert math.isnan(figures.pop("val_loss"))
    assert figures == {"train_loss": 1.0}


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "7", '{"trial": 0}', '{"trial": 0.5, "epoch": 1}', '{"trial": -1, "epoch": 1}',
        '{"trial": 0, "epoch": 1, "x": 1' + 400 * "0" + "}", "[" * 100_000, "",
    ],
)  # fmt: skip
def test_a_damaged_line_before_the_last_is_named(run_folder, line):
    path = run_folder / "metrics.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, line, *rest]) + "\n")
    with pytest.raises(DataError, match="metrics.jsonl is damaged.*: line 2 is not the figures"):
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
    ],
)
def test_a_damaged_file_is_named(run_folder, name, content):
    (run_folder / name).write_text(content)
    with pytest.raises(DataError, match=name):
        read(run_folder)


def test_bytes_that_are_no_text_are_damage(run_folder):
    for name in ("config.json", "metrics.jsonl", "trials.csv", "summary.json"):
        content = (run_folder / name).read_bytes()
        (run_folder / name).write_bytes(b'{"\xff": 1}\n' + content)
        with pytest.raises(DataError, match=name):
            read(run_folder)
        (run_folder / name).write_bytes(content)


def test_a_folder_that_holds_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="holds no run: there is no config.json"):
            read(folder)
