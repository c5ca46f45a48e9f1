"""The order of pretraining: portraits, autoencoder, CLIP, UNet, decoder, judge, preview, and the shipped folder.

Every finished part is kept in ``<work>/parts/<part>``. Calling again trains only what is missing, and resumes a part
that was interrupted from its checkpoint. A shipped model's parts can be taken, to train another network beside them.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, PixArtTransformer2DModel, UNet2DConditionModel
from transformers import CLIPModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from spf_lite.evaluation.judge import FINAL_JUDGE, Judge
from spf_lite.pretrain import autoencoder, clip, dataset, decoders, judge, ship, transformer, unet
from spf_lite.pretrain.loop import Schedule, process_state

logger = logging.getLogger(__name__)

PARTS = ("autoencoder", "clip", "unet", "decoder", "judge", "preview")
#: The second network, which is no part of the usual model.
TRANSFORMER = "transformer"
#: Where a shipped model holds its parts.
_SHIPPED = {"autoencoder": "vae", "decoder": "vae", **{part: part for part in ("clip", "unet", "judge", "preview")}}


def default_work_folder() -> Path:
    """Where pretraining keeps renders and checkpoints: outside the repository, which may be cloned anew."""
    return Path.home() / ".cache" / "spf-lite" / "pretrain"


def _longer(schedule: Schedule, steps: int | None) -> Schedule:
    return schedule if steps is None else replace(schedule, steps=steps, decay=min(schedule.decay, steps))


def _finished(path: Path, save: Callable[[Path], object], again: bool = False) -> None:
    """Write a finished part to ``path``, as a whole or not at all; of several processes only the main one writes."""
    state = process_state()
    if state.is_main_process:
        temporary = path.with_name(f"{path.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        if again:
            shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    state.wait_for_everyone()


def _autoencoder(work: Path, steps: int | None = None) -> AutoencoderKL:
    path = work / "parts" / "autoencoder"
    if not path.exists():
        _finished(path, autoencoder.train(work, _longer(autoencoder.SCHEDULE, steps)).save_pretrained)
    return AutoencoderKL.from_pretrained(path)


def _clip(work: Path, steps: int | None = None) -> tuple[CLIPModel, CLIPTokenizer]:
    path = work / "parts" / "clip"
    if not path.exists():
        model, tokenizer = clip.train(work, _longer(clip.SCHEDULE, steps))
        _finished(path, lambda folder: [part.save_pretrained(folder) for part in (tokenizer, model)])
    return CLIPModel.from_pretrained(path).eval(), CLIPTokenizer.from_pretrained(path)


def _unet(work: Path, steps: int | None = None) -> UNet2DConditionModel:
    path = work / "parts" / "unet"
    if steps is not None or not path.exists():
        model, tokenizer = _clip(work)
        trained = unet.train(work, _autoencoder(work), ship.text_tower(model), tokenizer, _longer(unet.SCHEDULE, steps))
        _finished(path, trained.save_pretrained, again=True)
    return UNet2DConditionModel.from_pretrained(path)


def _decoder(work: Path, steps: int | None = None) -> AutoencoderKL:
    path = work / "parts" / "decoder"
    if not path.exists():
        trained = decoders.train_decoder(work, _autoencoder(work), _longer(decoders.SCHEDULE, steps))
        _finished(path, trained.save_pretrained)
    return AutoencoderKL.from_pretrained(path)


def _judge(work: Path, steps: int | None = None) -> Judge:
    path = work / "parts" / "judge"
    if not path.exists():
        _finished(path, judge.train(work, _decoder(work), _longer(judge.SCHEDULE, steps)).save)
    return Judge.load(path)


def _final_judge(work: Path, steps: int | None = None) -> Judge:
    path = work / "parts" / FINAL_JUDGE
    if not path.exists():
        dataset.build(work / "portraits", splits=("final",))
        _finished(path, judge.train(work, _decoder(work), _longer(judge.SCHEDULE, steps), final=True).save)
    return Judge.load(path)


def _preview(work: Path, steps: int | None = None) -> AutoencoderTiny:
    path = work / "parts" / "preview"
    if not path.exists():
        trained = decoders.train_preview(work, _decoder(work), _longer(decoders.PREVIEW_SCHEDULE, steps))
        _finished(path, trained.save_pretrained)
    return AutoencoderTiny.from_pretrained(path)


def _transformer(work: Path, steps: int | None = None) -> tuple[PixArtTransformer2DModel, T5EncoderModel, T5Tokenizer]:
    path = work / "parts" / TRANSFORMER
    classes = (PixArtTransformer2DModel, T5EncoderModel, T5Tokenizer)
    names = (TRANSFORMER, "text_encoder", "tokenizer")
    if steps is not None or not path.exists():
        parts = transformer.train(work, _autoencoder(work), _longer(transformer.SCHEDULE, steps))
        kept = list(zip(names, parts, strict=True))
        _finished(path, lambda folder: [part.save_pretrained(folder / name) for name, part in kept], again=True)
    network, encoder, tokenizer = (kind.from_pretrained(path / name) for kind, name in zip(classes, names, strict=True))
    return network, encoder.eval(), tokenizer


def take_parts(folder: Path, work: Path) -> None:
    """Take the finished parts of a shipped model, so that another network can be trained beside them.

    Args:
        folder: of the model, as :func:`ship_all` writes it.
        work: of the pretraining; what it holds already is kept.

    Raises:
        ValueError: if the folder is no such model.
    """
    if lacking := sorted({name for name in _SHIPPED.values() if not (folder / name).is_dir()}):
        raise ValueError(f"{folder} holds no model of the tiny world: it lacks {', '.join(lacking)}")
    for part, name in _SHIPPED.items():
        if not (path := work / "parts" / part).exists():
            _finished(path, partial(shutil.copytree, folder / name))


def pretrain(part: str, work: Path, steps: int | None = None) -> None:
    """Train one part (and whatever it needs), or ``all``.

    Args:
        part: one of :data:`PARTS`, ``transformer`` (the second network), ``judge-final`` (the judge of the last test),
            or ``all``, which is :data:`PARTS`.
        work: the folder of renders, checkpoints, logs and finished parts.
        steps: train the part for this many steps instead of its schedule's; a finished UNet or transformer is trained
            further if it has had fewer.

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
        TRANSFORMER: _transformer,
        FINAL_JUDGE: _final_judge,
    }
    if part != "all" and part not in makers:
        raise ValueError(f"unknown part {part!r}: expected all, {', '.join(makers)}")
    dataset.build(work / "portraits")
    for name in PARTS if part == "all" else (part,):
        logger.info("pretraining: %s", name)
        makers[name](work, steps)


def ship_all(work: Path, folder: Path) -> None:
    """Put the finished parts together in ``folder`` (``data_samples/tiny-portraits``)."""
    model, tokenizer = _clip(work)
    _ship(work, folder, ship.assemble(_decoder(work), model, tokenizer, _unet(work)), ship.LOGGED)


def ship_transformer(work: Path, folder: Path) -> None:
    """Put the transformer together with the other parts in ``folder``, as a pipeline of PixArt-Sigma's class."""
    _ship(work, folder, ship.assemble_transformer(_decoder(work), *_transformer(work)), [TRANSFORMER])


def _ship(work: Path, folder: Path, pipeline: DiffusionPipeline, logged: Sequence[str]) -> None:
    """Write a pipeline, and beside it what measures and previews it and the logs of some parts."""
    ship.ship(pipeline, *_clip(work), folder)
    ship.ship_judge(_judge(work), folder)
    ship.ship_preview(_preview(work), folder)
    ship.ship_log(work, folder, logged)


def ship_final_judge(work: Path, folder: Path) -> None:
    """Put the judge of the last test beside a model in ``folder``."""
    ship.ship_judge(_final_judge(work), folder, FINAL_JUDGE)
