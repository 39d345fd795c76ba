"""The exercise: is the most probable class always the right answer? A tumour, and what errors cost.

    python -m examples.medical [--output=FOLDER]

From the root of the repository; takes about 10 s on 2 CPU cores. Scikit-learn's breast-cancer set:
569 tumours of 30 standardised features, malignant or benign. To miss a malignant one costs ten
times a false alarm. For several penalties the optimal classifier is found on each of 100 stratified
splits, 20 times 5-fold, all as trials of one program, and three rules decide on what each split
held out: argmax; the least expected cost, which calls malignant from a probability of 1/11 on; and
the same after temperature scaling. Prints their costs, sensitivities and specificities; draws
medical.png.
"""

import numpy as np

from examples import output
from examples.medical_study import BENIGN, COST, MALIGNANT, study, tumours
from softmax_jax import calibration, metrics

PENALTIES = (0.1, 0.01, 0.001)
REPEATS = 20
_COLOURS = ("tab:green", "tab:blue", "tab:orange")


def table(studies, penalties=PENALTIES) -> str:
    """A row per penalty and rule.

    In brackets the central 95 % of the splits, and of what is saved against argmax the normal 95 %
    interval over the examples, each with its mean over the splits: Bayle, Bayle, Janson and Mackey,
    "Cross-validation confidence intervals for test error" (2020).
    """
    rows = []
    for penalty, one in zip(penalties, studies, strict=True):
        actions = one.actions()
        by_argmax = one.costs(actions["argmax"])
        for rule, chosen in actions.items():
            shares = one.recalls(chosen)
            figures = [
                f"{shares[:, label].mean():.3f} {_brackets(_central(shares[:, label]))}"
                for label in (MALIGNANT, BENIGN)
            ]
            costs = one.costs(chosen)
            saved = by_argmax - costs
            error = saved.std(ddof=1) / len(saved) ** 0.5
            interval = metrics.t_interval(saved.mean(), error, len(saved) - 1)
            saving = "" if rule == "argmax" else f"{saved.mean():.3f} {_brackets(interval)}"
            rows.append([f"{penalty:g}", rule, *figures, f"{costs.mean():.3f}", saving])
    return output.markdown(["l2", "rule", "sensitivity", "specificity", "cost", "saved"], rows)


def draw(studies, penalties=PENALTIES):
    """The cost by the threshold on p(malignant), and whether these probabilities are right."""
    figure = output.new_figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    thresholds = np.geomspace(0.005, 0.95, 80)
    for colour, penalty, one in zip(_COLOURS, penalties, studies, strict=False):
        p = one.probabilities()[..., MALIGNANT][one.held_out]
        malignant = np.broadcast_to(one.labels == MALIGNANT, one.held_out.shape)[one.held_out]
        called = p > thresholds[:, None]
        costs = np.where(malignant, COST[0, 1] * ~called, COST[1, 0] * called).mean(1)
        left.plot(thresholds, costs, color=colour, label=f"l2 = {penalty:g}")
        bins = calibration.reliability(p, malignant, 10)
        filled = np.asarray(bins.count) > 0
        right.plot(bins.predicted[filled], bins.observed[filled], ".-", color=colour)
    for threshold, name in ((1 / 11, "least cost: 1/11 "), (1 / 2, "argmax: 1/2 ")):
        left.axvline(threshold, color="0.5", linestyle="--")
        left.text(threshold, 0.49, name, rotation=90, ha="right", va="top", fontsize=8)
    left.set(xscale="log", xlabel="threshold on p(malignant)", ylabel="cost of a tumour")
    left.set_ylim(0, 0.5)
    left.legend()
    right.plot((0, 1), (0, 1), color="0.5", linestyle="--")
    right.set(xlabel="p(malignant), mean in the bin", ylabel="share that is malignant")
    return figure


def main():
    """The study, printed and drawn."""
    folder = output.folder(__doc__)
    studies = study(*tumours(), PENALTIES, REPEATS)
    print(table(studies))
    for penalty, one in zip(PENALTIES, studies, strict=True):
        print(f"l2 {penalty:g}: temperature {one.T.mean():.2f} ± {one.T.std(ddof=1):.2f}")
    output.save(draw(studies), folder / "medical.png")


def _central(values):
    return np.quantile(values, (0.025, 0.975))


def _brackets(interval):
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


if __name__ == "__main__":
    main()
