import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from softmax_jax import data, metrics
from softmax_jax.classifier import Classifier

C = 4
NAMES = ("ant", "bee", "cat", "dog")


def classifier(D=6, mean=0.0, scale=1.0):
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(D, C)).astype(np.float32), rng.normal(size=C).astype(np.float32)
    return Classifier(W, b, np.asarray(mean, np.float32), np.asarray(scale, np.float32), NAMES)


def features(N, D=6):
    return np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)


def in_numpy(model, x):
    return ((x.reshape(len(x), -1) - model.mean.astype(float)) / model.scale) @ model.W + model.b


@pytest.mark.parametrize("N", [1, 7, 1000, 1001, 2345])
def test_logits_are_those_of_numpy(N):
    """For any number of examples: fewer than a block of a thousand, one more, several blocks."""
    model, x = classifier(mean=0.5, scale=2.0), features(N)
    assert model.logits(x).shape == (N, C)
    assert_allclose(model.logits(x), in_numpy(model, x), rtol=1e-5, atol=1e-5)


def test_mean_and_scale_may_differ_by_feature():
    rng = np.random.default_rng(2)
    model, x = classifier(mean=rng.normal(size=6), scale=rng.uniform(1, 3, 6)), features(7)
    assert_allclose(model.logits(x), in_numpy(model, x), rtol=1e-5, atol=1e-5)


def test_images_of_bytes_are_flattened():
    pixels = np.random.default_rng(2).integers(256, size=(7, 2, 3)).astype(np.uint8)
    model = classifier(mean=np.arange(6), scale=255.0)
    assert_allclose(model.logits(pixels), in_numpy(model, pixels), rtol=1e-5, atol=1e-5)


def test_probabilities_are_the_softmax_of_the_logits():
    model, x = classifier(), features(7)
    assert_allclose(model.predict_proba(x), softmax(in_numpy(model, x), -1), rtol=1e-4)
    assert_allclose(model.predict_proba(x).sum(-1), np.ones(7), rtol=1e-6)


def test_prediction_is_the_class_of_the_largest_logit():
    model, x = classifier(), features(100)
    assert model.predict(x).dtype == np.int32
    assert_array_equal(model.predict(x), in_numpy(model, x).argmax(-1))


@pytest.mark.parametrize("deed", ["logits", "predict", "predict_proba"])
def test_a_wrong_number_of_features_is_a_clear_error(deed):
    with pytest.raises(ValueError, match=r"6 features.*\(7, 2, 4\) has 8"):
        getattr(classifier(), deed)(features(7, D=8).reshape(7, 2, 4))


def test_test_figures_are_those_of_scikit_learn():
    model, x = classifier(), features(300)
    y = np.random.default_rng(3).integers(C, size=300)
    dataset = data.from_arrays((features(9), np.arange(9) % C), (x, y), label_names=NAMES).val
    figures, logits = model.test(dataset), in_numpy(model, x)
    expected = log_loss(y, softmax(logits, -1), labels=range(C))
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)
    assert figures["accuracy"] == accuracy_score(y, logits.argmax(-1))
    right = (logits.argmax(-1) == y).sum()
    assert figures["accuracy_interval"] == metrics.wilson_interval(right, 300)
    lo, hi = figures["loss_interval"]
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(300), y]
    assert (lo + hi) / 2 == pytest.approx(expected, rel=1e-5)
    assert hi - lo == pytest.approx(2 * 1.959964 * each.std(ddof=1) / np.sqrt(300), rel=1e-4)
