"""For tests of data: small datasets on disk, a server on this machine, and no other network.

The two fixtures are imported into a test module under the names `isolate` and `start_server`, and
asked for as `isolated` and `serve`.
"""

import gzip
import http.server
import io
import json
import struct
import threading

import numpy as np
import pytest

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)
LABELS = np.arange(7, dtype=np.int32) % 3


@pytest.fixture(autouse=True, name="isolated")
def isolate(tmp_path_factory, monkeypatch):
    """An empty home, and a network of which only this machine can be reached."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens: refused at once
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return home


@pytest.fixture(name="serve")
def start_server():
    """Starts a server whose every GET is answered by a function of the request handler."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def write_idx(folder, compressed=True):
    """Writes the four files of a tiny Fashion-MNIST, 7 train and 3 test images: {name: path}."""

    def header(rank, *sizes):
        return bytes([0, 0, 8, rank]) + struct.pack(f">{rank}I", *sizes)

    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for prefix, n in (("train", 7), ("t10k", 3)):
        pixels = header(3, n, 4, 5) + IMAGES[:n].tobytes()
        labels = header(1, n) + LABELS[:n].astype(np.uint8).tobytes()
        for kind, content in (("images-idx3", pixels), ("labels-idx1", labels)):
            name = f"{prefix}-{kind}-ubyte"
            files[name] = folder / (name + ".gz" * compressed)
            files[name].write_bytes(gzip.compress(content) if compressed else content)
    return files


def write_prepared(folder, name, splits, version="1.0.0", shape=None, **info):
    """Writes a dataset of (images, labels) as TFDS does, without TensorFlow: name/version."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from PIL import Image

    place = folder / name / version
    place.mkdir(parents=True)
    size = next(iter(splits.values()))[0].shape[1:]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape or (*size, 1)[:3]),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
        }
    )
    features.save_config(place)
    for split, (x, y) in splits.items():
        path = place / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for image, label in zip(x, y, strict=True):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            png.seek(0)
            example = features.encode_example({"image": png, "label": int(label)})
            writer.write(features.serialize_example(example))
        writer.close()
    (place / "dataset_info.json").write_text(json.dumps(_describe(name, version, splits) | info))
    return place


def _describe(name, version, splits):
    """The content of dataset_info.json."""
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    return {
        "name": name,
        "version": version,
        "fileFormat": "array_record",
        "splits": [
            {"name": split, "filepathTemplate": template, "shardLengths": [str(len(y))]}
            for split, (_, y) in splits.items()
        ],
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
    }
