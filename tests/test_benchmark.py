import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from PIL.Image import Image

from spf_lite import benchmark, methods, training
from spf_lite.benchmark import Row, compare_methods, evaluation_set, measure, summary
from spf_lite.config import TrainConfig
from spf_lite.judge import Judge
from spf_lite.metrics import unrelated_attributes
from spf_lite.pipelines import Backbone, sample

SHORT = TrainConfig(stage1_steps=1, stage2_steps=1, batch_size=2, rank=2)
TARGET = "sunglasses"


@pytest.fixture
def small_world(toy_samples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The benchmark on the toy, with recipes of two steps and portraits of two."""

    def draw(pipe: StableDiffusionPipeline, prompts: list[str], *, seeds: list[int], steps: int = 25) -> list[Image]:
        return list(sample(pipe, prompts, seeds=seeds, steps=2))

    monkeypatch.setattr(benchmark, "sample", draw)
    monkeypatch.setenv("SPF_LITE_TINY", str(toy_samples / "tiny-portraits"))
    monkeypatch.setattr(benchmark, "DATA", toy_samples)
    monkeypatch.setattr(methods, "recipe", lambda name, seed=0: replace(SHORT, seed=seed))
    return toy_samples


def compare(folder: Path, **options: object) -> list[str]:
    arguments = {"methods": ("naive", "spf"), "prompts": 2, "seeds": (0, 1), **options}
    return compare_methods(TARGET, folder, **arguments)  # type: ignore[arg-type]


def test_a_second_call_trains_nothing_and_says_the_same(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(tmp_path)
    assert [line.split()[0] for line in first] == ["method", "naive", "spf"]
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("row.json")}
    assert folders == {f"{TARGET}/{method}-{seed}" for method in ("naive", "spf") for seed in (0, 1)}
    for folder in folders:
        assert (tmp_path / folder / "adapter" / "pytorch_lora_weights.safetensors").is_file()

    class Forbidden(training.DualPathTrainer):
        def fit(self, *arguments: object, **options: object) -> training.TrainResult:
            raise AssertionError("a finished row was trained again")

    monkeypatch.setattr(training, "DualPathTrainer", Forbidden)
    assert compare(tmp_path) == first
    (tmp_path / TARGET / "spf-1" / "row.json").unlink()
    with pytest.raises(AssertionError, match="trained again"):
        compare(tmp_path)


def test_an_interrupted_row_is_taken_up_where_it_was(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "recipe", lambda name, seed=0: replace(SHORT, seed=seed, checkpoint_every=1))

    class Killed(Exception):
        pass

    def die(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as broken, pytest.raises(Killed):
        broken.setattr(training.DualPathTrainer, "export", die)
        compare(tmp_path, methods=("naive",), seeds=(0,))
    assert not list(tmp_path.rglob("row.json"))
    compare(tmp_path, methods=("naive",), seeds=(0,))
    log = (tmp_path / TARGET / "naive-0" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [0, 1], "the steps were not made twice"


def test_the_before_side_is_drawn_once_and_knows_no_target(toy: Backbone) -> None:
    portraits = evaluation_set(toy, "blazer", 3, steps=1)
    assert len(portraits.before) == len(portraits.base_texts) == len(set(portraits.seeds)) == 3
    for base, complete in zip(portraits.base_texts, portraits.complete_texts, strict=True):
        assert "a blazer" in complete and "a blazer" not in base
        assert len(base.split(", ")) == len(complete.split(", ")), "a replacement takes the place of its phrase"
    again = evaluation_set(toy, "blazer", 3, steps=1)
    assert again.base_texts == portraits.base_texts
    assert [image.tobytes() for image in again.before] == [image.tobytes() for image in portraits.before]


def test_bad_requests_are_refused(toy: Backbone, small_world: Path, tmp_path: Path) -> None:
    for prompts in (0, -1):
        with pytest.raises(ValueError, match=f"prompts={prompts}: at least one is needed"):
            evaluation_set(toy, TARGET, prompts)
    with pytest.raises(ValueError, match="unknown target 'monocle'"):
        evaluation_set(toy, "monocle", 1)
    with pytest.raises(ValueError, match="prompts=0"):
        compare(tmp_path, prompts=0)
    assert not list(tmp_path.iterdir()), "nothing was trained for it"


def test_what_is_measured(toy: Backbone, small_world: Path) -> None:
    judge = Judge.load(small_world / "tiny-portraits" / "judge")
    portraits = evaluation_set(toy, TARGET, 3)
    row = measure(toy, judge, portraits, "naive", seed=5, seconds=1.5)
    assert (row.method, row.target, row.seed, row.seconds) == ("naive", TARGET, 5, 1.5)
    assert len(row.found) == len(row.flip) == 3
    assert set(row.per_attribute) == set(unrelated_attributes(TARGET))
    assert np.mean(row.flip) == pytest.approx(np.mean(list(row.per_attribute.values())))
    assert set(row.bias) == set(benchmark.ACCIDENTS[TARGET])
    # The same prompts on both sides, an untouched model: nothing flips, and it is the same person.
    idle = measure(toy, judge, replace(portraits, complete_texts=portraits.base_texts), "naive", 5, 0.0)
    assert sum(idle.flip) == 0 and idle.identity == pytest.approx(1, abs=1e-5)
    assert idle.leaked == np.mean(idle.found), "both are drawn for the base texts"


def row(found: list[float], flip: list[float]) -> Row:
    return Row("naive", TARGET, 0, found, flip, 0.0, 1.0, {}, {}, 0.0)


def test_the_summary_has_means_and_intervals() -> None:
    rng = np.random.default_rng(0)
    rows = [row((rng.random(40) < 0.7).astype(float).tolist(), rng.random(40).tolist()) for _ in range(2)]
    numbers = summary(rows)
    for name, values in (("target found", [r.found for r in rows]), ("flip rate", [r.flip for r in rows])):
        estimate = numbers[name]
        assert estimate.mean == pytest.approx(np.mean(values))
        assert estimate.low < estimate.mean < estimate.high
        assert estimate.high - estimate.low < 0.3
    certain = summary([row([1.0] * 5, [0.0] * 5)])
    assert str(certain["target found"]) == "1.000 [1.000, 1.000]"
    assert str(certain["flip rate"]) == "0.000 [0.000, 0.000]"
