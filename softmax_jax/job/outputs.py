"""What a job leaves in its work folder: tables, parameters, pictures, summary."""

import numpy as np

from softmax_jax import data
from softmax_jax.job import machine, plots, report, sweep_plots


def write_provenance(workdir, config, splits):
    """config.json: the config as run, the software, the devices and the data really used."""
    workdir.write_json(
        "config.json",
        {
            "config": config.to_dict(),
            "versions": machine.versions(),
            **machine.devices(),
            "dataset": splits.name,
            "fingerprint": data.fingerprint(splits),
        },
    )


def recorded(epochs, workdir):
    """Passes the epochs on, each written to metrics.jsonl first."""
    for epoch in epochs:
        workdir.append_metrics(epoch)
        yield epoch


def draw(workdir, config, splits, result, selected):
    """The pictures that this job and this dataset have."""
    several = len(result.run.trials.group) > 1
    which = f", trial {selected.trial}, epoch {selected.epoch}" if several else ""
    figures = {"curves.png": plots.curves(result, selected, splits.name + which)}
    grid = sweep_plots.lay_out(result, selected, config.select_metric, config.select_epoch)
    if grid:
        figures["sweep.png"] = sweep_plots.sweep(grid, splits.name)
    figures |= plots.of_classifier(selected.classifier, splits.val, splits.name + which)
    for name, figure in figures.items():
        workdir.write_figure(name, figure)


def write_tables(workdir, config, result):
    """trials.csv, and for a sweep settings.csv."""
    workdir.write_csv("trials.csv", result.table())
    if len(result.run.trials.group) > 1:
        workdir.write_csv("settings.csv", result.by_setting(config.select_epoch))


def write_params(workdir, classifier):
    """params.npz: logits = ((x - mean) / scale) @ W + b, with NumPy alone."""
    workdir.write_npz(
        "params.npz",
        W=classifier.W,
        b=classifier.b,
        mean=np.asarray(classifier.mean, np.float32),
        scale=np.asarray(classifier.scale, np.float32),
        label_names=np.array(classifier.label_names),
    )


def write_summary(workdir, config, splits, result, selected, test, seconds):
    """summary.json, the last file of a job: where it stands, the job is done."""
    summary = report.summary(config, splits, result, selected, test, seconds)
    workdir.write_json("summary.json", summary)
