"""The autoencoder: 128 x 128 pixels to 4 x 16 x 16 latents and back, factor 8 as in Stable Diffusion.

Three of four steps are made on 64-pixel crops, which cost a quarter, the others on whole portraits. Group normalisation
uses the statistics of the image, and those of a crop differ: a network trained on crops alone puts noise into the flat
areas of a portrait.

Four loss terms: L1, and the L1 of differences between neighbouring pixels, keep the edges of flat drawings sharp; L2
corrects large errors early (a pink background decoded as yellow); KL makes latents smooth enough for a small UNet to
denoise, and the decoder robust to the UNet's small errors.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from spf_lite.pretrain.dataset import SPLITS, Split, load_split
from spf_lite.pretrain.loop import Schedule, fit

SCHEDULE = Schedule(steps=6000, learning_rate=1.5e-3, warmup=50, decay=2500, ema=0.995, weight_decay=0.0)
CROPS, WHOLE = 8, 2  # batch sizes with the same number of pixels
CROP_SHARE = 0.75
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5
L2_WEIGHT = 3.0


def build() -> AutoencoderKL:
    """The untrained network, fully convolutional: without attention in the middle block."""
    torch.manual_seed(0)
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 24, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=128,
        mid_block_add_attention=False,
    )
    _begin_as_pooling(model)
    # Start with a narrow posterior. At the default width of 1 the latents are mostly noise, and the decoder learns to
    # ignore them.
    with torch.no_grad():
        model.quant_conv.weight[4:] *= 0.1
        model.quant_conv.bias[4:] -= 6.0
    return model


@torch.no_grad()
def _begin_as_pooling(model: AutoencoderKL) -> None:
    """Initialise as "average 8 x 8 pixels, then repeat them": residual branches are zero, the skip path is linear.

    With PyTorch's default initialisation the skip path (down- and upsampling without normalisation) loses most of the
    signal, and the network takes ten times as long to learn the colour of a background.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if name.endswith("conv2"):
            nn.init.zeros_(layer.weight)
        elif "downsamplers" in name:
            nn.init.zeros_(layer.weight)
            for channel in range(layer.out_channels):
                layer.weight[channel, channel, :2, :2] = 0.25
        elif "upsamplers" in name:
            nn.init.dirac_(layer.weight)
        elif "conv_shortcut" in name or name.endswith("coder.conv_in"):
            nn.init.orthogonal_(layer.weight)
        else:
            nn.init.xavier_normal_(layer.weight)


def to_tensor(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in [-1, 1], the range that diffusers' autoencoders expect."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, horizontally (..., H, W - 1) and vertically (..., H - 1, W)."""
    return images.diff(dim=-1), images.diff(dim=-2)


def edge_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean absolute difference between the edges of two batches (B, 3, H, W), over both directions; a scalar."""
    return torch.stack([(a - b).abs().mean() for a, b in zip(edges(decoded), edges(images), strict=True)]).mean()


def losses(model: AutoencoderKL, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """L1, L2, edge and KL terms of a batch; ``loss`` is their weighted sum, the others are detached.

    Args:
        model: the autoencoder.
        images: (B, 3, H, W) in [-1, 1].
        noise: (B, 4, H / 8, W / 8), standard normal, with which to sample from the posterior.
    """
    posterior = model.encode(images).latent_dist
    decoded = model.decode(posterior.mean + posterior.std * noise).sample.float()
    l1, l2 = (decoded - images).abs().mean(), (decoded - images).square().mean()
    edge = edge_loss(decoded, images)
    kl = posterior.kl().mean() / noise[0].numel()
    # No KL term until the latents carry information. Before, it would be the encoder's only gradient, which Adam would
    # scale up, and the latents would collapse for good.
    informative = (l1.detach() < 0.2).float()
    return {
        "loss": l1 + L2_WEIGHT * l2 + EDGE_WEIGHT * edge + KL_WEIGHT * informative * kl,
        "l1": l1.detach(),
        "edge": edge.detach(),
        "kl": kl.detach(),
    }


def train(folder: Path, schedule: Schedule = SCHEDULE) -> AutoencoderKL:
    """Train or resume; returns the autoencoder with averaged weights and standardised latents."""
    base, mixed = load_split(folder / "portraits", "base", 8), load_split(folder / "portraits", "mixed")
    pool = torch.cat([torch.from_numpy(mixed.images), torch.from_numpy(base.images)])

    def step(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, AutoencoderKL)
        if torch.rand((), generator=generator) < CROP_SHARE:
            chosen = torch.randint(len(pool), (CROPS,), generator=generator)
            top, left = (8 * torch.randint(9, (2, CROPS), generator=generator)).tolist()
            crops = [pool[i, y : y + 64, x : x + 64] for i, y, x in zip(chosen.tolist(), top, left, strict=True)]
            images = to_tensor(torch.stack(crops))
        else:
            images = to_tensor(pool[torch.randint(len(pool), (WHOLE,), generator=generator)])
        size = images.shape[-1] // 8
        return losses(model, images, torch.randn(len(images), 4, size, size, generator=generator))

    model = fit("autoencoder", build(), step, schedule, folder)
    assert isinstance(model, AutoencoderKL)
    standardize(model, mixed)
    return model


@torch.no_grad()
def standardize(model: AutoencoderKL, split: Split, count: int = 1024) -> None:
    """Give every latent channel mean 0 and variance 1, by folding both into the 1x1 convolutions around the latents.

    Stable Diffusion has one scaling factor for all channels (Rombach et al. 2022, app. G) and no shift. A UNet learns
    faster when all channels have the same mean and variance. Decoded images do not change.
    """
    images = torch.from_numpy(split.images[:count])
    latents = encode_split(model, images)
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    inward, outward = model.quant_conv, model.post_quant_conv
    channels = len(mean)
    inward.weight[:channels] /= deviation[:, None, None, None]
    inward.bias[:channels] = (inward.bias[:channels] - mean) / deviation
    inward.bias[channels:] -= 2 * deviation.log()  # the second half: log-variance of the posterior
    outward.bias += (outward.weight[:, :, 0, 0] * mean).sum(dim=1)
    outward.weight *= deviation[None, :, None, None]
    model.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def encode_split(model: AutoencoderKL, images: Tensor, batch: int = 32) -> Tensor:
    """Posterior means, unscaled: uint8 (N, 128, 128, 3) to float (N, 4, 16, 16)."""
    return torch.cat([model.encode(to_tensor(part)).latent_dist.mean for part in images.split(batch)]).contiguous()


def encoded_latents(folder: Path, autoencoder: AutoencoderKL) -> Tensor:
    """The base split as scaled latents (N, 4, 16, 16); each chunk is encoded once and kept beside the portraits."""
    latents = []
    for chunk in range(SPLITS["base"]):
        path = folder / "latents" / f"base-{chunk:03d}.pt"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with np.load(folder / "portraits" / f"base-{chunk:03d}.npz") as data:
                images = torch.from_numpy(data["images"])
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            torch.save(encode_split(autoencoder, images), temporary)
            temporary.replace(path)
        latents.append(torch.load(path, weights_only=True))
    return torch.cat(latents) * float(autoencoder.config["scaling_factor"])
