"""The contenders in PyTorch, and scikit-learn. No command of its own.

All of them report loss and accuracy of every training epoch (running) and of the validation data
after it. Tensors are float32, already divided, in memory, except where a DataLoader is said.
"""

import functools
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from softmax_jax import data

_EVALUATION_BLOCK = 1000
_INIT_SCALE = 0.01


def describe():
    """The threads that PyTorch takes by default."""
    return {"torch_threads": torch.get_num_threads()}


def autograd(dataset, num_epochs, batch_size, learning_rate):
    """The idiomatic loop over batches of row numbers: a layer, autograd, an optimiser."""
    (x, y), val, num_classes = _tensors(dataset)
    torch.manual_seed(0)
    model = _layer(x.shape[1], num_classes)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    for _ in range(num_epochs):
        batches = ((x[rows], y[rows]) for rows in torch.randperm(len(y)).split(batch_size))
        _train_epoch(model, optimizer, batches)
        blocks = zip(val[0].split(_EVALUATION_BLOCK), val[1].split(_EVALUATION_BLOCK), strict=True)
        loss, accuracy = _evaluate(model, blocks)
    return {"loss": loss, "accuracy": accuracy}


def data_loader(dataset, num_epochs, batch_size, learning_rate, num_workers):
    """The textbook's way: a Dataset that converts an image at a time, and a DataLoader."""
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than CPUs
    splits = _splits(dataset)
    torch.manual_seed(0)
    train, val = (
        DataLoader(_Images(part), batch_size, shuffle=shuffle, num_workers=num_workers)
        for part, shuffle in ((splits.train, True), (splits.val, False))
    )
    model = torch.nn.Sequential(
        torch.nn.Flatten(), _layer(splits.train.num_features, splits.train.num_classes)
    )
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    for _ in range(num_epochs):
        _train_epoch(model, optimizer, train)
        loss, accuracy = _evaluate(model, val)
    return {"loss": loss, "accuracy": accuracy}


@torch.inference_mode()
def by_hand(dataset, num_epochs, batch_size, learning_rate):
    """The gradient in closed form, P - Y, with weights [C, D] and scores [C, B].

    Classes first, as this project lays them: 15 % faster here too. What the metrics need is kept
    until the end of the epoch, where it takes four calls.
    """
    (x, y), val, num_classes = _tensors(dataset)
    torch.manual_seed(0)
    W, b = _INIT_SCALE * torch.randn(num_classes, x.shape[1]), torch.zeros(num_classes)
    probabilities = torch.empty(num_classes, len(y))
    for _ in range(num_epochs):
        order = torch.randperm(len(y))
        labels = y[order]
        targets = F.one_hot(labels, num_classes).float().T.contiguous()
        for rows, target, probability in zip(
            order.split(batch_size),
            targets.split(batch_size, 1),
            probabilities.split(batch_size, 1),
            strict=True,
        ):
            batch = x.index_select(0, rows)
            torch.softmax(torch.addmm(b[:, None], W, batch.T), 0, out=probability)
            error = probability - target
            rate = learning_rate / len(rows)
            W.addmm_(error, batch, alpha=-rate)
            b.sub_(error.sum(1), alpha=rate)
        _finite(-probabilities.gather(0, labels[None]).log().mean())
        _finite((probabilities.argmax(0) == labels).float().mean())
        loss, accuracy = _evaluate_stacked(W, b, val, 1)
    return {"loss": float(loss[-1]), "accuracy": float(accuracy[-1])}


@torch.inference_mode()
def stacked(dataset, num_epochs, batch_size, learning_rates):
    """Trials stacked by hand: one product [T·C, D] × [D, B] a step, one [T·C, B] × [B, D] back."""
    (x, y), val, num_classes = _tensors(dataset)
    torch.manual_seed(0)
    num_trials, rates = len(learning_rates), torch.tensor(learning_rates)[:, None, None]
    W = (_INIT_SCALE * torch.randn(num_classes, x.shape[1])).repeat(num_trials, 1)
    b = torch.zeros(len(W))
    one_hot = F.one_hot(y, num_classes).float()
    for _ in range(num_epochs):
        loss, correct = torch.zeros(num_trials), torch.zeros(num_trials)
        for rows in torch.randperm(len(y)).split(batch_size):
            batch, label = x.index_select(0, rows), y[rows]
            scores = torch.addmm(b[:, None], W, batch.T).view(num_trials, num_classes, -1)
            error = torch.softmax(scores, 1)
            picked = _of_label(error, label)
            loss.sub_(picked.log().sum(1))
            correct.add_((picked == error.amax(1)).sum(1))
            error.sub_(one_hot.index_select(0, rows).T).mul_(rates)
            error = error.view(len(W), -1)
            W.addmm_(error, batch, alpha=-1 / len(rows))
            b.sub_(error.sum(1), alpha=1 / len(rows))
        _finite((loss + correct).sum())
        loss, accuracy = _evaluate_stacked(W, b, val, num_trials)
    return {"loss": float(loss[-1]), "accuracy": float(accuracy[-1])}


