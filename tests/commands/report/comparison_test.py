from softmax_jax.commands.report import comparison
from softmax_jax.commands.report.markup import tag


def texts(parse, content):
    return [text for text in parse(tag("div", content)).texts if text.strip()]


def test_one_run_has_a_column_per_split(run, parse):
    found = texts(parse, comparison.figures([run]))
    assert found[:3] == ["train", "val", "test"]
    assert found[found.index("accuracy") + 3] == "0.8222"
    assert texts(parse, comparison.figures([run._replace(summary={}, metrics={})])) == [
        "There are no figures yet."
    ]


def test_of_several_runs_the_best_is_marked_where_they_compare(run, parse):
    better = run._replace(name="better", summary=run.summary | {"test": {"accuracy": 0.9}})
    parsed = parse(tag("div", comparison.figures([run, better])))
    at = parsed.texts.index("test accuracy")
    assert parsed.texts[at : at + 2] == ["test accuracy", "0.8222"]
    assert parsed.count("strong") == 6  # a tie is marked once, at its first run
    other = better._replace(config=better.config | {"fingerprint": "other"})
    parsed = parse(tag("div", comparison.figures([run, other])))
    assert parsed.count("strong") == 0
    assert any("do not compare" in text for text in parsed.texts)


def test_differences_are_the_fields_that_differ(run):
    assert comparison.differences([run]) == comparison.differences([run, run]) == {}
    config = run.config["config"] | {"learning_rate": 0.5, "note": "x"}
    other = run._replace(config=run.config | {"config": config, "backend": "gpu"})
    assert comparison.differences([run, other]) == {
        "learning_rate": ["0.1", "0.5"],
        "note": ["–", "x"],
        "backend": ["cpu", "gpu"],
    }


def test_all_of_the_configuration_is_listed(run):
    found = comparison.settings([run])
    assert found["sweep.l2"] == ["0.0, 0.01"]
    assert found["versions.jax"] == ["0.10.2"]
    assert found["fingerprint"] == ["3aeeb91e"]


def test_the_dataset_used_stands_beside_the_one_that_was_asked_for(run):
    run.config["config"]["dataset"] = "fashion_mnist"
    found = comparison.settings([run])
    assert (found["dataset"], found["dataset used"]) == (["fashion_mnist"], ["digits"])
