"""What a job shows: its plan, a progress bar or a log, and event files for TensorBoard."""

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import absl.logging
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from softmax_jax import host
from softmax_jax.data.dataset import Splits
from softmax_jax.host import WORKDIR, JobError
from softmax_jax.hyperparameters import SPARSE
from softmax_jax.job import processes
from softmax_jax.job.config import AXES, axis_values
from softmax_jax.job.workdir import own_folder
from softmax_jax.optimum.passes import choose_tile_rows
from softmax_jax.sweep import halving, mesh
from softmax_jax.sweep.chunks import Epoch, Epochs

_BAR = "{desc} |{bar:20}| {percentage:3.0f}%{postfix} [{elapsed}<{remaining}]"

_FIRST_LINES, _SECONDS_BETWEEN = 100, 0.5  # of epochs
_FIRST_PROOFS, _SECONDS_BETWEEN_PROOFS = 10, 2.0  # of segments of L-BFGS, which may be an iteration


def say(text: str = "") -> None:
    """Prints a line on the standard output and flushes it.

    Where the reader has gone (`| head`) or the log's disk is full, the job continues without
    output. Of several processes only the first prints.
    """
    if processes.is_first():
        _write(text, sys.stdout)


def warn(text: str) -> None:
    """Prints a conspicuous warning on the standard error."""
    rule = "!" * 88
    if processes.is_first():
        complain(f"{rule}\nWARNING: {host.message(text)}\n{rule}")


def complain(text: str) -> None:
    """Prints lines on the standard error, from any process."""
    _write(text, sys.stderr)


def warn_if(text: str) -> None:
    """Prints the warning if it is not empty."""
    if text:
        warn(text)


def quieten() -> None:
    """Limits the libraries' log to warnings, without absl's prefix."""
    absl.logging.set_verbosity(absl.logging.WARNING)
    absl.logging.get_absl_handler().setFormatter(_Shown("%(message)s"))
    own = logging.getLogger("softmax_jax")
    own.setLevel(logging.INFO)


