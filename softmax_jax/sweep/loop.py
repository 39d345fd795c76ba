"""The loop: an iterator that yields one `Epoch` at a time, and `fit`, which drains it."""

import numpy as np

from softmax_jax import losses, models, objectives
from softmax_jax.sweep import checks, full_batch, memory, minibatch, sources, trials
from softmax_jax.sweep.collecting import collect
from softmax_jax.sweep.epoch import Epochs
from softmax_jax.sweep.placement import place
from softmax_jax.sweep.result import Result
from softmax_jax.sweep.run import Run
from softmax_jax.sweep.settings import as_arrays
from softmax_jax.sweep.tasks import Task, recut
from softmax_jax.train import Hyperparameters


def epochs(
    train,
    val,
    settings: Hyperparameters | None = None,
    *,
    num_epochs: int,
    batch_size=256,
    seeds=(0,),
    optimizer: str = "sgd",
    tolerance: float = 1e-4,
    model=models.concise,
    loss=losses.cross_entropy,
    num_samples=(0,),
    class_weight=None,
    schedule: str = "constant",
    resamples=None,
    standardize: bool = False,
    dtype=np.float32,
    best_by: str = "val_loss",
    chunk: int = 0,
    mesh: tuple[int, ...] = (-1, 1, 1),
    span_steps: int = 0,
    work: list[Task] | None = None,
) -> Epochs:
    """Trains every trial of settings × seeds × batch sizes, an epoch per step of the generator.

    train, val: `data.Dataset`; val None means that nothing is evaluated. settings: from
    `sweep.grid`, `zipped` or `random` (None: the defaults). batch_size: one, or a sequence of them,
    run one after the other. best_by: the figure that decides each trial's best epoch.

    optimizer: 'sgd', or 'lbfgs' for the certified optimum of each l2 (`softmax_jax.optimum`): an
    iteration over all examples is then an epoch, num_epochs the most of them, tolerance the
    relative gap at which a trial has converged; learning_rate, momentum, init_scale and batch_size
    play no part. schedule: 'constant', or how the learning rate comes down to final_rate times it:
    'cosine', 'exponential'. A trial with a patience stops once so many epochs were no better than
    its best one.

    loss: a function(logits, labels, axis) of `softmax_jax.losses`, or the name of one of
    `vocabulary.OBJECTIVES`, with a num_samples, or several to be compared. class_weight: None,
    'balanced' or C numbers. resamples: None, or counts [N, R] of the training examples: every
    setting is then a trial per column, trained where the count is positive and evaluated (val must
    be None) where it is zero. standardize: features get mean 0 and standard deviation 1 over the
    training examples (of every resample, over its own), with the weights penalised in these units.
    dtype: of features and parameters; float64 needs `jax_enable_x64`.

    chunk: how many trials run at once (0: as many as the devices hold). mesh: how many devices
    share the trials, how many the examples of a minibatch, and how many the classes (-1: all that
    are left). span_steps: after how many steps the generator yields, with figures or without (0:
    after an epoch). work: what is left of a sweep that was broken off, instead of all of it.

    Raises ValueError for settings, sizes and weights out of range: at the call, before anything is
    compiled.
    """
    full = optimizer == "lbfgs"
    sizes = [len(train.y)] if full else np.atleast_1d(batch_size).tolist()
    checks.resident(optimizer, train)
    checks.options(train, val, num_epochs, sizes, seeds, resamples, best_by, chunk)
    settings = as_arrays(Hyperparameters() if settings is None else settings)
    checks.optimizer(optimizer, settings, seeds, tolerance, dtype)
    checks.cures(settings, schedule, optimizer, val is not None or resamples is not None)
    num_resamples = 0 if resamples is None else resamples.shape[1]
    num_samples = [0] if full else np.atleast_1d(num_samples).tolist()
    num_programs = len(sizes) * len(num_samples)
    num_trials = len(settings.l2) * len(seeds) * num_programs * max(num_resamples, 1)
    shape = train.num_features, train.num_classes
    placement = place(*mesh)
    checks.classes(placement, optimizer, train.num_classes)
    each = _bytes_per_trial(full, loss, shape, max(sizes), dtype, placement)
    multiple = placement.size("trials")
    chunk = memory.fitting_chunk(num_trials, *shape, each, chunk, multiple)
    dimensions = {"seeds": seeds, "batch_sizes": sizes, "num_samples": num_samples}
    table = trials.table(settings, **dimensions, num_resamples=num_resamples)
    table = table._replace(shown=("l2",)) if full else table
    data, mean, scale = sources.make(
        train,
        val,
        class_weight=class_weight,
        resamples=resamples,
        standardize=standardize,
        dtype=dtype,
        placement=placement,
        divided=full,
    )
    stored = full_batch.MODEL if full else models.augmented(model)
    normalisation = mean, scale, train.label_names
    options = schedule, placement
    run = Run(table, num_epochs, stored, best_by, len(train.y), *normalisation, *options)
    if work is None:
        pieces = trials.plan(table, chunk, by_fold=data.differ, multiple=multiple)
        work = [Task(piece) for piece in pieces]
    else:
        work = recut(work, chunk, multiple)
    objective = _objective(loss, train.num_classes, placement.by_classes)
    if full:
        found = full_batch.epochs(run, work, objective, data, tolerance)
    else:
        found = minibatch.epochs(run, work, objective, data, span_steps)
    return Epochs(run, work, each, found)


def _bytes_per_trial(full, loss, shape, batch_size, dtype, placement):
    """What a trial takes on each of the devices that share its examples and its classes."""
    by_logits = memory.bytes_per_trial if callable(loss) else memory.without_logits_bytes
    count = memory.full_batch_bytes if full else by_logits
    whole = count(*shape, -(-batch_size // placement.size("batch")))
    return -(-whole * np.dtype(dtype).itemsize // (4 * placement.size("classes")))


def _objective(loss, num_classes, sharding):
    """number of samples -> what is minimised and measured."""
    if callable(loss):
        return lambda _: objectives.of_logits(loss)
    return lambda samples: objectives.of_vocabulary(loss, num_classes, samples, sharding)


def fit(train, val, settings: Hyperparameters | None = None, **options) -> Result:
    """`epochs` to the end: the `Result` of all trials. Takes what `epochs` takes."""
    return collect(epochs(train, val, settings, **options))
