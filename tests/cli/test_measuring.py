"""The commands that measure, called as from a shell, on small things."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from spf_lite.evaluation import benchmark
from spf_lite.evaluation.report import PollutionReport
from spf_lite.evaluation.statistics import Estimate
from spf_lite.pretrain import check as evaluation
from spf_lite.pretrain.check import Check
from spf_lite.profiling import cost, shape_cost
from spf_lite.profiling.cost import Cost
from spf_lite.tiny_world import custom_sets
from spf_lite.tiny_world.custom_sets import SetNote

from .shell import copy_of, one_step, refused, run


def test_compare_prints_one_line_a_method(
    toy_samples: Path,
    short_recipes: None,
    quick_reports: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPF_LITE_TINY", str(toy_samples / "tiny-portraits"))
    monkeypatch.setattr(benchmark, "DATA_SAMPLES", toy_samples)
    monkeypatch.setattr(benchmark, "write_custom_set", partial(custom_sets.write_custom_set, count=4, size=64))
    saved = tmp_path / "new" / "table.md"
    arguments = ("compare", "sunglasses", tmp_path, "--prompts", 2, "--seeds", 7, "--methods", "spf", "naive")
    painted = tmp_path / "pictures" / "people.png"
    assert run(*arguments, "--save", saved, "--pictures", painted) == 0
    with Image.open(painted) as picture:
        assert picture.width > picture.height > 200, "five people across, three rows"
    lines = saved.read_text().splitlines()
    assert [line.split()[1] for line in lines if not line.startswith("|-")] == ["method", "spf", "naive"]
    said = [record.message for record in logged.records if record.name == "spf_lite"]
    assert said == [*lines, f"wrote {saved}", f"wrote {painted}"]
    assert {path.parent.name for path in tmp_path.rglob("row.json")} == {"spf-7", "naive-7"}
    assert SetNote.read(tmp_path / "sunglasses" / "set-7") == SetNote.of("sunglasses", 7)
    capsys.readouterr()  # progress bars
    assert "holds a run on the set of draw 7" in refused(capsys, *arguments, "--confounders", "shipped")
    assert "invalid choice: 'wild'" in refused(capsys, *arguments, "--confounders", "wild")
    shipped = (*arguments[:2], tmp_path / "shipped", "--prompts", 2, "--seeds", 7, "--methods", "naive")
    assert (
        run(*shipped, "--confounders", "shipped") == 0 and not (tmp_path / "shipped" / "sunglasses" / "set-7").exists()
    )


def test_paint_shows_the_base_and_every_adapter(
    toy_samples: Path,
    model: str,
    short_recipes: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SPF_LITE_TINY", model)
    assert run("train", toy_samples / "custom" / "sunglasses", tmp_path / "run", "--model", model) == 0
    heights = []
    for number, adapters in enumerate(([tmp_path / "run" / "adapter"], [tmp_path / "run" / "adapter"] * 2)):
        picture = tmp_path / "new" / f"{number}.png"
        adapters = [adapters[0], *(copy_of(folder, tmp_path / "other") for folder in adapters[1:])]
        assert run("paint", "sunglasses", picture, *adapters, "--people", 2) == 0
        assert logged.records[-1].message == f"wrote {picture}"
        with Image.open(picture) as image:
            heights.append(image.height)
    assert heights[1] > 1.3 * heights[0], "one more row"


def test_measure_says_writes_and_saves(
    toy_samples: Path,
    model: str,
    short_recipes: None,
    quick_reports: None,
    tmp_path: Path,
    logged: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, saved = tmp_path / "run", tmp_path / "new" / "report.json"
    assert run("train", toy_samples / "custom" / "sunglasses", output, "--model", model) == 0
    adapter = output / "adapter"
    arguments = ("measure", adapter, "sunglasses", "--model", model, "--prompts", 2)
    assert run(*arguments, "--save", saved) == 0
    found = PollutionReport.from_json(saved.read_text())
    assert found.target == "sunglasses" and len(found.values["flip rate"]) == 2
    assert "\n".join(record.message for record in logged.records).endswith(
        f"{found}\nwords whose portraits moved most at base text: too few prompts to say\nwrote {saved}"
    )
    card = (adapter / "README.md").read_text()
    for name, value in found.estimates().items():
        assert f"| {name} | {value} |" in card
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    note = {"target": "sunglasses", "confounders": 4, "spurious": {"background": "pink"}}
    (drawn / "spurious.json").write_text(json.dumps(note))
    assert run(*arguments, "--save", saved, "--custom-set", drawn) == 0
    other = PollutionReport.from_json(saved.read_text())
    assert other.values["flip rate"] == found.values["flip rate"] and list(other.bias) == ["background"]
    capsys.readouterr()  # progress bars
    line = refused(capsys, "measure", adapter, "beard", "--model", model, "--custom-set", drawn)
    assert line == f"{drawn} is a custom set of sunglasses, not of beard"
    line = refused(capsys, *arguments, "--custom-set", tmp_path)
    assert line == f"{tmp_path} does not say what its portraits share: there is no spurious.json"
    (adapter / "README.md").unlink()
    assert run(*arguments) == 0, "an adapter from elsewhere has no card"
    assert not (adapter / "README.md").exists()


def test_cost_prints_and_saves_every_variant(
    toy_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, int]] = []
    costs = [Cost("tiny", "(a)", 0.5, 1.0, 100.0, 2), Cost("tiny", "sampling", 1.5, 1.0, None, 2)]

    def measured(model: str, rounds: int) -> list[Cost]:
        asked.append((model, rounds))
        return costs

    monkeypatch.setattr(cost, "measure_costs", measured)
    saved = tmp_path / "new" / "cost.json"
    assert run("cost", "--rounds", 2, "--save", saved) == 0
    assert asked == [("tiny", 2)]
    assert [Cost(**row) for row in json.loads(saved.read_text())] == costs
    assert [record.message for record in logged.records][-3:-1] == list(map(str, costs))

    def of_shape(*arguments: object) -> list[Cost]:
        assert arguments == ("sd3", 128, 5, torch.bfloat16)
        return costs

    monkeypatch.setattr(shape_cost, "shape_costs", of_shape)
    assert run("cost", "--model", "sd3", "--pixels", 128, "--dtype", "bfloat16") == 0


def test_check_prints_the_table_and_fails_when_something_is_missed(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "sample", one_step)
    table = tmp_path / "new" / "check.txt"
    assert run("check", "--model", model, "--prompts", 1, "--save", table) == 1, "it is untrained"
    lines = table.read_text().splitlines()
    assert any("MISSED" in line for line in lines) and lines[-1].endswith("requirements met")
    assert [record.message for record in logged.records][-len(lines) - 1 :] == [*lines, f"wrote {table}"]
    good = Check("follows skin", Estimate(1, 1, 1, 1), ">= 0.90", True)
    monkeypatch.setattr(evaluation, "check_model", lambda backbone, prompts: [good] * prompts)
    assert run("check", "--model", model, "--prompts", 2) == 0
    assert logged.records[-1].message == "2 of 2 requirements met"
    monkeypatch.setattr(evaluation, "check_last_test", lambda backbone, prompts: [good] * (prompts + 1))
    assert run("check", "--model", model, "--prompts", 2, "--last-test") == 0
    assert logged.records[-1].message == "3 of 3 requirements met"
