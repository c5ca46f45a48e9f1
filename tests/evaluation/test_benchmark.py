"""A comparison trains and measures what is missing, keeps what is there, and refuses what does not belong to it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spf_lite import load
from spf_lite.config import TrainConfig
from spf_lite.evaluation import benchmark
from spf_lite.evaluation.benchmark import compare_methods, measure_row, set_folder, train_row
from spf_lite.evaluation.measuring import EvaluationSet, measure_on, sample_evaluation_sets
from spf_lite.evaluation.report import MEASURES, PollutionReport
from spf_lite.evaluation.rows import Row
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.tiny_world.custom_sets import SetNote, spurious_attributes, write_custom_set
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

    def again(*arguments: object, **options: object) -> None:
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
    with pytest.raises(ValueError, match="confounders='wild': expected one of shipped, drawn"):
        compare(tmp_path, confounders="wild")
    with pytest.raises(ValueError, match="confounders=-1: expected a whole number"):
        compare(tmp_path, seeds=(-1,))
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


# -- each seed has a custom set of its own -----------------------------------------------------------------------------


def read_row(folder: Path, name: str) -> Row:
    return Row.from_json((folder / TARGET / name / "row.json").read_text())


def test_each_seed_is_trained_on_its_own_draw(small_world: Path, tmp_path: Path) -> None:
    drawn, shipped = tmp_path / "drawn", tmp_path / "shipped"
    compare(drawn, methods=("naive",), seeds=(1, 2))
    compare(shipped, methods=("naive",), seeds=(1,), confounders="shipped")
    sets = sorted(path.parent.name for path in drawn.rglob("spurious.json"))
    assert sets == ["set-1", "set-2"] and not list(shipped.rglob("spurious.json"))
    for seed in (1, 2):
        row = read_row(drawn, f"naive-{seed}")
        assert row.confounders == seed and list(row.report.bias) == list(spurious_attributes(TARGET, seed))
        assert SetNote.read(drawn / TARGET / f"set-{seed}") == SetNote.of(TARGET, seed)
    assert read_row(shipped, "naive-1").confounders is None
    logs = [(folder / TARGET / "naive-1" / "log.jsonl").read_text() for folder in (drawn, shipped)]
    assert logs[0] != logs[1], "other portraits"


def test_a_drawn_set_is_rendered_once(small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(tmp_path)
    folder = tmp_path / TARGET / "set-1"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    def again(*arguments: object, **options: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(benchmark, "write_custom_set", again)
    assert compare(tmp_path) == first
    assert len(compare(tmp_path, methods=("naive", "purecc"))) == 4, "another method takes the set that is there"
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set_folder(TARGET, tmp_path) == small_world / "custom" / TARGET
    with pytest.raises(AssertionError, match="rendered again"):
        set_folder(TARGET, tmp_path, 3)


def test_a_set_that_was_interrupted_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def half(target: str, folder: Path, confounders: int) -> None:
        write_custom_set(target, folder, 1, 32, confounders)
        raise Killed

    with monkeypatch.context() as broken, pytest.raises(Killed):
        broken.setattr(benchmark, "write_custom_set", half)
        set_folder(TARGET, tmp_path, 0)
    assert not list((tmp_path / TARGET).iterdir())

    def slow(target: str, folder: Path, confounders: int) -> None:
        for place in (folder, tmp_path / TARGET / "set-0"):  # meanwhile, another process was faster
            write_custom_set(target, place, 1, 32, confounders)

    monkeypatch.setattr(benchmark, "write_custom_set", slow)
    assert SetNote.read(set_folder(TARGET, tmp_path, 0)) == SetNote.of(TARGET, 0)
    assert [path.name for path in (tmp_path / TARGET).iterdir()] == ["set-0"]


def test_a_folder_with_runs_on_other_sets_is_refused(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, shipped = tmp_path / "drawn", tmp_path / "shipped"
    compare(drawn, methods=("naive",))
    compare(shipped, methods=("naive",), confounders="shipped")
    monkeypatch.setattr(benchmark, "DualPathTrainer", Forbidden)
    with pytest.raises(ValueError, match="naive-1 holds a run on the set of draw 1, not on the shipped set: choose"):
        compare(drawn, methods=("spf", "naive"), confounders="shipped")
    for rest in ("row.json", "set.txt"):  # a row; a run that was not measured; a run from before there were draws
        with pytest.raises(ValueError, match="naive-1 holds a run on the shipped set, not on the set of draw 1"):
            compare(shipped, methods=("spf", "naive"))
        (shipped / TARGET / "naive-1" / rest).unlink()
    with pytest.raises(ValueError, match="naive-1 holds a run on the shipped set, not on the set of draw 1"):
        compare(shipped, methods=("spf", "naive"))
    compare(shipped, methods=("naive",), confounders="shipped")
    (drawn / TARGET / "naive-1" / "row.json").unlink()
    with pytest.raises(ValueError, match="naive-1 holds a run on the set of draw 1, not on the set of draw 2"):
        train_row("naive", TARGET, 1, drawn, "silent", confounders=2)
    assert not (drawn / TARGET / "spf-1").exists() and not (shipped / TARGET / "spf-1").exists()


def test_what_lies_in_the_place_of_a_set_is_refused(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "DualPathTrainer", Forbidden)
    place = tmp_path / TARGET / "set-1"
    place.mkdir(parents=True)
    with pytest.raises(ValueError, match="set-1 does not say what its portraits share"):
        compare(tmp_path)
    for target, confounders in ((TARGET, 2), ("beard", 1), (TARGET, None)):
        write_custom_set(target, place, 1, 32, confounders)
        with pytest.raises(ValueError, match="set-1 holds another custom set than the set of draw 1"):
            compare(tmp_path)
    assert [path.name for path in (tmp_path / TARGET).iterdir()] == ["set-1"], "nothing was begun"


def test_bias_is_counted_against_the_runs_own_set(
    small_world: Path, evaluation_sets: list[EvaluationSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def noted(*arguments: Any, **options: Any) -> PollutionReport:
        asked.append(options["spurious"])
        return measure_on(*arguments, **options)

    monkeypatch.setattr(benchmark, "measure_on", noted)
    for draw in (None, 3):
        path = train_row("naive", TARGET, 0, tmp_path / str(draw), "silent", draw)
        row = measure_row("naive", 0, path, evaluation_sets, draw)
        assert row.confounders == draw and measure_row("naive", 0, path, evaluation_sets, draw) == row
    assert asked == [spurious_attributes(TARGET), spurious_attributes(TARGET, 3)]
