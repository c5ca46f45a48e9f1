"""One step at full shape. It takes minutes and 8 GB, so it runs only where ``SPF_LITE_FULL_SHAPES`` is set."""

import os
import re
from pathlib import Path

import pytest
import torch

from spf_lite.method.dual_path import dual_path_step
from spf_lite.models.backbone import Backbone
from spf_lite.profiling.cost import DUAL
from spf_lite.profiling.memory import step_memory
from spf_lite.profiling.random_models import random_batch
from spf_lite.profiling.shape_cost import fill
from spf_lite.profiling.shapes import shape_on_meta

PIXELS, DTYPE = 512, torch.bfloat16


def memory(line: str) -> int:
    """A line of this process's status: ``VmRSS``, what it has now, or ``VmHWM``, the most it had. In bytes."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(rf"{line}:\s+(\d+) kB", status)
    return 1024 * int(kilobytes)


@pytest.mark.skipif(not os.environ.get("SPF_LITE_FULL_SHAPES"), reason="minutes, and 8 GB of memory")
def test_the_counted_peak_of_stable_diffusion_xl_is_the_measured_one(toy: Backbone) -> None:
    before = memory("VmRSS")
    backbone = shape_on_meta("sdxl", toy, DTYPE)
    counted = step_memory(backbone, "dual path", PIXELS, DTYPE, checkpointing=True).parts(1)
    expected = sum(counted.values()) - counted["text encoder, autoencoder"] - counted["CLIP"]  # which stay on "meta"

    network = backbone.network
    fill(network)
    network.enable_gradient_checkpointing()
    network.train()
    assert backbone.trainable is not None
    optimizer = torch.optim.AdamW(list(backbone.trainable.parameters))
    batch = random_batch(backbone, 1, side=PIXELS // backbone.pipe.vae_scale_factor, features=1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    with torch.autocast("cpu", DTYPE):
        noise, times = torch.zeros_like(batch.latents), torch.tensor([500])
        with dual_path_step(backbone, batch, noise, times, DUAL) as step:
            torch.stack([term.mean() for term in step.terms.values()]).sum().backward()
    optimizer.step()
    peak = memory("VmHWM") - before
    print(f"counted {expected / 1e9:.2f} GB, measured {peak / 1e9:.2f} GB")
    assert peak == pytest.approx(expected, rel=0.15)
    assert memory("VmHWM") < 24e9
