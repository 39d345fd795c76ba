"""What is written can be read back and is what was computed."""

import json

import numpy as np

from softmax_jax import sweep
from softmax_jax.classifier import Classifier
from softmax_jax.job import outputs
from softmax_jax.job.workdir import Workdir


def test_params_make_the_same_classifier_again(result, splits, tmp_path):
    classifier = result.best().classifier
    outputs.write_params(Workdir(tmp_path), classifier)
    with np.load(tmp_path / "params.npz", allow_pickle=False) as params:
        names = tuple(params["label_names"].tolist())
        again = Classifier(params["W"], params["b"], params["mean"], params["scale"], names)
    x = splits.val.x
    np.testing.assert_array_equal(again.logits(x), classifier.logits(x))
    assert names == splits.label_names


def test_recorded_epochs_are_on_disk_before_they_are_passed_on(splits, tmp_path):
    workdir = Workdir(tmp_path)
    epochs = sweep.epochs(splits.train, splits.val, num_epochs=3, batch_size=256, seeds=(0, 1))
    for number, epoch in enumerate(outputs.recorded(epochs, workdir), 1):
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 2 * number
        last = json.loads(lines[-1])
        assert (last["trial"], last["epoch"]) == (1, number)
        assert np.float32(last["val_loss"]) == epoch.metrics["val_loss"][1]
