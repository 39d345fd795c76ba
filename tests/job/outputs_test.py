"""What is written can be read back and is what was computed."""

import numpy as np

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
