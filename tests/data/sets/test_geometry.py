import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spf_lite.data.sets.geometry import LARGEST_SHORT_SIDE, buckets, crop_to, fit, nearest_bucket, reduce_to_memory

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


def circle(width: int, height: int) -> Image.Image:
    """A white disc in the middle, half as wide as the shorter side."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) < min(width, height) / 4
    return Image.fromarray((inside * 255).astype(np.uint8))


def test_nothing_is_squashed() -> None:
    for width, height in ((200, 100), (100, 300), (120, 120)):
        for size in ((64, 64), (64, 48), (32, 64)):
            white = np.asarray(fit(circle(width, height), size)) > 127
            rows, columns = white.any(axis=1).sum(), white.any(axis=0).sum()
            assert abs(int(rows) - int(columns)) <= 2, "a circle stays one"
            middle = np.argwhere(white).mean(axis=0)
            assert np.abs(middle - [(size[0] - 1) / 2, (size[1] - 1) / 2]).max() < 1, "and in the middle"


def test_a_square_picture_is_only_resized() -> None:
    image = circle(128, 128)
    assert fit(image, (128, 128)) is image
    assert fit(image, (64, 64)).tobytes() == image.resize((64, 64), Image.Resampling.LANCZOS).tobytes()


@settings(max_examples=200, deadline=None)
@given(size=sizes, shape=sizes)
def test_a_crop_is_the_largest_part_around_the_centre(size: tuple[int, int], shape: tuple[int, int]) -> None:
    width, height = size
    where = np.arange(width * height, dtype=np.int32).reshape(height, width)
    cropped = np.asarray(crop_to(Image.fromarray(where), shape))
    rows, columns = cropped.shape
    assert rows == height or columns == width, "one side is whole"
    exact = min(height, max(1.0, width * shape[0] / shape[1])), min(width, max(1.0, height * shape[1] / shape[0]))
    assert abs(rows - exact[0]) <= 0.5 and abs(columns - exact[1]) <= 0.5
    top, left = divmod(int(cropped[0, 0]), width)
    assert abs(top - (height - rows - top)) <= 1 and abs(left - (width - columns - left)) <= 1


@settings(max_examples=100, deadline=None)
@given(size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_pictures_are_reduced_only_as_far_as_memory_asks(size: tuple[int, int]) -> None:
    reduced = reduce_to_memory(Image.new("1", size))
    if min(size) <= LARGEST_SHORT_SIDE:
        assert reduced.size == size
    else:
        assert min(reduced.size) == LARGEST_SHORT_SIDE
        assert abs(max(reduced.size) - max(size) * LARGEST_SHORT_SIDE / min(size)) <= 0.5


def test_buckets_fit_the_unet_and_the_recorded_layers() -> None:
    assert buckets(8, 2) == [(8, 8), (8, 6), (8, 4), (6, 8), (4, 8)], "the toy"
    assert buckets(64, 8) == [(64, 64), (64, 56), (64, 48), (64, 40), (64, 32), (56, 64), (48, 64), (40, 64), (32, 64)]
    assert buckets(9, 2)[0] == (9, 9), "a model's own size is always one"
    for side, multiple in ((16, 4), (64, 8), (96, 8), (128, 8)):
        for height, width in buckets(side, multiple):
            assert max(height, width) == side and min(height, width) >= side / 2
            assert height % multiple == width % multiple == 0


def test_a_picture_goes_where_least_is_cropped() -> None:
    choices = buckets(64, 8)
    for (width, height), bucket in {
        (512, 512): (64, 64),
        (3024, 4032): (64, 48),
        (4032, 3024): (48, 64),
        (1080, 1920): (64, 40),
        (100, 1000): (64, 32),
        (500, 490): (64, 64),
    }.items():
        assert nearest_bucket(Image.new("1", (width, height)), choices) == bucket
