"""Training the judge: on renders, and on reconstructions by the autoencoder, both with blur and noise.

The judge is used on generated images: a little blurred, a little noisy, decoded from latents that are not quite a
portrait's. So about half of its training images are decoded from latents with added noise.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm.auto import tqdm

from spf_lite.evaluation.judge import FINAL_HEADS, FINAL_JUDGE, HEADS, JUDGE, Judge, JudgeNet
from spf_lite.pretrain.autoencoder import to_tensor
from spf_lite.pretrain.clip import roughen, shrink
from spf_lite.pretrain.dataset import Split, load_split
from spf_lite.pretrain.loop import Schedule, fit
from spf_lite.tiny_world.portraits import Portrait, get_target

SCHEDULE = Schedule(steps=1000, learning_rate=1.5e-3, warmup=100, decay=600, ema=0.995, weight_decay=0.02)
BATCH = 64
IGNORE = -100
#: How many images are also shown as their reconstruction.
RECONSTRUCTED = 6000


def answers(portrait: Portrait, heads: Mapping[str, tuple[str, ...]] = HEADS) -> list[int]:
    """The class index of each head, in their order; :data:`IGNORE` where a target hides the attribute."""
    hidden = {name for target in portrait.targets for name in get_target(target).affects}
    result = []
    for head, values in heads.items():
        shown = [target for target in portrait.targets if target in values]
        if shown:
            result.append(values.index(shown[0]))
        elif head in hidden:
            result.append(IGNORE)
        else:
            result.append(values.index(getattr(portrait, head, "no")))
    return result


@torch.no_grad()
def reconstruct(
    autoencoder: AutoencoderKL, images: Tensor, generator: torch.Generator, noise: float = 0.35, batch: int = 32
) -> Tensor:
    """Encode and decode, at half size: uint8 (N, 128, 128, 3) to float (N, 3, 64, 64) in [-1, 1].

    Each latent gets noise of a random strength up to ``noise`` standard deviations. The result is on the CPU, wherever
    the autoencoder is.
    """
    scale = 1 / autoencoder.config["scaling_factor"]
    result = []
    for part in tqdm(images.split(batch), desc="reconstruct", mininterval=5):
        latents = autoencoder.encode(to_tensor(part).to(autoencoder.device)).latent_dist.mean.cpu()
        strength = noise * scale * torch.rand(len(part), 1, 1, 1, generator=generator)
        latents = latents + strength * torch.randn(latents.shape, generator=generator)
        decoded = autoencoder.decode(latents.to(autoencoder.device)).sample
        result.append(F.avg_pool2d(decoded.clamp(-1, 1), 2).cpu())
    return torch.cat(result)


def pairs_by_identity(portraits: list[Portrait]) -> dict[tuple[str, ...], list[int]]:
    """Indices of the images that show the same person, by identity; images whose hair a target hides are left out."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, portrait in enumerate(portraits):
        if not any("hair_style" in get_target(target).affects for target in portrait.targets):
            groups[portrait.identity].append(index)
    return {identity: members for identity, members in groups.items() if len(members) > 1}


def losses(net: nn.Module, images: Tensor, truth: Tensor, masks: Tensor, same: Tensor) -> dict[str, Tensor]:
    """Attributes (cross-entropy per head), parts (cross-entropy per pixel), identity (supervised contrastive loss).

    The identity term is that of Khosla et al. 2020 ("Supervised Contrastive Learning"), with temperature 0.1.

    Args:
        net: the judge's network.
        images: (N, 3, 64, 64) in [-1, 1].
        truth: (N, heads), class indices or :data:`IGNORE`.
        masks: (N, 64, 64), part indices.
        same: (N, N), True where two images show the same person.
    """
    logits, identity, parts = net(images)
    logits = {name: answer.float() for name, answer in logits.items()}
    identity, parts = identity.float(), parts.float()
    classes = torch.stack(
        [F.cross_entropy(logits[name], truth[:, i], ignore_index=IGNORE) for i, name in enumerate(logits)]
    )
    part = F.cross_entropy(parts, masks.long())
    similarity = (identity @ identity.T).float() / 0.1
    itself = torch.eye(len(images), dtype=torch.bool)
    log_share = similarity.masked_fill(itself, -1e4).log_softmax(dim=1)
    positives = (same & ~itself).float()
    person = -(log_share * positives).sum(dim=1).div(positives.sum(dim=1).clamp(min=1)).mean()
    return {
        "loss": classes.sum() + part + 0.3 * person,
        "classes": classes.detach().mean(),
        "parts": part.detach(),
        "identity": person.detach(),
    }


