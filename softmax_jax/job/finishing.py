"""From the result of a training to all that a job leaves: select, test, draw, write."""

import contextlib
import time

from softmax_jax.job import decisions, language, outputs, processes, report, sweeping

_MOST_CLASSES = 1000  # of which each has its own line in a table


def finish(config, workdir, splits, result, seconds):
    """Chooses, refits, reads the test split once, draws, writes; summary.json comes last."""
    with timed(seconds, "selection"):
        chosen = sweeping.select(config, result)
        selected = sweeping.refit(config, splits, result, chosen)
        test = None if splits.test is None else selected.classifier.test(splits.test)
        more = _judged(config, splits, result, chosen, selected)
    outputs.write_params(workdir, selected.classifier)
    # A refit on train and val has seen what it would be judged on: the chosen model has not.
    judged = chosen if config.refit else selected
    if config.predictions:
        outputs.write_predictions(workdir, splits, judged.classifier, selected.classifier)
    with timed(seconds, "pictures"):
        if processes.is_first():
            outputs.draw(workdir, config, splits, result, judged)
    with timed(seconds, "studies"):
        more |= outputs.write_studies(workdir, config, splits, selected)
    outputs.write_summary(workdir, config, splits, result, selected, test, more, seconds)
    report.say_result(config, splits, result, selected, test)
    report.say_more(config, more)
    report.say_files(workdir.path)


def _judged(config, splits, result, chosen, selected):
    """What summary.json holds beyond loss and accuracy: classes, costs, the language."""
    more = {"language": language.distance(splits, selected.classifier), "decisions": None}
    if len(splits.label_names) <= _MOST_CLASSES:
        counts = sweeping.resamples(config, splits.train)
        more["decisions"] = decisions.fields(config, splits, result, chosen, selected, counts)
    return more


@contextlib.contextmanager
def timed(seconds, phase):
    """Adds the seconds of the block to a dictionary, under the name of the phase."""
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