@torch.inference_mode()
def products(dataset, num_epochs, batch_size, num_trials):
    """The matrix products of `stacked` and nothing else."""
    (x, y), (val_x, val_y), num_classes = _tensors(dataset)
    num_features = x.shape[1]
    W = torch.full((num_trials * num_classes, num_features), 0.01)
    batch = torch.full((batch_size, num_features), (batch_size * num_features) ** -0.5)
    block = torch.full((min(_EVALUATION_BLOCK, len(val_y)), num_features), 0.01)
    scores, evaluation = torch.empty(len(W), batch_size), torch.empty(len(W), len(block))
    for _ in range(num_epochs):
        for _ in range(-(-len(y) // batch_size)):
            torch.mm(W, batch.T, out=scores)
            torch.mm(scores, batch, out=W)
        for _ in range(-(-len(val_x) // len(block))):
            torch.mm(W, block.T, out=evaluation)
    return {"sum": float(W.sum())}


def logistic_regression(dataset, l2):
    """scikit-learn's `LogisticRegression` (lbfgs, 100 iterations) for one l2."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (val_x, val_y), _ = _tensors(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=1 / (l2 * len(y)), max_iter=100).fit(x.numpy(), y.numpy())
    return {"accuracy": float(model.score(val_x.numpy(), val_y.numpy()))}


class _Images(Dataset):
    """An image at a time, by the steps of torchvision's FashionMNIST and ToTensor.

    Tensor, Pillow image, array, [1, H, W], float32, division. (The textbook's Resize finds the
    size right and does nothing.)
    """

    def __init__(self, part):
        self.x, self.y = torch.from_numpy(np.array(part.x)), torch.from_numpy(np.array(part.y))
        self.scale = part.scale

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        image = Image.fromarray(self.x[i].numpy())
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True))[..., None]
        pixels = pixels.permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(self.scale), int(self.y[i])


def _layer(num_features, num_classes):
    layer = torch.nn.Linear(num_features, num_classes)
    torch.nn.init.normal_(layer.weight, std=_INIT_SCALE)
    torch.nn.init.zeros_(layer.bias)
    return layer


def _train_epoch(model, optimizer, batches):
    loss_sum, correct, count = torch.zeros(()), torch.zeros(()), 0
    for x, y in batches:
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(y)
        correct += (logits.detach().argmax(1) == y).sum()
        count += len(y)
    return _finite(loss_sum / count), _finite(correct / count)


@torch.no_grad()
def _evaluate(model, batches):
    loss_sum, correct, count = torch.zeros(()), torch.zeros(()), 0
    for x, y in batches:
        logits = model(x)
        loss_sum += F.cross_entropy(logits, y, reduction="sum")
        correct += (logits.argmax(1) == y).sum()
        count += len(y)
    return float(loss_sum / count), float(correct / count)


def _evaluate_stacked(W, b, val, num_trials):
    loss, correct = torch.zeros(num_trials), torch.zeros(num_trials)
    for x, y in zip(*(tensor.split(_EVALUATION_BLOCK) for tensor in val), strict=True):
        scores = torch.addmm(b[:, None], W, x.T).view(num_trials, -1, len(y))
        picked = _of_label(scores, y)
        loss.add_((scores.logsumexp(1) - picked).sum(1))
        correct.add_((picked == scores.amax(1)).sum(1))
    return loss / len(val[1]), correct / len(val[1])


def _of_label(scores, labels):
    """scores [T, C, B], labels [B] -> [T, B]."""
    return scores.gather(1, labels.expand(len(scores), 1, -1)).squeeze(1)


def _finite(value):
    value = float(value)
    assert abs(value) < float("inf")
    return value


@functools.cache
def _splits(dataset):
    return data.load(dataset)


@functools.cache
def _tensors(dataset):
    splits = _splits(dataset)
    parts = [
        (
            torch.from_numpy(np.array(part.x)).float().flatten(1).div(part.scale),
            torch.from_numpy(np.array(part.y)).long(),
        )
        for part in (splits.train, splits.val)
    ]
    return *parts, splits.train.num_classes
