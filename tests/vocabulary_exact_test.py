"""The exact vocabulary loss against its full form, its tiles, and what they hold in memory."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal

from softmax_jax.vocabulary import (
    check_labels,
    exact,
    linear_cross_entropy,
    log_prob_and_rank,
    sharded_linear_cross_entropy,
)

pytestmark = pytest.mark.numerical

OPTIONS = {
    "bias": (None, "given"),
    "example_weights": (None, "given"),
    "ignore_index": (None, -1),
    "label_smoothing": (0.0, 0.1),
    "z_loss": (0.0, 0.01),
    "logit_softcap": (None, 2.0),
}


def full(x, W, labels, bias, example_weights, ignore_index, smoothing, z_loss, softcap):
    """The loss with all its logits, one-hot labels, and optax."""
    logits = x @ W if bias is None else x @ W + bias
    logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
    weights = jnp.ones(len(x)) if example_weights is None else example_weights
    weights = jnp.where(labels == ignore_index, 0, weights) if ignore_index else weights
    target = optax.smooth_labels(jax.nn.one_hot(labels, W.shape[1]), smoothing)
    losses = optax.softmax_cross_entropy(logits, target)
    losses += z_loss * jax.nn.logsumexp(logits, axis=1) ** 2
    return jnp.sum(weights * losses) / jnp.sum(weights)


def problem(seed, num_rows, num_features, num_words):
    """x, W, labels, bias, example_weights: float64; some rows weigh nothing, some are ignored."""
    rng = np.random.default_rng(seed)
    x, W = rng.normal(size=(num_rows, num_features)), rng.normal(size=(num_features, num_words))
    labels, weights = rng.integers(0, num_words, num_rows), rng.uniform(0.1, 2, num_rows)
    weights[1::5] = 0
    return x, W, labels, rng.normal(size=num_words), weights


def value_and_gradients(loss, arguments, places=(0, 1)):
    return jax.jit(jax.value_and_grad(loss, places))(*arguments)


def of_words(labels, **options):
    return lambda x, W: linear_cross_entropy(x, W, labels, **options)


def assert_close(actual, expected, tolerance):
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one, float), np.asarray(other, float)
        atol = tolerance * max(np.abs(other).max(), 1e-3)  # of one word all gradients are zero
        assert_allclose(one, other, rtol=tolerance, atol=atol)


# Which options the cases have: of any two of them, all four combinations occur.
CASES = np.zeros((6, len(OPTIONS)), int)
for option, rows in zip(range(len(OPTIONS)), itertools.combinations(range(1, 6), 3), strict=False):
    CASES[list(rows), option] = 1


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))]
)
def test_value_and_gradients_match_the_full_form(seed):
    """Of any sizes, blocks that do or do not divide them, and every pair of options, in float64."""
    rng = np.random.default_rng((seed, 1))
    num_rows, num_features, num_words = rng.integers(1, 40, 3)
    x, W, labels, bias, weights = problem(seed, num_rows, num_features, num_words)
    case = zip(OPTIONS.items(), CASES[seed % 6], strict=True)
    chosen = {name: values[place] for (name, values), place in case}
    labels[2::3] = -1 if chosen["ignore_index"] else labels[2::3]
    floats = [x, W, chosen["bias"] and bias, chosen["example_weights"] and weights]
    rest = [chosen[name] for name in list(OPTIONS)[2:]]
    row_block = int(rng.integers(1, num_rows + 3))
    vocabulary_block = int(rng.integers(1, num_words // 2 + 3))
    blocks = {"row_block": row_block, "vocabulary_block": vocabulary_block}

    def ours(x, W, bias, example_weights):
        more = chosen | blocks | {"bias": bias, "example_weights": example_weights}
        return linear_cross_entropy(x, W, labels, **more)

    def theirs(x, W, bias, example_weights):
        return full(x, W, labels, bias, example_weights, *rest)

    places = [place for place, value in enumerate(floats) if value is not None]
    with jax.enable_x64(True):
        expected = value_and_gradients(theirs, floats, places)
        actual = value_and_gradients(ours, floats, places)
    if chosen["example_weights"]:  # a row of weight 0 is as good as absent
        counts = (weights > 0) & (labels >= 0)
        expected = expected[0], (*expected[1][:-1], np.where(counts, expected[1][-1], 0))
    assert_close(actual, expected, 1e-12)


def test_float32_loss_with_default_tiles_matches_the_full_form():
    x, W, labels, bias, _ = problem(0, 50, 8, 3000)
    expected = value_and_gradients(
        lambda x, W: full(x, W, labels, bias, None, None, 0.1, 1e-4, 30.0), (x, W)
    )
    options = {"bias": jnp.float32(bias), "label_smoothing": 0.1, "z_loss": 1e-4}
    loss = of_words(labels, **options, logit_softcap=30.0)
    actual = value_and_gradients(loss, (jnp.float32(x), jnp.float32(W)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(actual))
    assert_close(actual, expected, 2e-6)


@pytest.fixture(scope="module")
def compiled_pair():
    """Value and gradients by labels: ours in float32, of the full form in float64."""
    loss = functools.partial(linear_cross_entropy, row_block=4, vocabulary_block=6)
    rest = None, None, None, 0.0, 0.0, None
    whole = jax.jit(jax.value_and_grad(lambda *arrays: full(*arrays, *rest), (0, 1)))
    return jax.jit(jax.value_and_grad(loss, (0, 1))), whole


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_logits_of_any_size_give_exact_losses(size, compiled_pair):
    """W holds the logits themselves, which float32 represents: only the loss is rounded."""
    rng = np.random.default_rng(0)
    W = np.round(rng.uniform(-size, size, (9, 23)))
    W[0], W[1], W[2, 5:] = size, -size, [size, -size] * 9
    labels = rng.integers(0, 23, 9)
    labels[3] = W[3].argmax()
    ours, whole = compiled_pair
    actual = ours(jnp.float32(np.eye(9)), jnp.float32(W), labels)
    with jax.enable_x64(True):
        expected = whole(np.eye(9), W, labels)
    assert np.isfinite(actual[0]) and actual[0] > 0
    assert_allclose(actual[0], expected[0], rtol=1e-6)
    assert_allclose(actual[1][1], expected[1][1], atol=1e-7)
    assert_allclose(actual[1][0], expected[1][0], atol=1e-6 * size)


def test_bfloat16_inputs_are_summed_in_float32():
    """Equal to float32 on the same rounded numbers; only the gradients' own rounding is added."""
    x, W, labels, bias, _ = problem(1, 40, 300, 70)
    x, W, bias = (jnp.asarray(leaf, jnp.bfloat16) for leaf in (x, W / 10, bias))
    loss = functools.partial(linear_cross_entropy, row_block=9, vocabulary_block=16)

    def of(x, W, bias):
        return loss(x, W, labels, bias=bias)

    value, gradients = value_and_gradients(of, (x, W, bias), (0, 1, 2))
    wide = [leaf.astype(jnp.float32) for leaf in (x, W, bias)]
    expected, expected_gradients = value_and_gradients(of, wide, (0, 1, 2))
    assert value.dtype == jnp.float32
    assert_allclose(value, expected, rtol=1e-6)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert one.dtype == jnp.bfloat16
        one = np.asarray(one, np.float32)
        assert_allclose(one, other, rtol=0.01, atol=0.005 * np.abs(other).max())


