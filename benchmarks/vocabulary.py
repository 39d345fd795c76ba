"""The loss of a linear layer with a huge vocabulary: value and gradients of x and W, side by side.

    python -m benchmarks.vocabulary [--sizes 2048x8192 2048x32768 2048x131072] [--repeats=7]
    python -m benchmarks.vocabulary --sizes 8192x131072 --repeats=3 --output=FILE.json
    python -m benchmarks.vocabulary --value             # the loss alone
    python -m benchmarks.vocabulary --bigram            # exact and sampled losses, trained

From the root of the repository; needs requirements-bench.txt (without PyTorch, or on an
accelerator, its contenders are left out). A size is N x V, examples and words; D is 256 unless
--features says otherwise; float32. Contenders take turns, after a run that is not measured.
Those that hold all logits are left out where these take more than --largest-logits bytes; PyTorch
holds three such arrays, JAX two.

`ratio`: times as long as this project. `CPU s`: what all threads of a contender took, the median:
where others use the machine, the figure to compare (PyTorch's threads also spend it waiting for
each other then). `buffers`: what the compiled program allocates besides arguments and results
(`memory_analysis()`). `peak`: by how much one run raises the peak memory of a fresh process,
gradients included. `GFLOP/s`: of the 6 N V D operations of the three products that the full form
makes, whatever a contender really makes.

--bigram trains on the bigram task (100,000 words, 1,000 contexts, 256,000 examples, one epoch of
SGD, batch 512) and shows the seconds of the epoch beside the distance to the true distribution,
KL(true ‖ model), exact and averaged over the contexts, at the best of the learning rates.
"""

import argparse
import functools
import statistics

from benchmarks import timing
from benchmarks.timing import Contender, Processes

_JAX, _RIVALS = "benchmarks.vocabulary_in_jax", "benchmarks.vocabulary_rivals"
_WITHOUT_LOGITS = {
    "this project": f"{_JAX}:ours",
    "PyTorch, blocks of 256 rows": f"{_RIVALS}:in_blocks",
}
_WITH_LOGITS = {"JAX, all logits": f"{_JAX}:full", "PyTorch, all logits": f"{_RIVALS}:full"}
_SAMPLED = ("sampled_softmax", "noise_contrastive")


def main():
    """Measures, prints, writes."""
    options = _options()
    with Processes() as processes:
        facts, torch = timing.introduce(processes, _JAX, _RIVALS)
        results = {"machine": facts, "options": vars(options)}
        if options.bigram:
            results["bigram"] = _train(processes, options)
        else:
            for size in options.sizes:
                results[size] = _measure(processes, options, size, torch)
    timing.write(options.output, results)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["2048x8192", "2048x32768", "2048x131072"])
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--largest-logits", type=float, default=2.2e9, help="bytes")
    parser.add_argument("--value", action="store_true", help="without gradients")
    parser.add_argument("--bigram", action="store_true", help="train instead")
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[8.0, 16.0, 32.0, 64.0])
    parser.add_argument("--output", default="", help="a JSON file")
    return parser.parse_args()


def _measure(processes, options, size, torch):
    num_rows, num_words = map(int, size.split("x"))
    names = dict(_WITHOUT_LOGITS)
    if 4 * num_rows * num_words <= options.largest_logits:
        names |= _WITH_LOGITS
    names = {name: path for name, path in names.items() if torch or path.startswith(_JAX)}
    arguments = {
        "num_rows": num_rows,
        "num_words": num_words,
        "num_features": options.features,
        "gradients": not options.value,
    }
    cpu_seconds = {name: [] for name in names}
    contenders = []
    for name, path in names.items():
        run = processes.bind(path, **arguments)
        contenders.append(Contender(name, _recording(run, cpu_seconds[name]), run))
    rows = timing.measure(contenders, options.repeats)
    for row in rows:
        row["cpu"] = statistics.median(cpu_seconds[row["name"]])
        with Processes() as fresh:
            row["peak"] = fresh.bind(names[row["name"]], peak=True, **arguments)()["peak"]
    work = (2 if options.value else 6) * num_rows * num_words * options.features
    columns = {
        "CPU s": lambda row: f"{row['cpu']:.3f}",
        "CPU ratio": lambda row: f"{row['cpu'] / rows[0]['cpu']:.2f}",
        "GFLOP/s": lambda row: f"{work / row['median'] / 1e9:.0f}",
        "buffers": lambda row: _megabytes(row["figures"].get("buffers")),
        "peak": lambda row: _megabytes(row["peak"]),
        "loss": lambda row: f"{row['figures']['loss']:.5f}",
    }
    print(
        f"\nN = {num_rows:,}, V = {num_words:,}",
        timing.compare(rows, columns),
        sep="\n",
        flush=True,
    )
    return rows


def _recording(run, cpu_seconds):
    """The run, leaving the CPU seconds of every call in the list."""

    def recorded():
        figures = run()
        cpu_seconds.append(figures["cpu"])
        return figures

    return recorded


def _train(processes, options):
    """A row per loss: all learning rates are trained, the one nearest to the truth is shown."""
    losses = [("cross_entropy", None)]
    losses += [(name, number) for name in _SAMPLED for number in options.samples]
    rows = []
    for name, number in losses:
        train = functools.partial(processes.bind, f"{_JAX}:train", name=name, num_samples=number)
        train(learning_rate=options.learning_rates[0], num_steps=2)()
        runs = [train(learning_rate=rate)() for rate in options.learning_rates]
        best = min(runs, key=lambda run: run["divergence"])
        row = {"name": name, "num_samples": number, "runs": runs, "best": best}
        rows.append(row)
        print(
            f"{name:18} {number or 'all':>5} samples  {best['seconds']:7.2f} s  "
            f"{best['cpu']:7.2f} CPU s  "
            f"KL {best['divergence']:.4f}  learning rate {best['learning_rate']:g}",
            flush=True,
        )
    return rows


def _megabytes(size):
    return "" if size is None else f"{size / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
