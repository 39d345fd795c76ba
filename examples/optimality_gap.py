"""The exercise: how close does SGD come to the optimum, and what do averaging and decay change?

    python -m examples.optimality_gap [--output=FOLDER]

From the root of the repository; takes about 20 s on 2 CPU cores. The 1,437 training digits with
l2 = 0.001, a strongly convex problem, whose optimum `softmax_jax.optimum` finds with a proof. SGD
with batches of 64 runs for 500 epochs at several learning rates: at a constant rate, with the
weights averaged over the last half or over all of training, and with the rate coming down along a
cosine; all of them, under three seeds, as one program. Prints how far the objective ends above its
minimum, as a share of the minimum; draws optimality_gap.png.
"""

import itertools
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import logsumexp

from examples import output
from softmax_jax import data, sweep
from softmax_jax.optimum import Problem, minimise

L2, BATCH_SIZE, NUM_EPOCHS, SEEDS = 1e-3, 64, 500, (0, 1, 2)
RATES = (0.1, 0.3, 1.0, 2.0, 5.0)
WAYS = {
    "constant": {},
    "average of the last half": {"averaging": 0.5},
    "average of all": {"averaging": 1.0},
    "cosine to 1 %": {"final_rate": 0.01},
}


class Gaps(NamedTuple):
    """(objective - minimum) / minimum: relative [E, ways, rates, seeds] after the epochs [E].

    bound: the minimum itself is known to within this share of it.
    """

    epochs: np.ndarray
    relative: np.ndarray
    bound: float


def measure(train, rates=RATES, num_epochs=NUM_EPOCHS, seeds=SEEDS) -> Gaps:
    """The gaps of every way, rate and seed on a dataset."""
    x = np.asarray(train.x, np.float64).reshape(len(train.y), -1) / train.scale
    optimum = minimise(Problem(x, train.y), [L2], tolerance=1e-6)
    pairs = list(itertools.product(WAYS.values(), rates))
    settings = sweep.zipped(
        l2=L2,
        learning_rate=[rate for _, rate in pairs],
        averaging=[way.get("averaging", 0.0) for way, _ in pairs],
        final_rate=[way.get("final_rate", 1.0) for way, _ in pairs],
    )
    options = {"num_epochs": num_epochs, "batch_size": BATCH_SIZE, "solver": sweep.SGD("cosine")}
    shown = set(np.geomspace(1, num_epochs, 40).astype(int).tolist())
    objectives = {
        epoch.epoch: _objectives(epoch, x, train.y)
        for epoch in sweep.epochs(train, None, settings, seeds=seeds, **options)
        if epoch.epoch in shown
    }
    minimum = float(optimum.objective[0])
    relative = np.stack(list(objectives.values())) / minimum - 1
    relative = relative.reshape(-1, len(seeds), len(WAYS), len(rates)).transpose(0, 2, 3, 1)
    return Gaps(np.array(list(objectives)), relative, float(optimum.gap_bound[0]) / minimum)


def _objectives(epoch, x, labels):
    """loss + l2/2 · ‖W‖² of every trial [S, K] on the whole data, in float64."""
    found = np.zeros(epoch.chunk.trials.shape)
    for place in np.ndindex(*found.shape):
        params = jax.tree.map(lambda leaf, at=place: np.asarray(leaf[at]), epoch.states.averaged)
        W, b = (np.asarray(part, np.float64) for part in epoch.run.model.weights(params))
        logits = x @ W + b
        loss = logsumexp(logits, -1) - logits[np.arange(len(labels)), labels]
        found[place] = loss.mean() + L2 / 2 * np.square(W).sum()
    return found


def table(gaps, rates=RATES) -> str:
    """The gaps at the end: a row per way, a column per rate, the largest of the seeds."""
    rows = [
        [way, *(f"{seeds.max():.1e}" for seeds in by_rate)]
        for way, by_rate in zip(WAYS, gaps.relative[-1], strict=True)
    ]
    return output.markdown(["learning rate", *(f"{rate:g}" for rate in rates)], rows)


def draw(gaps, rate, rates=RATES):
    """The gaps by epoch at one learning rate: the seeds' mean, and their range as a band."""
    figure = output.new_figure(figsize=(7, 4.4))
    axes = figure.subplots()
    for way, by_rate in zip(WAYS, gaps.relative.swapaxes(0, 1), strict=True):
        of_seeds = by_rate[:, rates.index(rate)]
        (line,) = axes.plot(gaps.epochs, of_seeds.mean(1), label=way)
        low, high = of_seeds.min(1), of_seeds.max(1)
        axes.fill_between(gaps.epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.axhline(1e-3, color="0.5", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="epoch")
    axes.set_ylabel("(objective − minimum) / minimum")
    axes.set_title(f"SGD on digits, learning rate {rate:g}", fontsize=11)
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def main():
    """Trains, prints, draws."""
    folder = output.folder(__doc__)
    gaps = measure(data.load("digits").train)
    print(table(gaps))
    print(f"\nThe minimum is known to within {gaps.bound:.0e} of itself.")
    output.save(draw(gaps, rate=1.0), folder / "optimality_gap.png")


if __name__ == "__main__":
    main()
