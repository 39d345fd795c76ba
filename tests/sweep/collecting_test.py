"""However a sweep was cut into pieces, every figure and parameter lands in its trial's row."""

import numpy as np
import pytest

from softmax_jax import sweep
from tests import flat


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
def test_pieces_are_put_together_by_trial(digits, fit, chunk):
    settings = sweep.grid(learning_rate=(0.02, 0.05, 0.1))
    whole = fit(settings, seeds=(0, 1))
    epochs = flat.epochs(
        digits.train, digits.val, settings, num_epochs=3, batch_size=64, seeds=(0, 1), chunk=chunk
    )
    pieces = sweep.collect(epochs)
    for name, values in whole.metrics.items():
        np.testing.assert_allclose(pieces.metrics[name], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pieces.best_epoch, whole.best_epoch)
    for trial in range(6):
        W = pieces.classifier(trial, "best").W
        np.testing.assert_allclose(W, whole.classifier(trial, "best").W, rtol=1e-4, atol=1e-6)


def test_an_iterator_that_passes_the_epochs_on_changes_nothing(digits, fit):
    seen = []

    def passed_on():
        for epoch in flat.epochs(digits.train, digits.val, num_epochs=3, batch_size=64):
            seen.append(epoch.metrics["val_loss"][0])
            yield epoch

    result = sweep.collect(passed_on())
    np.testing.assert_array_equal(result.metrics["val_loss"][0], np.float32(seen))
    np.testing.assert_array_equal(result.classifier(0).W, fit().classifier(0).W)