def train(folder: Path, autoencoder: AutoencoderKL, schedule: Schedule = SCHEDULE, final: bool = False) -> Judge:
    """Train or resume; returns the judge with averaged weights.

    Args:
        folder: of the portraits, and of what is kept in between.
        autoencoder: half of the images are decoded by it.
        schedule: of the training.
        final: train the judge of the last test, which knows all targets.
    """
    split = load_split(folder / "portraits", "final" if final else "mixed")
    portraits, images = split.portraits, torch.from_numpy(split.images)
    cached = folder / ("reconstructed-final.pt" if final else "reconstructed.pt")
    if not cached.exists():
        decoded = reconstruct(autoencoder, images[:RECONSTRUCTED], torch.Generator().manual_seed(1))
        temporary = cached.with_suffix(f".{os.getpid()}.tmp")
        torch.save(decoded.mul(127).to(torch.int8), temporary)
        temporary.replace(cached)
    clean = torch.cat([shrink(part) for part in images.split(500)])
    decoded = torch.load(cached, weights_only=True)
    assert split.masks is not None
    masks = torch.from_numpy(split.masks)
    truth = torch.tensor([answers(portrait, FINAL_HEADS if final else HEADS) for portrait in portraits])
    groups = list(pairs_by_identity(portraits).values())
    identities = {identity: number for number, identity in enumerate(sorted({p.identity for p in portraits}))}
    who = torch.tensor([identities[portrait.identity] for portrait in portraits])

    def step(net: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        first, second = zip(*(rng.sample(rng.choice(groups), 2) for _ in range(BATCH // 4)), strict=True)
        rest = torch.randint(len(decoded), (BATCH // 2,), generator=generator).tolist()
        chosen = torch.tensor([*first, *second, *rest])
        batch = clean[chosen]
        replaced = (torch.rand(len(chosen), generator=generator) < 0.9) & (chosen < len(decoded))
        batch[replaced] = decoded[chosen[replaced]].float().div(127)
        same = who[chosen][:, None] == who[chosen][None, :]
        return losses(net, roughen(batch, generator), truth[chosen], masks[chosen], same)

    torch.manual_seed(0)
    net = fit(FINAL_JUDGE if final else JUDGE, JudgeNet(final=final), step, schedule, folder)
    assert isinstance(net, JudgeNet)
    return Judge(net)


@torch.no_grad()
def accuracy(judge: Judge, autoencoder: AutoencoderKL, split: Split) -> dict[str, float]:
    """Share of correct classes per attribute, and of correct pixels, on renders that the autoencoder reconstructs."""
    images = torch.from_numpy(split.images)
    pictures = reconstruct(autoencoder, images, torch.Generator().manual_seed(0), noise=0.0)
    truth = torch.tensor([answers(portrait, judge.net.answers) for portrait in split.portraits])
    logits, parts = [], []
    for batch in pictures.split(100):
        answer, _, segments = judge.net(batch)
        logits.append(answer)
        parts.append(segments.argmax(dim=1))
    result = {}
    for column, name in enumerate(judge.net.answers):
        visible = truth[:, column] != IGNORE
        guess = torch.cat([answer[name] for answer in logits]).argmax(dim=1)
        result[name] = float((guess == truth[:, column])[visible].float().mean())
    if split.masks is not None:
        result["parts (pixels)"] = float((torch.cat(parts) == torch.from_numpy(split.masks)).float().mean())
    return result
