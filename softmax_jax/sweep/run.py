"""What stays the same throughout a sweep, and the choice that it ends in."""

from typing import NamedTuple

import numpy as np

from softmax_jax.classifier import Classifier
from softmax_jax.models import Model
from softmax_jax.sweep.placement import ONE, Placement
from softmax_jax.sweep.trials import Trials


class Run(NamedTuple):
    """What stays the same throughout a sweep.

    Its trials, its length, its model; the figure that decides a trial's best epoch; the number of
    training examples, and how an input is normalised (by mean and scale [R, D] where each resample
    has its own) and its classes are called; the schedule of the learning rate; the devices.
    """

    trials: Trials
    num_epochs: int
    model: Model
    best_by: str
    num_examples: int
    mean: np.ndarray
    scale: np.ndarray
    label_names: tuple
    schedule: str = "constant"
    placement: Placement = ONE


class Selected(NamedTuple):
    """The chosen trial: its settings and figures at the chosen epoch, why, and its classifier.

    `hints` say what may be wrong with the choice (a grid too small, an optimum not reached);
    `refit` is true where the classifier was trained anew on all training examples with the chosen
    settings.
    """

    trial: int
    epoch: int
    hyperparameters: dict
    metrics: dict
    why: str
    hints: list
    classifier: Classifier
    refit: bool = False
