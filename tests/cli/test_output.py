import pytest
from PIL import Image

from spf_lite.cli.output import contact_sheet


def test_a_sheet_goes_row_by_row_and_ends_in_white() -> None:
    colors = ["red", "lime", "blue", "black", "yellow"]
    sheet = contact_sheet([Image.new("RGB", (4, 2), color) for color in colors], columns=2)
    assert sheet.size == (8, 6)
    seen = [sheet.getpixel((x, y)) for y in (0, 2, 4) for x in (0, 4)]
    assert seen == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (0, 0, 0),
        (255, 255, 0),
        (255, 255, 255),
    ]


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no portraits to put on a sheet"):
        contact_sheet([], columns=8)
