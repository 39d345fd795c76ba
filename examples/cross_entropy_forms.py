"""The exercise: what does the cross-entropy cost by its definition, Σ y log ŷ, and by indexing?

    python -m examples.cross_entropy_forms [--output=FOLDER]

From the root of the repository; takes about 20 s on 2 CPU cores. A batch of 256 examples with 10
to 100,000 classes goes through each form: the mean loss, given probabilities, and the mean loss
with its gradient, given logits, as a training step computes it. Prints the median time of a call,
the forms taking turns, and the memory that the compiled program needs beside the scores and their
gradient; draws cross_entropy_forms.png.
"""

import statistics
import time
from typing import NamedTuple

import jax
import optax

from examples import output
from softmax_jax import losses

SIZES = (10, 100, 1000, 10_000, 100_000)
_NAIVE = losses.FROM_LOGITS
_UNIT = "from logits, integer labels"  # whose time is 1 in the picture

# Name: (loss, whether its labels are distributions [B, C]).
GIVEN_PROBABILITIES = {
    "definition, integer labels": (losses.cross_entropy_by_definition, False),
    "definition, soft labels": (losses.cross_entropy_by_definition, True),
    "indexing": (losses.cross_entropy_from_probabilities, False),
}
GIVEN_LOGITS = {
    "definition, integer labels": (_NAIVE["cross_entropy_by_definition"], False),
    "definition, soft labels": (_NAIVE["cross_entropy_by_definition"], True),
    "indexing": (_NAIVE["cross_entropy_from_probabilities"], False),
    "from logits, integer labels": (losses.cross_entropy, False),
    "from logits, soft labels": (losses.cross_entropy, True),
    "optax, integer labels": (optax.softmax_cross_entropy_with_integer_labels, False),
    "optax, soft labels": (optax.softmax_cross_entropy, True),
}


class Row(NamedTuple):
    """A form at one number of classes: seconds of a call, bytes beside scores and gradient."""

    given: str
    form: str
    num_classes: int
    seconds: float
    extra_bytes: int


class _Contender(NamedTuple):
    given: str
    form: str
    program: jax.stages.Compiled
    arguments: tuple

    def extra_bytes(self):
        needed = self.program.memory_analysis()
        held = needed.argument_size_in_bytes + needed.temp_size_in_bytes
        return held - self.arguments[0].nbytes


def measure(num_classes, batch_size=256, repeats=7):
    """A `Row` for every form, timed in turns after a first call that is not counted."""
    contenders = _contenders(num_classes, batch_size)
    calls = max(1, 100_000 // num_classes // 10)  # at once: one of a few µs cannot be timed
    seconds = [[_time(contender, calls) for contender in contenders] for _ in range(repeats + 1)]
    medians = map(statistics.median, zip(*seconds[1:], strict=True))
    return [
        Row(each.given, each.form, num_classes, median, each.extra_bytes())
        for each, median in zip(contenders, medians, strict=True)
    ]


def _contenders(num_classes, batch_size):
    keys = jax.random.split(jax.random.key(0))
    logits = jax.random.normal(keys[0], (batch_size, num_classes))
    labels = jax.random.randint(keys[1], (batch_size,), 0, num_classes)
    labels = {False: labels, True: jax.nn.one_hot(labels, num_classes)}
    tasks = (
        ("probabilities", GIVEN_PROBABILITIES, losses.softmax(logits), lambda loss: loss),
        ("logits", GIVEN_LOGITS, logits, jax.value_and_grad),
    )
    contenders = []
    for given, forms, scores, derive in tasks:
        for form, (loss, soft) in forms.items():
            program = jax.jit(derive(_mean_of(loss))).lower(scores, labels[soft]).compile()
            contenders.append(_Contender(given, form, program, (scores, labels[soft])))
    return contenders


def _mean_of(loss):
    return lambda scores, labels: loss(scores, labels).mean()


def _time(contender, calls):
    started = time.perf_counter()
    for _ in range(calls):
        result = contender.program(*contender.arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - started) / calls


def table(rows, given, text):
    """The rows of one task as Markdown, a column for each number of classes."""
    sizes = sorted({row.num_classes for row in rows})
    cells = {}
    for row in rows:
        if row.given == given:
            cells.setdefault(row.form, {})[row.num_classes] = text(row)
    heading = f"given {given}", *(f"C = {size:,}" for size in sizes)
    return output.markdown(
        heading, [(form, *(by[size] for size in sizes)) for form, by in cells.items()]
    )


def picture(rows):
    """Time and memory by the number of classes, a line for each form that starts at the logits."""
    figure = output.new_figure(figsize=(11, 4.2))
    seconds, memory = figure.subplots(1, 2)
    rows = [row for row in rows if row.given == "logits"]
    unit = {row.num_classes: row.seconds for row in rows if row.form == _UNIT}
    for form in GIVEN_LOGITS:
        mine = [row for row in rows if row.form == form]
        sizes = [row.num_classes for row in mine]
        style = {"linestyle": "--", "linewidth": 3, "alpha": 0.6} if "optax" in form else {}
        ratios = [row.seconds / unit[row.num_classes] for row in mine]
        seconds.plot(sizes, ratios, marker=".", label=form, **style)
        memory.plot(sizes, [row.extra_bytes / 2**20 for row in mine], marker=".", **style)
    seconds.set(title="mean loss and gradient of 256 examples", ylabel=f"time / {_UNIT}")
    seconds.set_ylim(bottom=0)
    memory.set(title="memory beside the logits and their gradient", ylabel="MiB", yscale="log")
    for axes in seconds, memory:
        axes.set(xlabel="classes", xscale="log")
        axes.grid(alpha=0.3)
    figure.legend(*seconds.get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def main():
    """Measures, prints, draws."""
    folder = output.folder(__doc__)
    rows = [row for size in SIZES for row in measure(size)]
    for given in "probabilities", "logits":
        print("\nMedian time of a call, µs\n")
        print(table(rows, given, lambda row: f"{1e6 * row.seconds:,.0f}"))
        print("\nMemory beside the scores and their gradient, KiB\n")
        print(table(rows, given, lambda row: f"{row.extra_bytes / 2**10:,.0f}"))
    output.save(picture(rows), folder / "cross_entropy_forms.png")


if __name__ == "__main__":
    main()
