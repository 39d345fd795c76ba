"""A random search with successive halving beside the same search without: time, and the winner.

    python -m benchmarks.halving --settings=63 --searches=3

Each search draws its own settings (rate, l2, momentum, batch size) on Fashion-MNIST, 83 % and 17 %
of the images of the train split. `first` is the time of a halved search with what is not compiled
yet; then both are timed without. The noise is the standard deviation of the validation loss of the
full sweep's best setting over five seeds; a search is won if the full-length loss of its winner is
within two of them of the best of the full sweep. The time of both grows in proportion to the
settings; that of compiling does not.
"""

import argparse
import time

import numpy as np

from softmax_jax import data, sweep

SIZES = (128, 256, 512)


def settings_of(search, number):
    """Settings drawn for one search, of which each batch size has the same."""
    return sweep.random(
        number,
        seed=search,
        learning_rate=sweep.log_uniform(1e-3, 1.0),
        l2=sweep.log_uniform(1e-6, 1e-1),
        momentum=sweep.uniform(0.0, 0.95),
    )


def main():
    """Runs the searches and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--settings", type=int, default=63, help="in all, over three batch sizes")
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--min-epochs", type=int, default=1)
    parser.add_argument("--dataset", default="fashion_mnist")
    given = parser.parse_args()
    splits = data.load(given.dataset, train="train[:83%]", val="train[83%:]")
    halving = given.factor, given.min_epochs

    def search(number, **options):
        drawn = settings_of(number, max(1, given.settings // len(SIZES)))
        started = time.perf_counter(), time.process_time()
        options |= {"num_epochs": given.epochs, "batch_size": SIZES}
        result = sweep.fit(splits.train, splits.val, drawn, **options)
        return result, time.perf_counter() - started[0], time.process_time() - started[1]

    def noise(selected):
        h = {k: v for k, v in selected.hyperparameters.items() if k not in ("seed", "fold")}
        size = h.pop("batch_size")
        again = sweep.fit(
            *(splits.train, splits.val, sweep.grid(**h)),
            **{"num_epochs": given.epochs, "batch_size": size, "seeds": (1, 2, 3, 4, 5)},
        )
        return float(again.values("val_loss").std(ddof=1))

    first = {
        name: search(0, **how)[1] for name, how in (("full", {}), ("halved", {"halving": halving}))
    }
    print(f"first, with compiling: full {first['full']:.1f} s, halved {first['halved']:.1f} s")
    print("search  full s  first s  halved s  ratio  CPU ratio  best full  halved's winner  noise")
    ratios, won = [], 0
    for number in range(given.searches):
        full, seconds, cpu = search(number)
        first = search(number, halving=halving)[1]
        halved, own_seconds, own_cpu = search(number, halving=halving)
        best, chosen = full.best(), halved.best()
        loss = float(full.values("val_loss")[chosen.trial])
        spread, least = noise(best), best.metrics["val_loss"]
        won += loss <= least + 2 * spread
        ratios.append(own_seconds / seconds)
        print(
            f"{number:6d}{seconds:8.1f}{first:9.1f}{own_seconds:10.1f}{ratios[-1]:7.2f}"
            f"{own_cpu / cpu:11.2f}{least:11.4f}{loss:17.4f}{spread:7.4f}",
            flush=True,
        )
    part = np.median(ratios)
    print(f"{won} of {given.searches} within the noise; time {part:.2f} of the full sweep")


if __name__ == "__main__":
    main()
