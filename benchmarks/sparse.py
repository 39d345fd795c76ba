"""Sparse text: one fit, a path of penalties and their memory, side by side with scikit-learn.

    python -m benchmarks.sparse [--examples=11314] [--words=130107] [--classes=20] [--repeats=3]

From the root of the repository. The corpus is made on the spot: words by Zipf's law, 160 draws a
text, of which some are of its class, as tf-idf with rows of norm 1. scikit-learn's lbfgs runs at
its default C = 1 to its default tolerance, and along the path from each C anew, as it does. The gap
that its gradient proves is printed; this project is asked for 1e-4 and for 1e-6.
`CPU s`: of all processors; on a busy machine the better figure. `memory`: by how much it raises the
peak of a process of its own, in units of the CSR matrix and the coefficients together. Linux.
"""

import argparse
import time

import numpy as np
from scipy import sparse

from benchmarks import peak_memory, timing
from benchmarks.timing import Contender, Processes

_WORDS_A_TEXT, _OF_CLASS = 160, 0.15


def corpus(examples: int, words: int, classes: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Texts as tf-idf, and their classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=examples)
    ends = np.cumsum(1 / np.arange(1, words + 1))
    drawn = np.searchsorted(ends / ends[-1], rng.random((examples, _WORDS_A_TEXT)))
    drawn = np.minimum(drawn, words - 1)
    own = np.stack([rng.permutation(words) for _ in range(classes)])[y[:, None], drawn]
    drawn = np.where(rng.random(drawn.shape) < _OF_CLASS, own, drawn)
    pairs = np.repeat(np.arange(examples), _WORDS_A_TEXT), drawn.ravel()
    x = sparse.csr_array((np.ones(drawn.size), pairs), shape=(examples, words))
    x.sum_duplicates()
    x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)
    rarity = np.log((1 + examples) / (1 + np.bincount(x.indices, minlength=words))) + 1
    x.data = (1 + np.log(x.data)) * rarity[x.indices]
    x.data /= np.sqrt(np.add.reduceat(x.data**2, x.indptr[:-1])).repeat(np.diff(x.indptr))
    return x, y


def ours(size: tuple[int, int, int], Cs: list[float], gap: float) -> dict:
    """The path by this project, from the strongest penalty."""
    from softmax_jax.optimum import Problem, minimise

    x, y = corpus(*size)
    before, start, begin = peak_memory.start(), time.process_time(), time.perf_counter()
    found = minimise(Problem(x, y), 1 / (np.array(Cs) * len(y)), tolerance=gap)
    seconds, processor = time.perf_counter() - begin, time.process_time() - start
    memory = peak_memory.since(before) / _unit(x, found.W)
    reached = float((found.gap_bound / found.objective).max())
    return _figures(seconds, processor, memory, reached, int(found.iterations.sum()))


def theirs(size: tuple[int, int, int], Cs: list[float]) -> dict:
    """A fit by scikit-learn for each C."""
    from sklearn.linear_model import LogisticRegression

    x, y = corpus(*size)
    before, start, begin = peak_memory.start(), time.process_time(), time.perf_counter()
    models = [LogisticRegression(C=C, max_iter=1000).fit(x, y) for C in Cs]
    seconds, processor = time.perf_counter() - begin, time.process_time() - start
    memory = peak_memory.since(before) / _unit(x, np.stack([model.coef_ for model in models]))
    gaps = [_gap(x, y, model) for model in models]
    steps = sum(int(model.n_iter_[0]) for model in models)
    return _figures(seconds, processor, memory, max(gaps), steps)


def _figures(seconds, processor, memory, gap, iterations):
    own = {"seconds": seconds, "CPU s": processor, "memory": memory}
    return own | {"gap": gap, "iterations": iterations}


def _unit(x, coefficients):
    return x.data.nbytes + x.indices.nbytes + x.indptr.nbytes + coefficients.nbytes


def _gap(x, y, model):
    """The relative gap that the gradient of a model proves: ‖g‖² / (2 · l2) over the objective."""
    logits = x @ model.coef_.T + model.intercept_
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    sums = p.sum(1, keepdims=True)
    l2, rows = 1 / (model.C * len(y)), np.arange(len(y))
    loss = (np.log(sums[:, 0]) - logits[rows, y]).mean()
    p /= sums
    p[rows, y] -= 1
    gradient = x.T @ (p / len(y)) + l2 * model.coef_.T
    objective = loss + l2 / 2 * (model.coef_**2).sum()
    return float((gradient**2).sum() / (2 * l2) / objective)


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=11314)
    parser.add_argument("--words", type=int, default=130107)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--path", type=int, default=16, help="penalties of the path; 0: no path")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    size = options.examples, options.words, options.classes
    tasks = {"one fit, C = 1": [1.0]}
    if options.path:
        tasks[f"{options.path} fits"] = np.geomspace(0.01, 100, options.path).tolist()
    columns = {
        "CPU s": lambda row: f"{row['figures']['CPU s']:.1f}",
        "memory": lambda row: f"{row['figures']['memory']:.1f}",
        "proved gap": lambda row: f"{row['figures']['gap']:.0e}",
        "iterations": lambda row: f"{row['figures']['iterations']}",
    }
    for title, Cs in tasks.items():
        contenders = []
        for gap in (1e-4, 1e-6):
            contenders.append(_contender(f"this project, {gap:g}", ours, size, Cs, gap=gap))
        contenders.append(_contender("scikit-learn, lbfgs", theirs, size, Cs))
        rows = timing.measure(contenders, options.repeats)
        print(f"\n{title}", timing.compare(rows, columns), sep="\n", flush=True)


def _contender(name, function, size, Cs, **more):
    """Every run has a process of its own: what it raises the memory by is its own, too."""

    def run():
        with Processes() as processes:
            place = f"benchmarks.sparse:{function.__name__}"
            return processes.bind(place, size=size, Cs=Cs, **more)()

    return Contender(name, run, lambda: {"seconds": 0.0})


if __name__ == "__main__":
    main()
