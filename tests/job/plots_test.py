"""The pictures show the numbers that they are of."""

import dataclasses

import numpy as np

from softmax_jax.job import plots


def _line(axes, label):
    return next(line for line in axes.get_lines() if line.get_label() == label)


def test_curves_show_the_selected_trial_by_epoch(result):
    selected = result.best()
    figure = plots.curves(result, selected, "digits")
    for axes, what in zip(figure.axes, ("loss", "accuracy"), strict=True):
        for name in (f"train_{what}", f"val_{what}"):
            line = _line(axes, name.replace("_", " "))
            assert line.get_xdata().tolist() == [1, 2, 3]
            np.testing.assert_array_equal(line.get_ydata(), result.metrics[name][selected.trial])
        assert len(axes.get_lines()) == 2 * len(result.best_epoch)
    assert figure.get_suptitle() == "digits"


def test_a_trial_that_blew_up_does_not_flatten_the_others(result):
    metrics = {name: values.copy() for name, values in result.metrics.items()}
    worst = 0 if result.best().trial else 1
    metrics["val_loss"][worst] = (10.0, 1e6, np.nan)
    figure = plots.curves(dataclasses.replace(result, metrics=metrics), result.best(), "")
    assert figure.axes[0].get_ylim()[1] < 10


def test_the_confusion_matrix_counts_every_example_once():
    labels, predictions = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0])
    figure = plots.confusion(labels, predictions, ("a", "b", "c"), "")
    (axes,) = figure.axes
    cells = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "1", (2, 0): "1"}
    assert axes.get_xlabel() == "predicted" and axes.get_ylabel() == "true"
    np.testing.assert_allclose(axes.images[0].get_array().sum(1), 1)


def test_mistakes_come_most_confident_first_and_name_both_labels(splits):
    val = splits.val
    probabilities = np.full((len(val.y), 10), 0.01)
    probabilities[np.arange(len(val.y)), val.y] = 0.9
    first, second = 7, 3
    for row, share in ((first, 0.99), (second, 0.95)):
        probabilities[row, (val.y[row] + 1) % 10] = share
    figure = plots.mistakes(val, probabilities, "digits")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{val.y[row]}\n{(val.y[row] + 1) % 10}" for row in (first, second)]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), val.x[first])


def test_weights_are_drawn_class_by_class_around_zero(result):
    classifier = result.best().classifier
    figure = plots.weights(classifier, (8, 8), "")
    for label in range(10):
        image = figure.axes[label].images[0]
        np.testing.assert_array_equal(image.get_array().ravel(), classifier.W[:, label])
        low, high = image.get_clim()
        assert low == -high


def test_features_have_no_pictures_of_images(result, splits):
    flat = dataclasses.replace(splits.val, x=splits.val.x.reshape(-1, 64))
    names = set(plots.of_classifier(result.best().classifier, flat, ""))
    assert names == {"confusion.png"}
    names = set(plots.of_classifier(result.best().classifier, splits.val, ""))
    assert names == {"confusion.png", "weights.png", "mistakes.png"}