def test_contents_of_masked_rows_do_not_matter():
    x, W, labels, bias, weights = problem(2, 30, 5, 17)
    labels[::4], weights[5] = -7, 0.0
    counts = (labels != -7) & (weights > 0)

    def loss(x, W, weights):
        more = {"bias": bias, "example_weights": weights}
        return linear_cross_entropy(x, W, labels, ignore_index=-7, vocabulary_block=4, **more)

    gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    clean, dirty = (
        gradients(np.where(counts[:, None], x, rubbish), W, weights) for rubbish in (1.0, np.nan)
    )
    jax.tree.map(assert_array_equal, clean, dirty)
    for place in (0, 2):
        assert (dirty[1][place][~counts] == 0).all() and (dirty[1][place][counts] != 0).any()


def test_loss_and_gradients_without_examples_are_zero():
    x, W, labels, bias, weights = problem(3, 6, 4, 11)

    def loss(x, W, bias, weights, labels):
        more = {"bias": bias, "example_weights": weights, "z_loss": 0.1}
        return linear_cross_entropy(x, W, labels, ignore_index=-1, **more)

    gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))
    ignored = gradients(x * np.nan, W, bias, weights, np.full_like(labels, -1))
    weightless = gradients(x * np.nan, W, bias, np.zeros_like(weights), labels)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves((ignored, weightless)))


