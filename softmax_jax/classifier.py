"""A trained model put to work: weights, and what they need to know about their input."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from softmax_jax import intervals, losses, models

_BLOCK = 1000  # examples at a time: memory does not grow with N


class Classifier(NamedTuple):
    """W [D, C], b [C], mean, scale and the names of the classes.

    logits = ((x - mean) / scale) @ W + b, for x [N, ...] flattened to [N, D]; mean and scale are
    scalars or [D].
    """

    W: np.ndarray
    b: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    label_names: tuple

    def logits(self, x):
        """Logits [N, C] of raw inputs x [N, ...], pixels or features as the data has them."""
        self._check(x)
        return np.asarray(_logits(self._replace(label_names=()), x))

    def predict_proba(self, x):
        """Probabilities [N, C]."""
        self._check(x)
        return np.asarray(losses.softmax(_logits(self._replace(label_names=()), x)))

    def predict(self, x):
        """The most probable class, int32 [N]; `label_names[class]` is its name."""
        return self.logits(x).argmax(-1).astype(np.int32)

    def test(self, dataset) -> dict:
        """Loss and accuracy on a dataset, each with a 95 % interval (normal; Wilson)."""
        self._check(dataset.x)
        parts = [
            jax.device_get(_measured(self._replace(label_names=()), part.dataset.x, part.dataset.y))
            for part in dataset.in_order()
        ]
        loss, hit = (np.concatenate(values) for values in zip(*parts, strict=True))
        loss, correct, n = loss.astype(np.float64), int(hit.sum()), len(hit)
        spread = loss.std(ddof=1) if n > 1 else 0.0
        return {
            "loss": float(loss.mean()),
            "accuracy": correct / n,
            "loss_interval": intervals.normal(loss.mean(), spread, n),
            "accuracy_interval": intervals.wilson(correct, n),
        }

    def _check(self, x):
        num_features = int(np.prod(x.shape[1:]))
        if num_features != len(self.W):
            raise ValueError(
                f"The model was trained on {len(self.W)} features an example; "
                f"the input of shape {tuple(x.shape)} has {num_features}."
            )


@jax.jit
def _logits(classifier, x):
    return jax.lax.map(functools.partial(_of_one, classifier), x, batch_size=min(_BLOCK, len(x)))


@jax.jit
def _measured(classifier, x, y):
    """The loss and whether it is right, of each example: nothing [N, C] is made."""

    def one(example):
        logits = _of_one(classifier, example[0])
        return losses.cross_entropy(logits, example[1]), logits.argmax() == example[1]

    return jax.lax.map(one, (x, y), batch_size=min(_BLOCK, len(x)))


def _of_one(classifier, example):
    features = example.reshape(-1).astype(classifier.W.dtype)
    features = (features - classifier.mean) / classifier.scale
    return models.product(features[None], classifier.W)[0] + classifier.b
