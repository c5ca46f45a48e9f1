import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.adapters.learned import LearnedTarget, targets_of
from spf_lite.models.adapters.lora import ADAPTER_FILE, load_adapter
from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone
from spf_lite.training.recipes import recipe
from spf_lite.training.run import export
from spf_lite.training.run.export import TEXTS, add_measures, write_adapter

CONFIG = TrainConfig(stage1_steps=3, stage2_steps=4, batch_size=2, rank=2, seed=11, weight_text=0.25)


@pytest.fixture
def layers(toy: Backbone) -> dict[str, torch.Tensor]:
    return Lora(toy.pipe.unet, rank=2, seed=0).lora_layers()


def test_three_files_and_every_number_in_them(
    layers: dict[str, torch.Tensor], custom_set: CustomSet, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "new" / "adapter", layers, CONFIG, custom_set, "somebody/model")
    assert {path.name for path in folder.iterdir()} == {ADAPTER_FILE, "config.json", "README.md"}
    assert TrainConfig.from_json((folder / "config.json").read_text()) == CONFIG
    written = load_file(folder / ADAPTER_FILE)
    assert len(written) == len(layers)
    assert sum(value.double().sum() for value in written.values()) == pytest.approx(
        sum(value.double().sum() for value in layers.values())
    )


def test_the_file_says_what_it_paints_and_in_the_place_of_what(
    layers: dict[str, torch.Tensor], custom_set: CustomSet, tmp_path: Path
) -> None:
    examples = (replace(custom_set[0], replaces="a red hoodie"), *custom_set[1:])
    references = (("a person, a gray coat", "a gray coat"), *[("a person", None)] * TEXTS)
    own = replace(custom_set, examples=examples, references=references)
    folder = write_adapter(tmp_path, layers, CONFIG, own, "somebody/model")
    texts = ("a person, a gray coat", *["a person"] * (TEXTS - 1))
    assert targets_of(folder) == [LearnedTarget(custom_set[0].target_text, ("a gray coat", "a red hoodie"), (), texts)]
    assert "the target and some of the reference texts" in (folder / "README.md").read_text(), "the card says so"


def test_equal_runs_give_equal_files(layers: dict[str, torch.Tensor], custom_set: CustomSet, tmp_path: Path) -> None:
    contents = {
        (write_adapter(tmp_path, layers, CONFIG, custom_set, "somebody/model") / ADAPTER_FILE).read_bytes()
        for _ in range(8)  # two orders of the metadata would be equal eight times by chance in 1 of 128 cases
    }
    assert len(contents) == 1


def test_the_adapter_loads_into_a_fresh_model(
    layers: dict[str, torch.Tensor], toy: Backbone, custom_set: CustomSet, tmp_path: Path
) -> None:
    write_adapter(tmp_path, layers, CONFIG, custom_set, "somebody/model")
    toy.pipe.unet.delete_adapters("default")
    load_adapter(toy.pipe, tmp_path)
    loaded = {name: value for name, value in toy.pipe.unet.state_dict().items() if ".lora_" in name}
    assert sorted(value.sum().item() for value in loaded.values()) == pytest.approx(
        sorted(value.sum().item() for value in layers.values())
    )


def test_the_card_says_what_it_is(layers: dict[str, torch.Tensor], custom_set: CustomSet, tmp_path: Path) -> None:
    card = (write_adapter(tmp_path, layers, CONFIG, custom_set, "somebody/model") / "README.md").read_text()
    for fact in (
        "library_name: diffusers",
        'Teaches "sunglasses" to `somebody/model`',
        custom_set.digest,
        "6 portraits",
        "3 steps of ordinary fine-tuning, then 4 dual-path steps (denoise 1, text 0.25; map: sfcm)",
        "seed 11",
        "rank 2",
        "## Limits",
    ):
        assert fact in card
    naive = replace(CONFIG, stage2_steps=0)
    card = (write_adapter(tmp_path, layers, naive, custom_set, "somebody/model") / "README.md").read_text()
    assert "3 steps of ordinary fine-tuning, then nothing else." in card


def test_the_card_names_the_recipe_and_the_layers(
    layers: dict[str, torch.Tensor], custom_set: CustomSet, tmp_path: Path
) -> None:
    for config, said, layered in (
        (recipe("spf", seed=3), "- Recipe: `spf` of `spf_lite.training.recipes`.", "  cross-attention only (lora"),
        (recipe("pure-pairs"), "- Recipe: `pure-pairs` of", "  cross-attention and ResNet convolutions only (lora"),
    ):
        card = (write_adapter(tmp_path, layers, config, custom_set, "somebody/model") / "README.md").read_text()
        assert said in card and layered in card
    card = (write_adapter(tmp_path, layers, CONFIG, custom_set, "somebody/model") / "README.md").read_text()
    assert "Recipe" not in card


def test_no_folder_of_this_computer_gets_out(
    layers: dict[str, torch.Tensor], toy: Backbone, custom_set: CustomSet, tmp_path: Path
) -> None:
    source = toy.spec.source
    assert Path(source).is_absolute()
    write_adapter(tmp_path, layers, CONFIG, custom_set, source)
    texts = [path.read_text() for path in tmp_path.iterdir() if path.suffix in (".md", ".json")]
    for text in (*texts, (tmp_path / ADAPTER_FILE).read_bytes()[:10_000].decode(errors="ignore")):
        for place in (str(Path(source).parent), str(custom_set.folder), str(tmp_path), str(Path.home()) + "/"):
            assert place not in text
    assert f"`{Path(source).name}`" in (tmp_path / "README.md").read_text()


def test_the_weights_come_last_so_that_an_adapter_is_whole(
    layers: dict[str, torch.Tensor], custom_set: CustomSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*arguments: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_card", die)
    with pytest.raises(KeyboardInterrupt):
        write_adapter(tmp_path, layers, CONFIG, custom_set, "somebody/model")
    assert not (tmp_path / ADAPTER_FILE).exists()


def test_measures_replace_earlier_ones(layers: dict[str, torch.Tensor], custom_set: CustomSet, tmp_path: Path) -> None:
    plain = (write_adapter(tmp_path, layers, CONFIG, custom_set, "somebody/model") / "README.md").read_text()
    add_measures(tmp_path, {"flip rate": "0.900 [0.800, 1.000]", "identity": "0.1"})
    add_measures(tmp_path, {"flip rate": "0.250 [0.200, 0.300]"})
    card = (tmp_path / "README.md").read_text()
    assert card.startswith(plain.rstrip("\n")) and card.count("## Measures") == 1
    assert "| flip rate | 0.250 [0.200, 0.300] |" in card and "0.900" not in card and "identity" not in card
    assert json.loads((tmp_path / "measures.json").read_text()) == {"flip rate": "0.250 [0.200, 0.300]"}
    with pytest.raises(FileNotFoundError):
        add_measures(tmp_path / "nowhere", {"flip rate": "0"})
