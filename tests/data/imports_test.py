import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["jax", "sklearn", "tensorflow_datasets", "matplotlib", "absl"])
def test_importing_data_imports_none_of_the_slow_packages(package):
    program = f"import sys, softmax_jax.data; print({package!r} in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"False", b"")
