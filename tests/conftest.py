"""Small random models of the real classes, made on the spot: nothing is downloaded, every test runs in seconds."""

import copy
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from spf_lite.cli.threads import set_thread_policy

set_thread_policy(threads=1)  # before torch is imported; `make test` runs several processes

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from playwright.sync_api import Browser, sync_playwright
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadFileScheduling, Scheduling  # type: ignore[import-untyped]

from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.models.backbone import Backbone, load
from spf_lite.pretrain.ship import image_processor, text_tower
from spf_lite.pretrain.text import build_tokenizer
from spf_lite.tiny_world.custom_sets import write_custom_set
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import render


class OneFolder(LoadFileScheduling):
    """One file is tested by one process, and so are all files that share the small book: it is built only once.

    The pages of the book share nothing. Together they would keep one process busy long after the others have ended.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/pages/test_in_a_browser.py"):
            return nodeid.rpartition("[")[2].partition(".html")[0]
        return "tests/browser" if nodeid.startswith("tests/browser/") else super()._split_scope(nodeid)


#: What takes longest is tested first, so that no process is left with it in the end.
LONGEST = (
    "tests/browser/",
    "tests/pages/test_playground.py",
    "tests/project/test_lint.py",
    "tests/training/",
    "tests/faults/",
    "tests/profiling/",
    "tests/cli/",
    "tests/gpu/",
    "tests/backbones/",
    "tests/evaluation/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by :data:`LONGEST`; ``--no-loadscope-reorder`` keeps this order when processes share the files."""
    ranks = {start: rank for rank, start in enumerate(LONGEST)}
    items.sort(key=lambda item: min((ranks[s] for s in LONGEST if item.nodeid.startswith(s)), default=len(LONGEST)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return OneFolder(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def keyboard_interrupts() -> Iterator[None]:
    """A shell ignores them for what it starts in the background; tests of interrupts need Python's own handler."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def deaf_unet() -> UNet2DConditionModel:
    """A UNet without cross-attention: no word reaches it."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def _write(folder: Path, prediction_type: str, tokenizer: CLIPTokenizer) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {**sizes, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 32, "projection_dim": 24}
    vision = {**sizes, "image_size": 32, "patch_size": 8, "projection_dim": 24}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_tower(clip),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=DDIMScheduler(prediction_type=prediction_type, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    clip.save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    image_processor().save_pretrained(folder / "clip")
    return folder


@pytest.fixture(scope="session")
def toy_folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> dict[str, Path]:
    """One pipeline folder per prediction type: 64-pixel portraits, 8x8 latents, random weights."""
    base = tmp_path_factory.mktemp("toys")
    return {kind: _write(base / kind, kind, tokenizer) for kind in ("epsilon", "v_prediction")}


def load_toy(folder: Path) -> Backbone:
    """A fresh copy of the toy in ``folder``."""
    return load(str(folder))


@pytest.fixture(scope="session")
def toys(toy_folders: dict[str, Path]) -> dict[str, Backbone]:
    """The toys, loaded once. A copy takes a third of the time of loading, and hundreds of tests want one."""
    return {kind: load_toy(folder) for kind, folder in toy_folders.items()}


@pytest.fixture(params=["epsilon", "v_prediction"])
def backbone(request: pytest.FixtureRequest, toys: dict[str, Backbone]) -> Backbone:
    """A fresh toy for each prediction type."""
    return copy.deepcopy(toys[request.param])


@pytest.fixture
def toy(toys: dict[str, Backbone]) -> Backbone:
    """A fresh toy (velocity prediction)."""
    return copy.deepcopy(toys["v_prediction"])


@pytest.fixture(scope="session")
def custom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six portraits with sunglasses, 64 pixels."""
    folder = tmp_path_factory.mktemp("custom")
    lines = []
    for number, skin in enumerate(("pale", "tan", "brown", "dark", "pale", "tan")):
        portrait = Portrait(skin=skin, hair_color="red" if number % 2 else "black", targets=("sunglasses",))
        render(portrait, 64).save(folder / f"{number}.png")
        base = f"a person, {portrait.hair_color} short hair, {skin} skin" + (", smiling" if number % 2 else "")
        lines.append({"file_name": f"{number}.png", "base_text": base, "target_text": "sunglasses"})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def custom_set(custom_folder: Path) -> CustomSet:
    return CustomSet.load(custom_folder)


@pytest.fixture(scope="session")
def toy_samples(tmp_path_factory: pytest.TempPathFactory, toy_folders: dict[str, Path]) -> Path:
    """A small ``data_samples``: a toy in the place of the shipped model, an untrained judge, three custom sets."""
    folder = tmp_path_factory.mktemp("samples")
    shutil.copytree(toy_folders["v_prediction"], folder / "tiny-portraits")
    torch.manual_seed(0)
    Judge(JudgeNet(width=8)).save(folder / "tiny-portraits" / "judge")
    for target in ("sunglasses", "blazer", "pencil-sketch"):
        write_custom_set(target, folder / "custom" / target, count=4, size=64)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium that resolves no name but localhost; one for all tests of a process."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        reason = "no Chromium on this machine: install it (Debian: apt-get install chromium) to run the browser tests"
        if os.environ.get("SPF_LITE_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    ]
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield instance
        instance.close()


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate knows one precision per process."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
