"""What the scripts share: where pictures go, how they and the tables look."""

import argparse
from pathlib import Path


def folder(description) -> Path:
    """The folder that --output names, made where it is missing."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    default = Path("runs/examples")
    parser.add_argument("--output", type=Path, default=default, help=f"of pictures ({default})")
    path = parser.parse_args().output
    path.mkdir(parents=True, exist_ok=True)
    return path


def new_figure(**options):
    """An empty figure in the style of a run's pictures."""
    # Figure instead of pyplot: no global state, no window system.
    from matplotlib.figure import Figure

    return Figure(layout="constrained", dpi=110, **options)


def save(figure, path):
    """Writes the figure and says where."""
    figure.savefig(path)
    print(f"\n{path}")


def markdown(heading, rows):
    """A table of texts; all but the first column are aligned to the right."""
    lines = [f"| {' | '.join(row)} |" for row in (heading, *rows)]
    lines.insert(1, "| --- |" + " ---: |" * (len(heading) - 1))
    return "\n".join(lines)
