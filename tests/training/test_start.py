"""One attribute after another: the earlier ones belong to the reference, and are in the end still there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spf_lite.choices import KINDS
from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.adapters.lora import ADAPTER_FILE, load_adapter
from spf_lite.models.adapters.stack import load_stack
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError
from spf_lite.training.run.checkpoint import RunFolderError
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy
from ..models.conftest import without_grad

CONFIG = TrainConfig(
    stage1_steps=0,
    stage2_steps=3,
    batch_size=2,
    rank=2,
    learning_rate=0.05,
    weight_output=1.0,
    scale_terms=False,
    map_source="none",
    checkpoint_every=1,
)


@pytest.fixture(scope="module")
def earlier(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Two adapters, the second trained on top of the first."""
    folders: list[Path] = []
    for number in range(2):
        trainer = DualPathTrainer(
            load_toy(toy_folders["v_prediction"]), custom_set, replace(CONFIG, seed=number), after=folders
        )
        trainer.fit(progress=False)
        folders.append(trainer.export(tmp_path_factory.mktemp(f"earlier-{number}") / "adapter"))
    return folders


def stacked(toy_folders: dict[str, Path], adapters: list[Path]) -> torch.Tensor:
    """What a fresh model with these adapters predicts."""
    backbone = load_toy(toy_folders["v_prediction"])
    load_stack(backbone, adapters)
    return without_grad(backbone)


def fitted(trainer: DualPathTrainer, wanted: torch.Tensor) -> torch.Tensor:
    """What a trainer's model predicts in the end. It begins as its reference, and the reference stays as ``wanted``."""
    toy = trainer.backbone
    assert torch.allclose(without_grad(toy), wanted, atol=1e-5)
    trainer.fit(progress=False)
    with toy.reference():
        assert torch.allclose(without_grad(toy), wanted, atol=1e-5)
    tuned = without_grad(toy)
    assert not torch.allclose(tuned, wanted, atol=1e-3)
    return tuned


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_on_top_of_earlier_ones(
    kind: str, toy: Backbone, toy_folders: dict[str, Path], custom_set: CustomSet, earlier: list[Path], tmp_path: Path
) -> None:
    config = replace(CONFIG, trainable=kind, stage1_steps=3)
    trainer = DualPathTrainer(toy, custom_set, config, after=earlier)
    tuned = fitted(trainer, stacked(toy_folders, earlier))
    new = trainer.export(tmp_path / "new")
    assert "- On top of what was learned before: earlier-0" in (new / "README.md").read_text()
    assert torch.allclose(stacked(toy_folders, [*earlier, new]), tuned, atol=1e-5), "the export is what was added"


def test_reference_texts_ask_for_what_was_learned_before(
    toy_folders: dict[str, Path], custom_set: CustomSet, earlier: list[Path], tmp_path: Path, caplog: Any
) -> None:
    def texts(share: float, portraits: int = 4, after: list[Path] = earlier) -> list[tuple[str, str | None]]:
        config = replace(CONFIG, reference_portraits=portraits, earlier_share=share)
        beard = replace(custom_set, examples=tuple(replace(one, target_text="a beard") for one in custom_set))
        trainer = DualPathTrainer(load_toy(toy_folders["v_prediction"]), beard, config, after=after)
        return trainer.earlier_targets.added_to(trainer.backbone, trainer.reference_texts)

    own = texts(0.0)
    assert not any("sunglasses" in text for text, _ in own) and not caplog.messages
    assert texts(1.0) == [(f"{text}, sunglasses", replaces) for text, replaces in own]
    assert texts(1.0, portraits=0) == own, "without reference portraits there is nothing to ask for"
    assert texts(1.0, after=[]) == own and not caplog.messages
    foreign = tmp_path / "foreign" / ADAPTER_FILE
    foreign.parent.mkdir()
    save_file(load_file(earlier[0] / ADAPTER_FILE), foreign)
    assert texts(1.0, after=[foreign]) == own
    assert "no target is named in the file" in caplog.text and str(foreign) in caplog.text


def test_plain_texts_are_held_to_the_model_without_any_adapter(
    toy_folders: dict[str, Path], custom_set: CustomSet, earlier: list[Path], tmp_path: Path
) -> None:
    beard = replace(custom_set, examples=tuple(replace(one, target_text="a beard") for one in custom_set))
    config = replace(CONFIG, reference_portraits=8, reference_share=1.0, reconstruction_share=1.0)
    config = replace(config, weight_output=0.0, weight_reconstruction=1.0)

    def trainer(original: bool = True, folder: Path | None = None) -> DualPathTrainer:
        backbone = load_toy(toy_folders["v_prediction"])
        return DualPathTrainer(backbone, beard, replace(config, original_reference=original), folder, after=earlier)

    first = trainer(folder=tmp_path)
    losses = [line["loss"] for line in first.fit(progress=False).history]
    plain = [one.is_plain for one in first.stage2.references]
    assert plain == ["sunglasses" not in one.pair.base_text for one in first.stage2.references] and len(set(plain)) == 2
    assert losses[0] > 1e-4, "the earlier adapters changed what plain texts paint, and this is to be taken back"
    last = trainer(original=False)
    assert first.backbone.original is not None and last.backbone.original is None, "the empty text is plain, too"
    kept = [line["loss"] for line in last.fit(progress=False).history]
    assert kept[0] < 1e-8 and not any(one.is_plain for one in last.stage2.references)
    again = trainer(folder=tmp_path)
    again.fit(resume=True, progress=False)
    assert [one.is_plain for one in again.stage2.references] == plain


