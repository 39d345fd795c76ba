"""Whatever is wrong with the command line is one message and exit code 2, never a traceback."""

import pytest

CONFIG = "--config=configs/digits.py"


def _refused(done, *texts):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("main.py: ") == 1
    for text in texts:
        assert text in done.stderr


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ((), ("--config is missing", "configs/default.py")),
        (("--config=configs/no_such.py",), ("cannot be read", "configs/no_such.py")),
        (("--config=configs",), ("cannot be read", "configs")),
        ((CONFIG, "--batch=3"), ("no flag --batch",)),
        ((CONFIG, "stray"), ("'stray' is not a flag",)),
        ((CONFIG, "--config.learnin_rate=1"), ("learnin_rate", "Did you mean learning_rate?")),
        ((CONFIG, "--config.sweep.momentun=1"), ("Did you mean sweep.momentum?",)),
        ((CONFIG, "--config.seed=1.5"), ("config.seed=1.5",)),
        ((CONFIG, "--config.learning_rate=fast"), ("config.learning_rate=fast",)),
        ((CONFIG, "--config.sweep.l2=1e-3,abc"), ("sweep.l2", "1e-3,abc")),
        ((CONFIG, "--config.sweep.l2="), ("sweep.l2", "''")),
        ((CONFIG, "--config.batch_size=5000"), ("batch_size", "5000", "1437")),
        ((CONFIG, "--config.train_split=all"), ("all", "train")),
        (
            (CONFIG, "--config.dataset=no_such", "--config.model=x", "--config.l2=-1"),
            ("no_such", "model must be", "l2 must be"),
        ),
        (
            (CONFIG, "--config.batch_size=5000", "--config.loss=hinge"),
            ("5000", "1437", "loss must be"),
        ),
        (
            (CONFIG, "--config.val_split=train[:9]", "--config.num_epochs=0"),
            ("share examples", "num_epochs must be"),
        ),
        ((CONFIG, "--config.val_split=train[:10]"), ("share examples",)),
    ],
)
def test_a_mistake_is_one_message(main, arguments, texts):
    _refused(main(*arguments), *texts)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ("    config.learnin_rate = 3\n", ("line 4", "Did you mean learning_rate?")),
        ("    config.num_epochs = 'x'\n", ("line 4", "TypeError")),
        ("    config.sweep.update({'l3': (1,)})\n", ("line 4", "l3")),
        (
            "    with config.unlocked():\n        config.sweep.l3 = (1,)\n",
            ("sweep has no field l3",),
        ),
        ("    return (\n", ("line 4", "never closed")),
        ("    return 1 / 0\n", ("line 4", "ZeroDivisionError")),
        ("    return {}\n", ("ConfigDict",)),
        ("    import no_such_module\n", ("line 4", "no_such_module")),
    ],
)
def test_an_error_in_a_config_file_names_the_line(main, tmp_path, body, texts):
    path = tmp_path / "variant.py"
    head = "from configs import default\ndef get_config():\n    config = default.get_config()\n"
    path.write_text(head + body + "    return config\n")
    _refused(main(f"--config={path}"), *texts)
