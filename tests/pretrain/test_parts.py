"""The losses that the shipped weights were trained with: finite, right where the answer is known, and a gradient that
reaches what is trained and nothing else."""

from collections.abc import Iterable
from random import Random

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTokenizer

from spf_lite.evaluation.judge import HEADS, JudgeNet
from spf_lite.pretrain import autoencoder, clip, judge, transformer, unet
from spf_lite.pretrain.dataset import Split
from spf_lite.pretrain.text import random_caption, true_phrases
from spf_lite.tiny_world.portraits import all_phrases, random_portrait
from spf_lite.tiny_world.rendering import part_mask, render

PEOPLE = [random_portrait(Random(seed)) for seed in range(6)]
PICTURES = torch.from_numpy(np.stack([np.asarray(render(portrait)) for portrait in PEOPLE]))


def reached(parameters: Iterable[nn.Parameter]) -> list[bool]:
    return [parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in parameters]


def finite(terms: dict[str, torch.Tensor]) -> bool:
    return all(torch.isfinite(term).all() and term.ndim == 0 for term in terms.values())


@pytest.fixture(scope="module")
def untrained() -> AutoencoderKL:
    return autoencoder.build()


# -- autoencoder -------------------------------------------------------------------------------------------------------


def test_the_autoencoder_begins_as_pooling_and_halves_three_times(untrained: AutoencoderKL) -> None:
    images = autoencoder.to_tensor(PICTURES[:2])
    assert images.shape == (2, 3, 128, 128) and images.min() >= -1 and images.max() <= 1
    with torch.no_grad():
        posterior = untrained.encode(images).latent_dist
    assert posterior.mean.shape == (2, 4, 16, 16)
    assert posterior.std.mean() < 0.2, "a narrow posterior to begin with"
    assert np.array_equal(((images + 1) * 127.5).round().permute(0, 2, 3, 1).byte(), PICTURES[:2])


def test_the_autoencoders_losses(untrained: AutoencoderKL) -> None:
    images = autoencoder.to_tensor(PICTURES[:2])[:, :, 32:96, 32:96]
    model = autoencoder.build()
    terms = autoencoder.losses(model, images, torch.randn(2, 4, 8, 8))
    assert finite(terms)
    with torch.no_grad():
        decoded = model.decode(model.encode(images).latent_dist.mean).sample
    assert terms["l1"].item() == pytest.approx((decoded - images).abs().mean().item(), rel=0.1)
    terms["loss"].backward()
    # Convolutions that start at zero block the way to those before them; one step later nothing is blocked.
    assert sum(reached(model.parameters())) > 20
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    model.zero_grad()
    autoencoder.losses(model, images, torch.randn(2, 4, 8, 8))["loss"].backward()
    assert all(reached(model.parameters()))
    assert not any(reached(untrained.parameters()))


def test_edges_are_differences_of_neighbours() -> None:
    step = torch.zeros(1, 1, 3, 4)
    step[..., 2:] = 1
    across, down = autoencoder.edges(step)
    assert across.shape == (1, 1, 3, 3) and across.sum() == 3 and across[..., 1].sum() == 3
    assert down.shape == (1, 1, 2, 4) and down.abs().sum() == 0


def test_latents_are_standardised_and_pictures_stay(untrained: AutoencoderKL) -> None:
    model = autoencoder.build()
    images = autoencoder.to_tensor(PICTURES)
    with torch.no_grad():
        before = model.decode(model.encode(images).latent_dist.mean).sample
        spread = model.encode(images).latent_dist.std
    plain = autoencoder.encode_split(model, PICTURES)
    autoencoder.standardize(model, Split(PICTURES.numpy(), None, PEOPLE))
    latents = autoencoder.encode_split(model, PICTURES)
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4)
    assert model.config["scaling_factor"] == 1.0
    with torch.no_grad():
        posterior = model.encode(images).latent_dist
        assert torch.allclose(model.decode(posterior.mean).sample, before, atol=1e-4)
    deviation = plain.std(dim=(0, 2, 3))[None, :, None, None]
    assert torch.allclose(posterior.std, spread / deviation, rtol=1e-3), "the noise shrinks with the latents"


