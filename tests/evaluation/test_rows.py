"""Rows on disk, their means, their paired differences, and the table."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spf_lite.evaluation.measures.attributes import unrelated_attributes
from spf_lite.evaluation.report import MEASURES, PollutionReport
from spf_lite.evaluation.rows import (
    ROW_FILE,
    MixedSetsError,
    Row,
    difference,
    read_rows,
    run_folder,
    summary,
    table,
)
from spf_lite.paths import DATA_SAMPLES

TARGET = "sunglasses"


def row(found: Sequence[float], flip: Sequence[float | None], method: str = "naive", seed: int = 0) -> Row:
    values: dict[str, list[float | None]] = {"target found": [*found], "flip rate": [*flip]}
    return Row(method, TARGET, seed, PollutionReport(TARGET, values, {}, {}))


def test_rows_that_are_there_are_read(tmp_path: Path) -> None:
    made = {seed: row([1.0, 0.0], [None, 0.5], seed=seed) for seed in (0, 2)}
    for seed, one in made.items():
        folder = run_folder(tmp_path, TARGET, "naive", seed)
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(one.to_json())
    assert read_rows(tmp_path, TARGET, ("naive", "spf"), (0, 1, 2)) == {"naive": [made[0], made[2]]}
    assert read_rows(tmp_path, TARGET, ("naive",), (1,)) == read_rows(tmp_path, "beard", ("naive",), (0,)) == {}


def test_a_run_lies_where_its_name_says() -> None:
    path = run_folder(Path("runs"), "beard", "spf,weight_enhancement=3", 2)
    assert path.as_posix() == "runs/beard/spf-weight-enhancement-3-2"


def test_the_summary_has_means_and_intervals_over_prompts_and_seeds() -> None:
    rng = np.random.default_rng(0)
    rows = [row((rng.random(40) < 0.7).astype(float).tolist(), rng.random(40).tolist()) for _ in range(3)]
    numbers = summary(rows)
    for name in ("target found", "flip rate"):
        estimate = numbers[name]
        assert estimate.mean == pytest.approx(np.mean([one.report.values[name] for one in rows]))
        assert estimate.low < estimate.mean < estimate.high and estimate.high - estimate.low < 0.6
        assert estimate.count == 120
    differ = summary([row([1.0] * 40, [0.0] * 40), row([0.0] * 40, [0.0] * 40)])
    assert differ["target found"].low < 0.01 and differ["target found"].high > 0.99, "two runs that differ"
    assert str(differ["flip rate"]) == "0.000 [0.000, 0.088]", "40 prompts without a flip"


def test_the_table_is_markdown_with_one_line_for_each_method() -> None:
    rows = {
        "naive": [row([1.0] * 3, [0.5] * 3), row([1.0] * 3, [0.5] * 3)],
        "spf": [row([0.0] * 3, [None] * 3, method="spf")],
    }
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(rows)]
    assert lines[0] == ["method", "seeds", "target found", "flip rate"], "in the order of the measures"
    assert lines[1] == ["---"] * 4
    assert lines[2][:4] == ["naive", "2", "1.000 [0.292, 1.000]", "0.500 [0.146, 0.854]"], "three prompts say little"
    assert lines[3] == ["spf", "1", "0.000 [0.000, 0.708]", ""], "a measure that is not defined stays empty"
    assert all(line.startswith("|") and line.endswith("|") for line in table(rows))
    assert table({}) == []


def test_a_table_can_have_fewer_columns() -> None:
    lines = table({"naive": [row([1.0], [0.5])]}, measures=("flip rate", "leakage"))
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["method", "seeds", "flip rate"]


def test_the_difference_is_paired_by_seed_and_prompt() -> None:
    rng = np.random.default_rng(1)
    hard = 0.8 * rng.random(60)  # how hard a prompt is: the same for both methods
    naive = [row([1.0] * 60, (hard + rng.normal(0.2, 0.01, 60)).clip(0, 1).tolist(), seed=seed) for seed in (0, 1)]
    spf = [row([0.0] * 60, hard.tolist(), method="spf", seed=seed) for seed in (1, 0, 7)]
    gap = difference(spf, naive, "flip rate")
    assert gap.mean == pytest.approx(-0.2, abs=0.01) and gap.low < gap.mean < gap.high and gap.count == 120
    alone = summary(naive)["flip rate"]
    assert gap.high - gap.low < 0.3 * (alone.high - alone.low), "what a prompt does to both methods cancels"
    turned = difference(naive, spf, "flip rate")
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-gap.mean, -gap.high, -gap.low))
    assert turned.p_value == gap.p_value < 0.001
    few = [row([1.0] * 10, [0.0] * 9 + [None], seed=0)]
    assert difference(few, naive, "flip rate").count == 9, "the prompts that both have, where it is defined"


def test_a_difference_without_any_exception_is_as_sure_as_its_prompts_allow() -> None:
    always, never = [row([1.0] * 60, [0.0] * 60)], [row([0.0] * 60, [0.0] * 60)]
    sure, none = difference(always, never, "target found"), difference(always, never, "flip rate")
    assert sure.mean == sure.high == 1 and 0.8 < sure.low < 0.9 and sure.p_value < 1e-9
    assert none.mean == 0 and none.low == -none.high and 0.05 < none.high < 0.07 and none.p_value == 1


def test_a_run_for_which_a_measure_was_not_taken_is_left_out_of_it() -> None:
    runs = {name: [row([1.0] * 4, [0.5] * 4, seed=seed) for seed in (0, 1)] for name in ("naive", "spf")}
    for one in (*runs["spf"], runs["naive"][1]):
        one.report.values["pure"] = [1.0, 1.0, float(one.seed), 0.0]
    assert difference(runs["spf"], runs["naive"], "pure").count == 4, "seed 1 only"
    assert difference(runs["spf"], runs["naive"], "pure").mean == 0
    assert difference(runs["spf"], runs["naive"], "target found").count == 8
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(runs, ("pure", "flip rate"))]
    assert lines[0] == ["method", "seeds", "pure", "flip rate"] and lines[2][2].startswith("0.750")
    del runs["naive"][1].report.values["pure"]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(runs, ("pure", "flip rate"))]
    assert lines[2][2] == "" and lines[2][3].startswith("0.500") and lines[3][2].startswith("0.625")
    with pytest.raises(ValueError, match="no seed and prompt with 'pure'"):
        difference(runs["spf"], runs["naive"], "pure")


def test_a_difference_needs_a_pair() -> None:
    with pytest.raises(ValueError, match="no seed and prompt with 'flip rate' on both sides"):
        difference([row([1.0], [0.5], seed=0)], [row([1.0], [0.5], seed=1)], "flip rate")
    with pytest.raises(ValueError, match="no seed and prompt with 'leakage'"):
        difference([row([1.0], [0.5])], [row([1.0], [0.5])], "leakage")
    with pytest.raises(ValueError, match="rows of different targets: beard, sunglasses"):
        difference([row([1.0], [0.5])], [replace(row([1.0], [0.5]), target="beard")], "flip rate")


def test_a_row_knows_its_draw() -> None:
    for confounders in (None, 0, 7):
        one = replace(row([1.0], [0.5]), confounders=confounders)
        assert json.loads(one.to_json())["confounders"] == confounders and Row.from_json(one.to_json()) == one


def test_rows_from_before_there_were_draws_are_of_the_shipped_set() -> None:
    values = json.loads(row([1.0], [0.5]).to_json())
    del values["confounders"]
    old = Row.from_json(json.dumps(values))
    assert old == row([1.0], [0.5]) and old.confounders is None
    old_file = '{"method": "m", "target": "beard", "seed": 0, "report": {"target": "beard", "values": {}, '
    assert Row.from_json(old_file + '"per_attribute": {}, "bias": {}}}').confounders is None


def test_rows_of_shipped_and_drawn_sets_do_not_mix() -> None:
    shipped = [row([1.0, 1.0], [0.5, 0.1], seed=seed) for seed in (0, 1)]
    drawn = [replace(one, confounders=one.seed) for one in shipped]
    mixed = [shipped[0], drawn[1]]
    message = r"rows of 'naive' on the shipped custom set \(seeds 0\) and on drawn ones \(seeds 1\)"
    with pytest.raises(MixedSetsError, match=message):
        summary(mixed)
    with pytest.raises(MixedSetsError, match=message):
        table({"spf": shipped, "naive": mixed})
    for sides in ((mixed, shipped), (drawn, mixed)):
        with pytest.raises(MixedSetsError, match=message):
            difference(*sides, "flip rate")
    with pytest.raises(MixedSetsError, match="seed 0: 'naive' was trained on the shipped set, 'naive' on the set of"):
        difference(shipped, drawn, "flip rate")
    with pytest.raises(MixedSetsError, match="on the set of draw 0, 'naive' on the set of draw 5"):
        difference(drawn, [replace(one, confounders=5) for one in drawn], "flip rate")
    assert issubclass(MixedSetsError, ValueError)
    assert summary(drawn) == summary(shipped) and difference(drawn, drawn, "flip rate").mean == 0
    assert len(table({"naive": drawn, "spf": drawn})) == 4


def test_reading_rows_needs_no_renderer_and_no_model() -> None:
    code = (
        "import sys, spf_lite.evaluation.rows\n"
        "heavy = {'torch', 'diffusers', 'resvg_py', 'spf_lite.tiny_world.rendering', 'spf_lite.evaluation.judge'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


#: Folders of shipped rows, and what draw the custom set of a row in them is, by the row's seed.
FOLDERS: dict[str, Callable[[int], int | None]] = {
    "results": lambda seed: None,
    "drawn-results": lambda seed: seed,
    "transformer-results": lambda seed: seed,
}
#: Folders beside them that hold other results: chains of targets, counted memory, measured cost.
OTHERS = {"cost", "incremental", "memory"}
OF_TARGETS = pytest.mark.parametrize(
    "folder",
    sorted(
        path
        for name in FOLDERS
        for path in (DATA_SAMPLES / name).glob("*")
        if path.is_dir() and path.name not in OTHERS
    ),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)


@OF_TARGETS
def test_a_shipped_row_lies_where_its_set_method_and_seed_say(folder: Path) -> None:
    for path in folder.glob("*"):
        row = Row.from_json((path / ROW_FILE).read_text(encoding="utf-8"))
        assert run_folder(folder.parent, row.target, row.method, row.seed) == path
        assert row.confounders == FOLDERS[folder.parent.name](row.seed), path
        assert row.report.target == folder.name


@OF_TARGETS
def test_the_measures_of_shipped_rows_agree_with_each_other(folder: Path) -> None:
    target, paths = folder.name, sorted(folder.glob(f"*/{ROW_FILE}"))
    assert paths
    for path in paths:
        report = Row.from_json(path.read_text(encoding="utf-8")).report
        values = {name: np.array(of, dtype=float) for name, of in report.values.items()}
        assert list(report.per_attribute) == unrelated_attributes(target), path
        assert list(values) == [name for name in MEASURES if name in values], "in the order of the measures"
        if "flip rate" in values:
            flips = values["flip rate"] * len(report.per_attribute)
            assert flips == pytest.approx(flips.round()), "whole attributes"
            assert values["flip rate"].mean() == pytest.approx(np.mean(list(report.per_attribute.values())))
            assert (values["pure"] == ((values["target found"] == 1) & (flips == 0))).all(), path


@pytest.mark.parametrize(
    "path", sorted((DATA_SAMPLES / "adapters").glob("*/*/measures.json")), ids=lambda path: "-".join(path.parts[-3:-1])
)
def test_the_card_of_a_shipped_adapter_says_what_its_row_says(path: Path) -> None:
    folder = path.parent
    row = Row.from_json((DATA_SAMPLES / "results" / folder.parent.name / f"{folder.name}-0" / ROW_FILE).read_text())
    measures = {name: str(estimate) for name, estimate in row.report.estimates().items()}
    assert json.loads(path.read_text()) == measures
    card = (folder / "README.md").read_text()
    assert all(f"| {name} | {value} |" in card for name, value in measures.items())
