"""The pictures of `examples.numerics`."""

import numpy as np

from examples import output, survey

_COLOURS = ("#b9dfb9", "tab:red", "0.25")  # of the verdicts
_FROM_PROBABILITIES = "cross_entropy_from_probabilities"


def verdict_map(found, sweeps):
    """A panel for each format, value and gradient: a bar for each form, coloured by verdict."""
    names = list(survey.FORMS)
    figure = output.new_figure(figsize=(11, 2 + 1.9 * len(sweeps)))
    figure.suptitle("Three logits m − 2, m − 1, m: what each form makes of them", fontsize=11)
    panels = figure.subplots(len(sweeps), 2, sharey=True, squeeze=False)
    for row, (dtype, largest) in zip(panels, sweeps.items(), strict=True):
        for index, axes in enumerate(row):
            for height, name in enumerate(names):
                for span in found[dtype, name][index]:
                    _bar(axes, height, span, largest[1] - largest[0])
            axes.set_title(f"{dtype}: {('value', 'gradient')[index]}", fontsize=10)
            axes.set_yticks(range(len(names)), names, fontsize=8)
            axes.set_xlim(largest[0], largest[-1])
    panels[0, 0].invert_yaxis()
    for axes in panels[-1]:
        axes.set_xlabel("largest logit m")
    patches = [_patch(verdict) for verdict in range(len(_COLOURS))]
    figure.legend(handles=patches, loc="outside lower center", ncols=3)
    return figure


def edges(dtype="float32"):
    """What the naive forms return where they begin to fail, beside what they should."""
    figure = output.new_figure(figsize=(11, 3.6))
    figure.suptitle(f"{dtype}; grey: infinite or NaN", fontsize=11)
    low, high, wide = figure.subplots(1, 3)
    for axes, largest in (low, np.arange(-90, -82, 0.02)), (high, np.arange(82, 90, 0.02)):
        _probabilities(axes, dtype, largest)
    low.legend(fontsize=8, loc="center right")
    largest = survey.SWEEPS[dtype]
    for name, style in (_FROM_PROBABILITIES, "-"), ("cross_entropy", ":"):
        gradients = survey.outputs(survey.FORMS[name], dtype, largest)[1]
        wide.plot(largest, gradients[:, survey.LABEL], style, label=name, linewidth=2)
        _shade(wide, largest, gradients)
    wide.set(title="gradient of the loss in its label's logit", ylim=(-1.05, 0.05))
    wide.legend(fontsize=8, loc="upper center")
    for axes in low, high, wide:
        axes.set_xlabel("largest logit m")
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    return figure


def _probabilities(axes, dtype, largest):
    values, _ = survey.outputs(survey.FORMS["naive_softmax"], dtype, largest)
    lines = axes.plot(largest, values, linewidth=2)
    for line, below, true in zip(lines, survey.BELOW, survey.exact("softmax")[0], strict=True):
        line.set_label(f"of logit m − {-below:g}" if below else "of logit m")
        axes.axhline(true, color=line.get_color(), linestyle=":")
    _shade(axes, largest, values)
    axes.set(title="naive_softmax (dotted: softmax)", ylim=(-0.05, 1.05))


def _shade(axes, largest, values):
    """Grey where any of the values is not finite."""
    verdict = np.where(np.isfinite(values).all(1), survey.RIGHT, survey.NOT_FINITE)
    for span in survey.spans(largest, verdict):
        if span.verdict == survey.NOT_FINITE:
            axes.axvspan(span.first, span.last, color="0.9", zorder=0)


def _bar(axes, height, span, step):
    start, width = span.first - step / 2, span.last - span.first + step
    axes.broken_barh([(start, width)], (height - 0.4, 0.8), color=_COLOURS[span.verdict])


def _patch(verdict):
    from matplotlib.patches import Patch

    return Patch(color=_COLOURS[verdict], label=survey.VERDICTS[verdict])
