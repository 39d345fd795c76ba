"""Runs against each other on the same test examples: `softmax-jax compare`."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from softmax_jax import comparison, data
from softmax_jax.__main__ import main as run_command
from softmax_jax.job import run

SPLITS = {"train_split": "train[:50%]", "val_split": "train[50%:]", "test_split": "test"}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """jobs(name, **fields) -> the folder of a short job on digits; each is run once."""
    from configs import default

    root, done = tmp_path_factory.mktemp("jobs"), {}

    def make(name, **fields):
        if name not in done:
            config = default.get_config().unlock()
            config.update({"dataset": "digits", "num_epochs": 2, "predictions": True} | SPLITS)
            config.update(fields)
            assert run.main(config, root / name) == 0
            done[name] = root / name
        return done[name]

    return make


@pytest.fixture
def three(jobs):
    return [jobs("slow", learning_rate=0.01), jobs("fast"), jobs("half", train_split="train[:25%]")]


def test_differences_are_those_of_numpy_and_scipy(three):
    tested = [comparison.read(folder, folder.name) for folder in three]
    rows = comparison.differences(tested)
    assert [(row["first"], row["second"]) for row in rows] == [
        ("slow", "fast"),
        ("slow", "half"),
        ("fast", "half"),
    ]
    stored = {folder.name: np.load(folder / "predictions.npz") for folder in three}
    for row in rows:
        one, other = stored[row["first"]], stored[row["second"]]
        labels = one["test_labels"]
        own, its = (
            -np.log(of["test_probabilities"][np.arange(len(labels)), labels]) for of in (one, other)
        )
        assert row["loss"] == pytest.approx((its - own).mean(), abs=1e-5)
        low, high = row["loss_interval"]
        assert low < row["loss"] < high
        # Without the skewness it is Student's: on 360 examples they are alike.
        t = stats.ttest_rel(its, own).confidence_interval()
        assert_allclose([low, high], t, atol=0.15 * (t.high - t.low))
        hits = [of["test_predicted"] == labels for of in (one, other)]
        assert row["accuracy"] == pytest.approx(hits[1].mean() - hits[0].mean())
        first, second = (hits[0] & ~hits[1]).sum(), (hits[1] & ~hits[0]).sum()
        assert row["p_value"] == pytest.approx(stats.binomtest(first, first + second).pvalue)
    assert_allclose(
        [row["holm"] for row in rows], by_definition([row["p_value"] for row in rows]), rtol=1e-12
    )


def by_definition(p):
    """Holm, from the definition: the largest (m − #smaller) · p over all that are not larger."""
    p = np.asarray(p)
    return [min(1, max((p >= q).sum() * q for q in p[p <= own])) for own in p]


def test_holm_holds_the_chance_of_any_error():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(4000, 5))
    p[:, :2] *= 1e-3  # two of the five are no null hypotheses
    corrected = np.array([comparison.holm(row) for row in p])
    for row, own in zip(p[:50], corrected, strict=False):
        assert_allclose(own, by_definition(row))
    assert (corrected >= p).all()
    assert (corrected[:, 2:] < 0.05).any(1).mean() == pytest.approx(0.05, abs=0.012)


def test_the_command_prints_both_tables_and_draws(three, tmp_path, capsys):
    folders = list(map(str, three))
    assert run_command(["compare", *folders, f"--output={tmp_path}/compare.png"]) == 0
    out = capsys.readouterr().out
    assert "360 test examples" in out and "half - fast" in out and "Holm" in out
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert run_command(["compare", *folders[:2]]) == 0
    out = capsys.readouterr().out
    assert "McNemar p" in out and "Holm" not in out
    assert run_command(["compare", folders[0], folders[0]]) == 0
    assert "+0.0000 [+0.0000, +0.0000]" in capsys.readouterr().out


def test_a_difference_counts_examples_by_their_weights():
    weights = np.tile([0.0, 1.0, 2.0], 20)
    labels = np.arange(60) % 3
    one = comparison.Tested("a", np.ones(60), labels > 0, labels, ("x",) * 3, weights, "d")
    other = one._replace(losses=one.losses + (labels == 2), hits=labels < 2)
    (row,) = comparison.differences([one, other])
    assert (row["loss"], row["accuracy"]) == pytest.approx((2 / 3, -2 / 3))
    assert row["p_value"] == pytest.approx(stats.binomtest(0, 20).pvalue)  # 20 of weight 2


def test_a_digest_is_of_the_examples_and_not_of_their_type(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)) + [1.7e9, 0, 0], np.arange(60) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y)

    def of(split, train="train[:20]", dtype="float32"):
        splits = data.load(str(tmp_path / "d.npz"), train, "train[20:30]", split, dtype=dtype)
        return data.digest(splits.test)

    own = of("train[40:]")
    assert own == of("train[40:]", dtype="float64") == of("train[40:]", train="train[:10]")
    assert own != of("train[41:]") and own != of("train[30:50]")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"test_split": "test[:50]"}, "360 and 50 examples"),
        ({"test_split": "train[:360]", "train_split": "train[400:700]"}, "labels of their test"),
        ({"dataset": "wine", "batch_size": 32, "standardize": True}, "their classes are"),
        ({"test_split": ""}, "no losses of test examples"),
        ({"predictions": False}, "no predictions.npz"),
    ],
)
def test_other_examples_are_refused(jobs, capsys, fields, message):
    name = "_".join(map(str, fields.values())).replace("/", "")
    folders = [str(jobs("fast")), str(jobs(f"other {name}", **fields))]
    capsys.readouterr()
    for given in (folders, folders[::-1]):
        assert run_command(["compare", *given]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert message in err or ("50 and 360" in err and "360 and 50" in message)


def test_other_features_of_the_same_examples_are_compared_when_asked(jobs, tmp_path, capsys):
    splits = data.load("digits", test="test")
    for name, factor in (("one", 1.0), ("two", 2.0)):
        np.savez(
            tmp_path / f"{name}.npz",
            **{"x_train": factor * splits.train.x, "y_train": splits.train.y},
            **{"x_test": factor * splits.test.x, "y_test": splits.test.y},
        )
    folders = [str(jobs(name, dataset=str(tmp_path / f"{name}.npz"))) for name in ("one", "two")]
    assert run_command(["compare", *folders]) == 2
    assert "--labels-alone" in capsys.readouterr().err
    assert run_command(["compare", *folders, "--labels-alone"]) == 0


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["RUN"], 2, "two runs or more"),
        (["RUN", "none"], 2, "none has no predictions.npz"),
        (["RUN", "COPY", "--output=x.pdf"], 2, "must end in .png"),
        (["RUN", "COPY", "--output=none/x.png"], 3, "cannot be written"),
        (["RUN", "DAMAGED"], 2, "predictions.npz"),
    ],
)
def test_a_mistake_is_one_line(jobs, tmp_path, capsys, arguments, code, message):
    folder = jobs("fast")
    shutil.copytree(folder, tmp_path / "damaged")
    content = (folder / "predictions.npz").read_bytes()
    (tmp_path / "damaged" / "predictions.npz").write_bytes(content[: len(content) // 2])
    shutil.copytree(folder, tmp_path / "copy")
    places = {
        "RUN": str(folder),
        "COPY": str(tmp_path / "copy"),
        "DAMAGED": str(tmp_path / "damaged"),
    }
    capsys.readouterr()
    assert run_command(["compare", *(places.get(a, a) for a in arguments)]) == code
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1