def test_places_where_earlier_targets_act_weigh_more(
    toy_folders: dict[str, Path], custom_set: CustomSet, earlier: list[Path], tmp_path: Path
) -> None:
    beard = replace(custom_set, examples=tuple(replace(one, target_text="a beard") for one in custom_set))
    config = replace(CONFIG, reference_portraits=8, reference_share=0.5, reconstruction_share=1.0, earlier_share=1.0)
    config = replace(config, batch_size=4, weight_output=0.0, weight_reconstruction=1.0, original_reference=False)

    def trainer(weight: float, folder: Path | None = None, steps: int = 2) -> DualPathTrainer:
        backbone = load_toy(toy_folders["v_prediction"])
        changed = replace(config, earlier_weight=weight, stage2_steps=steps, learning_rate=0.1)
        return DualPathTrainer(backbone, beard, changed, folder, after=earlier)

    plain, weighed = trainer(1.0), trainer(5.0, tmp_path)
    losses = [[line["reconstruction"] for line in run.fit(progress=False).history] for run in (plain, weighed)]
    second = CONFIG.stage1_steps + 1  # in the first step of stage 2 nothing weighs yet
    assert losses[1][second] > 1.2 * losses[0][second] > 0
    assert all(one.acting is None for one in plain.stage2.references)
    places = [one.acting for one in weighed.stage2.references]
    assert all(place is not None and 0 < float(place.mean()) < 1 for place in places)
    assert [one.acting for one in weighed.stage2.custom] == [None] * len(beard), "a set's own texts do not ask"
    again = trainer(5.0, tmp_path, steps=3)
    again.fit(resume=True, extend=True, progress=False)
    for one, place in zip(again.stage2.references, places, strict=True):
        assert one.acting is not None and place is not None and torch.equal(one.acting, place)


def test_one_adapter_continued_holds_everything(
    toy: Backbone, toy_folders: dict[str, Path], custom_set: CustomSet, earlier: list[Path], tmp_path: Path
) -> None:
    trainer = DualPathTrainer(toy, custom_set, replace(CONFIG, rank=4), after=earlier, continued=True)
    tuned = fitted(trainer, stacked(toy_folders, earlier))
    fresh = load_toy(toy_folders["v_prediction"])
    load_adapter(fresh, trainer.export(tmp_path / "all"))
    assert (
        "- Continues what was learned before, and still holds it: earlier-0" in (tmp_path / "all/README.md").read_text()
    )
    assert torch.allclose(without_grad(fresh), tuned, atol=1e-5)


@pytest.mark.parametrize("continued", [False, True])
def test_an_interrupted_run_goes_on_only_after_the_same_adapters(
    continued: bool, toy_folders: dict[str, Path], custom_set: CustomSet, earlier: list[Path], tmp_path: Path
) -> None:
    config = replace(CONFIG, rank=4)

    def make(folder: Path | None, after: list[Path], continued: bool = continued) -> DualPathTrainer:
        backbone = load_toy(toy_folders["v_prediction"])
        return DualPathTrainer(backbone, custom_set, config, folder, after=after, continued=continued)

    def stop(step: int, control: object) -> None:
        if step == 1:
            raise KeyboardInterrupt

    whole = make(None, earlier).fit(progress=False)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, earlier).fit(on_step=stop, progress=False)
    for after, other in ((earlier[:1], continued), (earlier[::-1][:1], continued), (earlier, not continued)):
        with pytest.raises(RunFolderError, match=r"differs in .*(base_model|initial_adapter)"):
            make(tmp_path, after, other).fit(resume=True, progress=False)
    with pytest.raises(RunFolderError, match="differs in base_model"):
        make(tmp_path, [], False).fit(resume=True, progress=False)
    resumed = make(tmp_path, earlier).fit(resume=True, progress=False)
    assert [line["loss"] for line in resumed.history] == [line["loss"] for line in whole.history]


def test_options_that_do_not_go_together_leave_the_model_as_it_was(
    toy: Backbone, custom_set: CustomSet, earlier: list[Path]
) -> None:
    before = without_grad(toy)
    for changes, options, error, message in (
        ({}, {"after": earlier, "initial_adapter": earlier[0]}, ValueError, "give initial_adapter, .* or after"),
        ({}, {"continued": True}, ValueError, "continued needs the adapters"),
        ({"trainable": "weights"}, {"after": earlier, "continued": True}, ValueError, "with trainable=weights"),
        ({"contrast": 2.0}, {"after": earlier, "continued": True}, ValueError, "contrast=2: set"),
        ({}, {"after": earlier, "continued": True}, BackboneError, "cannot continue .*: its rank is 4, and 2 is"),
        ({}, {"after": [earlier[0], "nowhere"]}, BackboneError, "no adapter in nowhere"),
        ({"trainable": "adalora", "rank": 0}, {"after": earlier}, ValueError, "rank=0"),
    ):
        with pytest.raises(error, match=message):
            DualPathTrainer(toy, custom_set, replace(CONFIG, **changes), **options)
        assert torch.equal(without_grad(toy), before) and toy.trainable is None
    load_adapter(toy, earlier[0])
    with pytest.raises(BackboneError, match="already has an adapter"):
        DualPathTrainer(toy, custom_set, CONFIG, after=earlier)
    toy.pipe.unet.unload_lora()
    assert torch.equal(without_grad(toy), before)
