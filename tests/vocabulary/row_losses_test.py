import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from softmax_jax.vocabulary.exact import Options, cut, row_losses


def test_every_row_has_its_own_gradient():
    """Against finite differences of a combination of the rows with weights of both signs."""
    rng = np.random.default_rng(0)
    weights, labels = jnp.asarray(rng.normal(size=5)), jnp.asarray(rng.integers(0, 11, 5))
    options = Options(cut(5, 11, 2, 4), 11, label_smoothing=0.2, z_loss=0.1, softcap=3.0)

    def combination(x, W, bias):
        return weights @ row_losses(options, x, W, bias, labels)

    with jax.enable_x64(True):
        shapes = (5, 3), (3, 11), (11,)
        arguments = tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)
        check_grads(jax.jit(combination), arguments, order=1, modes=["rev"], eps=1e-5)
        assert np.isfinite(combination(*arguments))