# -- CLIP --------------------------------------------------------------------------------------------------------------


def test_clips_losses_teach_both_towers(tokenizer: CLIPTokenizer) -> None:
    towers = clip.Towers(clip.build(tokenizer))
    rng = Random(0)
    captions = clip.tokenize(tokenizer, [random_caption(portrait, rng) for portrait in PEOPLE])
    vocabulary = clip.tokenize(tokenizer, all_phrases()[:40])
    truth = clip.phrase_truth(PEOPLE)[:, :40]
    terms = clip.losses(towers, clip.shrink(PICTURES), captions, vocabulary, truth)
    assert finite(terms)
    assert terms["loss"].item() == pytest.approx((terms["contrastive"] + terms["phrase"]).item(), rel=1e-5)
    assert all(0 <= terms[name] <= 1 for name in ("caption_found", "phrase_recall", "phrase_precision"))
    terms["loss"].backward()
    without = {name for name, p in towers.named_parameters() if not reached([p])[0]}
    # A softmax does not feel what is added to all its inputs, so nothing can reach the keys' biases.
    assert without <= {name for name in without if name.endswith("k_proj.bias")}


def test_the_truth_about_phrases() -> None:
    truth = clip.phrase_truth(PEOPLE)
    assert truth.shape == (6, len(all_phrases()))
    for row, portrait in zip(truth, PEOPLE, strict=True):
        said = {phrase for phrase, true in zip(all_phrases(), row, strict=True) if true}
        assert said == true_phrases(portrait)


def test_pictures_for_clip_are_shrunk_and_roughened() -> None:
    small = clip.shrink(PICTURES)
    assert small.shape == (6, 3, 64, 64) and small.min() >= -1 and small.max() <= 1
    block = PICTURES[0, :2, :2].float().mean(dim=(0, 1)) / 127.5 - 1
    assert torch.allclose(small[0, :, 0, 0], block, atol=1e-6)
    rough = clip.roughen(small, torch.Generator().manual_seed(0))
    assert torch.equal(rough, clip.roughen(small, torch.Generator().manual_seed(0)))
    change = (rough - small).abs().mean(dim=(1, 2, 3))
    assert (change > 0).all() and (change < 0.3).all() and change.std() > 0


def test_captions_are_padded_to_the_longest_or_to_the_length(tokenizer: CLIPTokenizer) -> None:
    ids = clip.tokenize(tokenizer, ["glasses", "a person, smiling"])
    assert ids.shape == (2, 6)
    assert clip.tokenize(tokenizer, ["glasses"], 32).shape == (1, 32)


# -- UNet --------------------------------------------------------------------------------------------------------------


def test_the_unets_loss_reaches_every_weight() -> None:
    model = unet.build()
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 32, 128, generator=generator)
    alphas = unet.build_scheduler().alphas_cumprod
    loss = unet.loss(model, latents, noise, torch.tensor([20, 900]), text, alphas)
    assert torch.isfinite(loss) and 0.1 < loss < 10
    loss.backward()
    assert all(reached(model.parameters()))


def test_the_unets_target_is_the_velocity() -> None:
    scheduler = unet.build_scheduler()
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=generator)
    timesteps = torch.tensor([20, 900])
    seen: list[torch.Tensor] = []

    class Oracle(nn.Module):
        def forward(self, noisy: torch.Tensor, *arguments: object, **options: object) -> tuple[torch.Tensor]:
            seen.append(noisy)
            return (scheduler.get_velocity(latents, noise, timesteps),)

    text = torch.zeros(2, 32, 128)
    assert unet.loss(Oracle(), latents, noise, timesteps, text, scheduler.alphas_cumprod) < 1e-10
    assert torch.allclose(seen[0], scheduler.add_noise(latents, noise, timesteps), atol=1e-6)


