"""The pictures of a run: curves, confusion matrix, mistakes and weights. Matplotlib figures."""

import numpy as np

from softmax_jax import data, metrics

_COLOURS = {"train": "tab:blue", "val": "tab:orange"}
_MOST_CLASSES = 100  # a confusion matrix of more is not legible
_CLASSES_WITH_NUMBERS = 20  # in the cells
_MARKED_EPOCHS = 50  # markers of more hide the line


def _figure(**options):
    # Figure instead of pyplot: no global state, no window system.
    from matplotlib.figure import Figure

    return Figure(layout="constrained", dpi=110, **options)


def curves(result, selected, title):
    """Loss and accuracy by epoch: the selected trial bold, the runners-up thin, the rest faint."""
    figure = _figure(figsize=(9, 3.6))
    figure.suptitle(title, fontsize=11)
    epochs = result.reached
    near, far = _others(result, selected)
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name in (f"train_{what}", f"val_{what}"):
            if name not in result.metrics:
                continue
            values, colour = result.metrics[name], _COLOURS[name.split("_")[0]]
            axes.plot(epochs[far].T, values[far].T, color=colour, alpha=0.12, linewidth=0.7)
            axes.plot(epochs[near].T, values[near].T, color=colour, alpha=0.55, linewidth=0.8)
            label = name.replace("_", " ")
            own = epochs[selected.trial], values[selected.trial]
            marker = "." if len(own[0]) <= _MARKED_EPOCHS else None
            axes.plot(*own, color=colour, marker=marker, label=label)
        shown = [name for name in (f"train_{what}", f"val_{what}") if name in result.metrics]
        _zoom(axes, result.metrics[shown[0]], selected.trial)
        axes.set(xlabel="epoch", ylabel=what)
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


def of_classifier(classifier, dataset, title) -> dict:
    """{file name: figure} of what the classifier makes of a dataset, as far as its kind allows."""
    if dataset.num_classes > _MOST_CLASSES and not dataset.is_image:
        return {}
    probabilities, labels = classifier.predict_proba(dataset.x), np.asarray(dataset.y)
    figures = {}
    if dataset.num_classes <= _MOST_CLASSES:
        predicted = probabilities.argmax(-1)
        figures["confusion.png"] = confusion(labels, predicted, dataset.label_names, title)
    if dataset.is_image:
        figures["weights.png"] = weights(classifier, dataset.x.shape[1:], title)
        if (probabilities.argmax(-1) != labels).any():
            figures["mistakes.png"] = mistakes(dataset, probabilities, title)
    return figures


def confusion(labels, predictions, label_names, title):
    """True labels by rows, predictions by columns; in the cells counts, shaded by row."""
    num_classes = len(label_names)
    counts = metrics.confusion_matrix(labels, predictions, num_classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(3 + 0.42 * num_classes, 14)
    figure = _figure(figsize=(side, side))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    ticks = np.arange(num_classes)
    axes.set_xticks(ticks, label_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, label_names)
    if num_classes <= _CLASSES_WITH_NUMBERS:
        for row, column in np.argwhere(counts):
            shade = "white" if shares[row, column] > 0.5 else "black"
            text = f"{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
    return figure


def mistakes(dataset, probabilities, title, most=36):
    """Misclassified images, the most confident first: the true label over the predicted one."""
    labels, predictions = np.asarray(dataset.y), probabilities.argmax(-1)
    wrong = np.flatnonzero(predictions != labels)
    confidence = probabilities[wrong, predictions[wrong]]
    shown = wrong[np.argsort(-confidence, kind="stable")[:most]]
    names = zip(
        dataset.text_labels(labels[shown]), dataset.text_labels(predictions[shown]), strict=True
    )
    titles = [f"{true}\n{predicted}" for true, predicted in names]
    heading = f"{title}: {len(shown)} of {len(wrong)} mistakes, the true label over the predicted"
    return data.show_images(np.asarray(dataset.x)[shown], titles, heading=heading)


def weights(classifier, image_shape, title):
    """Each class's weights as an image: red raises the class's score, blue lowers it."""
    num_classes = len(classifier.label_names)
    columns = min(num_classes, 5)
    rows = -(-num_classes // columns)
    figure = _figure(figsize=(1.7 * columns + 0.6, 1.9 * rows + 0.4))
    figure.suptitle(title, fontsize=11)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    images = classifier.W.T.reshape(num_classes, *image_shape)
    images = images.mean(-1) if images.ndim == 4 else images
    limit = np.abs(images).max() or 1.0
    for axes in grid:
        axes.set_axis_off()
    for axes, image, name in zip(grid, images, classifier.label_names, strict=False):
        shown = axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(name, fontsize=9)
    figure.colorbar(shown, ax=grid.tolist(), shrink=0.8)
    return figure


def _others(result, selected, most_near=4, most_far=200):
    """The trials next to the selected one by their final loss, and an even sample of the rest."""
    name = "val_loss" if "val_loss" in result.metrics else "train_loss"
    order = np.argsort(result.metrics[name][:, -1], kind="stable")  # NaN comes last
    order = order[order != selected.trial]
    far = order[most_near:]
    return order[:most_near], far[:: max(1, -(-len(far) // most_far))]


def _zoom(axes, values, trial):
    """Keeps the view on what matters: a trial that blew up must not flatten all the others."""
    top = 2.5 * np.nanmax(values[trial])
    if axes.get_ylim()[1] > top:
        axes.set_ylim(0, top)
