"""The loop: an iterator that yields one `Epoch` at a time, and `fit`, which drains it.

An epoch of SGD, an order of the data and its programs, is at the end; those of L-BFGS are in
`full_batch`.

Three small values say what is trained and how: the solver (`SGD` or `LBFGS`), the `Objective` and
the `Devices`. All options are checked at the call, before anything is compiled.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Integer, Num

from softmax_jax import host, losses, train, vocabulary
from softmax_jax.checks import named_keywords
from softmax_jax.data import Dataset, validation
from softmax_jax.hyperparameters import OFF, ROWS, SPARSE, Hyperparameters, of_optimizer
from softmax_jax.model import Model, augment, concise
from softmax_jax.optimum.passes import choose_tile_rows, passing_bytes
from softmax_jax.sweep import chunks, full_batch, mesh, program
from softmax_jax.sweep import halving as successive_halving
from softmax_jax.sweep.chunks import Epoch, Epochs, Pending, Run
from softmax_jax.sweep.inputs import (
    InputPair,
    Resamples,
    check_resamples,
    class_weights,
    frequency_losses,
    leave_out_absent,
    make_inputs,
    warn_unstandardised,
)
from softmax_jax.sweep.mesh import padded
from softmax_jax.sweep.program import evaluate_inputs, fetch_metrics, prefixed
from softmax_jax.sweep.result import Result, collect, hopeless_loss, validation_metrics
from softmax_jax.sweep.settings import as_arrays, in_use, joined, trial_table

Counts: TypeAlias = Num[Array | np.ndarray, "N R"]  # of the training examples in R resamples
Wholes: TypeAlias = Sequence[int] | Integer[np.ndarray, " n"]


class SGD(NamedTuple):
    """The minibatch optimisers: one step for each minibatch.

    Attributes:
      schedule: of the learning rate: 'constant', or 'cosine' or 'exponential', which decay to
        final_rate times the peak.
      num_samples: classes that a sampled loss draws for each batch, or several numbers of them, to
        be compared; 0: the loss draws none.
      best_by: the metric that decides the best epoch (see `Result.epochs`). A trial with a patience
        stops once so many epochs in a row were no better than its best one.
      optimizer: 'sgd'; 'nesterov', whose gradient is that at the point to which the momentum leads;
        'adam', with beta1 and beta2; or 'adamw', which is Adam with a weight_decay of its own.
    """

    schedule: str = "constant"
    num_samples: int | Wholes = 0
    best_by: str = "val_loss"
    optimizer: str = "sgd"


class LBFGS(NamedTuple):
    """The certified optimum of each l2, l1 and l1_group (`softmax_jax.optimum`).

    An epoch is then an iteration over all examples, and num_epochs the most of these;
    learning_rate, momentum, init_scale and batch_size have no effect.

    Attributes:
      tolerance: the relative gap to the optimum at which a trial has converged.
      best_by: the metric that decides the best epoch; none is kept.
    """

    tolerance: float = 1e-4
    best_by: str = "val_loss"


class Objective(NamedTuple):
    """What is minimised: the loss of a model on the examples.

    Attributes:
      model: of `softmax_jax.model`: `concise`, `scratch`, or `by_name(name, precision)`.
      loss: a function(logits, labels, axis) of `softmax_jax.losses`, or the name of one of
        `vocabulary.OBJECTIVES`.
      class_weight: the weight of an example of each class: None (1), 'balanced' or C numbers.
      standardize: features get mean 0 and standard deviation 1 over the training examples (of every
        resample, over its own), with the weights penalised in these units.
      dtype: of features and parameters; float64 needs `jax_enable_x64`.
    """

    model: Model = concise
    loss: Callable | str = losses.cross_entropy
    class_weight: str | ArrayLike | Sequence | None = None
    standardize: bool = False
    dtype: Any = np.float32


class Devices(NamedTuple):
    """How the work is divided over the devices; results do not depend on it.

    Attributes:
      mesh: how many devices share the trials, the examples of a minibatch, and the classes; -1: all
        that are left.
      chunk: trials that run at once; 0: as many as fit into the memory.
      steps_per_call: steps of SGD after which the iterator yields, with metrics at the end of an
        epoch only; 0: after every epoch.
    """

    mesh: tuple[int, ...] = (-1, 1, 1)
    chunk: int = 0
    steps_per_call: int = 0


@named_keywords("sweep.epochs")
def epochs(
    train: Dataset,
    val: Dataset | Counts | Resamples | None,
    settings: Hyperparameters | None = None,
    *,
    num_epochs: int,
    batch_size: int | Wholes = 256,
    seeds: Wholes = (0,),
    solver: SGD | LBFGS = SGD(),  # noqa: B008 (a tuple of constants)
    objective: Objective = Objective(),  # noqa: B008
    devices: Devices = Devices(),  # noqa: B008
    halving: tuple[int, int] | None = None,
    pending: list[Pending] | int | None = None,
) -> Epochs:
    """Trains every trial of settings × seeds × batch sizes, an epoch per step of the iterator.

    Args:
      train: a `data.Dataset`; examples of weight 0 are left out.
      val: a `data.Dataset`, or None: nothing is evaluated. Or counts [N, R] of the training
        examples in R resamples (`sweep.fold_counts`, `sweep.bootstrap_counts`): every setting is
        then a trial per column, trained where the count is positive and evaluated where it is zero.
        Or `Resamples`, such as `sweep.nested_folds`.
      settings: from `sweep.grid`, `zipped` or `random`; None: the defaults.
      num_epochs: passes over the training examples.
      batch_size: one, or a sequence of them, run one after the other. One that is larger than the
        data is all of them, with a warning.
      seeds: of the initial weights and of the order of the examples.
      solver: `SGD` or `LBFGS`.
      objective: what is minimised.
      devices: how the work is divided over the devices.
      halving: (factor, min_epochs): after min_epochs, factor · min_epochs, ... epochs the best
        1/factor of the settings go on, by their mean over seeds and folds of the metric `best_by`.
        Only settings that are trained to the end can be selected. None: all are trained to the end.
      pending: the remaining work of a sweep that was interrupted (`chunks.pending_after`), instead
        of all of it; or the number of the first trial that is still to be run.

    Raises:
      ValueError: settings, sizes or weights are out of range, or the sweep does not fit into the
        memory; at the call, before anything is compiled.
      TypeError: an unknown argument, or a solver, objective or devices of another type.
    """
    host.begin()
    check_types(solver=solver, objective=objective, devices=devices)
    held_out, resamples = _divide(val)
    train = leave_out_absent(train)
    if resamples is not None:
        counts, held_out_of = train.aligned(resamples.counts), train.aligned(resamples.held_out)
        resamples = resamples._replace(counts=counts, held_out=held_out_of)
    held_out = None if held_out is None else held_out.without_absent()
    _check_alike(train, held_out)
    full = isinstance(solver, LBFGS)
    sizes = [len(train.y)] if full else _fitting_sizes(batch_size, len(train.y))
    _check(train, num_epochs, sizes, seeds, resamples, solver, devices)
    settings = as_arrays(Hyperparameters() if settings is None else settings)
    _check_solver(
        solver, settings, seeds, objective, validated=held_out is not None or resamples is not None
    )
    num_resamples = 0 if resamples is None else resamples.counts.shape[1]
    num_samples = np.atleast_1d(solver.num_samples).tolist() if isinstance(solver, SGD) else [0]
    _check_halving(halving, solver, settings, resamples, held_out, num_epochs, sizes, num_samples)
    placement = mesh.place(*devices.mesh)
    _check_classes(placement, full, train.num_classes)
    passing = full and train.shard_size is not None
    if passing and placement.mesh is not None:
        raise ValueError(full_batch.BY_SHARDS)
    dimensions: dict[str, Any] = {"seeds": seeds, "batch_sizes": sizes, "num_samples": num_samples}
    num_trials = len(settings.l2) * len(seeds) * len(sizes) * len(num_samples)
    num_trials *= max(num_resamples, 1)
    shape = train.num_features, train.num_classes
    sparse = full and bool((settings.l1 + settings.l1_group).any())
    if passing and sparse:
        raise ValueError(full_batch.SPARSE_BY_SHARDS)
    by_pass = passing_bytes(choose_tile_rows(1, *shape[::-1]), *shape, 1)
    held = _bytes_per_trial(solver, objective, shape, max(sizes), placement, sparse=sparse)
    each = by_pass if passing else held
    multiple = placement.size("trials")
    limit = mesh.fitting_chunk(num_trials, *shape, each, devices.chunk, multiple)
    dimensions["optimizer"] = optimizer = "sgd" if isinstance(solver, LBFGS) else solver.optimizer
    table = _trials(settings, resamples, dimensions)
    if full:
        shown = [name for name in SPARSE if getattr(settings, name).any()]
        table = table._replace(shown=("l2", *shown))
    if not (full or objective.standardize):
        warn_unstandardised(train)
    by_class = class_weights(train, objective.class_weight)
    pair, mean, scale = make_inputs(
        train,
        held_out,
        class_weight=by_class,
        resamples=resamples,
        standardize=objective.standardize,
        centred=full,
        dtype=objective.dtype,
        placement=placement,
        divided=full,
    )
    stored = full_batch.MODEL if full else augment(objective.model)
    run = Run(
        trials=table,
        num_epochs=num_epochs,
        model=stored,
        criterion=_criterion(objective.loss, stored, train.num_classes, placement.by_classes),
        best_by=solver.best_by,
        num_examples=len(train.y),
        mean=mean,
        scale=scale,
        class_weight=by_class,
        label_names=train.label_names,
        schedule=solver.schedule if isinstance(solver, SGD) else "constant",
        optimizer=optimizer,
        placement=placement,
        val=held_out,
        resamples=resamples,
        labels=train.labels,
        features=train.features,
        chance=frequency_losses(train, held_out),
        halving=halving,
    )
    if isinstance(pending, int):
        pending = chunks.pending_from(table, pending)
    plan = functools.partial(chunks.plan, table, limit, by_fold=pair.differ, multiple=multiple)
    if pending is None:
        pending = [Pending(chunk) for chunk in plan()]
    else:
        pending = chunks.recut(pending, limit, multiple)
    if isinstance(solver, LBFGS):
        found = full_batch.epochs(run, pending, pair, solver.tolerance)
    else:
        found = _sgd_epochs(run, pending, pair, devices.steps_per_call, plan, multiple)
    return Epochs(run, pending, each, found)


@named_keywords("sweep.fit")
def fit(
    train: Dataset,
    val: Dataset | Counts | Resamples | None,
    settings: Hyperparameters | None = None,
    *,
    num_epochs: int,
    batch_size: int | Wholes = 256,
    seeds: Wholes = (0,),
    solver: SGD | LBFGS = SGD(),  # noqa: B008
    objective: Objective = Objective(),  # noqa: B008
    devices: Devices = Devices(),  # noqa: B008
    halving: tuple[int, int] | None = None,
) -> Result:
    """`epochs` to the end: the `Result` of all trials. The arguments are those of `epochs`."""
    return collect(
        epochs(
            train,
            val,
            settings,
            num_epochs=num_epochs,
            batch_size=batch_size,
            seeds=seeds,
            solver=solver,
            objective=objective,
            devices=devices,
            halving=halving,
        )
    )


def _divide(val: Any) -> tuple[Dataset | None, Resamples | None]:
    """(validation set or None, resamples or None)."""
    if val is None or hasattr(val, "y"):
        return val, None
    return None, val if isinstance(val, Resamples) else Resamples.of(val)


def _fitting_sizes(batch_size, num_examples):
    """The batch sizes, with a warning of those that are larger than the data: these are all of it.

    What is no batch size stays, to be refused.
    """
    sizes = np.atleast_1d(batch_size).tolist()
    large = [size for size in sizes if _whole(size, num_examples + 1)]
    if not large:
        return sizes
    warnings.warn(
        f"batch_size {', '.join(map(str, large))} is larger than the {num_examples:,} training "
        "examples: each minibatch is all of them.",
        stacklevel=3,
    )
    fitting = [size for size in sizes if size not in large]
    return fitting + [num_examples] * (num_examples not in fitting)


def _trials(settings, resamples, dimensions):
    """The table of all trials; those that serve an outer fold come after all others.

    A trial that is evaluated on its outer fold must not look there for when to stop.
    """
    if resamples is None:
        return trial_table(settings, **dimensions)
    inner = int((resamples.outer < 0).sum())
    table = trial_table(settings, **dimensions, num_resamples=inner)
    if inner == len(resamples.outer):
        return table
    nested = trial_table(settings, **dimensions, num_resamples=len(resamples.outer) - inner)
    nested = nested._replace(fold=nested.fold + inner)
    patience = np.where(resamples.final[nested.fold], 0, nested.hyperparameters.patience)
    hyperparameters = nested.hyperparameters._replace(patience=patience.astype(np.float32))
    return joined(table, nested._replace(hyperparameters=hyperparameters))


def _check_alike(train, val):
    """Raises ValueError for a validation set of other classes or features than train's."""
    if val is None:
        return
    for what, own, other in (
        ("classes", train.num_classes, val.num_classes),
        ("features", train.num_features, val.num_features),
    ):
        if own != other:
            raise ValueError(
                f"train has {own} {what} and val {other}: val must have those of train. Make both "
                "by one call of data.load or data.from_arrays."
            )
    validation.check_same_classes("train", train.label_names, val.label_names)


