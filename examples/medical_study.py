"""Breast cancer: the optimal classifiers of many splits, and three rules that decide by them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softmax_jax import calibration, data, decisions, losses, metrics
from softmax_jax.optimum import Problem, minimise
from softmax_jax.sweep import fold_counts

MALIGNANT, BENIGN = 0, 1
COST = np.array([[0.0, 10.0], [1.0, 0.0]])  # a missed malignant tumour, a false alarm
FOLDS = 5


class Study(NamedTuple):
    """Of one penalty: N examples with labels [N], R splits.

    held_out [R, N] · logits [R, N, C] of all examples by the split's model · T [R]: the
    temperature for it, fitted to what the other splits of the same repeat predict of the examples
    that they held out. (They were trained on those of this split, of which one number can hardly
    make use.)
    """

    labels: np.ndarray
    held_out: np.ndarray
    logits: np.ndarray
    T: np.ndarray

    def probabilities(self, tempered=False):
        """[R, N, C]."""
        T = self.T[:, None, None] if tempered else 1
        return np.asarray(losses.softmax(jnp.asarray(self.logits / T)))

    def actions(self) -> dict:
        """{rule: [R, N]}."""
        plain = self.probabilities()
        return {
            "argmax": plain.argmax(-1),
            "least cost": np.asarray(decisions.bayes_action(plain, COST)),
            "least cost, tempered": np.asarray(
                decisions.bayes_action(self.probabilities(tempered=True), COST)
            ),
        }

    def recalls(self, actions):
        """[R, C]: the sensitivity and the specificity of each split."""
        confusion = metrics.confusion_matrix(self.labels, actions, 2, weights=self.held_out)
        return metrics.per_class(confusion)["recall"]

    def costs(self, actions):
        """[N]: what each example costs, mean over the splits that held it out."""
        return (COST[self.labels, actions] * self.held_out).sum(0) / self.held_out.sum(0)


def tumours():
    """x float32 [N, D], standardised over all examples, and y [N].

    By all, because that uses no label, and changes nothing but what the penalty means.
    """
    splits = data.load("breast_cancer")
    x = np.concatenate([splits.train.x, splits.val.x])
    return (x - x.mean(0)) / x.std(0), np.concatenate([splits.train.y, splits.val.y])


def study(x, y, penalties, repeats) -> list[Study]:
    """One for each penalty, `repeats` times 5-fold; their splits are trials of one program."""
    counts = np.hstack([fold_counts(y, FOLDS, seed=seed) for seed in range(repeats)])
    columns = np.tile(np.arange(counts.shape[1]), len(penalties))
    l2 = np.repeat(penalties, counts.shape[1])
    optimum = minimise(Problem(x, y, resamples=counts), l2, columns=columns, tolerance=1e-5)
    logits = np.einsum("nd,tdc->tnc", x, optimum.W) + optimum.b[:, None]
    held_out = counts.T == 0
    return [
        Study(y, held_out, part, temperatures(part, y, held_out))
        for part in np.split(logits, len(penalties))
    ]


def temperatures(logits, labels, held_out):
    """T [R], see `Study`; the 5 splits of a repeat follow one another."""
    unseen = (logits * held_out[..., None]).reshape(-1, FOLDS, *logits.shape[1:]).sum(1)
    # Logits of zero are uniform at any temperature: these examples have no say.
    of_others = np.repeat(unseen, FOLDS, 0) * ~held_out[..., None]
    fit = jax.vmap(calibration.temperature, in_axes=(0, None))
    return np.asarray(fit(of_others.astype(np.float32), labels))
