import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from softmax_jax.vocabulary.exact import Options, cut, statistics

pytestmark = pytest.mark.numerical


def test_four_numbers_per_row_as_numpy_has_them():
    rng = np.random.default_rng(0)
    x, W, bias = rng.normal(size=(7, 4)), rng.normal(size=(4, 19)), rng.normal(size=19)
    labels = rng.integers(0, 19, 7)
    options = Options(cut(7, 19, 3, 5), 19, label_smoothing=0.1, softcap=2.0)
    arrays = (jnp.asarray(leaf, jnp.float32) for leaf in (x, W, bias))
    found = statistics(options, *arrays, jnp.asarray(labels))
    logits = 2 * np.tanh((x @ W + bias) / 2)
    assert_allclose(found.largest, logits.max(1), rtol=1e-5)
    log_sum = found.largest + np.log(found.exponentials)
    assert_allclose(log_sum, special.logsumexp(logits, 1), rtol=1e-5)
    assert_allclose(found.picked, logits[np.arange(7), labels], rtol=1e-4, atol=1e-5)
    assert_allclose(found.total, logits.sum(1), rtol=1e-4, atol=1e-5)