class _Shown(logging.Formatter):
    """Without control characters: messages of libraries hold names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return host.message(super().format(record))


def watch(epochs: Iterable[Epoch], num_examples: int, tolerance: float = 1e-4) -> Iterator[Epoch]:
    """Yields the epochs of a sweep unchanged, and shows each: the best of its trials.

    On a terminal as a bar, elsewhere as a line: all of the first 100, then two a second, and the
    last one (of L-BFGS the first ten, then one every two seconds).

    Args:
      epochs: of `sweep.epochs`.
      num_examples: of the training split, for the examples per second.
      tolerance: of L-BFGS, for how far the trials are from their end.
    """
    show, began = None, time.perf_counter()
    for epoch in epochs:
        if show is None:
            full_batch = "gap_bound" in epoch.metrics
            pace = _Proofs(epoch.run, tolerance) if full_batch else _Passes(epoch.run, num_examples)
            pace.began = pace.before = began
            on_terminal = sys.stderr.isatty() and processes.is_first()
            show = _Bar(pace) if on_terminal else _Lines(pace)
        if not epoch.segment:
            show(epoch)
        if epoch.pauses and all(item.epoch >= epoch.epoch for item in epoch.pending):
            say(_halved(epoch))
        yield epoch
    if show is not None:
        show.close()


def _halved(epoch):
    """How many settings go on, now that all have come to a rung."""
    waiting = [epoch.chunk, *(item.chunk for item in epoch.pending)]
    alive = len({s for chunk in waiting for s in epoch.run.trials.setting[chunk.trials].flat})
    remaining = halving.going_on(alive, epoch.run.halving[0])
    return f"After epoch {epoch.epoch} the best {remaining:,} of {alive:,} settings go on."


def _write(text, stream):
    with tqdm.external_write_mode(file=stream):
        host.write_line(text, stream)


class _Passes:
    """The progress of SGD, in passes over the data, summed over all trials."""

    first, seconds_between = _FIRST_LINES, _SECONDS_BETWEEN
    began = before = 0.0  # when the training and the step began

    def __init__(self, run, num_examples):
        self.total = _passes(run)
        self.num_examples = num_examples
        self.done, self.reached = 0, {}

    def step(self, epoch):
        """(progress since the last step, what it is called, its metrics, the seconds left)."""
        now = dict(zip(epoch.trials.tolist(), epoch.reached.tolist(), strict=True))
        earlier = sum(reached - 1 for trial, reached in now.items() if trial not in self.reached)
        passes = sum(
            reached - self.reached.get(trial, reached - 1) for trial, reached in now.items()
        )
        self.reached.update(now)
        self.total -= earlier  # what an earlier process has done takes no time here
        self.done += passes
        present = time.perf_counter()
        rate = self.num_examples * passes / (present - self.before)
        self.before = present
        left = (self.total / max(self.done, 1) - 1) * (present - self.began)
        text = f"{_metric_text(epoch.metrics)}  {rate:,.0f} examples/s"
        name = f"epoch {epoch.epoch:3d}/{epoch.run.num_epochs}{_which(epoch)}"
        return earlier + passes, name, text, left


def _passes(run):
    """Passes over the data, of all trials."""
    settings = len(np.unique(run.trials.setting))
    each = len(run.trials.setting) // settings
    return each * sum(halving.lengths(settings, run.halving, run.num_epochs))


class _Proofs:
    """The progress of L-BFGS, in trials whose distance to the optimum is proved.

    The iterations that are left follow from how fast the gaps have shrunk so far: their limit,
    `num_epochs`, says nothing of when the trials end.
    """

    first, seconds_between = _FIRST_PROOFS, _SECONDS_BETWEEN_PROOFS
    began = before = 0.0

    def __init__(self, run, tolerance):
        self.total, self.tolerance = len(run.trials.setting), tolerance
        self.starts, self.ended, self.done, self.last = {}, set(), 0, 0
        self.latest = {}  # of every metric, by trial

    def step(self, epoch):
        """As `_Passes.step`."""
        gap, to_go = self._look(epoch)
        for metric, values in epoch.metrics.items():
            self.latest.setdefault(metric, np.full(self.total, np.nan))[epoch.trials] = values
        done = self.total - _pending_trials(epoch) if epoch.ends else len(self.ended)
        advance, iterations = done - self.done, max(epoch.epoch - self.last, 1)
        present = time.perf_counter()
        left = (present - self.before) / iterations * to_go
        if epoch.pending:  # the later chunks take as long as those before
            left = (present - self.began) * (self.total / done - 1) if done else math.nan
        self.before, self.last, self.done = present, epoch.epoch, done
        name = f"iteration {epoch.epoch:3d}"
        if self.total > 1:
            name += f"  {done} of {self.total} trials done, best:"
        ends = f"  gap {gap:.1e} (ends at {self.tolerance:g})" if gap else ""
        return advance, name, _metric_text(self.latest) + ends, left

    def _look(self, epoch):
        """(the widest relative gap of the trials that go on, the most iterations one has to go)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = epoch.metrics["gap_bound"] / np.abs(epoch.metrics["objective"])
        most, widest, to_go = epoch.run.num_epochs, 0.0, 0.0
        ended = epoch.facts["converged"] | (epoch.reached >= most)
        self.ended |= set(epoch.trials[ended].tolist())
        going = epoch.trials[~ended], epoch.reached[~ended], gaps[~ended].astype(float)
        for trial, iteration, gap in zip(*map(np.ndarray.tolist, going), strict=True):
            start, first = self.starts.setdefault(trial, (iteration, gap))
            widest = max(widest, gap)
            shrunk = math.log(first / gap) if 0 < gap < first < math.inf else 0.0
            wanted = math.log(max(gap / self.tolerance, 1)) if 0 < gap < math.inf else math.inf
            own = wanted * (iteration - start) / shrunk if shrunk > 0 else math.nan
            to_go = own if math.isnan(own) else max(to_go, min(own, most - iteration))
            if math.isnan(to_go):
                return widest, math.nan  # a trial of which nothing is known yet
        return widest, to_go


def _pending_trials(epoch):
    return sum(item.chunk.trials[:, : item.chunk.num_real].size for item in epoch.pending)


