"""A comparison trains and measures what is missing, keeps what is there, and refuses what does not belong to it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from spf_lite import load
from spf_lite.config import TrainConfig
from spf_lite.evaluation import benchmark
from spf_lite.evaluation.benchmark import compare_methods, measure_row, train_row
from spf_lite.evaluation.measuring import EvaluationSet, sample_evaluation_sets
from spf_lite.evaluation.report import MEASURES
from spf_lite.evaluation.rows import Row
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.training import trainer as training
from spf_lite.training.step import TrainResult

TARGET = "sunglasses"


@pytest.fixture
def evaluation_sets(small_world: Path) -> list[EvaluationSet]:
    return sample_evaluation_sets(load("tiny"), TARGET, 2)


def compare(folder: Path, **options: object) -> list[str]:
    arguments = {"methods": ("naive", "spf"), "prompts": 2, "seeds": (1,), **options}
    return compare_methods(TARGET, folder, **arguments)  # type: ignore[arg-type]


class Forbidden(training.DualPathTrainer):
    def fit(self, *arguments: object, **options: object) -> TrainResult:
        raise AssertionError("a finished row was trained again")


def test_a_second_call_trains_nothing_and_says_the_same(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(tmp_path)
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("row.json")}
    assert folders == {f"{TARGET}/naive-1", f"{TARGET}/spf-1"}
    for folder in folders:
        assert (tmp_path / folder / "adapter" / ADAPTER_FILE).is_file()
    monkeypatch.setattr(benchmark, "DualPathTrainer", Forbidden)
    assert compare(tmp_path) == first

    def again(*arguments: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as broken:
        broken.setattr(benchmark, "measure_on", again)
        assert compare(tmp_path) == first
        with pytest.raises(AssertionError, match="measured again"):
            compare(tmp_path, prompts=3)
    (tmp_path / TARGET / "spf-1" / "row.json").unlink()
    assert compare(tmp_path) == first, "measured anew, trained never"
    (tmp_path / TARGET / "spf-1" / "adapter" / ADAPTER_FILE).unlink()
    with pytest.raises(AssertionError, match="trained again"):
        compare(tmp_path)


@pytest.mark.parametrize("moment", ["fit", "export"])
def test_an_interrupted_row_is_taken_up_where_it_was(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(Exception):
        pass

    def die(trainer: training.DualPathTrainer, *arguments: object) -> None:
        if moment == "export" or trainer.step == 1:
            raise Killed

    steps: list[int] = []
    one_step = training.DualPathTrainer._one_step

    def counted(trainer: training.DualPathTrainer) -> object:
        if moment == "fit":
            die(trainer)
        steps.append(trainer.step)
        return one_step(trainer)

    with monkeypatch.context() as broken, pytest.raises(Killed):
        broken.setattr(training.DualPathTrainer, "_one_step", counted)
        if moment == "export":
            broken.setattr(training.DualPathTrainer, "export", die)
        train_row("naive", TARGET, 0, tmp_path, "silent")
    assert steps == ([0] if moment == "fit" else [0, 1]) and not list(tmp_path.rglob(ADAPTER_FILE))
    moment = "never"
    monkeypatch.setattr(training.DualPathTrainer, "_one_step", counted)
    path = train_row("naive", TARGET, 0, tmp_path, "silent")
    assert steps == [0, 1], "no step was made twice"
    assert [json.loads(line)["step"] for line in (path / "log.jsonl").read_text().splitlines()] == [0, 1]
    assert (path / "adapter" / ADAPTER_FILE).is_file()


def test_captions_and_seed_reach_the_training(small_world: Path, tmp_path: Path) -> None:
    for captions in ("named", "silent"):
        path = train_row("naive", TARGET, 4, tmp_path / captions, captions)
        assert path == tmp_path / captions / TARGET / "naive-4"
        assert TrainConfig.from_json((path / "config.json").read_text()).seed == 4
    first, second = ((tmp_path / c / TARGET / "naive-4" / "log.jsonl").read_text() for c in ("named", "silent"))
    assert first != second


def test_the_adapter_is_measured_as_it_lies_on_the_disk(
    small_world: Path, evaluation_sets: list[EvaluationSet], tmp_path: Path
) -> None:
    path = train_row("naive", TARGET, 0, tmp_path, "silent")
    row = measure_row("naive", 0, path, evaluation_sets)
    assert (row.method, row.target, row.seed) == ("naive", TARGET, 0)
    assert (path / "row.json").read_text() == row.to_json()
    other = train_row("naive", TARGET, 1, tmp_path, "silent")
    (path / "adapter" / ADAPTER_FILE).write_bytes((other / "adapter" / ADAPTER_FILE).read_bytes())
    assert measure_row("naive", 0, path, evaluation_sets) == row, "what was measured is kept"
    (path / "row.json").unlink()
    swapped = measure_row("naive", 0, path, evaluation_sets)
    assert swapped.report != row.report and swapped.report == measure_row("naive", 1, other, evaluation_sets).report
    (path / "row.json").unlink()
    (path / "adapter" / ADAPTER_FILE).unlink()
    with pytest.raises(ValueError, match="no adapter in"):
        measure_row("naive", 0, path, evaluation_sets)


def test_a_row_that_lacks_a_measure_is_measured_again(
    small_world: Path, evaluation_sets: list[EvaluationSet], tmp_path: Path
) -> None:
    path = train_row("naive", TARGET, 0, tmp_path, "silent")
    full = measure_row("naive", 0, path, evaluation_sets[:1])
    assert "CLIP-T" in full.report.values and "pure (short)" not in full.report.values
    both = measure_row("naive", 0, path, evaluation_sets)
    assert list(both.report.values) == list(MEASURES)
    assert measure_row("naive", 0, path, evaluation_sets[:1]) == both, "what has more than enough is kept"
    old = replace(both.report, values={name: row for name, row in both.report.values.items() if name != "pure"})
    (path / "row.json").write_text(replace(both, report=old).to_json())
    assert measure_row("naive", 0, path, evaluation_sets) == both
    assert Row.from_json((path / "row.json").read_text()) == both


def test_the_model_card_gets_the_measures(
    small_world: Path, evaluation_sets: list[EvaluationSet], tmp_path: Path
) -> None:
    path = train_row("naive", TARGET, 0, tmp_path, "silent")
    assert "## Measures" not in (path / "adapter" / "README.md").read_text()
    row = measure_row("naive", 0, path, evaluation_sets)
    card = (path / "adapter" / "README.md").read_text()
    for name, value in row.report.estimates().items():
        assert f"| {name} | {value} |" in card
    assert json.loads((path / "adapter" / "measures.json").read_text()).keys() == row.report.estimates().keys()


def test_bad_requests_are_refused_before_training(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "DualPathTrainer", Forbidden)
    with pytest.raises(ValueError, match="prompts=0: at least one is needed"):
        compare(tmp_path, prompts=0)
    with pytest.raises(ValueError, match="unknown method 'magic'"):
        compare(tmp_path, methods=("naive", "magic"))
    with pytest.raises(ValueError, match="unknown target 'monocle'"):
        compare_methods("monocle", tmp_path, prompts=2)
    with pytest.raises(ValueError, match="expected one of named, silent"):
        compare(tmp_path, captions="loud")
    assert not list(tmp_path.iterdir()), "nothing was trained for it"


def test_a_folder_with_other_runs_is_refused(
    small_world: Path, short: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(tmp_path, methods=("naive",))
    with pytest.raises(ValueError, match="naive-1 holds a run with silent captions"):
        compare(tmp_path, methods=("spf", "naive"), captions="named")
    monkeypatch.setattr(benchmark, "recipe", lambda name, seed=0: replace(short, seed=seed, rank=3))
    with pytest.raises(ValueError, match="naive-1 holds a run of another recipe"):
        compare(tmp_path, methods=("spf", "naive"))
    assert not (tmp_path / TARGET / "spf-1").exists(), "before any training"
