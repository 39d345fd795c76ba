from softmax_jax.commands.report import overview
from softmax_jax.commands.report.markup import tag


def texts(parse, content):
    return [text for text in parse(tag("div", content)).texts if text.strip()]


def test_the_card_of_a_run_leads_with_the_test_figures_and_their_intervals(run, parse):
    found = texts(parse, overview.cards([run]))
    assert found[:4] == ["finished", "test accuracy", "0.8222", "[0.7601, 0.8712]"]
    assert "digits · 1,437 train, 360 val, 180 test" in found
    assert "ant, bee, cat" in found
    assert any("smallest val_loss of 4 settings" in text for text in found)
    assert "extend l2 downwards" in found


def test_without_a_test_split_it_leads_with_validation(run, parse):
    run.summary["test"] = None
    found = texts(parse, overview.cards([run]))
    assert found[1] == "val accuracy"


def test_the_card_of_an_unfinished_run_says_how_far_it_is(unfinished, parse):
    found = texts(parse, overview.cards([unfinished]))
    assert found[0] == "unfinished"
    assert "epoch 3 of 4 of 8 trials" in found
    assert any(text.startswith("trial ") for text in found)
