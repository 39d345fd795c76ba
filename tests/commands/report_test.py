import os

import numpy as np
import pytest

from softmax_jax.commands.report import report
from softmax_jax.data import DataError
from softmax_jax.host import WORKDIR, JobError


def test_the_page_is_a_file_of_its_own(run_folder, tmp_path):
    target = tmp_path / "report.html"
    report([run_folder], target)
    content = target.read_text("utf-8")
    assert content.startswith("<!DOCTYPE html>")
    assert "ant, bee, cat" in content


def test_text_that_has_no_utf8_is_replaced(run_folder, tmp_path):
    """JSON and .npz can hold halves of surrogate pairs."""
    config = run_folder / "config.json"
    config.write_text(config.read_text().replace('"cpu"', '"\\ud800cpu"'))
    report([run_folder], tmp_path / "report.html")
    assert "?cpu" in (tmp_path / "report.html").read_text("utf-8")


def test_a_page_that_cannot_be_written_is_an_error_of_its_own(run_folder, tmp_path):
    with pytest.raises(JobError, match="cannot be written: No such file") as caught:
        report([run_folder], tmp_path / "none" / "report.html")
    assert caught.value.exit_code == WORKDIR


def test_a_damaged_run_leaves_the_old_page_as_it_was(run_folder, tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    np.savez(run_folder / "params.npz", W=1)
    before = os.listdir(tmp_path)
    with pytest.raises(DataError, match="params.npz"):
        report([run_folder], target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == before