def test_the_schedule_ends_in_noise_and_sampling_begins_there() -> None:
    scheduler = unet.build_scheduler()
    assert scheduler.alphas_cumprod[-1] < 1e-4
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[0] == 999


# -- transformer -------------------------------------------------------------------------------------------------------


def tokens(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    read = transformer.build_tokenizer()(captions, padding=True, return_tensors="pt")
    return read.input_ids, read.attention_mask


def test_the_transformers_loss_reaches_every_weight() -> None:
    painter = transformer.build(transformer.build_tokenizer())
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=generator)
    timesteps = torch.tensor([20, 900])
    # The last layer begins with zeros: nothing before it is reached until it has moved.
    torch.nn.init.normal_(painter.transformer.proj_out.weight, std=0.02, generator=generator)
    read = tokens([random_caption(portrait, Random(0)) for portrait in PEOPLE[:2]])
    loss = transformer.loss(painter, latents, noise, timesteps, read, unet.build_scheduler().alphas_cumprod)
    assert torch.isfinite(loss) and 0.1 < loss < 10
    loss.backward()
    without = {name for name, parameter in painter.named_parameters() if not reached([parameter])[0]}
    # A softmax does not feel what is added to all its inputs, so nothing can reach the keys' biases.
    assert without <= {name for name in without if name.endswith("to_k.bias")}


def test_the_transformers_target_is_the_velocity() -> None:
    scheduler = unet.build_scheduler()
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=generator)
    timesteps = torch.tensor([20, 900])

    class Oracle(nn.Module):
        def forward(self, noisy: torch.Tensor, *arguments: object) -> torch.Tensor:
            assert torch.allclose(noisy, scheduler.add_noise(latents, noise, timesteps), atol=1e-6)
            velocity: torch.Tensor = scheduler.get_velocity(latents, noise, timesteps)
            return velocity

    read = tokens(["", "a person"])
    assert transformer.loss(Oracle(), latents, noise, timesteps, read, scheduler.alphas_cumprod) < 1e-10


def test_padding_does_not_change_what_the_transformer_paints() -> None:
    painter = transformer.build(transformer.build_tokenizer()).eval()
    torch.nn.init.normal_(painter.transformer.proj_out.weight, std=0.02)
    noisy, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([500, 500])
    ids, mask = tokens(["a person", "a person, pale skin, red short hair, smiling"])
    with torch.no_grad():
        padded = painter(noisy, timesteps, ids, mask)
        alone = painter(noisy[:1], timesteps[:1], *tokens(["a person"]))
    assert ids.shape[1] > 3
    assert torch.allclose(padded[0], alone[0], atol=1e-5)


def test_a_word_of_the_tiny_world_is_one_token_and_other_words_are_letters() -> None:
    tokenizer = transformer.build_tokenizer()
    words = {word for phrase in all_phrases() for word in phrase.split()}
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words)
    assert tokenizer.tokenize("pale zebra") == ["▁pale", "▁", *"zebra"]
    assert tokenizer.unk_token_id not in tokenizer("a person, two 3-day-old zebras").input_ids
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]


