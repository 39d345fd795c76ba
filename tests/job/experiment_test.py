"""The job as a function: its exit codes, and which data it takes."""

import pytest

from softmax_jax import data
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


def test_the_fallback_stands_in_for_fashion_mnist_alone(config, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    config.dataset = "fashion_mnist"
    assert experiment.load(config).name == "digits"
    assert "TRAINING ON DIGITS INSTEAD" in capsys.readouterr().err
    config.dataset_fallback = ""
    with pytest.raises(data.DatasetNotFoundError):
        experiment.load(config)
    config.dataset, config.dataset_fallback = "cifar10", "digits"
    with pytest.raises(data.DatasetNotFoundError, match="cifar10"):
        experiment.load(config)
