"""The autoencoder: 128 x 128 pixels to 4 x 16 x 16 latents and back, factor 8 as in Stable Diffusion.

Most steps are made on 64-pixel crops (a quarter of the cost, so four times as many pictures), the others on whole
portraits: group normalisation sees the statistics of an image, those of a crop differ, and a network that has only met
crops puts noise in the flat areas of a portrait. An L1 loss with an edge term keeps flat vector art crisp, an L2 term
hurries the large mistakes (a pink wall taken for a yellow one); a KL term makes the latents smooth
enough to be denoised by a small UNet, and the decoder deaf to the UNet's small errors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from spf_lite.pretrain.dataset import Split, load_split
from spf_lite.pretrain.loop import Schedule, fit

SCHEDULE = Schedule(steps=6000, learning_rate=1.5e-3, warmup=50, decay=2500, ema=0.995, weight_decay=0.0)
CROPS, WHOLE = 8, 2  # how many in a batch: the same number of pixels
CROP_SHARE = 0.75
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5
L2_WEIGHT = 3.0


def build() -> AutoencoderKL:
    """The untrained network (fully convolutional: no attention in the middle)."""
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
    # Begin with a narrow posterior: at the default width (1) the decoder learns to ignore latents that are mostly
    # noise.
    with torch.no_grad():
        model.quant_conv.weight[4:] *= 0.1
        model.quant_conv.bias[4:] -= 6.0
    return model


@torch.no_grad()
def _begin_as_pooling(model: AutoencoderKL) -> None:
    """Start as "average 8 x 8 pixels, then repeat them": the residual branches at zero, the path around them linear.

    From PyTorch's default weights the unnormalised path (down- and upsampling) loses most of the signal, and the
    network takes ten times as long to learn that a background can be pink.
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
    """Differences of neighbouring pixels, across and down."""
    return images.diff(dim=-1), images.diff(dim=-2)


def losses(model: AutoencoderKL, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """L1, edge and KL terms of a batch in [-1, 1]; ``loss`` is their weighted sum.

    Args:
        model: the autoencoder.
        images: (B, 3, height, width).
        noise: (B, 4, height / 8, width / 8), standard normal: where in the posterior to sample.
    """
    posterior = model.encode(images).latent_dist
    decoded = model.decode(posterior.mean + posterior.std * noise).sample.float()
    l1, l2 = (decoded - images).abs().mean(), (decoded - images).square().mean()
    edge = torch.stack([(a - b).abs().mean() for a, b in zip(edges(decoded), edges(images), strict=True)]).mean()
    kl = posterior.kl().mean() / noise[0].numel()
    # The KL term waits until the latents carry something: before, it is the only gradient that the encoder gets, Adam
    # scales it up, and the latents collapse for good.
    patience = (l1.detach() < 0.2).float()
    return {
        "loss": l1 + L2_WEIGHT * l2 + EDGE_WEIGHT * edge + KL_WEIGHT * patience * kl,
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
    """Give every latent channel mean 0 and variance 1 by folding both into the 1x1 convolutions around the latents.

    Stable Diffusion has one scaling factor for all channels (Rombach et al. 2022, app. G) and no shift; a UNet learns
    faster when no channel is off-centre or louder than the others. What the decoder draws stays the same.
    """
    images = torch.from_numpy(split.images[:count])
    latents = encode_split(model, images)
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    inward, outward = model.quant_conv, model.post_quant_conv
    channels = len(mean)
    inward.weight[:channels] /= deviation[:, None, None, None]
    inward.bias[:channels] = (inward.bias[:channels] - mean) / deviation
    inward.bias[channels:] -= 2 * deviation.log()  # the second half is the logarithm of the posterior's variance
    outward.bias += (outward.weight[:, :, 0, 0] * mean).sum(dim=1)
    outward.weight *= deviation[None, :, None, None]
    model.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def encode_split(model: AutoencoderKL, images: Tensor, batch: int = 32) -> Tensor:
    """Posterior means, unscaled: uint8 (N, 128, 128, 3) to float (N, 4, 16, 16)."""
    return torch.cat([model.encode(to_tensor(part)).latent_dist.mean for part in images.split(batch)]).contiguous()
