from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTokenizer

from spf_lite.models.clip import Clip
from spf_lite.models.codec import to_tensor
from spf_lite.pretrain import clip as pretraining
from spf_lite.pretrain.ship import image_processor
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import render


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> Path:
    """CLIP of the shipped size, untrained."""
    folder = tmp_path_factory.mktemp("clip")
    pretraining.build(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return Clip.load(str(folder))


def test_it_loads_frozen_and_in_32_bits(clip: Clip) -> None:
    assert not clip.model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in clip.model.parameters())
    assert clip.mean.shape == clip.std.shape == (3, 1, 1)
    assert clip.mean.flatten().tolist() == list(pretraining.MEAN)
    assert clip.resample == "bilinear"


def test_no_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no CLIP model in .*nowhere"):
        Clip.load(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no CLIP model in"):
        Clip.load(str(tmp_path))


def test_distances_are_cosine_distances(clip: Clip) -> None:
    phrases = ["red curly hair", "sunglasses", "gray background"]
    distances = clip.phrase_distances(phrases, "sunglasses")
    features = clip.text_features([*phrases, "sunglasses"])
    cosine = torch.nn.functional.cosine_similarity(features[:3], features[3].expand(3, -1))
    assert torch.allclose(distances, 1 - cosine, atol=1e-6)
    assert distances[1].item() == pytest.approx(0, abs=1e-6), "a phrase is at no distance from itself"
    assert 1e-4 < distances[0] <= 2 and 1e-4 < distances[2] <= 2
    assert distances[0] != distances[2]
    assert clip.phrase_distances([], "sunglasses").shape == (0,)


def test_a_distance_does_not_depend_on_the_other_phrases(clip: Clip) -> None:
    alone = clip.phrase_distances(["red hair"], "sunglasses")
    padded = clip.phrase_distances(["red hair", "a person, blue hoodie, gray background, smiling"], "sunglasses")
    assert torch.allclose(alone[0], padded[0], atol=1e-5)


def test_features_have_length_one(clip: Clip) -> None:
    for features in (clip.text_features(["glasses", "a beard"]), clip.image_features(torch.rand(2, 3, 128, 128))):
        assert features.shape == (2, 128)
        assert torch.allclose(features.norm(dim=-1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("size", [64, 128])
def test_the_gradient_reaches_the_picture_and_not_the_weights(clip: Clip, size: int) -> None:
    images = torch.rand(2, 3, size, size, requires_grad=True)
    clip.image_features(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).abs().sum(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def soft_picture() -> Image.Image:
    """Slow waves, away from black and white: no filter overshoots."""
    y, x = np.indices((128, 128)) / 128
    waves = np.stack([np.sin(5 * x + phase) * np.cos(4 * y + phase) for phase in (0, 1, 2)], axis=-1)
    return Image.fromarray((128 + 60 * waves).astype(np.uint8))


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [64, 128, 100])
def test_pictures_are_prepared_as_the_processor_does_it(
    folder: Path, clip: Clip, resample: Image.Resampling, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = CLIPImageProcessor.from_pretrained(folder, resample=resample)
    processor.save_pretrained(folder)
    loaded = Clip.load(str(folder))
    pictures = [soft_picture().resize((size, size))]
    if resample == Image.Resampling.BILINEAR:
        pictures.append(render(Portrait(), size))
    seen: list[torch.Tensor] = []

    def remember(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return pixels.flatten(1)

    monkeypatch.setattr(loaded.model, "get_image_features", remember)
    loaded.image_features(to_tensor(pictures))
    theirs = torch.as_tensor(np.stack(processor(pictures)["pixel_values"]))
    # The processor rounds to 8 bits after resizing across and after resizing down: 2 steps of 1/255, doubled by 1/std.
    assert (seen[0] - theirs).abs().max() < 2 * 2 / 255
