"""How far a trained model is from the language that its data were made of: exactly."""

import numpy as np

from softmax_jax import vocabulary
from softmax_jax.data import bigram


def distance(splits, classifier) -> dict | None:
    """{'kl', 'entropy'} in nats a word, averaged over the contexts; None for other data.

    The mean cross-entropy on endless new text would be their sum.
    """
    if splits.name.partition(":")[0] != bigram.NAME:
        return None
    true = bigram.language(splits.name)
    x = ((true.features - classifier.mean) / classifier.scale).astype(np.float32)
    each = vocabulary.kl_divergence(
        vocabulary.Layer(true.features, true.W, true.bias),
        vocabulary.Layer(x, classifier.W, classifier.b),
    )
    return {"kl": float(true.frequencies @ np.asarray(each)), "entropy": true.entropy()}
