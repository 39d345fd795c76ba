"""Softmax over very large vocabularies: losses of a linear layer without its [N, V] logits. Pure.

loss, gradients = jax.value_and_grad(linear_cross_entropy, (0, 1))(x, W, labels)
"""

from softmax_jax.checks import check_labels
from softmax_jax.vocabulary.exact import (
    linear_cross_entropy,
    log_prob,
    log_prob_and_rank,
    over_vocabulary,
    sharded_linear_cross_entropy,
    top_k,
)
from softmax_jax.vocabulary.sampled import (
    EXACT,
    OBJECTIVES,
    Proposal,
    criterion,
    log_uniform,
    negative_sampling,
    noise_contrastive,
    objective,
    sampled_softmax,
    uniform,
)

__all__ = [
    "EXACT",
    "OBJECTIVES",
    "Proposal",
    "check_labels",
    "criterion",
    "linear_cross_entropy",
    "log_prob",
    "log_prob_and_rank",
    "log_uniform",
    "negative_sampling",
    "noise_contrastive",
    "objective",
    "over_vocabulary",
    "sampled_softmax",
    "sharded_linear_cross_entropy",
    "top_k",
    "uniform",
]
