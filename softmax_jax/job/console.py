"""What a job says while it runs: a progress bar on a terminal, a line per epoch in a log."""

import logging
import sys
import time
from collections.abc import Iterator

import absl.logging
import numpy as np
from tqdm import tqdm

_BAR = "{desc} |{bar:20}| {percentage:3.0f}%{postfix} [{elapsed}<{remaining}]"


def say(text=""):
    """A line on the standard output, at once (a log that is being followed shows it)."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def warn(text):
    """A warning that nobody overlooks, on the standard error."""
    rule = "!" * 88
    tqdm.write(f"{rule}\nWARNING: {text}\n{rule}", file=sys.stderr)
    sys.stderr.flush()


def warn_if(text):
    """`warn`, where there is something to warn of."""
    if text:
        warn(text)


def quieten():
    """Leaves the log to the job: of the libraries only warnings, without absl's prefix."""
    absl.logging.set_verbosity(absl.logging.WARNING)
    absl.logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))
    own = logging.getLogger("softmax_jax")
    own.setLevel(logging.INFO)


def watch(epochs, num_examples) -> Iterator:
    """Passes the epochs of a sweep on, and shows each: the best trial of those that it trained.

    num_examples: of the training split, for the rate. On a terminal a bar, elsewhere a line each.
    """
    bar, started, reached = None, time.perf_counter(), {}
    for epoch in epochs:
        if bar is None:
            total = len(epoch.run.trials.group) * epoch.run.num_epochs
            bar = tqdm(total=total, bar_format=_BAR, disable=not sys.stderr.isatty())
        seconds = time.perf_counter() - started
        passes = _passes(epoch, reached)
        figures = _figures(epoch, num_examples * passes / seconds)
        if bar.disable:
            say(f"epoch {epoch.epoch:3d}/{epoch.run.num_epochs}{_which(epoch)}  {figures}")
        else:
            bar.set_description(f"epoch {epoch.epoch}/{epoch.run.num_epochs}", refresh=False)
            bar.set_postfix_str(figures, refresh=False)
            bar.update(passes)
            bar.refresh()
        yield epoch
        started = time.perf_counter()
    if bar is not None:
        bar.close()


def _passes(epoch, reached):
    """How often the data were gone through since the last epoch, all trials taken together."""
    now = dict(zip(epoch.trials.tolist(), epoch.reached.tolist(), strict=True))
    passes = sum(now.values()) - sum(reached.get(trial, 0) for trial in now)
    reached.update(now)
    return passes


def _figures(epoch, rate):
    """'train loss .., val loss .., val accuracy .., examples/s' of the best trial by val loss."""
    shown = ["train_loss"] + [
        name for name in ("val_loss", "val_accuracy") if name in epoch.metrics
    ]
    by = epoch.metrics[shown[1] if len(shown) > 1 else "train_loss"]
    best = int(np.nanargmin(by)) if np.isfinite(by).any() else 0
    texts = [f"{name.replace('_', ' ')} {epoch.metrics[name][best]:.4f}" for name in shown]
    return "  ".join([*texts, f"{rate:,.0f} examples/s"])


def _which(epoch):
    if len(epoch.run.trials.group) == 1:
        return ""
    first, last = epoch.trials.min(), epoch.trials.max()
    return f"  trials {first}-{last}, best:"
