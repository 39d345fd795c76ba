import jax
import pytest
from jax.sharding import AxisType

from softmax_jax.sweep import program
from softmax_jax.sweep.mesh import AXES, ONE, Placement

FASHION, DIGITS = (784, 10), (64, 10)
ON_A_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU has such caches")


@ON_A_CPU
@pytest.mark.parametrize(
    ("shape", "sizes", "num_scores", "expected"),
    [
        ((1, 64), FASHION, 256, None),  # all fit
        ((1, 256), FASHION, 256, None),
        ((1, 1024), FASHION, 256, 256),  # the weights are too many
        ((4, 256), FASHION, 256, 64),  # seeds count: 4 × 64 at once
        ((1, 5000), DIGITS, 256, 500),  # the scores are
        ((1, 8), FASHION, 60_000, None),  # too few rows to divide
        ((1, 4), (32, 100_000), 0, 1),  # one trial alone has more than enough
        ((1, 64), (32, 1000), 0, 32),  # without logits the weights alone count
        ((1, 1009), FASHION, 256, None),  # a prime
    ],
)
def test_trials_are_trained_in_portions_where_they_are_too_many(shape, sizes, num_scores, expected):
    assert program.training_microchunk(ONE, shape, *sizes, num_scores) == expected


@ON_A_CPU
@pytest.mark.parametrize(
    ("shape", "num_classes", "expected"),
    [((1, 64), 10, None), ((1, 256), 10, 64), ((2, 64), 10, 32), ((1, 3), 1000, 1)],
)
def test_trials_are_evaluated_in_smaller_portions(shape, num_classes, expected):
    assert program.evaluation_microchunk(ONE, shape, num_classes) == expected


@pytest.mark.parametrize("num_trials", [1, 2, 12, 97, 360, 1000])
@pytest.mark.parametrize("num_portions", [1, 2, 5, 64, 5000])
def test_portions_are_even_and_neither_too_large_nor_much_too_small(num_trials, num_portions):
    found = program.even_size(num_trials, num_portions)
    if found is not None:
        number, remainder = divmod(num_trials, found)
        fewest = min(num_portions, num_trials)
        assert remainder == 0 and max(fewest, 2) <= number < 2 * fewest


def test_devices_that_share_the_trials_get_them_all():
    shared = Placement(jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3))
    assert program.training_microchunk(shared, (1, 1024), *FASHION, 256) is None
    assert program.evaluation_microchunk(shared, (1, 1024), 10) is None
