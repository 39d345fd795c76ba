"""Where a job stands: in its work folder, and between two steps of its training."""

import time

from softmax_jax.job import checkpoint, identity, processes
from softmax_jax.job.checkpoint import Checkpoint
from softmax_jax.sweep import tasks
from softmax_jax.sweep.collecting import Collection


class Progress:
    """The checkpoints of one job: what was found at the start, and when the next one is due.

    arrays, work: of the collection and of what is left; None and None for a fresh job. seconds: of
    training in earlier runs. number: of the last checkpoint (0: there is none). Only the first
    process writes; all agree on when.
    """

    def __init__(self, folder, job, config):
        self._folder, self._digest = folder, identity.digest(job)
        self._keep, self._every = config.keep, config.checkpoint_seconds
        found, self.warnings = checkpoint.restore(folder, self._digest)
        self.number = found.number if found else 0
        self.seconds = found.facts["seconds"] if found else 0.0
        self._started = self._saved = time.monotonic()
        self.arrays, self.work = _unpack(found) if found else (None, None)

    def collection(self, run) -> Collection:
        """What the job has measured so far."""
        return Collection(run) if self.arrays is None else Collection.restored(run, self.arrays)

    def training_seconds(self):
        """Of this run and of those before it."""
        return self.seconds + time.monotonic() - self._started

    def agree(self, stop):
        """(the signal to stop, or 0; whether a checkpoint is due): the same in every process."""
        return processes.agree(stop.requested, time.monotonic() - self._saved >= self._every)

    def save(self, collection, epoch):
        """A checkpoint after this step of the training."""
        saved, work = tasks.pack(tasks.left(epoch))
        arrays = {f"collection/{name}": array for name, array in collection.arrays().items()}
        arrays |= {f"work/{name}": array for name, array in saved.items()}
        facts = {"work": work, "seconds": self.training_seconds()}
        self.number += 1
        if processes.is_first():
            made = Checkpoint(self.number, self._digest, arrays, facts)
            checkpoint.save(self._folder, made, self._keep)
        self._saved = time.monotonic()


def _unpack(found):
    arrays, saved = (
        {
            name.removeprefix(prefix): array
            for name, array in found.arrays.items()
            if name.startswith(prefix)
        }
        for prefix in ("collection/", "work/")
    )
    return arrays, tasks.unpack(saved, found.facts["work"])
