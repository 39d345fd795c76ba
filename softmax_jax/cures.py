"""The cures of overfitting that act within a step: label smoothing, averaging, stopping. Pure."""

import jax
import jax.numpy as jnp


def smoothed(loss, amount):
    """The cross-entropy `loss`, with labels that are smoothed by s, a number from 0 to below 1.

    A label becomes the distribution of 1 - s on itself and s/C on each class; with logits o the
    loss becomes (1 - s) · loss(label) + s/C · Σ loss(class) = loss(label) + s · (o[label] - mean o)
    for integer labels. Source: Szegedy et al., *Rethinking the Inception Architecture* (2016),
    section 7.

    >>> from softmax_jax.losses import cross_entropy
    >>> (loss,) = smoothed(cross_entropy, 0.5)(jnp.array([[2.0, 0.0]]), jnp.array([0]))
    >>> print(f"{loss:.4f}")
    0.6269
    """

    def smoothed_loss(logits, labels, axis=-1):
        classes = jax.lax.broadcasted_iota(labels.dtype, logits.shape, axis % logits.ndim)
        own = jnp.where(classes == jnp.expand_dims(labels, axis), logits, 0).sum(axis)
        return loss(logits, labels, axis) + amount * (own - logits.mean(axis))

    return smoothed_loss


def tail_mean(mean, params, step, num_steps, share):
    """The mean of the parameters after each of the last `share` of all steps, one step further.

    mean: that of the step before; params: those after `step` of the `num_steps` steps. As long as
    the last `share` has not begun, the mean is the parameters as they are. Source: Polyak and
    Juditsky (1992) for share 1; Rakhlin, Shamir and Sridharan (2012) for less, which forgets the
    way from the initial weights.

    >>> means = [tail_mean(10.0, 3.0, step, 4, 0.5) for step in (2, 3, 4)]
    >>> [float(mean) for mean in means]  # before the last half, its first step, its second
    [3.0, 3.0, 6.5]
    """
    count = step - jnp.round((1 - share) * num_steps)
    weight = 1 / jnp.maximum(count, 1)
    return jax.tree.map(lambda old, new: (1 - weight) * old + weight * new, mean, params)


def held(stopped, old, new):
    """Where `stopped`, everything as it was."""
    return jax.tree.map(lambda before, after: jnp.where(stopped, before, after), old, new)
