"""A trained model: logits, predictions, its test metrics, and loading it from a work folder."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

import softmax_jax
from softmax_jax import data, metrics, sweep
from softmax_jax.classifier import Classifier, load
from softmax_jax.data import DataError
from softmax_jax.job import run

C = 4
NAMES = ("ant", "bee", "cat", "dog")
LOADED_NAMES = ("ant", "bee", "cat")  # of the fixtures that write params.npz


def classifier(D=6, mean=0.0, scale=1.0):
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(D, C)).astype(np.float32), rng.normal(size=C).astype(np.float32)
    return Classifier(W, b, np.asarray(mean, np.float32), np.asarray(scale, np.float32), NAMES)


def features(N, D=6):
    return np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)


def in_numpy(model, x):
    return ((x.reshape(len(x), -1) - model.mean.astype(float)) / model.scale) @ model.W + model.b


@pytest.mark.parametrize("N", [1, 7, 1000, 1001, 2345])
def test_logits_match_numpy_for_any_number_of_examples(N):
    """Fewer than a batch of a thousand, one more, several batches."""
    model, x = classifier(mean=0.5, scale=2.0), features(N)
    logits = model.logits(x)
    assert logits.shape == (N, C)
    assert_allclose(logits, in_numpy(model, x), rtol=1e-5, atol=1e-5)
    assert model.predict(x).dtype == np.int32
    assert_array_equal(model.predict(x), in_numpy(model, x).argmax(-1))


@pytest.mark.parametrize("kind", ["features", "images of bytes"])
def test_inputs_are_flattened_and_normalised_per_feature(kind):
    rng = np.random.default_rng(2)
    model = classifier(mean=rng.normal(size=6), scale=rng.uniform(1, 255, 6))
    pixels = rng.integers(256, size=(7, 2, 3)).astype(np.uint8)
    x = features(7) if kind == "features" else pixels
    assert_allclose(model.logits(x), in_numpy(model, x), rtol=1e-5, atol=1e-5)


def test_probabilities_are_the_softmax_of_the_logits():
    model, x = classifier(), features(7)
    assert_allclose(model.predict_proba(x), softmax(in_numpy(model, x), -1), rtol=1e-4)
    assert_allclose(model.predict_proba(x).sum(-1), np.ones(7), rtol=1e-6)


@pytest.mark.parametrize("method", ["logits", "predict", "predict_proba"])
def test_a_wrong_number_of_features_is_refused(method):
    with pytest.raises(ValueError, match=r"6 features.*\(7, 2, 4\) has 8"):
        getattr(classifier(), method)(features(7, D=8).reshape(7, 2, 4))


@pytest.mark.parametrize("method", ["logits", "predict", "predict_proba"])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    "value, message",
    [
        (np.nan, "Feature nan in row 4, column 2 is not finite"),
        (np.inf, "Feature inf in row 4, column 2 is not finite"),
        (3e38, "logits of row 4 overflow float32"),
        (1j, "input holds complex64, and real numbers are needed"),
    ],
)
def test_no_prediction_is_made_of_what_is_no_number(method, convert, value, message):
    x = features(7).astype(np.complex64 if isinstance(value, complex) else np.float32)
    x[4, 2] = value
    model = classifier()
    with pytest.raises(DataError, match=message):
        getattr(model._replace(W=9 * model.W), method)(convert(x))


def test_weights_that_are_not_finite_predict_nothing():
    model = classifier()
    with pytest.raises(DataError, match="weights of the model are not finite"):
        model._replace(W=np.nan * model.W).predict(features(3))


def test_a_dataset_of_more_classes_is_refused():
    names = (*NAMES, "elk")
    x, y = features(12), np.arange(12) % 5
    dataset = data.from_arrays((x, y), (x + 1, y), label_names=names).val
    with pytest.raises(DataError, match="model knows 4 classes, and the dataset 5"):
        classifier().test(dataset)


@pytest.mark.parametrize("what", ["classes", "features"])
def test_a_sweep_refuses_a_val_that_is_unlike_train(what):
    def splits_of(D, names):
        x, y = features(12, D), np.arange(12) % len(names)
        return data.from_arrays((x, y), (x + 1, y), label_names=names)

    train = splits_of(6, NAMES).train
    val = splits_of(6, (*NAMES, "elk")).val if what == "classes" else splits_of(5, NAMES).val
    with pytest.raises(ValueError, match=f"train has . {what} and val ."):
        sweep.fit(train, val, num_epochs=1, batch_size=4)


def test_test_metrics_match_scikit_learn():
    model, x = classifier(), features(300)
    y = np.random.default_rng(3).integers(C, size=300)
    dataset = data.from_arrays((features(9), np.arange(9) % C), (x, y), label_names=NAMES).val
    values, logits = model.test(dataset), in_numpy(model, x)
    expected = log_loss(y, softmax(logits, -1), labels=range(C))
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert values["accuracy"] == accuracy_score(y, logits.argmax(-1))
    correct = (logits.argmax(-1) == y).sum()
    assert values["accuracy_interval"] == metrics.wilson_interval(correct, 300)
    lo, hi = values["loss_interval"]
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(300), y]
    assert [lo, hi] == pytest.approx(metrics.mean_interval(each), rel=1e-4)


def test_models_are_compared_by_example():
    """The interval of the differences is far narrower than two intervals side by side."""
    model, x = classifier(), features(300)
    y = np.random.default_rng(3).integers(C, size=300)
    other = model._replace(b=model.b + np.float32(0.05) * np.arange(C, dtype=np.float32))
    dataset = data.from_arrays((features(9), np.arange(9) % C), (x, y), label_names=NAMES).val
    (loss, hit), (others, others_hit) = model.by_example(dataset), other.by_example(dataset)
    found, alone = model.compare(other, dataset), model.test(dataset)
    assert found["loss"] == pytest.approx((others - loss).mean(), abs=1e-6)
    assert found["accuracy"] == pytest.approx(others_hit.mean() - hit.mean())
    low, high = found["loss_interval"]
    assert low < found["loss"] < high < low + np.ptp(alone["loss_interval"]) / 3
    assert found["p_value"] == metrics.mcnemar(hit, others_hit)


def test_loss_that_a_few_examples_decide_is_a_warning():
    model, x, y = classifier(), features(300), np.zeros(300, int)
    W = np.zeros_like(model.W)
    W[0, 0] = 50
    x[:, 0], x[0, 0] = 1, -1  # one example is far on the wrong side
    dataset = data.from_arrays((features(9), np.arange(9) % C), (x, y), label_names=NAMES).val
    with pytest.warns(UserWarning, match="A few of the 300 examples decide the loss"):
        model._replace(W=W, b=0 * model.b).test(dataset)


def test_one_example_has_a_loss_without_spread():
    model, x = classifier(), features(1)
    dataset = data.from_arrays((features(9), np.arange(9) % C), (x, [2]), label_names=NAMES).val
    values = model.test(dataset)
    assert values["loss_interval"] == [values["loss"]] * 2


def test_loaded_model_computes_what_its_parameters_say(run_folder):
    """logits = ((x - mean) / scale) @ W + b, for images as for features."""
    model = softmax_jax.load(run_folder)
    x = np.random.default_rng(0).normal(size=(7, 2, 2)).astype(np.float32)
    with np.load(run_folder / "params.npz") as file:
        logits = ((x.reshape(7, 4) - file["mean"]) / file["scale"]) @ file["W"] + file["b"]
    assert_allclose(model.logits(x), logits, rtol=1e-5, atol=1e-5)
    assert_array_equal(model.predict(x), logits.argmax(-1))
    assert model.label_names == load(str(run_folder)).label_names == LOADED_NAMES


LABELS = {
    "text": np.array(["ant", "bee", "cat"]),
    "text of digits": np.array(["1", "10", "2"]),
    "integers": np.array([3, 7, 250], np.uint8),
    "from -5 to 2**40": np.array([-5, 0, 2**40]),
    "0..C-1": np.arange(3, dtype=np.int16),
    "booleans": np.array([False, True]),
    "bytes that are no text": np.array([b"a", b"\xfe", b"\xff"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_come_back_as_they_were_given(name, tmp_path, config):
    """From arrays, where these take them, and from a run on a file of them."""
    labels = LABELS[name]
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.arange(120) % len(labels))
    x, y = rng.normal(size=(120, 4)).astype(np.float32), labels[codes]
    x[np.arange(120), codes] += 20  # no doubt is left
    np.savez(tmp_path / "x.npz", x_train=x[:80], y_train=y[:80], x_val=x[80:], y_val=y[80:])
    config.update({"dataset": str(tmp_path / "x.npz"), "val_split": "val", "batch_size": 8})
    config.update({"num_epochs": 10, "test_split": ""})
    assert run.main(config, tmp_path / "run") == 0
    found = {"run": load(tmp_path / "run").predict(x)}
    if name not in ("booleans", "from -5 to 2**40"):
        if name != "integers":  # of a gap in them, classes without examples are made
            splits = data.from_arrays((x[:80], y[:80]), (x[80:], y[80:]))
            result = sweep.fit(splits.train, splits.val, num_epochs=10, batch_size=8)
            found["arrays"] = result.predict(x)
    for predicted in found.values():
        assert predicted.dtype == labels.dtype
        assert_array_equal(predicted, y)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, jnp.int32])
def test_whole_numbers_come_back_in_their_type_where_classes_have_names(kind):
    x, y = features(12), np.arange(12) % C
    own = kind(0).dtype
    pairs = [(x, jnp.asarray(y, own) if kind is jnp.int32 else y.astype(own)), (x + 1, y)]
    splits = data.from_arrays(*pairs, label_names=NAMES)
    predicted = sweep.fit(splits.train, splits.val, num_epochs=1, batch_size=4).predict(x)
    assert predicted.dtype == own and set(predicted.tolist()) <= set(range(C))


def test_text_has_its_names_where_all_names_are_given():
    x, y = features(12), np.array(["bee", "ant"])[np.arange(12) % 2]
    splits = data.from_arrays((x, y), (x + 1, y), label_names=NAMES)
    predicted = sweep.fit(splits.train, splits.val, num_epochs=1, batch_size=4).predict(x)
    assert set(predicted.tolist()) <= set(NAMES) and splits.train.labels.tolist() == list(NAMES)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'softmax_jax' has no attribute 'lode'"):
        softmax_jax.lode  # noqa: B018


@pytest.mark.parametrize(
    "arrays, message",
    [
        (None, "params.npz is not there"),
        ({"W": np.ones((2, 2))}, "it has no b, mean, scale, label_names"),
    ],
)
def test_a_folder_without_a_model_is_refused(tmp_path, arrays, message):
    if arrays:
        np.savez(tmp_path / "params.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"W": np.ones((5, 3), np.float32)}, r"W has shape \(5, 3\), and mean is float32 of"),
        ({"W": np.ones(3, np.float32)}, r"W has shape \(3,\), and \[D, C\] is needed"),
        ({"W": np.ones((0, 3), np.float32)}, r"W has shape \(0, 3\)"),
        ({"b": np.ones(4, np.float32)}, r"b is float32 of shape \(4,\)"),
        ({"b": np.array([1.0, np.nan, 0.0])}, "b has values that are not finite"),
        ({"scale": np.float32(0)}, "scale has a zero"),
        ({"label_names": np.array(["ant", "bee"])}, r"label_names is <U3 of shape \(2,\)"),
        ({"label_names": np.arange(3)}, "label_names is int64"),
        ({"labels": np.arange(4)}, r"labels is int64 of shape \(4,\)"),
        ({"labels": np.ones(3)}, "labels is float64"),
        ({"label_names": np.array(LOADED_NAMES, object)}, "never loaded|pickle"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(tmp_path, write_params, changes, message):
    write_params(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


@pytest.fixture(scope="module")
def stored(tmp_path_factory, write_params):
    """(a folder with params.npz, the bytes of that file, the model in it)."""
    folder = tmp_path_factory.mktemp("stored")
    write_params(folder)
    return folder, (folder / "params.npz").read_bytes(), load(folder)


@given(st.data())
@settings(deadline=None, database=None, derandomize=True, max_examples=300)
def test_a_flipped_bit_is_noticed_or_harmless(stored, data):
    """Harmless: in fields of the zip format that nobody reads. Never another exception."""
    folder, whole, expected = stored
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    (folder / "params.npz").write_bytes(damaged)
    try:
        found = load(folder)
    except DataError as error:
        assert "params.npz" in str(error)
    else:
        for actual, value in zip(found, expected, strict=True):
            assert_array_equal(actual, value)


def test_every_truncation_is_noticed(stored):
    folder, whole, _ = stored
    for length in range(0, len(whole), max(len(whole) // 16, 1)):
        (folder / "params.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match="params.npz"):
            load(folder)


def test_models_are_not_compared_on_classes_that_one_does_not_know():
    few = classifier()._replace(
        W=classifier().W[:, :3], b=classifier().b[:3], label_names=NAMES[:3]
    )
    x, y = features(12), np.arange(12) % 4
    dataset = data.from_arrays((x, y), (x + 1, y), label_names=NAMES).val
    with pytest.raises(DataError, match="model knows 3 classes, and the dataset 4"):
        classifier().compare(few, dataset)


@pytest.mark.parametrize(
    "names, same",
    [
        (NAMES, True),
        (("0", "1", "2", "3"), True),  # mere numbers may be the same classes
        (NAMES[::-1], False),
        ((*NAMES[:3], "elk"), False),
    ],
)
def test_a_label_means_the_same_class_to_a_model_and_a_dataset(names, same):
    x, y = features(12), np.arange(12) % 4
    splits = data.from_arrays((x, y), (x + 1, y), label_names=names)
    own = data.from_arrays((x, y), (x + 1, y), label_names=NAMES)
    if same:
        classifier().test(splits.val)
        sweep.fit(own.train, splits.val, num_epochs=1, batch_size=12)
        return
    with pytest.raises(DataError, match="to the model, and .* to the other dataset"):
        classifier().test(splits.val)
    with pytest.raises(DataError, match="to train, and .* to the other dataset"):
        sweep.fit(own.train, splits.val, num_epochs=1, batch_size=12)


def test_loss_of_logits_that_overflow_is_refused():
    model, x = classifier(), features(12)
    dataset = data.from_arrays((x, np.arange(12) % 4), (x + 1, np.arange(12) % 4)).val
    with pytest.raises(DataError, match="logits of row 0 overflow"):
        model._replace(W=np.float32(3e38) * np.sign(model.W)).test(dataset)


@pytest.mark.usefixtures("untyped")
def test_lists_are_features():
    model, x = classifier(), features(3)
    assert_array_equal(model.predict(x.tolist()), model.predict(x.astype(np.float64)))


SAVED_NAMES = ("ant", "bee", "été")


def made(mean, scale, dtype=np.float32, **more):
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(4, 3)).astype(dtype), rng.normal(size=3).astype(dtype)
    return Classifier(W, b, mean, scale, SAVED_NAMES, **more)


MODELS = {
    "pixels": made(0.0, 255.0),
    "standardised": made(np.arange(4.0), np.array([1.0, 2.0, 0.5, 30.0])),
    "far": made(np.full(4, 1.7e9), np.full(4, 30.0)),
    "double": made(0.0, 1.0, np.float64),
    "labelled": made(0.0, 1.0, labels=np.array(SAVED_NAMES)).corrected(np.array([1.0, 3.0, 0.5])),
}
KINDS_OF_MODELS = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def examples_for(model):
    x = np.random.default_rng(1).normal(size=(50, 4))
    return (x * model.scale + model.mean).astype(np.float64)


@KINDS_OF_MODELS
def test_a_saved_model_is_the_same_model(model, tmp_path):
    model.save(tmp_path / "model.npz")
    again, x = load(tmp_path / "model.npz"), examples_for(model)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert again.label_names == SAVED_NAMES


@KINDS_OF_MODELS
def test_safetensors_hold_what_numpy_needs(model, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    model.save(tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", "numpy") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}
        assert tuple(json.loads(file.metadata()["label_names"])) == SAVED_NAMES
    x = examples_for(model)
    logits = ((x - kept["mean"]) / kept["scale"]) @ kept["W"] + kept["b"]
    np.testing.assert_allclose(logits, model.logits(x), rtol=1e-5, atol=1e-5)
    assert ("class_weight" in kept) == (model.class_weight is not None)


@KINDS_OF_MODELS
def test_onnx_is_one_gemm_and_a_softmax_with_the_same_probabilities(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model.save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    wide = given.type == "tensor(double)"
    assert wide == (model is MODELS["far"] or model is MODELS["double"])
    assert given.shape[1:] == [4]
    for x in (examples_for(model), examples_for(model)[:1]):
        x = x.astype(np.float64 if wide else np.float32)
        logits, probabilities = session.run(["logits", "probabilities"], {"x": x})
        np.testing.assert_allclose(logits, model.logits(x), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities, model.predict_proba(x), atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(facts["label_names"])) == SAVED_NAMES
    if model.class_weight is not None:
        chosen = (probabilities * json.loads(facts["class_weight"])).argmax(1)
        np.testing.assert_array_equal(chosen, model.classes(x))
    content = (tmp_path / "model.onnx").read_bytes()
    assert content.count(b"Gemm") == content.count(b"Softmax") == 2  # name and kind of each node


def test_another_ending_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(DataError, match="must end in .npz, .safetensors, .onnx"):
        MODELS["pixels"].save(tmp_path / "model.pt")
    assert not any(tmp_path.iterdir())
