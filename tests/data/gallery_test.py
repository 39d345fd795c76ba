import io

import numpy as np
import pytest

from softmax_jax.data import DataError, show_images


def render(figure):
    with io.BytesIO() as file:
        figure.savefig(file, format="rgba", dpi=40)
        width, height = (figure.get_size_inches() * 40).astype(int)
        return np.frombuffer(file.getvalue(), np.uint8).reshape(height, width, 4)


@pytest.mark.parametrize("shape, grey", [((4, 5), True), ((4, 5, 1), True), ((4, 5, 3), False)])
def test_shows_every_image_under_its_title(shape, grey):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    figure = show_images(images, [f"title {i}" for i in range(5)], num_columns=3)
    assert [axes.get_title() for axes in figure.axes] == [f"title {i}" for i in range(5)]
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image.squeeze())
        assert not axes.axison
    pixels = render(figure)[..., :3].astype(int)
    assert grey == bool((pixels == pixels[..., :1]).all())


def test_rows_are_filled_from_the_top_left_and_nothing_overlaps():
    figure = show_images(np.zeros((5, 4, 4)), ["true\npredicted"] * 5, num_columns=3)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox().frozen() for axes in figure.axes]
    assert [round(box.y0) for box in boxes[:3]] == [round(boxes[0].y0)] * 3
    assert boxes[0].x0 < boxes[1].x0 < boxes[2].x0
    assert boxes[3].x0 == boxes[0].x0 and boxes[3].y1 < boxes[0].y0
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_size_follows_the_images():
    width, height = show_images(np.zeros((18, 2, 2)), ["a"] * 18, scale=2.0).get_size_inches()
    assert width == 18.0 and 4.0 < height < 5.0
    assert show_images(np.zeros((2, 2, 2)), ["a"] * 2, scale=2.0).get_size_inches()[0] == 4.0


@pytest.mark.parametrize(
    "shape, titles, why",
    [
        ((2, 4, 4), ["a"], "2 images and 1 titles"),
        ((0, 4, 4), [], "at least one image"),
        ((2, 16), ["a", "b"], "reshape"),
        ((2, 4, 4, 2), ["a", "b"], r"not \(2, 4, 4, 2\)"),
    ],
)
def test_what_cannot_be_shown_is_refused(shape, titles, why):
    with pytest.raises(DataError, match=why):
        show_images(np.zeros(shape), titles)
