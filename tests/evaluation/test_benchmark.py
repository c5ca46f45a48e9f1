import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spf_lite import load
from spf_lite.config import TrainConfig
from spf_lite.evaluation import benchmark, report
from spf_lite.evaluation.attributes import unrelated_attributes
from spf_lite.evaluation.benchmark import (
    Row,
    compare_methods,
    difference,
    measure_row,
    painted,
    read_rows,
    summary,
    table,
    train_row,
    unrelated_changes,
)
from spf_lite.evaluation.report import EvaluationSet, PollutionReport, evaluation_set
from spf_lite.models.adapters import ADAPTER_FILE
from spf_lite.models.backbone import Backbone
from spf_lite.models.sampling import sample
from spf_lite.training import trainer as training

SHORT = TrainConfig(stage1_steps=1, stage2_steps=1, batch_size=2, rank=2, learning_rate=0.05, checkpoint_every=1)
TARGET = "sunglasses"


@pytest.fixture
def small_world(toy_samples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The benchmark on the toy, with recipes of two steps and portraits of two."""

    def draw(backbone: Backbone, prompts: list[str], **options: object) -> object:
        return sample(backbone, prompts, **{**options, "steps": 2})  # type: ignore[arg-type]

    known = benchmark.recipe
    monkeypatch.setattr(report, "sample", draw)
    monkeypatch.setattr(benchmark, "sample", draw)
    monkeypatch.setenv("SPF_LITE_TINY", str(toy_samples / "tiny-portraits"))
    monkeypatch.setattr(benchmark, "DATA_SAMPLES", toy_samples)
    monkeypatch.setattr(benchmark, "recipe", lambda name, seed=0: replace(SHORT, seed=known(name, seed).seed))
    return toy_samples


@pytest.fixture
def portraits(small_world: Path) -> EvaluationSet:
    return evaluation_set(load("tiny"), TARGET, 2)


def compare(folder: Path, **options: object) -> list[str]:
    arguments = {"methods": ("naive", "spf"), "prompts": 2, "seeds": (1,), **options}
    return compare_methods(TARGET, folder, **arguments)  # type: ignore[arg-type]


class Forbidden(training.DualPathTrainer):
    def fit(self, *arguments: object, **options: object) -> training.TrainResult:
        raise AssertionError("a finished row was trained again")


def test_a_second_call_trains_nothing_and_says_the_same(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(tmp_path)
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("row.json")}
    assert folders == {f"{TARGET}/naive-1", f"{TARGET}/spf-1"}
    for folder in folders:
        assert (tmp_path / folder / "adapter" / ADAPTER_FILE).is_file()
    monkeypatch.setattr(training, "DualPathTrainer", Forbidden)
    assert compare(tmp_path) == first

    def again(*arguments: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as broken:
        broken.setattr(benchmark, "measure", again)
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
    small_world: Path, portraits: EvaluationSet, tmp_path: Path
) -> None:
    path = train_row("naive", TARGET, 0, tmp_path, "silent")
    row = measure_row("naive", 0, path, portraits)
    assert (row.method, row.target, row.seed) == ("naive", TARGET, 0)
    assert (path / "row.json").read_text() == row.to_json()
    other = train_row("naive", TARGET, 1, tmp_path, "silent")
    (path / "adapter" / ADAPTER_FILE).write_bytes((other / "adapter" / ADAPTER_FILE).read_bytes())
    assert measure_row("naive", 0, path, portraits) == row, "what was measured is kept"
    (path / "row.json").unlink()
    swapped = measure_row("naive", 0, path, portraits)
    assert swapped.report != row.report and swapped.report == measure_row("naive", 1, other, portraits).report
    (path / "row.json").unlink()
    (path / "adapter" / ADAPTER_FILE).unlink()
    with pytest.raises(ValueError, match="no adapter in"):
        measure_row("naive", 0, path, portraits)


def test_the_model_card_gets_the_measures(small_world: Path, portraits: EvaluationSet, tmp_path: Path) -> None:
    path = train_row("naive", TARGET, 0, tmp_path, "silent")
    assert "## Measures" not in (path / "adapter" / "README.md").read_text()
    row = measure_row("naive", 0, path, portraits)
    card = (path / "adapter" / "README.md").read_text()
    for name, value in row.report.estimates().items():
        assert f"| {name} | {value} |" in card
    assert json.loads((path / "adapter" / "measures.json").read_text()).keys() == row.report.estimates().keys()


def test_bad_requests_are_refused_before_training(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "DualPathTrainer", Forbidden)
    with pytest.raises(ValueError, match="prompts=0: at least one is needed"):
        compare(tmp_path, prompts=0)
    with pytest.raises(ValueError, match="unknown method 'magic'"):
        compare(tmp_path, methods=("naive", "magic"))
    with pytest.raises(ValueError, match="unknown target 'monocle'"):
        compare_methods("monocle", tmp_path, prompts=2)
    with pytest.raises(ValueError, match="expected one of named, silent"):
        compare(tmp_path, captions="loud")
    assert not list(tmp_path.iterdir()), "nothing was trained for it"


# -- rows and tables, made up ------------------------------------------------------------------------------------------


def row(found: list[float], flip: list[float | None], method: str = "naive", seed: int = 0) -> Row:
    return Row(method, TARGET, seed, PollutionReport(TARGET, {"target found": found, "flip rate": flip}, {}, {}))  # type: ignore[dict-item]


def test_rows_that_are_there_are_read(tmp_path: Path) -> None:
    made = {seed: row([1.0, 0.0], [None, 0.5], seed=seed) for seed in (0, 2)}
    for seed, one in made.items():
        folder = tmp_path / TARGET / f"naive-{seed}"
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(one.to_json())
    assert read_rows(tmp_path, TARGET, ("naive", "spf"), (0, 1, 2)) == {"naive": [made[0], made[2]]}
    assert read_rows(tmp_path, TARGET, ("naive",), (1,)) == read_rows(tmp_path, "beard", ("naive",), (0,)) == {}


def test_the_summary_has_means_and_intervals_over_prompts_and_seeds() -> None:
    rng = np.random.default_rng(0)
    rows = [row((rng.random(40) < 0.7).astype(float).tolist(), rng.random(40).tolist()) for _ in range(2)]
    numbers = summary(rows)
    for name in ("target found", "flip rate"):
        estimate = numbers[name]
        assert estimate.mean == pytest.approx(np.mean([one.report.values[name] for one in rows]))  # type: ignore[arg-type]
        assert estimate.low < estimate.mean < estimate.high and estimate.high - estimate.low < 0.6
        assert estimate.count == 80
    lucky = summary([row([1.0] * 40, [0.0] * 40), row([0.0] * 40, [0.0] * 40)])
    assert (lucky["target found"].low, lucky["target found"].high) == (0, 1), "two seeds that differ"
    assert str(lucky["flip rate"]) == "0.000 [0.000, 0.000]"


def test_the_table_is_markdown_with_one_row_a_method() -> None:
    rows = {
        "naive": [row([1.0] * 3, [0.5] * 3), row([1.0] * 3, [0.5] * 3)],
        "spf": [row([0.0] * 3, [None] * 3, method="spf")],
    }
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(rows)]
    assert lines[0] == ["method", "seeds", "target found", "flip rate"], "in the order of the measures"
    assert lines[1] == ["---"] * 4
    assert lines[2][:4] == ["naive", "2", "1.000 [1.000, 1.000]", "0.500 [0.500, 0.500]"]
    assert lines[3] == ["spf", "1", "0.000 [0.000, 0.000]", ""], "a measure that is not defined stays empty"
    assert all(line.startswith("|") and line.endswith("|") for line in table(rows))
    assert table({}) == []


def test_a_table_can_have_fewer_columns() -> None:
    lines = table({"naive": [row([1.0], [0.5])]}, measures=("flip rate", "leakage"))
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["method", "seeds", "flip rate", "training"]


def test_the_difference_is_paired_by_seed_and_prompt() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(60)  # how hard a prompt is: the same for both methods
    naive = [row([1.0] * 60, (hard + 0.2).tolist(), seed=seed) for seed in (0, 1)]
    spf = [row([0.0] * 60, hard.tolist(), method="spf", seed=seed) for seed in (1, 0, 7)]
    gap = difference(spf, naive, "flip rate")
    assert gap.mean == pytest.approx(-0.2) and gap.low == pytest.approx(gap.high) and gap.count == 120
    assert difference(naive, spf, "flip rate").mean == pytest.approx(0.2)
    assert difference(naive, spf, "target found").mean == 1
    few = [row([1.0] * 10, [0.0] * 9 + [None], seed=0)]
    assert difference(few, naive, "flip rate").count == 9, "the prompts that both have, where it is defined"
    uneven = [row([0.0] * 60, (hard + 0.2 + rng.normal(0, 0.1, 60)).tolist(), seed=seed) for seed in (0, 1)]
    noisy = difference(uneven, naive, "flip rate")
    assert noisy.low < noisy.mean < noisy.high


def test_a_difference_needs_a_pair() -> None:
    with pytest.raises(ValueError, match="no seed and prompt with 'flip rate' on both sides"):
        difference([row([1.0], [0.5], seed=0)], [row([1.0], [0.5], seed=1)], "flip rate")
    with pytest.raises(ValueError, match="no seed and prompt with 'leakage'"):
        difference([row([1.0], [0.5])], [row([1.0], [0.5])], "leakage")
    with pytest.raises(ValueError, match="rows of different targets: beard, sunglasses"):
        difference([row([1.0], [0.5])], [replace(row([1.0], [0.5]), target="beard")], "flip rate")


def test_a_folder_with_other_runs_is_refused(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(tmp_path, methods=("naive",))
    with pytest.raises(ValueError, match="naive-1 holds a run with silent captions"):
        compare(tmp_path, methods=("spf", "naive"), captions="named")
    monkeypatch.setattr(benchmark, "recipe", lambda name, seed=0: replace(SHORT, seed=seed, rank=3))
    with pytest.raises(ValueError, match="naive-1 holds a run of another recipe"):
        compare(tmp_path, methods=("spf", "naive"))
    assert not (tmp_path / TARGET / "spf-1").exists(), "before any training"


def test_changes_are_named_against_the_base() -> None:
    class Reader:
        def attributes(self, images: list[str]) -> list[dict[str, str]]:
            walls = {"a": "gray", "b": "gray", "A": "yellow", "B": "gray"}
            same = {name: "x" for name in unrelated_attributes(TARGET)}
            return [{**same, "background": walls[i], "glasses": "no" if i.islower() else TARGET} for i in images]

    found = unrelated_changes({"base": ["a", "b"], "naive": ["A", "B"]}, "sunglasses", Reader())  # type: ignore[arg-type,dict-item]
    assert found == {"base": [{}, {}], "naive": [{"background": ("gray", "yellow")}, {}]}


def test_people_are_painted_by_the_base_and_every_adapter(small_world: Path, tmp_path: Path) -> None:
    runs = {name: train_row("naive", TARGET, seed, tmp_path, "silent") for seed, name in enumerate(("one", "two"))}
    pictures = painted(TARGET, {name: path / "adapter" for name, path in runs.items()}, people=2)
    assert list(pictures) == ["base", "one", "two"] and {len(row) for row in pictures.values()} == {2}
    shown = {row[0].tobytes() for row in pictures.values()}
    assert len(shown) == 3
    assert painted(TARGET, {"one": runs["one"] / "adapter"}, people=2)["one"][1] == pictures["one"][1]