def test_words_with_bias_minus_infinity_do_not_count():
    x, W, labels, bias, _ = problem(4, 20, 5, 24)
    labels = 16 + labels % 8  # the words before: two tiles that are -inf throughout
    there = np.where(np.arange(24) < 16, -np.inf, bias)
    value, (dx, dW) = value_and_gradients(of_words(labels, bias=there, vocabulary_block=8), (x, W))
    loss = of_words(labels - 16, bias=bias[16:])
    expected, (expected_dx, expected_dW) = value_and_gradients(loss, (x, W[:, 16:]))
    assert_close((value, dx, dW[:, 16:]), (expected, expected_dx, expected_dW), 2e-6)
    assert_array_equal(dW[:, :16], 0)


def test_loss_under_vmap_is_that_of_each_model():
    x, W, labels, _, _ = problem(5, 20, 5, 14)
    many = np.stack([W, -W, 2 * W])
    loss = of_words(labels, row_block=8, vocabulary_block=5)
    one = jax.jit(jax.value_and_grad(loss, 1))
    sweep = jax.jit(jax.vmap(jax.value_and_grad(loss, 1), in_axes=(None, 0))).lower(x, many)
    sweep = sweep.compile()
    each = jax.tree.map(lambda *leaves: np.stack(leaves), *(one(x, W) for W in many))
    assert_close(sweep(x, many), each, 2e-6)
    assert products(sweep) == 3  # all models at once: one product for the logits, and dW


def products(compiled):
    return compiled.as_text().count(" dot(")


@pytest.mark.parametrize("places, number", [((), 1), ((0, 1), 4)])
def test_value_alone_takes_one_product(places, number):
    x, W, labels, _, _ = problem(5, 20, 5, 14)
    loss = of_words(labels, row_block=8, vocabulary_block=5)
    wanted = jax.value_and_grad(loss, places) if places else loss
    assert products(jax.jit(wanted).lower(x, W).compile()) == number


def test_memory_holds_at_most_two_tiles_of_logits():
    """Compiled, not run: 8192 examples, 131,072 words, whose logits would be 4.3 GB."""
    x, W = jax.ShapeDtypeStruct((8192, 256), "f4"), jax.ShapeDtypeStruct((256, 131072), "f4")
    labels = jax.ShapeDtypeStruct((8192,), "i4")
    gradients = jax.jit(jax.value_and_grad(linear_cross_entropy, (0, 1)))
    memory = gradients.lower(x, W, labels).compile().memory_analysis()
    tiles, inputs = 2 * 2048 * 1024 * 4, (8192 + 2 * 1024) * 256 * 4
    assert tiles / 2 < memory.temp_size_in_bytes < tiles + 2 * inputs < 64e6


@pytest.mark.parametrize("label", [-1, 11, 2**31 - 1])
def test_wrong_label_is_an_error_and_under_jit_nan(label):
    x, W = jnp.ones((5, 3)), jnp.ones((3, 11))
    labels = jnp.zeros(5, jnp.int32).at[3].set(label)
    with pytest.raises(ValueError, match=rf"0\.\.10.* the first at \[3\]: {label}"):
        linear_cross_entropy(x, W, labels)
    value, gradients = jax.jit(jax.value_and_grad(linear_cross_entropy, (0, 1)))(x, W, labels)
    assert np.isnan(value) and np.isnan(gradients[1]).all()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": jnp.ones((5, 2))}, r"\[5, 2\] and \[3, 11\]"),
        ({"x": jnp.ones((0, 3)), "labels": jnp.zeros(0, int)}, "nothing empty"),
        ({"x": jnp.ones((5, 3), int)}, "x must be floats; it is int32"),
        ({"W": jnp.ones(3)}, r"W \[D, V\]"),
        ({"bias": jnp.ones(10)}, r"bias must be \[V\] = \[11\]; it is \[10\]"),
        ({"labels": jnp.zeros(4, int)}, r"labels must be \[N\] = \[5\]"),
        ({"labels": jnp.zeros(5)}, "they are float32"),
        ({"example_weights": jnp.ones((5, 1))}, r"example_weights must be \[N\] = \[5\]"),
        ({"label_smoothing": 1.0}, "label_smoothing .* below 1; it is 1.0"),
        ({"z_loss": -1e-4}, "z_loss .* at least 0"),
        ({"z_loss": float("nan")}, "z_loss"),
        ({"logit_softcap": 0.0}, "logit_softcap .* above 0"),
        ({"row_block": 0}, "row_block must be a whole number of at least 1; it is 0"),
        ({"vocabulary_block": -4}, "vocabulary_block"),
    ],
)
def test_invalid_arguments_are_refused(change, words):
    arguments = {"x": jnp.ones((5, 3)), "W": jnp.ones((3, 11)), "labels": jnp.zeros(5, int)}
    with pytest.raises(ValueError, match=words):
        linear_cross_entropy(**(arguments | change))


