from pathlib import Path

from softmax_jax.data.sources import data_folders
from softmax_jax.host import user_cache_folder


def test_folders_come_in_order(isolated, monkeypatch):
    assert data_folders(None) == [isolated / "tensorflow_datasets"]
    monkeypatch.setenv("TFDS_DATA_DIR", "/elsewhere")
    expected = [isolated / "mine", Path("/elsewhere"), isolated / "tensorflow_datasets"]
    assert data_folders("~/mine") == expected


def test_the_user_cache_follows_xdg(isolated, monkeypatch):
    assert user_cache_folder() == isolated / "cache" / "softmax_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache_folder() == isolated / ".cache" / "softmax_jax"
