"""What a job leaves in its work folder: tables, parameters, pictures, summary."""

import numpy as np

from softmax_jax.job import (
    console,
    data_plots,
    data_studies,
    machine,
    plots,
    report,
    setting_plots,
    sweep_plots,
)
from softmax_jax.job.errors import JobError


def write_provenance(workdir, config, splits, job):
    """config.json: the config as run, the software, the devices and the data really used."""
    workdir.write_json(
        "config.json",
        {
            "config": config.to_dict(),
            "versions": machine.versions(),
            **machine.devices(),
            "mesh": machine.mesh(config),
            "dataset": splits.name,
            "fingerprint": job["data"]["fingerprint"],
            "job": job,
        },
    )


def draw(workdir, config, splits, result, selected):
    """The pictures that this job and this dataset have."""
    several = len(result.run.trials.group) > 1
    which = f", trial {selected.trial}, epoch {selected.epoch}" if several else ""
    figures = {"curves.png": plots.curves(result, selected, splits.name + which)}
    grid = sweep_plots.lay_out(result, selected, config.select_metric, config.select_epoch)
    if grid:
        figures["sweep.png"] = sweep_plots.sweep(grid, splits.name)
    settings = setting_plots.settings(result, splits.name, config.select_epoch)
    if settings:
        figures["settings.png"] = settings
    figures |= plots.of_classifier(selected.classifier, splits.val, splits.name + which)
    if not splits.val.is_image:
        console.say(f"No pictures of examples: those of {splits.name} are features, not images.")
    for name, figure in figures.items():
        workdir.write_figure(name, figure)


def write_studies(workdir, config, splits, selected) -> dict:
    """learning_curve.csv and .png, audit.csv and .png, where the config asks for them.

    Returns what summary.json holds of them. Raises JobError for sizes or folds that do not fit.
    """
    classifier, l2 = selected.classifier, selected.hyperparameters["l2"]
    summary, wanted = {}, config.learning_curve
    try:
        if wanted.sizes:
            options = wanted.sizes, wanted.seeds, config.class_weight
            rows, law = data_studies.curve(splits, classifier, l2, *options)
            workdir.write_csv("learning_curve.csv", rows)
            figure = data_plots.learning_curve(rows, law, splits.name)
            workdir.write_figure("learning_curve.png", figure)
            summary["learning_curve"] = law and law._asdict()
        if config.audit_folds:
            options = l2, config.audit_folds, config.class_weight
            found = data_studies.suspects(splits.train, classifier, *options)
            workdir.write_csv("audit.csv", found.table(splits.label_names))
            if splits.train.is_image:
                figure = data_plots.suspects(splits.train, found, splits.name)
                workdir.write_figure("audit.png", figure)
    except ValueError as error:
        raise JobError(f"The studies cannot be made on {splits.name}: {error}") from error
    return summary


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
        mean=np.asarray(classifier.mean, classifier.W.dtype),
        scale=np.asarray(classifier.scale, classifier.W.dtype),
        label_names=np.array(classifier.label_names),
    )


def write_predictions(workdir, splits, on_val, on_test):
    """predictions.npz: probabilities [N, C], predicted classes and labels [N] for val and test.

    on_val, on_test: the classifiers that have not seen them.
    """
    arrays = {"label_names": np.array(splits.label_names)}
    for role, part, model in (("val", splits.val, on_val), ("test", splits.test, on_test)):
        if part is not None:
            probabilities = model.predict_proba(part.x)
            arrays[f"{role}_probabilities"] = probabilities
            arrays[f"{role}_predicted"] = probabilities.argmax(-1).astype(np.int32)
            arrays[f"{role}_labels"] = np.asarray(part.y)
    workdir.write_npz("predictions.npz", **arrays)


def write_summary(workdir, config, splits, result, selected, test, more, seconds):
    """summary.json, the last file of a job: where it stands, the job is done."""
    summary = report.summary(config, splits, result, selected, test, seconds) | more
    workdir.write_json("summary.json", summary)
