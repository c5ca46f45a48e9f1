"""The rendered portraits that all parts are trained on, in chunks on disk, so that rendering can be interrupted.

Three splits, each a function of its name and chunk number alone:

- ``base``: no targets; the only split that the UNet is trained on.
- ``mixed``: 60 % show one target; for the autoencoder, CLIP and the judge, which must know the targets.
- ``held-out``: like ``mixed``, never trained on.

The judge of the last test has two more, ``final`` and ``final-held-out``, like the last two with all targets.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from spf_lite.files import replacing
from spf_lite.tiny_world.portraits import FINAL_TARGETS, TARGETS, Portrait, random_portrait
from spf_lite.tiny_world.rendering import part_mask, render

CHUNK = 1000
#: How many chunks of :data:`CHUNK` portraits each split has.
SPLITS: dict[str, int] = {"base": 12, "mixed": 12, "held-out": 1}
FINAL_SPLITS: dict[str, int] = {"final": 12, "final-held-out": 1}
MASK_SIZE = 64


def chunks_of(split: str) -> int:
    """How many chunks a split has."""
    return {**SPLITS, **FINAL_SPLITS}[split]


def portraits_of(split: str, chunk: int) -> list[Portrait]:
    """The portraits of one chunk, sampled from its name as seed: only pixels need to be stored."""
    rng = Random(f"{split}-{chunk}")
    targets = [*TARGETS, *(FINAL_TARGETS if split in FINAL_SPLITS else ())]
    result = []
    for _ in range(CHUNK):
        portrait = random_portrait(rng)
        if split != "base" and rng.random() < 0.6:
            portrait = portrait.with_targets(rng.choice(targets))
        result.append(portrait)
    return result


def _render_chunk(job: tuple[str, int], folder: Path, size: int) -> None:
    split, chunk = job
    path = folder / f"{split}-{chunk:03d}.npz"
    if path.exists():
        return
    portraits = portraits_of(split, chunk)
    arrays: dict[str, NDArray[np.uint8]] = {"images": np.stack([np.asarray(render(p, size)) for p in portraits])}
    if split != "base":
        arrays["masks"] = np.stack([part_mask(p, MASK_SIZE) for p in portraits])
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def build(
    folder: Path, size: int = 128, workers: int = 2, splits: Sequence[str] = ("mixed", "held-out", "base")
) -> None:
    """Render the chunks that are missing in ``folder``; may be interrupted and repeated.

    Args:
        folder: of the chunks, ``<split>-<number>.npz``.
        size: of an image, in pixels.
        workers: processes that render.
        splits: which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(split, chunk) for split in splits for chunk in range(chunks_of(split))]
    todo = [job for job in jobs if not (folder / f"{job[0]}-{job[1]:03d}.npz").exists()]
    if not todo:
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        work = pool.imap_unordered(partial(_render_chunk, folder=folder, size=size), todo)
        for _ in tqdm(work, total=len(todo), desc="render", unit="chunk"):
            pass


@dataclass(frozen=True)
class Split:
    """One split in memory: ``images`` uint8 (N, H, W, 3), ``masks`` uint8 (N, 64, 64) or None, ``portraits``."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    portraits: list[Portrait]


def load_split(folder: Path, split: str, chunks: int | None = None) -> Split:
    """Read the first ``chunks`` chunks of a split (all of them by default)."""
    images, masks, portraits = [], [], []
    for chunk in range(chunks_of(split) if chunks is None else chunks):
        with np.load(folder / f"{split}-{chunk:03d}.npz") as data:
            images.append(data["images"])
            if "masks" in data:
                masks.append(data["masks"])
        portraits += portraits_of(split, chunk)
    return Split(np.concatenate(images), np.concatenate(masks) if masks else None, portraits)
