"""The exercise: what becomes of the softmax when a logit is 100, or when all are below -100?

    python -m examples.numerics [--output=FOLDER]

From the root of the repository; takes about 10 s on 2 CPU cores. Three logits m + [-2, -1, 0] are
moved along the number line: the softmax of all of them is [0.09, 0.24, 0.67], since a constant
that is added to all logits changes nothing. Every form in `losses` is called at every m in every
number format, and compared with float64 in NumPy: it is right (within 10 %), or finite and wrong,
which nobody notices, or not finite. Prints the borders in between as a Markdown table, and
draws numerics.png (all forms) and softmax_edges.png (what the naive softmax returns).
"""

from examples import output, survey, survey_pictures


def table(found):
    """The survey as Markdown: one row for the forms of a format that share their borders."""
    merged = {}
    for (dtype, name), both in found.items():
        for what, runs in zip(("value", "gradient"), both, strict=True):
            merged.setdefault((dtype, what, tuple(runs)), []).append(name)
    rows = [
        (f"{dtype}: {what} of {', '.join(names)}", *_by_verdict(runs))
        for (dtype, what, runs), names in merged.items()
    ]
    return output.markdown(("largest logit m", *survey.VERDICTS), rows)


def _by_verdict(runs):
    """For each verdict its runs as text."""
    texts = [[], [], []]
    for run in runs:
        ends = f"{run.first:g} to {run.last:g}" if run.first < run.last else f"{run.first:g}"
        texts[run.verdict].append(ends)
    return [", ".join(parts) for parts in texts]


def main():
    """Surveys, prints, draws."""
    folder = output.folder(__doc__)
    found = survey.survey(survey.SWEEPS)
    print(table(found))
    picture = survey_pictures.verdict_map(found, survey.SWEEPS)
    output.save(picture, folder / "numerics.png")
    output.save(survey_pictures.edges(), folder / "softmax_edges.png")


if __name__ == "__main__":
    main()
