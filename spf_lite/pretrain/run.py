"""The order of pretraining: portraits, autoencoder, CLIP, UNet, decoder, judge, preview, and the shipped folder.

Every finished part is kept in ``<work>/parts/<part>``; calling again goes on with whatever is missing, and a part that
was interrupted resumes from its checkpoint.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPModel, CLIPTokenizer

from spf_lite.evaluation.judge import Judge
from spf_lite.pretrain import autoencoder, clip, dataset, decoder, judge, preview, ship, unet
from spf_lite.pretrain.loop import Schedule

logger = logging.getLogger(__name__)

PARTS = ("autoencoder", "clip", "unet", "decoder", "judge", "preview")


def default_work_folder() -> Path:
    """Where pretraining keeps renders and checkpoints: outside the repository, which may be cloned anew."""
    return Path.home() / ".cache" / "spf-lite" / "pretrain"


def _longer(schedule: Schedule, steps: int | None) -> Schedule:
    return schedule if steps is None else replace(schedule, steps=steps, decay=min(schedule.decay, steps))


def _autoencoder(work: Path, steps: int | None = None) -> AutoencoderKL:
    path = work / "parts" / "autoencoder"
    if not path.exists():
        autoencoder.train(work, _longer(autoencoder.SCHEDULE, steps)).save_pretrained(path)
    return AutoencoderKL.from_pretrained(path)


def _clip(work: Path, steps: int | None = None) -> tuple[CLIPModel, CLIPTokenizer]:
    path = work / "parts" / "clip"
    if not path.exists():
        model, tokenizer = clip.train(work, _longer(clip.SCHEDULE, steps))
        tokenizer.save_pretrained(path)
        model.save_pretrained(path)
    return CLIPModel.from_pretrained(path).eval(), CLIPTokenizer.from_pretrained(path)


def _unet(work: Path, steps: int | None = None) -> UNet2DConditionModel:
    path = work / "parts" / "unet"
    if steps is not None or not path.exists():
        model, tokenizer = _clip(work)
        trained = unet.train(work, _autoencoder(work), ship.text_tower(model), tokenizer, _longer(unet.SCHEDULE, steps))
        trained.save_pretrained(path)
    return UNet2DConditionModel.from_pretrained(path)


def _decoder(work: Path, steps: int | None = None) -> AutoencoderKL:
    path = work / "parts" / "decoder"
    if not path.exists():
        decoder.train(work, _autoencoder(work), _longer(decoder.SCHEDULE, steps)).save_pretrained(path)
    return AutoencoderKL.from_pretrained(path)


def _judge(work: Path, steps: int | None = None) -> Judge:
    path = work / "parts" / "judge"
    if not path.exists():
        judge.train(work, _decoder(work), _longer(judge.SCHEDULE, steps)).save(path)
    return Judge.load(path)


def _preview(work: Path, steps: int | None = None) -> AutoencoderTiny:
    path = work / "parts" / "preview"
    if not path.exists():
        preview.train(work, _decoder(work), _longer(preview.SCHEDULE, steps)).save_pretrained(path)
    return AutoencoderTiny.from_pretrained(path)


def pretrain(part: str, work: Path, steps: int | None = None) -> None:
    """Train one part (and whatever it needs), or ``all``.

    Args:
        part: one of :data:`PARTS`, or ``all``.
        work: the folder of renders, checkpoints, logs and finished parts.
        steps: train the part for this many steps instead of its schedule's; a finished UNet is trained on when there
            are more of them than it has had.

    Raises:
        ValueError: for an unknown part.
    """
    makers = {
        "autoencoder": _autoencoder,
        "clip": _clip,
        "unet": _unet,
        "decoder": _decoder,
        "judge": _judge,
        "preview": _preview,
    }
    if part != "all" and part not in makers:
        raise ValueError(f"unknown part {part!r}: expected all, {', '.join(PARTS)}")
    dataset.build(work / "portraits")
    for name in PARTS if part == "all" else (part,):
        logger.info("pretraining: %s", name)
        makers[name](work, steps)


def ship_all(work: Path, folder: Path) -> None:
    """Put the finished parts together in ``folder`` (``data_samples/tiny-portraits``)."""
    model, tokenizer = _clip(work)
    ship.ship(ship.assemble(_decoder(work), model, tokenizer, _unet(work)), model, folder)
    ship.ship_judge(_judge(work), folder)
    ship.ship_preview(_preview(work), folder)
    ship.ship_log(work, folder)
