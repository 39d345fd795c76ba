"""A grid of images with their labels, as in the book."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from softmax_jax.host import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_images(
    images: Sequence,
    titles: Sequence[str],
    num_columns: int = 9,
    scale: float = 1.5,
    heading: str = "",
) -> "Figure":
    """Draws images in rows, each under its title.

    `show_images(train.x[:18], train.text_labels(train.y[:18]))` shows the first eighteen.

    Args:
      images: n images: [H, W] or [H, W, 1] in shades of grey, each from its darkest value to its
        brightest; or [H, W, 3] in colour, uint8 or floats in 0..1.
      titles: n texts; a text may have several lines.
      num_columns: images in a row.
      scale: width and height of a cell, in inches.
      heading: a line above them all.

    Returns:
      A figure; `figure.savefig(path)` writes it, and a notebook shows it after
      `%matplotlib inline`.

    Raises:
      DataError: no images, as many titles as images are not given, or these are no images.
    """
    from matplotlib.figure import Figure

    images = _check(np.asarray(images), titles)
    num_columns = min(num_columns, len(images))
    num_rows = -(-len(images) // num_columns)
    lines = max(str(title).count("\n") + 1 for title in titles)
    height = scale + 0.17 * lines  # inches: an image and its title
    top = num_rows * height  # where the images end and the heading begins
    figure = Figure(figsize=(num_columns * scale, top + (0.4 if heading else 0)))
    width, total = figure.get_size_inches()
    figure.suptitle(heading, y=1 - 0.1 / total, va="top", fontsize=11)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, num_columns)
        left, bottom = (column + 0.05) * scale / width, (top - (row + 0.95) * height) / total
        axes = figure.add_axes((left, bottom, 0.9 * scale / width, 0.9 * scale / total))
        axes.imshow(image, cmap="gray")
        axes.set_axis_off()
        axes.set_title(title, fontsize=9, pad=3)
    return figure


def _check(images: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """The images as [n, H, W] or [n, H, W, 3]."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3 and not (images.ndim == 4 and images.shape[-1] == 3):
        raise DataError(
            f"Images of shape [n, H, W] or [n, H, W, 3] can be shown, not {images.shape}. "
            "Reshape them, as x.reshape(-1, height, width)."
        )
    if not 0 < len(images) == len(titles):
        raise DataError(
            f"Got {len(images)} images and {len(titles)} titles. Give at least one image, and "
            "one title to each."
        )
    return images
