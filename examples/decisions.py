"""The exercise: is the most probable class always the right answer? Other answers, on real images.

    python -m examples.decisions

From the root of the repository; takes about 10 s on 2 CPU cores, with Fashion-MNIST prepared. A
model is trained on 50,000 images. A temperature is fitted on 5,000 others; thresholds and sets are
chosen on these, or on the first half of the test images, and what they promise is measured on the
second half. Prints tables.
"""

import itertools

import jax.numpy as jnp
import numpy as np

from examples import output
from softmax_jax import calibration, conformal, data, decisions, losses, metrics, sweep

REJECTING = (0.1, 0.2, 0.3)  # the price of handing an example on, a mistake costing 1
CLASS, SENSITIVITIES = "shirt", (0.8, 0.9, 0.95)
ALPHAS = (0.2, 0.1, 0.05, 0.01)


def trained(splits, num_epochs=10):
    """A model trained as `configs/default.py` does: logits [N, C] of val and test."""
    settings = sweep.grid(learning_rate=0.1)
    result = sweep.fit(splits.train, splits.val, settings, num_epochs=num_epochs, batch_size=256)
    parts = splits.val, splits.test
    return [jnp.asarray(result.classifier(0).logits(part.x)) for part in parts]


def calibrations(logits, labels, T):
    """Rows of figures of the test logits, at temperature 1 and at T."""
    for name, temperature in (("T = 1", 1.0), (f"T = {T:.3f}, from validation", T)):
        p = losses.softmax(logits / temperature)
        figures = (
            losses.cross_entropy(logits / temperature, labels).mean(),
            calibration.brier_score(p, labels),
            calibration.expected_calibration_error(p, labels),
            calibration.classwise_calibration_error(p, labels),
        )
        yield [name, *(f"{figure:.4f}" for figure in figures)]


def rejections(p, labels):
    """Rows of Chow's rule: no choice on data, but a price."""
    for price in (1.0, *REJECTING):
        threshold = decisions.chow_threshold(wrong=1.0, reject=price)
        chosen = np.asarray(decisions.decide_or_reject(p, threshold))
        decided = chosen < p.shape[1]
        accuracy = (chosen == labels)[decided].mean()
        cost = np.where(decided, chosen != labels, price).mean()
        yield [f"{price:g}", f"{1 - decided.mean():.3f}", f"{accuracy:.3f}", f"{cost:.3f}"]


def thresholds(chosen_on, p, labels, positive):
    """Rows of the thresholds for a wanted sensitivity of one class."""
    members = np.asarray(labels == positive)
    for (name, example), wanted in itertools.product(chosen_on.items(), SENSITIVITIES):
        threshold = decisions.sensitivity_threshold(*example, positive, wanted)
        called = np.asarray(decisions.decide_by_threshold(p, positive, threshold)) == positive
        precision = f"{members[called].mean():.3f}"
        yield [name, f"{wanted:g}", f"{threshold:.3f}", _share(called[members]), precision]


def sets(chosen_on, p, labels):
    """Rows of conformal prediction: what the sets cover, and how large they are."""
    for (name, example), alpha in itertools.product(chosen_on.items(), ALPHAS):
        members = np.asarray(conformal.prediction_sets(p, conformal.threshold(*example, alpha)))
        covered, sizes = members[np.arange(len(labels)), labels], members.sum(1)
        figures = sizes.mean(), (sizes == 0).mean(), (sizes == 1).mean()
        yield [name, f"{1 - alpha:g}", _share(covered), *(f"{figure:.3f}" for figure in figures)]


def tables(splits, num_epochs=10) -> list[str]:
    """All the tables as Markdown, for splits train, val and test."""
    labels_val, labels = np.asarray(splits.val.y), np.asarray(splits.test.y)
    logits_val, logits = trained(splits, num_epochs)
    T = calibration.temperature(logits_val, labels_val).item()
    p_val, p = losses.softmax(logits_val / T), losses.softmax(logits / T)
    half, positive = len(labels) // 2, splits.label_names.index(CLASS)
    chosen_on = {"train images": (p_val, labels_val), "test images": (p[:half], labels[:half])}
    rest = p[half:], labels[half:]
    best = [
        [name, *(f"{metrics.top(k)(*example).mean():.3f}" for k in (1, 2, 3, 5))]
        for name, example in (
            ("held-out train images", (p_val, labels_val)),
            ("test images", (p, labels)),
        )
    ]
    found = f"sensitivity for {CLASS}"
    return [
        output.markdown(["among the k most probable", "k = 1", "2", "3", "5"], best),
        output.markdown(["", "loss", "Brier", "ECE", "classwise"], calibrations(logits, labels, T)),
        output.markdown(
            ["price of rejecting", "rejected", "accuracy of the rest", "cost"],
            rejections(p, labels),
        ),
        output.markdown(
            ["chosen on", "wanted", "threshold", found, "precision"],
            thresholds(chosen_on, *rest, positive),
        ),
        output.markdown(
            ["chosen on", "promised", "coverage", "mean size", "empty", "one class"],
            sets(chosen_on, *rest),
        ),
    ]


def main():
    """The tables, printed."""
    splits = data.load("fashion_mnist", "train[:50000]", "train[50000:55000]", "test")
    print("\n\n".join(tables(splits)))


def _share(found):
    low, high = metrics.wilson_interval(found.sum(), len(found))
    return f"{found.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
