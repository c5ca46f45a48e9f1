"""Chains of targets go on where they were."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spf_lite.config import TrainConfig
from spf_lite.evaluation import benchmark, incremental, measuring, stages
from spf_lite.evaluation.incremental import (
    ORDERS,
    RUN_FILE,
    STAGE_FILE,
    bench_incremental,
    chain_folder,
    check_order,
    read_chain,
    run_chain,
)
from spf_lite.evaluation.measuring import EvaluationSet, sample_evaluation_set
from spf_lite.evaluation.stages import Stage
from spf_lite.models.adapters.combined_file import parts_of
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.models.adapters.lora_file import read_lora
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sampling import sample
from spf_lite.paths import DATA_SAMPLES
from spf_lite.tiny_world.custom_sets import write_custom_set
from spf_lite.training import trainer as training
from spf_lite.training.recipes import RECIPES, recipe, slug
from spf_lite.training.trainer import DualPathTrainer

CONFIG = TrainConfig(stage1_steps=2, stage2_steps=0, batch_size=2, rank=2, learning_rate=0.05, checkpoint_every=1)


def test_targets_that_exclude_each_other_are_refused() -> None:
    for five in ORDERS:
        check_order(five)
        assert set(five) == set(ORDERS[0]) and len(five) == 5
    for order, message in (
        ([], "no targets"),
        (["beard", "beard"], "beard cannot follow beard"),
        (["sunglasses", "beard", "eyepatch"], "eyepatch cannot follow sunglasses"),
        (["monocle"], "unknown target 'monocle'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_order(order)


@pytest.fixture
def quick(toy_samples: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, EvaluationSet]:
    """Two steps on small drawn sets, portraits of one step, and evaluation sets of two people."""

    def one_step(backbone: Backbone, prompts: list[str], **options: Any) -> Any:
        return sample(backbone, prompts, **{**options, "steps": 1})

    monkeypatch.setenv("SPF_LITE_TINY", str(toy_samples / "tiny-portraits"))
    for module in (stages, measuring):
        monkeypatch.setattr(module, "sample", one_step)
    monkeypatch.setattr(incremental, "recipe", lambda name, seed=0, after=False: replace(CONFIG, seed=seed))
    monkeypatch.setattr(
        benchmark,
        "write_custom_set",
        lambda target, folder, confounders: write_custom_set(target, folder, 4, 64, confounders),
    )
    return {target: sample_evaluation_set(load("tiny"), target, 2) for target in ("sunglasses", "blazer")}


def test_a_chain_that_is_killed_goes_on_where_it_was(
    quick: dict[str, EvaluationSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ("sunglasses", "blazer")
    whole = run_chain("naive", order, 1, tmp_path / "whole", quick)
    assert [stage.learned for stage in whole] == [order[:1], order]
    real, fits = DualPathTrainer.fit, 0

    def counted(self: DualPathTrainer, **options: Any) -> object:
        nonlocal fits
        fits += 1
        return real(self, **options)

    def stop_at_second(self: DualPathTrainer, **options: Any) -> object:
        def stop(step: int, control: object) -> None:
            if self.earlier:
                raise KeyboardInterrupt

        return real(self, on_step=stop, **options)

    monkeypatch.setattr(training.DualPathTrainer, "fit", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run_chain("naive", order, 1, tmp_path / "again", quick)
    monkeypatch.setattr(training.DualPathTrainer, "fit", counted)
    path = chain_folder(tmp_path / "again", "naive", order, 1)
    assert (path / "0-sunglasses" / STAGE_FILE).exists() and not (path / "1-blazer" / "adapter").exists()
    told: list[Stage] = []
    assert run_chain("naive", order, 1, tmp_path / "again", quick, on_stage=told.append) == whole == told
    assert read_chain(path, order) == whole
    assert fits == 1, "the first stage was kept, the second went on"
    adapters = [
        (chain_folder(tmp_path / name, "naive", order, 1) / "1-blazer" / "adapter" / ADAPTER_FILE).read_bytes()
        for name in ("whole", "again")
    ]
    assert adapters[0] == adapters[1]
    assert run_chain("naive", order, 1, tmp_path / "again", quick) == whole and fits == 1


def test_targets_that_were_learned_separately_are_added_up(
    quick: dict[str, EvaluationSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ("sunglasses", "blazer")
    stages = run_chain("naive", order, 1, tmp_path, quick, separately=True)
    assert [stage.learned for stage in stages] == [order[:1], order]
    run_chain("naive", order[1:], 1, tmp_path / "alone", quick)
    run_chain("naive", order, 1, tmp_path, quick)
    adapters = {
        name: (folder / "adapter" / ADAPTER_FILE).read_bytes()
        for name, folder in {
            "separately": chain_folder(tmp_path, "naive", order, 1, separately=True) / "1-blazer",
            "alone": chain_folder(tmp_path / "alone", "naive", order[1:], 1) / "0-blazer",
            "after": chain_folder(tmp_path, "naive", order, 1) / "1-blazer",
        }.items()
    }
    assert adapters["separately"] == adapters["alone"] != adapters["after"]


def test_another_chain_is_refused(
    quick: dict[str, EvaluationSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_chain("naive", ("sunglasses",), 0, tmp_path, quick)
    monkeypatch.setattr(incremental, "recipe", lambda name, seed=0, after=False: replace(CONFIG, seed=seed, rank=1))
    with pytest.raises(ValueError, match="holds a chain of another recipe or with other prompts"):
        run_chain("naive", ("sunglasses",), 0, tmp_path, quick)


def test_stages_after_the_first_have_the_recipe_of_runs_after_others(
    quick: dict[str, EvaluationSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = lambda name, seed=0, after=False: replace(CONFIG, seed=seed, stage1_steps=3 if after else 2)  # noqa: E731
    monkeypatch.setattr(incremental, "recipe", longer)
    order = ("sunglasses", "blazer")
    for separately, steps in ((False, [2, 3]), (True, [2, 2])):
        run_chain("naive", order, 0, tmp_path, quick, separately)
        path = chain_folder(tmp_path, "naive", order, 0, separately)
        logs = [path / f"{number}-{target}" / "log.jsonl" for number, target in enumerate(order)]
        assert [len(log.read_text().splitlines()) for log in logs] == steps
        said = json.loads((path / RUN_FILE).read_text())
        assert said["config"]["stage1_steps"] == 2
        assert [said["later"]["stage1_steps"]] == steps[1:] if not separately else "later" not in said
    monkeypatch.setattr(incremental, "recipe", lambda name, seed=0, after=False: longer(name, seed))
    with pytest.raises(ValueError, match="holds a chain of another recipe"):
        run_chain("naive", order, 0, tmp_path, quick)


def test_a_chain_of_a_version_with_fewer_options_goes_on(quick: dict[str, EvaluationSet], tmp_path: Path) -> None:
    first = run_chain("naive", ("sunglasses",), 0, tmp_path, quick)
    file = chain_folder(tmp_path, "naive", ("sunglasses",), 0) / RUN_FILE
    said = json.loads(file.read_text())
    del said["config"]["earlier_share"]
    file.write_text(json.dumps(said))
    assert run_chain("naive", ("sunglasses",), 0, tmp_path, quick) == first


def test_the_table_has_a_line_for_every_stage(quick: dict[str, EvaluationSet], tmp_path: Path) -> None:
    orders = (("sunglasses", "blazer"), ("blazer", "sunglasses"))
    lines = bench_incremental(tmp_path, ["naive"], orders, [3], prompts=2)
    assert len(lines) == 2 + 4 and all(line.count("|") == 11 for line in lines)
    assert [line.split("|")[4].strip() for line in lines[2:]] == [
        *("1 sunglasses", "2 blazer"),
        *("1 blazer", "2 sunglasses"),
    ]
    with pytest.raises(ValueError, match="eyepatch cannot follow sunglasses"):
        bench_incremental(tmp_path / "no", ["naive"], [("sunglasses", "eyepatch")], [0])
    assert not (tmp_path / "no").exists()


SHIPPED = sorted((DATA_SAMPLES / "results" / "incremental").glob("*/*"))
#: Folder to recipe; of the first two, the chapter paints portraits.
METHODS = {slug(method): method for method in ("naive", "pure-pairs", "pure-pairs,earlier_share=0")}
PAINTED = ("naive", "pure-pairs")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_shipped_chain_holds_its_stages_and_its_adapter_the_parts(path: Path) -> None:
    what = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
    targets, folder = what["targets"], path.parent.name.removesuffix("-separately")
    separately, method = path.parent.name != folder, METHODS[folder]
    seed = what["config"]["seed"]
    assert path == chain_folder(DATA_SAMPLES / "results" / "incremental", method, targets, seed, separately)
    assert TrainConfig.from_json(json.dumps(what["config"])) == recipe(method, seed=seed)
    if method in RECIPES and not separately:
        later = TrainConfig.from_json(json.dumps(what.get("later", what["config"])))
        assert later == recipe(method, seed=seed, after=True)
    for number, stage in enumerate(read_chain(path, targets), start=1):
        assert list(stage.learned) == targets[:number] == list(stage.found)
        assert all(set(values) <= {0.0, 1.0} for values in [*stage.found.values(), *stage.pure.values()])
        assert all(np.mean(stage.pure[name]) <= np.mean(stage.found[name]) for name in stage.learned)
        assert {len(values) for values in [stage.unasked, *stage.found.values()]} == {what["prompts"]}
    adapter = DATA_SAMPLES / "incremental" / method
    if method in PAINTED and not separately and seed == 0 and tuple(targets) == ORDERS[0]:
        parts = parts_of(adapter, read_lora(adapter, load("tiny").network))
        assert [part.name for part in parts] == targets and {part.strength for part in parts} == {1.0}
