import os
import subprocess
import sys

import pytest

import softmax_jax
from softmax_jax import estimator


def test_the_package_names_the_estimators_without_importing_scikit_learn():
    program = (
        "import sys, softmax_jax; before = 'sklearn' in sys.modules; softmax_jax.SoftmaxRegression;"
        " print(before, 'sklearn' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (done.stdout.split(), done.stderr) == ([b"False", b"True"], b"")


@pytest.mark.parametrize("name", ["SoftmaxRegression", "SoftmaxRegressionCV"])
def test_the_names_are_those_of_the_room(name):
    assert getattr(softmax_jax, name) is getattr(estimator, name)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="softmax_jax.*'Softmax'"):
        _ = softmax_jax.Softmax
