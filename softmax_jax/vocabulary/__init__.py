"""Softmax over very large vocabularies: a linear layer's losses without its [N, V] logits. Pure.

loss, gradients = jax.value_and_grad(linear_cross_entropy, (0, 1))(x, W, labels)
"""

from softmax_jax.vocabulary.checks import check_labels
from softmax_jax.vocabulary.cross_entropy import linear_cross_entropy
from softmax_jax.vocabulary.divergence import Layer, kl_divergence
from softmax_jax.vocabulary.inference import log_prob, log_prob_and_rank, top_k
from softmax_jax.vocabulary.objectives import EXACT, OBJECTIVES, objective
from softmax_jax.vocabulary.proposals import Proposal, log_uniform, uniform
from softmax_jax.vocabulary.sampled import negative_sampling, noise_contrastive, sampled_softmax
from softmax_jax.vocabulary.sharding import over_vocabulary, sharded_linear_cross_entropy

__all__ = [
    "EXACT",
    "OBJECTIVES",
    "Layer",
    "Proposal",
    "check_labels",
    "kl_divergence",
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