LAW = settings(derandomize=True, deadline=None, max_examples=25)


@LAW
@given(*[st.integers(1, 12)] * 4)
def test_tiles_cover_every_logit_once(num_rows, num_words, row_block, vocabulary_block):
    grid = exact.cut(num_rows, num_words, row_block, vocabulary_block)
    assert grid.rows <= row_block and grid.columns <= vocabulary_block
    W, bias = np.arange(2.0 * num_words).reshape(2, num_words), np.arange(num_words)
    covered = np.zeros(num_words, int)
    for k in range(grid.num_columns):
        tile = exact.columns_of(grid, jnp.asarray(W), jnp.asarray(bias), k)
        words = np.arange(int(tile.start), int(tile.start) + grid.columns)
        assert_array_equal(tile.W, W[:, words])
        assert_array_equal(tile.bias, words)
        covered[words[int(tile.seen) :]] += 1
    assert_array_equal(covered, 1)
    rows = np.arange(2 * num_rows).reshape(num_rows, 2)
    padded = exact.in_rows(grid, jnp.asarray(rows))
    assert padded.shape == (grid.num_rows, grid.rows, 2)
    assert_array_equal(exact.out_of_rows(padded, num_rows), rows)


@LAW
@given(st.integers(1, 10**6))
def test_default_tiles_are_small_and_wide(num_rows):
    grid = exact.cut(num_rows, 131072)
    assert 4 * grid.rows * grid.columns <= 8 * 2**20
    assert grid.columns >= 1024


def test_products_of_bfloat16_are_summed_in_float32():
    ones = jnp.ones((1, 4096), jnp.bfloat16)
    assert exact.product(ones, ones.T).dtype == jnp.float32
    assert float(exact.product(ones, 1.0078125 * ones.T).squeeze()) == 4096 * 1.0078125


def test_row_losses_have_gradients_of_their_own():
    """Against finite differences of a combination of the rows with weights of both signs."""
    rng = np.random.default_rng(0)
    weights, labels = jnp.asarray(rng.normal(size=5)), jnp.asarray(rng.integers(0, 11, 5))
    tiles = exact.cut(5, 11, 2, 4)
    options = exact.Options(tiles, 11, label_smoothing=0.2, z_loss=0.1, softcap=3.0)

    def combination(x, W, bias):
        return weights @ exact.row_losses(options, x, W, bias, labels)

    with jax.enable_x64(True):
        shapes = (5, 3), (3, 11), (11,)
        arguments = tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)
        check_grads(jax.jit(combination), arguments, order=1, modes=["rev"], eps=1e-5)
        assert np.isfinite(combination(*arguments))


def test_labels_are_checked_where_they_are_known():
    labels = jnp.array([3, 9, -1, 4])
    assert check_labels(labels, 4, 10, ignore_index=-1) is None
    with pytest.raises(ValueError, match=r"0..9; 1 does not, the first at \[2\]: -1"):
        check_labels(labels, 4, 10)
    with pytest.raises(ValueError, match=r"0\.\.8; 1 .* \[1\]: 9\. Only .* -1, may"):
        check_labels(labels, 4, 9, ignore_index=-1)
    with pytest.raises(ValueError, match=r"\[5\]"):
        jax.jit(lambda labels: check_labels(labels, 5, 10))(labels)
    assert jax.jit(lambda labels: labels + (check_labels(labels, 4, 2) is None))(labels)[0] == 4


