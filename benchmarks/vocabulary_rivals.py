"""The contenders of vocabulary.py in PyTorch. No command of its own."""

import functools
import time

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import peak_memory

_BLOCK = 256


def describe():
    """The threads that PyTorch takes by default."""
    return {"torch_threads": torch.get_num_threads()}


def full(**arguments):
    """A linear layer, the cross-entropy of its output, autograd."""
    return _run(lambda x, W, labels, _: F.cross_entropy(F.linear(x, W), labels), **arguments)


def in_blocks(**arguments):
    """The same for 256 rows at a time, whose gradients are added up."""
    return _run(_in_blocks, **arguments)


def _in_blocks(x, W, labels, gradients):
    total = 0.0
    for rows, targets in zip(x.split(_BLOCK), labels.split(_BLOCK), strict=True):
        loss = F.cross_entropy(F.linear(rows, W), targets, reduction="sum") / len(x)
        if gradients:
            loss.backward()
        total = total + loss.detach()
    return total


def _run(loss, num_rows, num_words, num_features, gradients, peak=False):
    x, W, labels = _problem(num_rows, num_words, num_features)
    x.grad = W.grad = None
    held, start = peak_memory.start(), time.process_time()
    with torch.set_grad_enabled(gradients):
        value = loss(x, W, labels, gradients)
        if value.requires_grad:
            value.backward()
    figures = {"cpu": time.process_time() - start, "loss": float(value.detach())}
    return figures | {"peak": peak_memory.since(held)} if peak else figures


@functools.lru_cache(maxsize=1)
def _problem(num_rows, num_words, num_features):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_rows, num_features), np.float32)
    W = rng.standard_normal((num_features, num_words), np.float32) * 0.1
    labels = rng.integers(0, num_words, num_rows, np.int32)
    x, W = torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(W.T))
    return x.requires_grad_(), W.requires_grad_(), torch.from_numpy(labels).long()
