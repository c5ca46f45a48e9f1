from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spf_lite.evaluation.judge import FINAL_HEADS, HEADS, Judge, JudgeNet, head_of, load_judge, prepare
from spf_lite.models.backbone import Backbone, load
from spf_lite.pretrain.judge import IGNORE, answers, pairs_by_identity
from spf_lite.tiny_world.portraits import FINAL_TARGETS, TARGETS, Portrait
from spf_lite.tiny_world.rendering import render


@pytest.fixture(scope="module")
def untrained() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNet(width=8, identity_width=64))


def test_every_target_has_a_head() -> None:
    for target in TARGETS:
        assert target in HEADS[head_of(target)]
    for target in FINAL_TARGETS:
        assert target in FINAL_HEADS[head_of(target)] and target not in HEADS[head_of(target)]
    with pytest.raises(ValueError, match="unknown target"):
        head_of("monocle")


def test_a_verdict_has_the_promised_shapes(untrained: Judge) -> None:
    pictures = [render(Portrait(), 128), render(Portrait(skin="dark"), 100), Image.new("RGBA", (64, 64))]
    verdict = untrained(pictures, batch_size=2)
    assert len(verdict.attributes) == 3 and set(verdict.attributes[0]) == set(HEADS)
    assert all(value in HEADS[name] for name, value in verdict.attributes[0].items())
    assert all(0 < share <= 1 for share in verdict.confidence[0].values())
    assert verdict.identity.shape == (3, 64)
    assert np.allclose(np.linalg.norm(verdict.identity, axis=1), 1, atol=1e-5)
    assert verdict.parts.shape == (3, 64, 64) and verdict.parts.max() < 6
    assert verdict.shows("beard").shape == (3,)
    assert untrained([]).attributes == []


def test_pictures_are_shrunk_by_averaging() -> None:
    checkerboard = Image.fromarray((np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8))
    assert prepare([checkerboard]).abs().max() < 0.01


def test_saving_and_loading(untrained: Judge, tmp_path: Path) -> None:
    untrained.save(tmp_path)
    again = Judge.load(tmp_path)
    picture = [render(Portrait())]
    assert np.array_equal(untrained(picture).identity, again(picture).identity)
    (tmp_path / "config.json").write_text('{"net": {}, "heads": {"skin": ["pale"]}}')
    with pytest.raises(ValueError, match="other attributes"):
        Judge.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no judge in"):
        Judge.load(tmp_path / "nothing")


def test_the_judge_beside_a_model_is_found(toy: Backbone, toy_samples: Path) -> None:
    beside = load_judge(load(str(toy_samples / "tiny-portraits")))
    stored = Judge.load(toy_samples / "tiny-portraits" / "judge")
    picture = [render(Portrait())]
    assert np.array_equal(beside(picture).identity, stored(picture).identity)
    with pytest.raises(FileNotFoundError, match="no judge in"):
        load_judge(toy)


def test_what_a_target_hides_is_not_asked() -> None:
    heads = list(HEADS)
    hat = dict(zip(heads, answers(Portrait(targets=("winter-hat",))), strict=True))
    assert hat["hair_style"] == hat["hair_color"] == IGNORE
    assert hat["winter-hat"] == 1 and hat["skin"] == 1 and hat["beard"] == 0
    shades = dict(zip(heads, answers(Portrait(glasses="yes", targets=("sunglasses",))), strict=True))
    assert HEADS["glasses"][shades["glasses"]] == "sunglasses"


def test_identity_pairs_show_the_same_person() -> None:
    people = [Portrait(), Portrait(background="blue"), Portrait(skin="dark"), Portrait(targets=("winter-hat",))]
    assert pairs_by_identity(people) == {Portrait().identity: [0, 1]}


def test_the_last_test_has_a_judge_of_its_own(toy_samples: Path) -> None:
    folder = toy_samples / "tiny-portraits"
    torch.manual_seed(1)
    final = Judge(JudgeNet(width=8, final=True))
    final.save(folder / "judge-final")
    backbone = load(str(folder))
    assert load_judge(backbone).net.answers == load_judge(backbone, "beard").net.answers == HEADS
    found = load_judge(backbone, "beard", "whiskers")
    assert found.net.answers == FINAL_HEADS
    pictures = [render(Portrait()), render(Portrait(skin="dark"))]
    assert found(pictures).attributes == final(pictures).attributes
    assert found(pictures).shows("spacesuit").shape == (2,)


def test_answers_name_the_targets_of_the_last_test() -> None:
    names = list(FINAL_HEADS)
    for target in FINAL_TARGETS:
        given = answers(Portrait().with_targets(target), FINAL_HEADS)
        head = head_of(target)
        assert FINAL_HEADS[head][given[names.index(head)]] == target
    hidden = answers(Portrait().with_targets("chef-hat"), FINAL_HEADS)
    assert [name for name, value in zip(names, hidden, strict=True) if value == IGNORE] == ["hair_style", "hair_color"]
    people = [Portrait(), Portrait(background="pink"), Portrait().with_targets("chef-hat")]
    assert list(pairs_by_identity(people).values()) == [[0, 1]], "hair that a hat hides says nothing of who it is"
