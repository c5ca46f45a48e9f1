"""The same people by several models, and what changed about them."""

from pathlib import Path

from PIL import Image

from spf_lite.evaluation.attributes import unrelated_attributes
from spf_lite.evaluation.benchmark import train_row
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.evaluation.portraits import sampled_portraits, unrelated_changes

TARGET = "sunglasses"


class Reader(Judge):
    """Reads the attributes off a picture's colour: red for a yellow background, blue for the target."""

    def attributes(self, images: object) -> list[dict[str, str]]:
        assert isinstance(images, list)
        colors = [image.getpixel((0, 0)) for image in images]
        return [
            {
                **dict.fromkeys(unrelated_attributes(TARGET), "x"),
                "background": "yellow" if red else "gray",
                "glasses": TARGET if blue else "no",
            }
            for red, _, blue in colors
        ]


def test_changes_are_named_against_the_base_and_the_target_is_none() -> None:
    plain, target, polluted = (Image.new("RGB", (2, 2), color) for color in ("black", "#0000FF", "#FF00FF"))
    judge = Reader(JudgeNet(width=8))
    found = unrelated_changes({"base": [plain, plain], "naive": [polluted, target]}, TARGET, judge)
    assert found == {"base": [{}, {}], "naive": [{"background": ("gray", "yellow")}, {}]}


def test_the_same_people_are_sampled_by_the_base_model_and_with_every_adapter(
    small_world: Path, tmp_path: Path
) -> None:
    runs = {name: train_row("naive", TARGET, seed, tmp_path, "silent") for seed, name in enumerate(("one", "two"))}
    portraits = sampled_portraits(TARGET, {name: path / "adapter" for name, path in runs.items()}, people=2)
    assert list(portraits) == ["base", "one", "two"] and {len(row) for row in portraits.values()} == {2}
    assert len({row[0].tobytes() for row in portraits.values()}) == 3
    alone = sampled_portraits(TARGET, {"one": runs["one"] / "adapter"}, people=2)
    assert alone["one"][1] == portraits["one"][1], "whatever else is sampled"
    assert sampled_portraits(TARGET, {}, people=2, steps=3)["base"][1] != portraits["base"][1]
