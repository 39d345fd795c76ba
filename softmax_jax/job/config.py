"""What is wrong with a config: all of it, before anything is compiled."""

import difflib

from ml_collections import ConfigDict

from softmax_jax import vocabulary
from softmax_jax.job import decisions
from softmax_jax.job.errors import JobError
from softmax_jax.job.fields import AXES, RULES, WITHOUT_LOGITS, axis, value
from softmax_jax.sweep import settings

_DATA = ("dataset", "dataset_fallback", "data_dir", "train_split", "val_split", "test_split")


def problems(config) -> list[str]:
    """Every problem of the config that shows without its data, a line each."""
    found = _unknown(config) + _out_of_range(config) + _sweep_problems(config)
    return found or _contradictions(config)


def problems_with(config, splits) -> list[str]:
    """The problems that show once the data are there."""
    if _unknown(config) or not isinstance(config.sweep.batch_size, tuple | list):
        return []
    found = decisions.problems(config.cost_matrix, splits.label_names) if config.cost_matrix else []
    if config.optimizer == "lbfgs":  # the batch is full
        return found
    num_examples = len(splits.train.y)
    return found + [
        f"batch_size must be at most the {num_examples} training examples; it is {size}"
        for size in axis(config, "batch_size")
        if RULES["batch_size"].accepts(size) and size > num_examples
    ]


def names_data(config):
    """Whether the fields that say which data to load are all there and in range."""
    return all(name in config and RULES[name].accepts(config[name]) for name in _DATA)


def refuse(problems):
    """Raises one JobError that names all problems, if there are any."""
    if problems:
        raise JobError("The config cannot be run:\n" + "\n".join(f"  {line}" for line in problems))


def _unknown(config):
    known, names = {*RULES, "sweep"}, set(_names(config))
    problems = [_misspelt("config", name, known) for name in sorted(names - known)]
    problems += [f"config.{name} is missing" for name in sorted(known - names)]
    if "sweep" in config:
        problems += [
            _misspelt("config.sweep", name, AXES) for name in config.sweep if name not in AXES
        ]
        problems += [f"config.sweep.{name} is missing" for name in AXES if name not in config.sweep]
    return problems


def _names(config):
    """The names of the fields, those within a field after a dot."""
    for name, held in config.items():
        if isinstance(held, ConfigDict) and name != "sweep":
            yield from (f"{name}.{inner}" for inner in held)
        else:
            yield name


def _misspelt(where, name, known):
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
    return f"{where} has no field {name}; {hint}"


def _out_of_range(config):
    names = set(_names(config))
    return [
        f"{name} must be {rule.text}; it is {value(config, name)!r}"
        for name, rule in RULES.items()
        if name in names and not rule.accepts(value(config, name))
    ]


def _sweep_problems(config):
    problems = []
    for name, field in AXES.items():
        values = config.sweep[name] if _has_axis(config, name) else ()
        if not isinstance(values, tuple | list):
            problems.append(f"sweep.{name} must be a tuple; it is {values!r}")
            continue
        wrong = [value for value in values if not RULES[field].accepts(value)]
        problems += [
            f"each of sweep.{name} must be {RULES[field].text}; one is {v!r}" for v in wrong
        ]
        zipped = value(config, "combine") == "zip" and name in settings.NAMES
        if not wrong and not zipped and len(set(values)) < len(values):
            problems.append(f"sweep.{name} has a value twice: {tuple(values)}")
    return problems


def _has_axis(config, name):
    return "sweep" in config and name in config.sweep


def _contradictions(config):
    found = []
    if config.folds and config.bootstraps:
        found.append("folds and bootstraps exclude each other; set one of them to 0")
    replicates = len(axis(config, "seed")) * max(config.folds, config.bootstraps, 1)
    if config.select == "one_se" and replicates < 2:
        found.append("select = 'one_se' needs a spread: two or more seeds, folds or bootstraps")
    if config.l2_path and config.sweep.l2:
        found.append("l2_path and sweep.l2 exclude each other; set l2_path to 0, or sweep.l2 to ()")
    found += _zip_problems(config) if config.combine == "zip" else []
    found += _loss_problems(config)
    return found + (_not_for_the_optimum(config) if config.optimizer == "lbfgs" else [])


def _loss_problems(config):
    """What a loss without logits needs, and what it does not have."""
    samples = WITHOUT_LOGITS.get(config.loss, vocabulary.EXACT) != vocabulary.EXACT
    drawn = axis(config, "num_samples")
    if samples and min(drawn) < 1:
        return [f"loss = {config.loss!r} needs num_samples from 1; it is {min(drawn)}"]
    if not samples and max(drawn) > 0:
        return [f"loss = {config.loss!r} draws no samples; set num_samples to 0"]
    if config.loss not in WITHOUT_LOGITS:
        return []
    found = []
    if max(axis(config, "label_smoothing")) > 0:
        found.append(f"loss = {config.loss!r} has no label_smoothing")
    if config.select_metric == "val_balanced_accuracy":
        found.append(f"loss = {config.loss!r} has no balanced accuracy to select by")
    return found


def _zip_problems(config):
    lengths = {name: len(config.sweep[name]) for name in settings.NAMES if config.sweep[name]}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        return [f"combine = 'zip' needs axes of one length; they have {each}"]
    return ["l2_path needs combine = 'product'"] if config.l2_path else []


def _not_for_the_optimum(config):
    """What the optimum does not depend on, or is not to be had with."""
    found = [
        f"sweep.{name} has no effect on the optimum that optimizer = 'lbfgs' finds; empty it"
        for name in AXES
        if name != "l2" and len(config.sweep[name]) > 1
    ]
    for name, needed in (("loss", "cross_entropy"), ("select_epoch", "last")):
        if config[name] != needed:
            found.append(f"optimizer = 'lbfgs' needs {name} = {needed!r}; it is {config[name]!r}")
    if config.precision == "bfloat16":
        found.append("optimizer = 'lbfgs' needs precision = 'float32' or 'float64'")
    return found
