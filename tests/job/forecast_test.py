"""What a job would do is counted, not guessed."""

import pytest

from softmax_jax import data
from softmax_jax.job import run


@pytest.fixture
def plan(config):
    def lines(**fields):
        config.update(fields)
        splits = data.load("digits")
        return dict(
            line.split(maxsplit=1)
            for line in run.forecast_lines(splits, run.start_sweep(config, splits))
        )

    return lines


def test_trials_and_steps_are_products_of_the_axes(plan):
    lines = plan(
        sweep=dict(learning_rate=(0.01, 0.1, 0.2), seed=(0, 1), batch_size=(32, 1437)), folds=3
    )
    assert lines["trials"].startswith("36: 6 settings and batch sizes × 2 seeds × 3 folds")
    assert lines["steps"].startswith(f"{-(-1437 // 32) + 1} in an epoch")


def test_chunks_are_pieces_of_one_shape(plan):
    lines = plan(sweep=dict(learning_rate=(0.01, 0.02, 0.1, 0.2, 0.3)), chunk=2)
    assert lines["programs"].startswith("3 pieces of at most 2 trials, compiled for 1 shapes")


def test_more_trials_take_more_memory(plan):
    def gib(text):
        return float(text.split()[0])

    few = gib(plan(sweep=dict(l2=(0.0, 0.1)))["memory"])
    many = gib(plan(sweep=dict(l2=tuple(i / 1000 for i in range(500))))["memory"])
    assert many > max(few, 0.1)
