"""The job as a function: its exit codes."""

import pytest

from softmax_jax.job import experiment
from softmax_jax.job.errors import DIVERGED, DONE, USAGE, WORKDIR


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, DONE),
        ({"learning_rate": -1.0}, USAGE),
        ({"batch_size": 10**6}, USAGE),
        ({"train_split": "nope"}, USAGE),
        ({"learning_rate": 1e38}, DIVERGED),
    ],
)
def test_the_exit_code_tells_what_happened(config, tmp_path, fields, code, capsys):
    config.update(fields)
    assert experiment.main(config, tmp_path / "w") == code
    assert (tmp_path / "w" / "summary.json").exists() == (code in (DONE, DIVERGED))
    assert (tmp_path / "w" / "params.npz").exists() == (code == DONE)
    assert bool(capsys.readouterr().err) == (code != DONE)


def test_an_unusable_folder_has_a_code_of_its_own(config, tmp_path):
    (tmp_path / "file").write_text("")
    assert experiment.main(config, tmp_path / "file" / "w") == WORKDIR