# -- judge -------------------------------------------------------------------------------------------------------------


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Six people, each in two pictures: once as they are, once with a hat, which hides the hair."""
    people = [*PEOPLE, *(portrait.with_targets("winter-hat") for portrait in PEOPLE)]
    pictures = torch.from_numpy(np.stack([np.asarray(render(portrait)) for portrait in people]))
    masks = torch.from_numpy(np.stack([part_mask(portrait, 64) for portrait in people]))
    who = torch.arange(6).repeat(2)
    truth = torch.tensor([judge.answers(portrait) for portrait in people])
    return clip.shrink(pictures), truth, masks, who[:, None] == who[None, :]


def test_the_judges_losses_reach_every_weight() -> None:
    torch.manual_seed(0)
    net = JudgeNet(width=8)
    terms = judge.losses(net, *batch())
    assert finite(terms)
    parts = len(HEADS) * terms["classes"] + terms["parts"] + 0.3 * terms["identity"]
    assert terms["loss"].item() == pytest.approx(parts.item(), rel=1e-5)
    terms["loss"].backward()
    assert all(reached(net.parameters()))


class Told(nn.Module):
    """Answers with what it was given."""

    answers = HEADS

    def __init__(self, truth: torch.Tensor, identity: torch.Tensor, masks: torch.Tensor) -> None:
        super().__init__()
        self.logits = {
            name: 50 * nn.functional.one_hot(truth[:, i].clamp(min=0), len(values)).float()
            for i, (name, values) in enumerate(HEADS.items())
        }
        self.identity, self.parts = identity, 50 * nn.functional.one_hot(masks.long(), 6).permute(0, 3, 1, 2).float()

    def forward(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        return self.logits, self.identity, self.parts


def test_the_right_answers_cost_nothing_and_wrong_ones_do() -> None:
    images, truth, masks, same = batch()
    own = torch.eye(6).repeat(2, 1)
    right = judge.losses(Told(truth, own, masks), images, truth, masks, same)
    assert right["classes"] < 1e-6 and right["parts"] < 1e-6 and right["identity"] < 1e-2
    mixed_up = judge.losses(Told(truth, own.roll(1, 0), masks), images, truth, masks, same.roll(3, 0))
    assert mixed_up["identity"] > 1
    wrong = judge.losses(Told(truth.roll(1, 0), own, masks.roll(1, 0)), images, truth, masks, same)
    assert wrong["classes"] > 1 and wrong["parts"] > 1
    hidden = truth.clone()
    hidden[6:, list(HEADS).index("hair_style")] = judge.IGNORE
    guess = truth.clone()
    guess[6:, list(HEADS).index("hair_style")] = 0
    assert judge.losses(Told(guess, own, masks), images, hidden, masks, same)["classes"] < 1e-6, "hidden: not asked"


def test_accuracy_is_the_share_of_right_answers(untrained: AutoencoderKL, monkeypatch: pytest.MonkeyPatch) -> None:
    _, truth, masks, _ = batch()
    people = [*PEOPLE, *(portrait.with_targets("winter-hat") for portrait in PEOPLE)]
    answered = truth.clone()
    column = list(HEADS).index("background")
    answered[:3, column] = (answered[:3, column] + 1) % len(HEADS["background"])
    pictures = torch.zeros(12, 3, 64, 64)
    monkeypatch.setattr(judge, "reconstruct", lambda *arguments, **options: pictures)

    class Fake:
        net = Told(answered, torch.zeros(12, 6), masks)

    split = Split(np.zeros((12, 128, 128, 3), np.uint8), masks.numpy(), people)
    rates = judge.accuracy(Fake(), untrained, split)  # type: ignore[arg-type]
    assert rates["background"] == pytest.approx(9 / 12)
    assert all(rate == 1 for name, rate in rates.items() if name != "background")
    assert "parts (pixels)" in rates


def test_reconstructions_are_the_autoencoders(untrained: AutoencoderKL) -> None:
    images = PICTURES[:3]
    clean = judge.reconstruct(untrained, images, torch.Generator().manual_seed(0), noise=0.0, batch=2)
    with torch.no_grad():
        decoded = untrained.decode(untrained.encode(autoencoder.to_tensor(images)).latent_dist.mean).sample
    assert torch.allclose(clean, nn.functional.avg_pool2d(decoded.clamp(-1, 1), 2), atol=1e-5)
    noisy = judge.reconstruct(untrained, images, torch.Generator().manual_seed(0), noise=1.0, batch=2)
    assert clean.shape == (3, 3, 64, 64) and (noisy - clean).abs().mean() > 1e-3
