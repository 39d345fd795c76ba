"""What a job would do, said without doing it: the thing to run before queueing."""

import math

from softmax_jax.job import console, machine
from softmax_jax.sweep import memory

_GIB = 2**30


def say(splits, epochs):
    """Trials, programs, memory and devices of a checked job."""
    for line in lines(splits, epochs):
        console.say(line)


def lines(splits, epochs) -> list[str]:
    """The plan of the job as text: every figure follows from the config and the data."""
    run, pieces = epochs.run, [task.piece for task in epochs.work]
    trials, shapes = run.trials, {piece.trials.shape for piece in pieces}
    where, placement = machine.devices(), run.placement
    sizes = set(trials.batch_size.tolist())
    kinds = set(zip(trials.batch_size.tolist(), trials.num_samples.tolist(), strict=True))
    largest = max(math.prod(shape) for shape in shapes)
    here = math.ceil(largest / placement.size("trials"))
    steps = sum(-(-run.num_examples // size) for size in sizes)
    return [
        f"trials    {len(trials.group):,}: {len(set(trials.group.tolist())):,} settings and batch "
        f"sizes × {len(set(trials.seed.tolist()))} seeds × {len(set(trials.fold.tolist()))} folds",
        f"programs  {len(pieces):,} pieces of at most {largest:,} trials, compiled for "
        f"{len(kinds) * len(shapes)} shapes",
        f"steps     {steps:,} in an epoch of every batch size, {run.num_epochs:,} epochs",
        f"memory    {here * epochs.bytes_per_trial / _GIB:.2f} GiB for the trials on each device, "
        f"{_data_bytes(splits) / _GIB:.2f} GiB for the data, "
        f"of {memory.device_bytes() / _GIB:.1f} GiB",
        f"devices   {where['device_count']} × {where['device_kind']} ({where['backend']}): "
        f"{placement.size('trials')} share the trials, {placement.size('batch')} each minibatch, "
        f"{placement.size('classes')} the classes",
    ]


def _data_bytes(splits):
    parts = (splits.train, splits.val)
    return sum(part.x.size * part.x.dtype.itemsize for part in parts if part.part_size is None)
