"""The distance to a made language: zero for the language itself, and exact for any other model."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from softmax_jax import data
from softmax_jax.classifier import Classifier
from softmax_jax.data import bigram

NAME = "bigram:60"


@pytest.fixture(scope="module")
def splits():
    return data.load(NAME, val="test")


def classifier(W, b):
    return Classifier(W.astype(np.float32), b.astype(np.float32), 0.0, 1.0, ())


def test_the_language_itself_is_at_no_distance(splits):
    true = bigram.language(NAME)
    found = bigram.distance(splits, classifier(true.W, true.bias))
    assert found["kl"] == pytest.approx(0, abs=1e-5)


def test_another_model_is_as_far_as_the_definition_says(splits):
    true, rng = bigram.language(NAME), np.random.default_rng(0)
    W, b = rng.normal(size=true.W.shape), rng.normal(size=60)
    found = bigram.distance(splits, classifier(W, b))
    p = softmax(true.features @ true.W.astype(float) + true.bias, axis=1)
    log_q = log_softmax(true.features @ W + b, axis=1)
    expected = true.frequencies @ (p * (np.log(p) - log_q)).sum(1)
    assert found["kl"] == pytest.approx(expected, rel=1e-4)
    cross_entropy = -(true.frequencies @ (p * log_q).sum(1))
    assert found["kl"] + found["entropy"] == pytest.approx(cross_entropy, rel=1e-4)


def test_other_data_have_no_language():
    splits = data.load("iris")
    assert bigram.distance(splits, None) is None
