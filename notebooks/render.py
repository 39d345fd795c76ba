"""Runs the notebooks from their first cell to their last, and writes them with their outputs.

    python -m notebooks.render [--output=FOLDER] [NAME ...]

Without names all three, without --output in their place. What differs from run to run (times,
versions, identifiers) is left out, and pictures are reduced to 256 colours, so that a notebook is
small, and changes where its outputs do.
"""

import argparse
import base64
import io
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
NAMES = ("from_scratch", "concise", "probe")


def run(name: str) -> nbformat.NotebookNode:
    """The notebook of that name with the outputs of a run, in the folder of the notebooks."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(FOLDER), env=environment)
    return notebook


def reduced(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same without what changes from run to run, and with small pictures."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _merged(cell.outputs)
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output.metadata = {}
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
    return notebook


def _merged(outputs):
    """What was printed at once and what was printed by and by are one."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == last.get("output_type") == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _smaller(png):
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image = image.quantize(256, method=Image.Quantize.MAXCOVERAGE)  # keeps the ends of a scale
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Runs and writes those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder (in their place)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in given.names or NAMES:
        nbformat.write(reduced(run(name)), given.output / f"{name}.ipynb")
        print(given.output / f"{name}.ipynb")


if __name__ == "__main__":
    main()
