import jax.numpy as jnp
import numpy as np
import pytest

from examples import decisions
from softmax_jax import data


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


@pytest.fixture(scope="module")
def tables():
    """Of an example of three classes that lie one behind the other."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=3000)
    x = (np.eye(3)[y] + rng.normal(0, 0.7, (3000, 3))).astype(np.float32)
    parts = {"train": slice(1000), "val": slice(1000, 2000), "test": slice(2000, 3000)}
    names = ("boot", decisions.CLASS, "bag")
    arrays = {role: (x[rows], y[rows]) for role, rows in parts.items()}
    return list(map(cells, decisions.tables(data.from_arrays(**arrays, label_names=names), 5)))


def number(cell):
    return float(cell.split()[0])


def test_more_guesses_are_right_more_often(tables):
    for row in tables[0][2:]:
        shares = [number(cell) for cell in row[1:]]
        assert shares == sorted(shares) and shares[0] < 0.9 and shares[2:] == [1.0, 1.0]


def test_the_temperature_is_no_worse(tables):
    plain, tempered = tables[1][2:]
    assert number(tempered[1]) <= number(plain[1]) + 0.001


def test_a_cheaper_rejection_rejects_more_and_leaves_the_surer(tables):
    rows = np.array([[number(cell) for cell in row] for row in tables[2][2:]])
    rows = rows[np.argsort(-rows[:, 0])]
    assert rows[0, 1] == 0 and (np.diff(rows[:, 1]) > 0).all()
    assert (np.diff(rows[:, 2]) > 0).all() and (np.diff(rows[:, 3]) < 0).all()


def test_what_is_wanted_of_the_class_lies_in_the_interval(tables):
    rows = tables[3][2:]
    assert len(rows) == 2 * len(decisions.SENSITIVITIES)
    for _, wanted, _, found, _ in rows:
        low, high = map(float, found[found.index("[") + 1 : -1].split(","))
        assert low - 0.03 <= float(wanted) <= high + 0.03


def test_the_sets_cover_what_they_promise_and_grow_with_it(tables):
    rows = tables[4][2:]
    for _, promised, found, *_ in rows:
        assert abs(number(found) - float(promised)) < 4 * np.sqrt(0.25 / 500)
    sizes = np.array([number(row[3]) for row in rows]).reshape(2, len(decisions.ALPHAS))
    assert (np.diff(sizes) > 0).all()


def test_the_rows_of_rejection_are_counts():
    p, labels = jnp.array([[0.95, 0.05], [0.85, 0.15], [0.4, 0.6]]), np.array([0, 1, 1])
    rows = {row[0]: row[1:] for row in decisions.rejections(p, labels)}
    assert rows["1"] == ["0.000", "0.667", "0.333"]
    assert rows["0.1"] == ["0.667", "1.000", "0.067"]


@pytest.mark.slow
def test_the_answer_in_the_document_is_what_comes_out(fashion_mnist_dir):
    parts = "train[:50000]", "train[50000:55000]", "test"
    splits = data.load("fashion_mnist", *parts, data_dir=fashion_mnist_dir)
    top, calibrated, rejected, _, sets = map(cells, decisions.tables(splits))
    assert [number(row[1]) for row in top[2:]] == pytest.approx([0.840, 0.832], abs=0.004)
    assert [number(row[3]) for row in calibrated[2:]] == pytest.approx([0.024, 0.010], abs=0.004)
    assert number(rejected[3][2]) == pytest.approx(0.972, abs=0.004)
    covered = [number(row[2]) for row in sets[2:]]
    assert covered == pytest.approx(
        [0.785, 0.89, 0.942, 0.987, 0.789, 0.899, 0.947, 0.99], abs=0.01
    )