NARROW = [(128, np.int8), (128, np.uint8), (256, np.uint8), (300, np.uint8), (65536, np.uint16)]


@pytest.mark.parametrize("num_words, dtype", [*NARROW, (65536, np.int16), (300, np.int64)])
@pytest.mark.parametrize("known", [False, True])
def test_labels_of_any_integer_type_give_the_loss_of_int32(num_words, dtype, known):
    """On one device and on a mesh, with the bits of the ignore index among the labels.

    They are constants of the program, and so are checked, or arguments.
    """
    rng = np.random.default_rng(0)
    x, W = np.float32(rng.normal(size=(8, 2))), np.float32(rng.normal(size=(2, num_words)))
    labels = rng.integers(0, min(num_words, np.iinfo(dtype).max + 1), 8)
    labels[:2] = min(num_words - 1, np.iinfo(dtype).max), -100 % 256 % num_words
    mesh = jax.make_mesh((1,), ("v",), axis_types=(AxisType.Auto,))
    for loss in (linear_cross_entropy, functools.partial(sharded_linear_cross_entropy, mesh)):
        loss = functools.partial(loss, ignore_index=-100, bias=np.zeros(num_words, np.float32))
        found, expected = (
            of_labels(loss, x, W, labels.astype(t), known) for t in (dtype, np.int32)
        )
        jax.tree.map(assert_array_equal, found, expected)
        full_form = optax.softmax_cross_entropy_with_integer_labels(x @ W, labels).mean()
        assert_allclose(found[0], full_form, rtol=1e-5)


def of_labels(loss, x, W, labels, known):
    """Value and gradients; the labels are known while tracing, or not."""
    gradients = jax.value_and_grad(loss, (0, 1))
    if known:
        return jax.jit(lambda x, W: gradients(x, W, labels))(x, W)
    return jax.jit(gradients)(x, W, labels)


def test_loss_op_by_op_is_that_of_the_compiled_program():
    x, W, labels, bias, weights = problem(6, 8, 3, 11)
    options = {"bias": jnp.float32(bias), "example_weights": jnp.float32(weights)}
    gradients = jax.value_and_grad(of_words(labels, **options), (0, 1))
    arrays = jnp.float32(x), jnp.float32(W)
    assert_close(gradients(*arrays), jax.jit(gradients)(*arrays), 1e-6)


@pytest.mark.parametrize("label", [2**32, 2**32 + 3, -(2**40)])
def test_labels_of_64_bits_do_not_wrap(label):
    """On the way to JAX, which has 32 bits."""
    x, W, labels = np.ones((2, 3)), np.ones((3, 11)), np.array([4, label])
    with pytest.raises(ValueError, match=rf"0\.\.10; 1 does not, the first at \[1\]: {label}"):
        linear_cross_entropy(x, W, labels)
    found = linear_cross_entropy(x, W, labels, ignore_index=label)
    assert_allclose(found, np.log(11), rtol=1e-6)


@pytest.mark.parametrize("index", [1.5, True, "pad", np.nan])
@pytest.mark.usefixtures("untyped")
def test_ignore_index_is_a_whole_number(index):
    x, W, labels = jnp.ones((5, 3)), jnp.ones((3, 11)), jnp.ones(5, int)
    with pytest.raises(ValueError, match="ignore_index must be a whole number"):
        linear_cross_entropy(x, W, labels, ignore_index=index)


@pytest.mark.parametrize("label, columns", [(0, None), (3, 2), (4, 2), (4, None)])
def test_loss_keeps_what_is_far_below_one_in_the_sum(label, columns):
    """Of the others, whichever tile they and the label are in."""
    W = np.full((1, 5), -40.0, np.float32)
    W[0, label] = 0
    layer = jnp.ones((2, 1)), jnp.asarray(W), np.full(2, label)
    loss = linear_cross_entropy(*layer, vocabulary_block=columns)
    assert float(loss) == pytest.approx(4 * np.exp(-40.0), rel=1e-5)
    log_p, _ = log_prob_and_rank(*layer, vocabulary_block=columns)
    assert_allclose(log_p, -4 * np.exp(-40.0), rtol=1e-5)
