import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from softmax_jax.vocabulary import Layer, kl_divergence


def layer(seed, num_features, num_rows=7, num_words=23):
    rng = np.random.default_rng(seed)
    shapes = (num_rows, num_features), (num_features, num_words), (num_words,)
    return Layer(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def probabilities(layer):
    return special.softmax(layer.x.astype(float) @ layer.W + layer.bias, axis=1)


@pytest.mark.parametrize("row_block", [None, 1, 3, 100])
def test_is_the_sum_of_p_log_p_over_q(row_block):
    true, model = layer(0, 3), layer(1, 5)
    expected = special.rel_entr(probabilities(true), probabilities(model)).sum(1)
    assert_allclose(kl_divergence(true, model, row_block=row_block), expected, rtol=1e-5)


def test_is_zero_of_a_layer_to_itself_up_to_a_constant():
    true = layer(0, 3)
    assert_allclose(kl_divergence(true, true._replace(bias=true.bias + 5)), 0, atol=1e-6)


def test_holds_blocks_of_the_logits():
    x, W = jax.ShapeDtypeStruct((1000, 32), "f4"), jax.ShapeDtypeStruct((32, 100_000), "f4")
    bias = jax.ShapeDtypeStruct((100_000,), "f4")
    compiled = jax.jit(kl_divergence).lower(Layer(x, W, bias), Layer(x, W, bias)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1000 * 100_000 * 4 / 5


@pytest.mark.parametrize(
    "model", [layer(1, 3, num_words=22), layer(1, 3, num_rows=8), layer(1, 3)._replace(bias=2.0)]
)
def test_layers_that_do_not_fit_are_refused(model):
    with pytest.raises(ValueError, match="must"):
        kl_divergence(layer(0, 3), model)
    assert jnp.isfinite(kl_divergence(layer(0, 3), layer(1, 3))).all()
