"""Random problems for the tests of the optimum."""

import numpy as np

from softmax_jax.optimum import Problem


def random_problem(seed=0, num_examples=40, num_features=3, num_classes=3, weighted=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_examples, num_features)) * rng.uniform(0.1, 10) + rng.normal()
    scores = x @ rng.normal(size=(num_features, num_classes)) * rng.uniform(0.1, 3)
    y = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    y[:num_classes] = np.arange(num_classes)
    weights = rng.uniform(0.1, 3, num_examples) if weighted else np.ones(num_examples)
    counts = rng.multinomial(num_examples, np.full(num_examples, 1 / num_examples), 2).T
    counts[:, 0] = 1
    return Problem(x, y, weights, counts.astype(np.uint8), num_classes)