class _Bar:
    def __init__(self, pace):
        self.pace, self.bar = pace, tqdm(total=pace.total, bar_format=_BAR)
        self.close = self.bar.close

    def __call__(self, epoch):
        advance, name, text, _ = self.pace.step(epoch)
        self.bar.set_description(" ".join(name.split()), refresh=False)
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(advance)
        self.bar.refresh()


class _Lines:
    def __init__(self, pace):
        self.pace, self.count, self.shown = pace, 0, -math.inf

    def __call__(self, epoch):
        _, name, text, left = self.pace.step(epoch)
        last, since = epoch.ends and not epoch.pending, time.perf_counter() - self.shown
        if self.count < self.pace.first or last or since >= self.pace.seconds_between:
            eta = "" if last or not math.isfinite(left) else f"  {left:,.0f} s left"
            say(f"{name}  {text}{eta}")
            self.count, self.shown = self.count + 1, time.perf_counter()

    def close(self):
        """Lines leave nothing open."""


def _metric_text(metrics):
    """'train loss .., val loss .., val accuracy ..' of the best trial by val loss."""
    shown = [name for name in ("train_loss", "val_loss", "val_accuracy") if name in metrics]
    by = metrics["val_loss" if "val_loss" in metrics else "train_loss"]
    best = int(np.nanargmin(by)) if np.isfinite(by).any() else 0
    return "  ".join(f"{name.replace('_', ' ')} {_value(metrics[name][best])}" for name in shown)


def _value(value):
    """Four decimals, or three digits of what is very large."""
    return f"{value:.4f}" if abs(value) < _LARGE or not math.isfinite(value) else f"{value:.3g}"


_LARGE = 1e5


def _which(epoch):
    if len(epoch.run.trials.setting) == 1:
        return ""
    first, last = epoch.trials.min(), epoch.trials.max()
    return f"  trials {first}-{last}, best:"


def record_events(epochs: Iterable[Epoch], folder: Path) -> Iterable[Epoch]:
    """Yields the epochs of a sweep unchanged, after writing each for TensorBoard: a run per trial.

    The files are `folder`/tensorboard/trial_N. The tags put train and val side by side: train_loss
    is loss/train, val_top5 is top5/val. A resumed job starts new files, and TensorBoard then drops
    repeated epochs from the earlier ones. Without tensorboardX it only warns.

    Raises:
      JobError: the folder cannot be written (exit code 3).
    """
    try:
        from tensorboardX.record_writer import register_writer_factory
    except ImportError:
        warn("No files for TensorBoard, as tensorboardX is not installed: pip install tensorboardX")
        return epochs
    register_writer_factory("append", _Appending)
    return _record(epochs, own_folder(Path(folder) / "tensorboard"))


def _record(epochs, folder):
    name = f"events.out.tfevents.{time.time_ns()}.softmax_jax"
    begun = set()
    for epoch in epochs:
        for row, trial in enumerate(epoch.trials.tolist()):
            path, step = folder / f"trial_{trial}" / name, int(epoch.reached[row])
            events = [] if trial in begun else _first_events(step)
            begun.add(trial)
            metrics = {name: values[row].item() for name, values in epoch.metrics.items()}
            _append(path, [*events, _scalars(step, metrics)])
        yield epoch


