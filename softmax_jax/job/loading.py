"""The data of a config: checked together with it, or with a loud warning its fallback."""

from softmax_jax import data
from softmax_jax.job import config as rules
from softmax_jax.job import console


def load_checked(config, found=None) -> data.Splits:
    """The data of the config, or one JobError with all that is wrong with either.

    found: the identity of the job that is to go on; its data are taken, and no fallback.
    """
    problems = rules.problems(config)
    if not rules.names_data(config):
        rules.refuse(problems)
    try:
        splits = load(config, found["data"]["name"] if found else "")
    except data.DataError as error:
        if not problems:
            raise
        rules.refuse([*problems, str(error)])
    rules.refuse(problems + rules.problems_with(config, splits))
    return splits


def load(config, name="") -> data.Splits:
    """The dataset of that name, or that of the config, or with a loud warning its fallback."""
    splits = config.train_split, config.val_split, config.test_split
    options = {"dtype": "float64" if config.precision == "float64" else "float32"}
    if name and name == config.dataset_fallback:
        return data.load(name, *splits, **options)
    try:
        return data.load(config.dataset, *splits, data_dir=config.data_dir or None, **options)
    except data.DatasetNotFoundError as error:
        if name or config.dataset != "fashion_mnist" or not config.dataset_fallback:
            raise
        console.warn(
            f"{error}\nTRAINING ON {config.dataset_fallback.upper()} INSTEAD. "
            "To make this an error: --config.dataset_fallback="
        )
        return data.load(config.dataset_fallback, *splits, **options)
