"""A span of iterations, and the certificate at its end: one trial, then `jax.vmap`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmax_jax.optimum import certificate, lbfgs, preconditioner
from softmax_jax.optimum.problem import Prepared, product


class State(NamedTuple):
    """Trials on their way; every leaf has the trials [T] first.

    params [T, C, D + 1]: the weights, and the bias in the last column, of the centred features ·
    gradient: the same shape · memory: of L-BFGS · l2 [T] · column [T]: of the resamples ·
    reference [T]: the gradient's norm at zero weights · objective, loss, gradient_norm, gap_bound
    [T]: figures, as in `Optimum` · iterations [T] · converged, separable, stalled [T]: why a trial
    stands still, if it does.
    """

    params: jax.Array
    gradient: jax.Array
    memory: lbfgs.Memory
    l2: jax.Array
    column: jax.Array
    reference: jax.Array
    objective: jax.Array
    loss: jax.Array
    gradient_norm: jax.Array
    gap_bound: jax.Array
    iterations: jax.Array
    converged: jax.Array
    separable: jax.Array
    stalled: jax.Array

    @property
    def done(self):
        """Whether more iterations would change nothing: [T]."""
        return self.converged | self.separable | self.stalled


@jax.jit
def start(prepared: Prepared, l2, columns, params=None) -> State:
    """Trials at their first point, for l2 [T] and columns [T] of the resamples.

    params [T, C, D + 1] in centred coordinates; None: zero weights and the bias that is best there.
    Without a bias the last column must be zero, and stays so.
    """
    return jax.vmap(_start, in_axes=(None, 0, 0, 0))(prepared, l2, columns, params)


@functools.partial(jax.jit, donate_argnames="state")
def advance(prepared: Prepared, state: State, rows, tolerance, max_iterations, span) -> State:
    """At most `span` iterations of the trials in `rows` [K], then their certificates.

    A span ends early once every trial has reason to believe that it is done. Costs two matrix
    products [K·C, D] × [D, N] an iteration and two a span.
    """
    part = jax.tree.map(lambda leaf: leaf[rows], state)
    span = functools.partial(_span, prepared, tolerance, max_iterations, span)
    part = jax.vmap(span)(part)
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), state, part)


def shares_of(prepared, column):
    """The weights [N] of the examples for a column of the resamples, of sum 1."""
    weights = prepared.weights
    if prepared.resamples is not None:
        weights = weights * prepared.resamples[:, column]
    return weights / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)


def _start(prepared, l2, column, params):
    shares, y = shares_of(prepared, column), prepared.y
    num_classes, dtype = len(prepared.priors), shares.dtype
    labels = jax.nn.one_hot(y, num_classes, axis=0, dtype=dtype)
    priors = jnp.where(prepared.fit_bias, (labels * shares).sum(1), 1 / num_classes)
    # A class that no example has would want a bias of -inf; log 1e-35 leaves it out just as well.
    bias = jnp.where(prepared.fit_bias, jnp.log(jnp.maximum(priors, 1e-35)), 0)
    zero = jnp.zeros((num_classes, len(prepared.features)), dtype).at[:, -1].set(bias)
    at_zero = product((priors[:, None] - labels) * shares, prepared.features.T)
    false, figure = jnp.zeros((), bool), jnp.zeros((), dtype)
    state = State(
        params=zero if params is None else params.astype(dtype),
        gradient=at_zero,
        memory=lbfgs.empty_memory(zero),
        l2=l2.astype(dtype),
        column=column,
        reference=jnp.linalg.norm(at_zero[:, :-1]),
        **dict.fromkeys(("objective", "loss", "gradient_norm", "gap_bound"), figure),
        iterations=jnp.zeros((), jnp.int32),
        **dict.fromkeys(("converged", "separable", "stalled"), false),
    )
    logits = product(state.params, prepared.features)
    return certificate.certify(prepared, state, logits, shares, -1.0)


def _span(prepared, tolerance, max_iterations, span, trial):
    shares = shares_of(prepared, trial.column)
    logits = product(trial.params, prepared.features)
    loss = certificate.each_loss(logits, prepared.y)
    curvature = preconditioner.estimate(prepared, shares, logits)
    limit = jnp.minimum(max_iterations, trial.iterations + span)

    def running(carry):
        trial, _, _, hopeful = carry
        return ~hopeful & ~trial.done & (trial.iterations < limit)

    def step(carry):
        trial, logits, loss, _ = carry
        trial, logits, loss = _step(prepared, shares, curvature, trial, logits, loss)
        return trial, logits, loss, certificate.hopeful(trial, loss, shares, tolerance)

    new, logits, _, _ = lax.while_loop(running, step, (trial, logits, loss, jnp.bool_(False)))
    new = certificate.certify(prepared, new, logits, shares, tolerance)
    return choose(trial.done, trial, new)


def _step(prepared, shares, curvature, trial, logits, loss):
    """One iteration: (trial, logits, loss) -> the same, one step further or stalled."""
    precondition = functools.partial(
        preconditioner.precondition,
        curvature=curvature,
        l2=trial.l2,
        directions=prepared.directions,
    )
    d = lbfgs.direction(trial.gradient, trial.memory, precondition)
    # Rounding may leave a direction that does not descend; the preconditioned gradient does.
    d = jnp.where(jnp.vdot(d, trial.gradient) < 0, d, -precondition(trial.gradient))
    slope = jnp.vdot(d, trial.gradient)
    along = product(d, prepared.features)
    weights, change = trial.params[:, :-1], d[:, :-1]
    penalty = trial.l2 * jnp.vdot(weights, change), trial.l2 * jnp.vdot(change, change)
    point = lbfgs.line_search(logits, along, prepared.y, shares, loss, slope, penalty)
    t = jnp.where(point.good, point.t, 0)
    logits = logits + t * along
    at_point = trial.params + t * d, point.loss, logits, point.probabilities
    new = certificate.measure(prepared, shares, trial, *at_point)
    memory = lbfgs.remember(trial.memory, t * d, new.gradient - trial.gradient)
    # Without a good step, once more without the memory; if that was empty, rounding has the word.
    no_memory = jax.tree.map(jnp.zeros_like, trial.memory)
    failed = trial._replace(memory=no_memory, stalled=~trial.memory.rho.any())
    new = choose(point.good, new._replace(memory=memory), failed)
    new = new._replace(iterations=trial.iterations + 1)
    return new, logits, jnp.where(point.good, point.loss, loss)


def choose(condition, a, b):
    """a where the condition holds, b elsewhere, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), a, b)