def _first_events(step):
    """The events that begin a file: its version, and that older files end before `step`."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    return [
        Event(wall_time=time.time(), file_version="brain.Event:2"),
        Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)),
    ]


def _scalars(step, metrics):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=_tag(name), simple_value=x) for name, x in metrics.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _tag(name):
    role, _, what = name.partition("_")
    return f"{what}/{role}" if role in ("train", "val") else name


def _append(path, events):
    """Appends events to a file that is open only meanwhile: a sweep has thousands of them.

    With tensorboardX's `RecordWriter` instead of its `SummaryWriter`, which takes a thread and
    three descriptors for each trial, names its files by the second (so that two may have one name),
    and waits forever once a full disk has ended its thread.
    """
    from tensorboardX.record_writer import RecordWriter

    try:
        own_folder(path.parent).mkdir(parents=True, exist_ok=True)
        with contextlib.closing(RecordWriter(f"append:{path}")) as file:
            for event in events:
                file.write(event.SerializeToString())
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror or error}.", WORKDIR) from error


class _Appending:
    """Opens append:PATH for tensorboardX, whose own way truncates an existing file."""

    @staticmethod
    def open(path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.fdopen(os.open(path.removeprefix("append:"), flags, 0o666), "ab")


_GIB = 2**30


def say_forecast(config: ConfigDict, splits: Splits, epochs: Epochs) -> None:
    """Prints what a checked job would do, and about how long; then its plan in numbers."""
    for sentence in forecast_sentences(config, splits, epochs):
        say(sentence)
    say()
    for line in forecast_lines(splits, epochs):
        say(line)


def forecast_sentences(config: ConfigDict, splits: Splits, epochs: Epochs) -> list[str]:
    """The job in plain words: what is trained, on what, what is chosen by, how long it takes."""
    trials, rounds = epochs.run.trials, config.num_epochs
    axes = {name: len(axis_values(config, name)) for name in AXES}
    axes |= {name: config[f"{name}_path"] or axes[name] for name in ("l2", *SPARSE)}
    axes["fold"] = config.folds or config.bootstraps or 1
    swept, count = [f"{n} {name}" for name, n in axes.items() if n > 1], len(trials.setting)
    crossed = len(swept) > 1 and config.combine == "product" and not config.outer_folds
    models = f"{count:,} models" + f" ({' × '.join(swept)})" * crossed if count > 1 else "one model"
    full = config.optimizer == "lbfgs"
    how = (
        f"each to within {config.tolerance:g} of its optimum, in {rounds:,} iterations at most"
        if full
        else f"for {rounds:,} epoch{'s' * (rounds > 1)}"
    )
    text = [
        f"This would train {models} on {len(splits.train.y):,} examples of {splits.name} with "
        f"{splits.train.num_features:,} features and {splits.train.num_classes:,} classes, {how}."
    ]
    if len(set(trials.setting.tolist())) > 1:
        where = f"{len(splits.val.y):,} validation examples"
        where = "the examples held out of train" if (config.folds or config.bootstraps) else where
        text.append(f"It would choose the setting by {config.select_metric} on {where}.")
    if epochs.run.halving:
        found = ", ".join(map(str, halving.rungs(epochs.run.halving, rounds)))
        text.append(f"After epochs {found} the best 1/{epochs.run.halving[0]} of them would go on.")
    if config.refit or (config.folds or config.bootstraps):
        both = " and val together" if config.refit else ""
        text.append(f"The chosen setting would be trained anew on train{both}.")
    if splits.test is not None:
        text.append(f"The {len(splits.test.y):,} test examples would be read once, at the end.")
    each = seconds_of_epoch(epochs, splits)
    if full and splits.train.shard_size is not None:
        together = max(item.chunk.trials.shape[1] for item in epochs.pending)
        rows = choose_tile_rows(together, splits.train.num_classes, splits.train.num_features)
        text.append(
            f"Train is too large to be held: it would be passed over in tiles of {rows:,} rows, by "
            f"{together:,} model{'s' * (together > 1)} at once, about one pass an iteration, and "
            "two for each certificate."
        )
    if full:
        text.append(
            f"How many iterations there will be shows only then: {_duration(each * _FEW)} to "
            f"{_duration(each * _MANY)} on this machine are usual."
        )
    else:
        rounds = _passes(epochs.run) / len(trials.setting)
        text.append(f"The training takes about {_duration(each * rounds)} on this machine.")
    text[-1] += " The first time, compiling comes on top: seconds on a CPU."
    return text


def _duration(seconds):
    """A rough time in words.

    >>> [_duration(s) for s in (0.02, 3.2, 47, 200, 9000)]
    ['less than a second', '3 s', '50 s', '3.3 minutes', '2.5 hours']
    """
    if seconds < 1:
        return "less than a second"
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{float(f'{seconds / size:.2g}'):g} {name}"
    return f"{float(f'{seconds:.1g}'):g} s"


def seconds_of_epoch(epochs: Epochs, splits: Splits) -> float:
    """About how long an epoch of all trials takes here, by the speed of its matrix products."""
    run, shapes = epochs.run, [item.chunk.trials.shape for item in epochs.pending]
    devices = math.prod(run.placement.size(axis) for axis in ("trials", "batch", "classes"))
    together = max(map(math.prod, shapes))
    samples = int(run.trials.num_samples.max())
    classes, features = samples or splits.train.num_classes, splits.train.num_features
    rate = products_per_second(
        int(run.trials.batch_size.max()), features, max(1, together // devices) * classes
    )
    passes = 2.0 * run.num_examples + len(splits.val.y)  # forward and back; forward
    products = passes * features * classes * len(run.trials.setting)
    return _BESIDE_PRODUCTS * products / rate / devices


_BESIDE_PRODUCTS = 1.5  # times as long as its products alone takes an epoch
_FEW, _MANY = 30, 500  # iterations: under small penalties hundreds, and ever fewer trials share one


def products_per_second(rows: int, features: int, columns: int) -> float:
    """Multiplications with an addition, in products of these sizes (the largest are cut)."""
    most = max(1, _MOST_NUMBERS // features)
    rows, columns = min(rows, _MOST_ROWS, most), min(columns, _MOST_COLUMNS, most)
    each = 2 * rows * features * columns
    repeats = min(max(1, round(_PRODUCTS_TIMED / each)), _MOST_REPEATS)
    x, w = np.ones((rows, features), np.float32), np.zeros((features, columns), np.float32)

    @jax.jit
    def work(x, w):
        return jax.lax.fori_loop(0, repeats, lambda _, w: w + x.T @ (x @ w), w)

    times = []
    for _ in range(3):  # the first compiles
        started = time.perf_counter()
        jax.block_until_ready(work(x, w))
        times.append(time.perf_counter() - started)
    return each * repeats / min(times)


_MOST_ROWS, _MOST_COLUMNS, _MOST_NUMBERS = 4096, 2560, 2**21
_MOST_REPEATS = 1000  # tiny products take as long as starting them
_PRODUCTS_TIMED = 2e9  # some hundredths of a second on a CPU


def forecast_lines(splits: Splits, epochs: Epochs) -> list[str]:
    """The plan of the job as text: every number follows from the config and the data."""
    run, chunks = epochs.run, [item.chunk for item in epochs.pending]
    trials, shapes = run.trials, {chunk.trials.shape for chunk in chunks}
    where, placement = processes.devices(), run.placement
    sizes = set(trials.batch_size.tolist())
    kinds = set(zip(trials.batch_size.tolist(), trials.num_samples.tolist(), strict=True))
    largest = max(math.prod(shape) for shape in shapes)
    here = math.ceil(largest / placement.size("trials"))
    steps = sum(-(-run.num_examples // size) for size in sizes)
    return [
        f"trials    {len(trials.setting):,}: {len(set(trials.setting.tolist())):,} settings and "
        f"batch sizes × {len(set(trials.seed.tolist()))} seeds × "
        f"{len(set(trials.fold.tolist()))} folds",
        f"programs  {len(chunks):,} chunks of at most {largest:,} trials, compiled for "
        f"{len(kinds) * len(shapes)} shapes",
        f"steps     {steps:,} in an epoch of every batch size, {run.num_epochs:,} epochs",
        f"memory    {here * epochs.bytes_per_trial / _GIB:.2f} GiB for the trials on each device, "
        f"{_data_bytes(splits) / _GIB:.2f} GiB for the data, "
        f"of {mesh.device_bytes() / _GIB:.1f} GiB",
        f"devices   {where['device_count']} × {where['device_kind']} ({where['backend']}): "
        f"{placement.size('trials')} share the trials, {placement.size('batch')} each minibatch, "
        f"{placement.size('classes')} the classes",
    ]


def _data_bytes(splits):
    resident = [split for split in (splits.train, splits.val) if split.shard_size is None]
    return sum(split.x.size * split.x.dtype.itemsize for split in resident)
