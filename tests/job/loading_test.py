"""Which data a config gets, and when it gets others instead."""

import pytest

from softmax_jax import data
from softmax_jax.job import run


def test_the_fallback_stands_in_for_fashion_mnist_alone(config, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    config.dataset = "fashion_mnist"
    assert run.load_data(config).name == "digits"
    assert "TRAINING ON DIGITS INSTEAD" in capsys.readouterr().err
    config.dataset_fallback = ""
    with pytest.raises(data.DatasetNotFoundError):
        run.load_data(config)
    config.dataset, config.dataset_fallback = "cifar10", "digits"
    with pytest.raises(data.DatasetNotFoundError, match="cifar10"):
        run.load_data(config)