def _bytes_per_trial(solver, objective, shape, batch_size, placement, *, sparse):
    """Bytes of a trial on each of the devices that share its examples and its classes."""
    num_features, num_classes = shape
    rows = -(-batch_size // placement.size("batch"))
    if isinstance(solver, LBFGS):
        count = mesh.sparse_trial_bytes if sparse else mesh.lbfgs_trial_bytes
        whole = count(num_features, num_classes, rows)
    else:
        holds_logits, adam = callable(objective.loss), solver.optimizer in ("adam", "adamw")
        count = mesh.sgd_trial_bytes if holds_logits else mesh.vocabulary_trial_bytes
        whole = count(num_features, num_classes, rows, int(adam))  # its second moment
    return -(-whole * np.dtype(objective.dtype).itemsize // (4 * placement.size("classes")))


def _criterion(loss, stored, num_classes, sharding):
    """From a number of samples to what is minimised and measured."""
    if callable(loss):
        return lambda _: train.criterion_of_logits(stored, loss)
    return lambda samples: vocabulary.criterion(loss, num_classes, samples, sharding)


def check_types(**values: Any) -> None:
    """Raises TypeError for a value that is not of the types of this module."""
    kinds = {"solver": (SGD, LBFGS), "objective": (Objective,), "devices": (Devices,)}
    for name, value in values.items():
        if not isinstance(value, kinds[name]):
            wanted = " or ".join(f"sweep.{kind.__name__}(...)" for kind in kinds[name])
            raise TypeError(f"{name} must be {wanted}; it is {value!r}.")


def _raise(wrong):
    """Raises one ValueError with all texts whose value is true."""
    problems = [text for text, is_wrong in wrong.items() if is_wrong]
    if problems:
        raise ValueError("; ".join(problems) + ".")


def _check(train, num_epochs, sizes, seeds, resamples, solver, devices):
    """Raises one ValueError that names every option that is out of range."""
    num_examples = len(train.y)
    wrong = {
        f"num_epochs must be a whole number from 1; it is {num_epochs}": not _whole(num_epochs, 1),
        f"batch_size must be from 1 to the {num_examples} training examples; it is {sizes}": (
            not sizes or not all(_whole(size, 1, num_examples) for size in sizes)
        ),
        f"batch_size has a value twice: {sizes}": len(set(sizes)) < len(sizes),
        f"seeds must be distinct whole numbers from 0; they are {seeds}": not _are_seeds(seeds),
        f"chunk must be a whole number from 0; it is {devices.chunk}": not _whole(devices.chunk, 0),
    }
    if isinstance(solver, SGD):
        samples = np.atleast_1d(solver.num_samples).tolist()
        wrong[f"num_samples must be whole numbers from 0; it is {samples}"] = (
            not samples or not all(_whole(number, 0) for number in samples)
        )
    names = ", ".join(validation_metrics())
    wrong[f"best_by must be one of {names}; it is {solver.best_by!r}"] = (
        solver.best_by not in validation_metrics()
    )
    _raise(wrong)
    if resamples is not None:
        check_resamples(resamples, num_examples)


def _check_solver(solver, settings, seeds, objective, validated):
    """Raises ValueError for options that the solver does not support or does not depend on."""
    wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    if objective.dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64; it is {objective.dtype!r}.")
    if not isinstance(objective.standardize, bool | np.bool_):
        raise ValueError(f"standardize must be True or False; it is {objective.standardize!r}.")
    if objective.dtype != np.float32 and not wide:
        raise ValueError("float64 needs jax.config.update('jax_enable_x64', True) at the start.")
    if isinstance(solver, LBFGS):
        return _check_lbfgs(solver, settings, seeds)
    if solver.schedule not in train.SCHEDULES:
        raise ValueError(f"schedule must be one of {train.SCHEDULES}; it is {solver.schedule!r}.")
    if solver.optimizer not in train.OPTIMIZERS:
        names = ", ".join(map(repr, train.OPTIMIZERS))
        raise ValueError(f"optimizer must be one of {names}; it is {solver.optimizer!r}.")
    used = [name for name in OFF if getattr(in_use(settings), name) is not None]
    zeros = [name for name in SPARSE if name in used]
    decays = solver.schedule != "constant"
    sampled = [name for name in vocabulary.OBJECTIVES if name != vocabulary.EXACT]
    wrong = {
        f"{' and '.join(zeros)} above 0 need LBFGS (in a config optimizer = 'lbfgs'): SGD leaves "
        "no weight exactly zero": bool(zeros),
        "a final_rate below 1 needs a schedule, 'cosine' or 'exponential'": (
            "final_rate" in used and not decays
        ),
        f"schedule {solver.schedule!r} decays to final_rate, which is 1 throughout: give one "
        "below 1": "final_rate" not in used and decays,
        "an exponential decay never reaches 0: give a final_rate above 0": (
            solver.schedule == "exponential" and not settings.final_rate.all()
        ),
        "patience needs a validation metric: give val, or resamples": (
            "patience" in used and not validated
        ),
        f"num_samples is for the losses {', '.join(sampled)}: set it to 0": (
            np.any(solver.num_samples) and objective.loss not in sampled
        ),
    }
    _raise(wrong | _wrong_optimizer(solver.optimizer, used))


def _wrong_optimizer(optimizer, used):
    """The hyperparameters in use that the optimiser does not have, and the ones that it needs."""
    others = [name for name in used if name not in (*of_optimizer(optimizer), *SPARSE)]
    wrong = {
        f"{name} is for optimizer {' or '.join(map(repr, ROWS[name].optimizers))}, and it is "
        f"{optimizer!r}: leave it out, or change the optimizer": True
        for name in others
    }
    needed = {"nesterov": ("momentum", "sgd"), "adamw": ("weight_decay", "adam")}
    name, without = needed.get(optimizer, ("", ""))
    text = f"optimizer {optimizer!r} needs a {name} above 0; without it is {without!r}"
    return wrong | {text: name not in used and name != ""}


def _check_halving(halving, solver, settings, resamples, held_out, num_epochs, sizes, num_samples):
    """Raises ValueError for a halving that is none, or that cannot be combined with the rest."""
    if halving is None:
        return
    pair = halving if isinstance(halving, tuple | list) and len(halving) == 2 else (0, 0)
    if not all(_whole(number, 0) for number in pair):
        pair = (0, 0)
    if pair == (0, 0):
        raise ValueError(
            f"halving must be (a factor from 2, min_epochs from 1), or None; it is {halving!r}."
        )
    nested = resamples is not None and bool((resamples.outer >= 0).any())
    wrong = successive_halving.problems(
        tuple(pair),
        num_epochs=num_epochs,
        num_settings=len(settings.l2) * len(sizes) * len(num_samples),
        validated=held_out is not None or resamples is not None,
    )
    _raise(
        wrong
        | {
            "halving is for SGD: LBFGS ends each trial at its optimum": isinstance(solver, LBFGS),
            "halving and patience exclude each other: both stop trials": settings.patience.any(),
            "halving and outer folds exclude each other": nested,
        }
    )


def _check_lbfgs(solver, settings, seeds):
    if not (isinstance(solver.tolerance, int | float | np.floating) and 0 < solver.tolerance < 1):
        raise ValueError(f"tolerance must be between 0 and 1; it is {solver.tolerance!r}.")
    columns = settings._asdict()
    allowed = "momentum", *SPARSE
    used = [name for name in OFF if name not in allowed and (columns[name] != OFF[name]).any()]
    if used:
        raise ValueError(f"{', '.join(used)} do not work with LBFGS: use SGD, or leave them out.")
    penalties = "l2", *SPARSE
    idle = [name for name, column in columns.items() if name not in penalties and _varies(column)]
    idle += ["seeds"] if len(seeds) > 1 else []
    if idle:
        raise ValueError(
            f"The optimum depends on l2, l1 and l1_group alone: {', '.join(idle)} cannot vary with "
            "LBFGS."
        )
    zeros = settings.l1 + settings.l1_group > 0
    if zeros.any() and not (zeros | (settings.l2 > 0)).all():
        raise ValueError(
            "Among settings with l1 or l1_group each needs some penalty, as without one the "
            "optimum may be at infinity: leave out the setting in which all are 0, or give it an "
            "l2."
        )
    if zeros.any() and jax.process_count() > 1:
        raise ValueError("l1 and l1_group are for one process; there are several.")


def _check_classes(placement, full, num_classes):
    """Raises ValueError where the devices cannot share the classes."""
    devices = placement.size("classes")
    if devices > 1 and full:
        raise ValueError("mesh.classes above 1 is for SGD: LBFGS shares trials and examples.")
    if num_classes % devices:
        raise ValueError(
            f"mesh.classes must divide the number of classes; it is {devices}, of {num_classes:,} "
            "classes."
        )


def _varies(column):
    return len(np.unique(column)) > 1


def _whole(value, low, high=2**63):
    return (
        isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= value <= high
    )


def _are_seeds(seeds):
    if not hasattr(seeds, "__len__"):
        return False
    seeds = [getattr(seed, "item", lambda seed=seed: seed)() for seed in seeds]
    return 0 < len(seeds) == len(set(seeds)) and all(_whole(s, 0, 2**32 - 1) for s in seeds)


class _Segment(NamedTuple):
    """Steps that run as one program: segment `number` (from 1) of an epoch."""

    epoch: int
    number: int
    is_last: bool
    data: train.Data
    order: Int[np.ndarray, "S steps B"]


def _sgd_epochs(
    run: Run,
    pending: list[Pending],
    pair: InputPair,
    steps_per_call: int,
    plan: Callable[..., list[chunks.Chunk]],
    multiple: int,
) -> Iterator[Epoch]:
    """The epochs of all pending chunks, one chunk after the other, or with halving by rungs.

    steps_per_call: the most steps of a segment (0: an epoch); after each the generator yields.
    """

    def of_chunk(item, later, until):
        fold = int(run.trials.fold[item.chunk.trials[0, 0]])
        return _chunk_epochs(run, item, later, *pair.of(fold), steps_per_call, until)

    if run.halving is not None:
        some = lambda rows: plan(rows=rows)  # noqa: E731
        yield from successive_halving.epochs(run, pending, of_chunk, some, multiple)
        return
    for number, item in enumerate(pending):
        yield from of_chunk(item, tuple(pending[number + 1 :]), run.num_epochs)


def _chunk_epochs(run, item, later, inputs, held_out, steps_per_call, until):
    """Trains, evaluates, keeps the best, stops the trials that are done, yields."""
    chunk, placement, criterion = item.chunk, run.placement, _chunk_criterion(run, item.chunk)
    states, best, sums = _start(run, item, inputs)
    running = np.broadcast_to(np.arange(chunk.trials.shape[1]) < chunk.num_real, chunk.trials.shape)
    if states.stopped is not None:
        running = running & ~placement.fetch(states.stopped)
    static = criterion, run.schedule, _microchunk(run, chunk, inputs)
    segments = _segments(run, item, inputs, steps_per_call, until)
    upcoming = next(segments)
    while upcoming is not None:
        segment = upcoming
        states, own = program.train_epoch(states, segment.data, segment.order, *static)
        sums = own if sums is None else program.add(sums, own)
        measured, trained, facts, done = {}, np.zeros_like(running), {}, segment.number
        if segment.is_last:
            measured = prefixed("train", program.values(sums, criterion))
            if held_out is not None:
                measured |= prefixed("val", evaluate_inputs(states, held_out, criterion))
                best = program.keep_best(best, states, _cost(measured, run.best_by), segment.epoch)
            if states.stopped is not None:
                states = states.replace(stopped=program.stopped(states, best, segment.epoch))
            trained, sums, done = running, None, 0
        upcoming = next(segments, None)  # shuffle and read while the device computes
        if states.stopped is not None and segment.is_last:
            stopped = placement.fetch(states.stopped)
            facts = {"stopped_epoch": np.where(stopped, segment.epoch, 0)[trained]}
            running = trained & ~stopped
        progress = {"states": states, "best": best} | ({"sums": sums} if done else {})
        ends = upcoming is None or not running.any()
        pauses = ends and until < run.num_epochs
        if ends and run.halving is not None:
            facts = {"stopped_epoch": np.full(int(trained.sum()), until if pauses else 0)}
        if pauses:
            progress[successive_halving.SCORE] = _score(run, chunk, measured)
        fetched = fetch_metrics(measured, placement)
        numbers = chunk.trials[trained]
        yield Epoch(
            epoch=segment.epoch,
            trials=numbers,
            reached=np.full(len(numbers), segment.epoch),
            metrics={name: values[trained] for name, values in fetched.items()},
            facts=facts,
            states=states,
            best=best,
            chunk=chunk,
            ends=ends and not pauses,
            run=run,
            segment=done,
            progress=progress,
            pending=later,
            pauses=pauses,
        )
        if ends:
            return


def _start(run, item, inputs):
    """States, best epochs and sums (None: no segment is done), fresh or as they were saved."""
    placement = run.placement
    states = chunks.create_states(run, item.chunk, inputs)
    best = placement.trials(program.no_best(states))
    if item.saved is None:
        return states, best, None
    like = {"states": states, "best": best}
    if item.segment:
        _, data = next(inputs.shards())
        order = np.zeros((len(states.step), 1, 1), np.int32)  # one step, for the shapes
        static = _chunk_criterion(run, item.chunk), run.schedule
        like["sums"] = jax.eval_shape(
            lambda states: program.train_epoch(states, data, order, *static)[1], states
        )
    saved = placement.trials(chunks.restore_state(item, like))
    return saved["states"], saved["best"], saved.get("sums")


def _segments(run, item, inputs, steps_per_call, until) -> Iterator[_Segment]:
    """Every segment of the chunk's epochs that is still pending, up to an epoch."""
    chunk, placement = item.chunk, run.placement
    seeds, batch_size = run.trials.seed[chunk.trials[:, 0]], chunks.batch_size(run, chunk)
    for epoch in range(item.epoch + 1, until + 1):
        done = item.segment if epoch == item.epoch + 1 else 0
        steps_left = -(-run.num_examples // batch_size)
        number = 0
        for shard, data in inputs.shards(epoch, batch_size):
            order = orders(seeds, epoch, len(data.y), batch_size, shard)
            order = np.asarray(padded(order, -1, placement.size("batch"), -1))
            limit = steps_per_call or order.shape[1]
            for start in range(0, order.shape[1], limit):
                steps = order[:, start : start + limit]
                steps_left, number = steps_left - steps.shape[1], number + 1
                if number > done:
                    steps = placement.batches(steps, chunk.trials.shape)
                    yield _Segment(epoch, number, steps_left == 0, data, steps)


def orders(
    seeds: Sequence[int] | Integer[np.ndarray, " S"],
    epoch: int,
    num_examples: int,
    batch_size: int,
    shard: int = 0,
) -> Int[np.ndarray, "S steps B"]:
    """The minibatches of an epoch: a permutation of the examples per seed, padded with -1.

    A function of (seed, epoch) alone; where an epoch is read by shards, of the shard's number too.

    >>> orders([0], 1, num_examples=5, batch_size=2).shape
    (1, 3, 2)
    """
    steps = -(-num_examples // batch_size)
    order = np.full((len(seeds), steps * batch_size), -1, np.int32)
    for row, seed in zip(order, seeds, strict=True):
        key = (seed, epoch, shard) if shard else (seed, epoch)
        row[:num_examples] = np.random.default_rng(key).permutation(num_examples)
    return order.reshape(len(seeds), steps, batch_size)


def _chunk_criterion(run, chunk):
    """What the trials of a chunk minimise: all draw the same number of samples."""
    return run.criterion(int(run.trials.num_samples[chunk.trials[0, 0]]))


def _score(run, chunk, measured):
    """What halving compares the chunk's trials by."""
    samples = run.trials.num_samples[chunk.trials[0, :1]]
    (limit,) = hopeless_loss(samples, len(run.label_names)).tolist()
    return successive_halving.score(measured, run.best_by, limit)


def _microchunk(run, chunk, inputs):
    """How many trials of each seed to train at once; None: all."""
    num_scores = chunks.batch_size(run, chunk) if _chunk_criterion(run, chunk).holds_logits else 0
    sizes = inputs.dataset.num_features, len(run.label_names), num_scores
    return program.training_microchunk(run.placement, chunk.trials.shape, *sizes)


def _cost(measured, best_by):
    return measured[best_by] if best_by.endswith("loss") else -measured[best_by]
