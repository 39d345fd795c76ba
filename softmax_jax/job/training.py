"""The training of a job: every step recorded, checkpoints in between, an orderly stop."""

from softmax_jax.job import console, tensorboard


def train(config, epochs, progress, workdir, num_examples, stop):
    """The `Result` of all epochs that are left, on top of what was there.

    Raises `signals.Stopped`, with a checkpoint saved, after the step in which a signal came.
    """
    collection = progress.collection(epochs.run)
    workdir.write_metrics(collection.lines())
    shown = console.watch(epochs, num_examples)
    if config.tensorboard:
        shown = tensorboard.recorded(shown, workdir.path)
    with stop.deferred():
        for epoch in shown:
            collection.add(epoch)
            workdir.append_metrics(epoch)
            stopping, due = progress.agree(stop)
            if stopping or due or (epoch.ends and not epoch.rest):
                progress.save(collection, epoch)
            if stopping:
                stop.requested = stopping
                break
    return collection.result()
