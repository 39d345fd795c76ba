import os

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from softmax_jax import checks

PROPERTY = settings(max_examples=60, deadline=None, database=None)


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 9), st.sampled_from("fde"))
def test_softmax_of_anything_passes_as_probabilities(seed, N, C, kind):
    logits = np.random.default_rng(seed).normal(0, 30, (N, C))
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p = (p / p.sum(-1, keepdims=True)).astype(kind)
    assert checks.as_probabilities(p, ndim=2) is p
    assert checks.as_probabilities(p[0]).shape == (C,)


@PROPERTY
@given(
    st.integers(0, 10**6),
    st.sampled_from([np.nan, np.inf, -np.inf, -0.1, 1.1, 2.0]),
    st.integers(0, 4),
    st.integers(0, 2),
)
def test_one_value_that_is_no_probability_is_found_and_named(seed, value, row, column):
    p = np.random.default_rng(seed).dirichlet(np.ones(3), 5)
    p[row, column] = value
    with pytest.raises(ValueError, match=rf"0\.\.1; 1 does not, the first at \[{row}, {column}\]"):
        checks.as_probabilities(p)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (np.full((2, 2), 0.4), "sum to 1; 2 do not, the first at .0.: 0.8"),
        (np.array([0.2, 0.8]), r"\[N, C\].*they are \[2\].*1 - p and p"),
        (np.ones((2, 1), bool), "real numbers; they are bool"),
        (np.ones((2, 1), complex), "real numbers; they are complex"),
        (np.array([["a"]]), "real numbers"),
        (np.ones((2, 0)), r"they are \[2, 0\]"),
    ],
)
def test_what_is_no_table_of_probabilities_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        checks.as_probabilities(wrong, ndim=2)


@PROPERTY
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    st.sampled_from([np.uint8, np.int8, np.uint16, np.int64, np.uint64]),
    st.permutations(["d", "b", "a", "c"]),
)
def test_labels_by_name_by_number_and_by_column_are_the_same(labels, dtype, names):
    columns = np.array(labels, dtype)
    assert_array_equal(checks.as_labels(columns, len(labels), 4), labels)
    named = [names[label] for label in labels]
    for given_names in named, np.array(named), np.array(named, object):
        assert_array_equal(checks.as_labels(given_names, len(labels), 4, names), labels)
    numbers = np.array([30, 10, 40, 20])
    assert_array_equal(checks.as_labels(numbers[labels], len(labels), 4, numbers), labels)


@PROPERTY
@given(st.integers(-300, 300).filter(lambda label: not 0 <= label < 4), st.booleans())
def test_one_label_out_of_range_is_found_in_every_type_and_array(label, on_jax):
    labels = np.array([0, 3, label, 1])
    kinds = [np.int8, np.uint8, np.int16, np.int32, np.int64]
    for kind in kinds:
        if np.iinfo(kind).min <= label <= np.iinfo(kind).max:
            given_labels = labels.astype(kind)
            given_labels = jnp.asarray(given_labels) if on_jax else given_labels
            with pytest.raises(ValueError, match=rf"0\.\.3; 1 does not, .* \[2\]: {label}\."):
                checks.as_labels(given_labels, 4, 4)
    with pytest.raises(ValueError, match=rf"among the classes \[0, 1, 2, 3\].* \[2\]: {label}"):
        checks.as_labels(labels, 4, 4, range(4))


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([0.0, np.nan, np.inf]), r"integers; 2 do not, .*\[1\]: nan.*Leave these"),
        (np.array([0.0, 1.0, 2.0]), "float64. Convert them"),
        (np.array([0.0, 1.5, 2.0]), r"\[1\]: 1.5"),
        (np.array([True, False, True]), "bool. Convert them"),
        (np.array(["a", "b", "a"]), "Pass classes="),
        (np.array([[0], [1], [2]]), r"\[N\] = \[3\].*they are \[3, 1\]"),
        (np.array([2**32, 0, 1]), "4294967296"),
    ],
)
def test_labels_of_another_type_or_shape_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        checks.as_labels(labels, 3, 3)


@pytest.mark.parametrize(
    "classes, message",
    [
        ([1, 2], "3 different ones"),
        ([1, 2, 2], "3 different ones"),
        (["1", "2", "3"], "of one kind"),
    ],
)
def test_classes_that_do_not_fit_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        checks.as_labels([1, 2, 3], 3, 3, classes)


def test_shapes_are_checked_while_tracing_and_values_pass():
    def traced(labels):
        with pytest.raises(ValueError, match=r"\[N\] = \[5\]"):
            checks.as_labels(labels, 5, 3)
        checks.check_number("x", labels[0], 0, 1)
        checks.check_whole("x", labels[0], 0, 1)
        return checks.as_labels(labels, 4, 3), checks.as_labels(labels, 4, 3, [9, 7, 8])

    plain, mapped = jax.jit(traced)(jnp.array([7, 9, 8, 5]))
    assert plain.tolist() == [7, 9, 8, 5] and mapped.tolist() == [1, 0, 2, -1]


@pytest.mark.parametrize("value", [0, 1, 1.5, -1, np.nan, np.inf, "0.5", None, True, [0.5, 2]])
def test_numbers_out_of_range_are_refused_with_the_rule(value):
    with pytest.raises(ValueError, match="^share must be above 0 and below 1; it is"):
        checks.check_number("share", value, 0, 1, ends=(False, False))


@pytest.mark.parametrize("value", [0, 4, 1.0, True, "2", None, [1], np.nan])
def test_counts_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="^k must be a whole number from 1 to 3"):
        checks.check_whole("k", value, 1, 3)


def test_a_label_equals_a_number_that_its_type_cannot_hold_nowhere():
    """In uint8, -100 and 156 are the same bits."""
    labels = jnp.array([156, 3], jnp.uint8)
    assert checks.equal(labels, -100).tolist() == [False, False]
    assert checks.equal(labels, 156).tolist() == [True, False]


@pytest.mark.skipif(os.environ.get("SOFTMAX_JAX_TYPES") == "0", reason="types are not checked")
def test_a_call_that_breaks_the_annotations_fails_where_tests_check_types():
    with pytest.raises(jaxtyping.TypeCheckError, match="num_rows"):
        checks.check_labels(np.arange(3), "3", 3)
