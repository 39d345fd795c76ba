import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softmax_jax import checks
from softmax_jax.vocabulary import check_labels


def test_labels_are_checked_where_they_are_known():
    labels = jnp.array([3, 9, -1, 4])
    assert check_labels(labels, 4, 10, ignore_index=-1) is None
    with pytest.raises(ValueError, match="0..9; 1 do not, the first in row 2: -1"):
        check_labels(labels, 4, 10)
    with pytest.raises(ValueError, match=r"0\.\.8 or the ignore index -1; 1 .* row 1: 9"):
        check_labels(labels, 4, 9, ignore_index=-1)
    with pytest.raises(ValueError, match=r"\[5\]"):
        jax.jit(lambda labels: check_labels(labels, 5, 10))(labels)
    assert jax.jit(lambda labels: labels + (check_labels(labels, 4, 2) is None))(labels)[0] == 4


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None, np.float32(2)])
def test_counts_are_whole_and_positive(value):
    with pytest.raises(ValueError, match="^k must be a whole number"):
        checks.check_count("k", value)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), float("inf"), "0.5", None])
def test_numbers_lie_in_their_range(value):
    with pytest.raises(ValueError, match="^share must be a finite number of at least 0 and below"):
        checks.check_number("share", value, 0, 1)


def test_what_is_right_passes():
    assert checks.check_count("k", np.int64(3), 3) is None
    assert checks.check_number("share", np.float32(0.5), 0, 1) is None
    assert checks.check_number("share", 0, 0, 1) is None
