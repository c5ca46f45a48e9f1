"""Bad inputs, made at random: each kind makes a case from a random generator and tries it on the library.

A case ends in success or in an error that names the input. Everything else is a fault.
"""

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.prompts import encode_pair
from spf_lite.data.sets.custom_set import CustomSet, CustomSetError
from spf_lite.models.adapters.lora_file import read_lora
from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.errors import BackboneError
from spf_lite.models.tokenizer import PromptError
from spf_lite.training.recipes import RECIPES, recipe
from spf_lite.training.run.checkpoint import RunFolder, RunFolderError
from spf_lite.training.run.identity import RunIdentity

GOOD = {"file_name": "a.png", "base_text": "a person, red hair", "target_text": "sunglasses"}
#: Values that turn up where something else was expected.
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 3, 2**70, 0.5, -0.0, 1e308, math.nan, math.inf, "", " ", "\t\n", "a", "é", "\U0001f60e", "\x00",
    "a.png", "../a.png", "/etc/passwd", "a person", "hair" * 400, ",,,", "sunglasses", [], [1], ["a person"], [""], {},
    {"a": 1}, [[]],
)  # fmt: skip
CONFIG = TrainConfig(stage1_steps=3, stage2_steps=0)
RUN = RunIdentity(CONFIG, "sunglasses", "1" * 64, "2" * 64, "3" * 64, "4" * 64, None, "float32")


@dataclass
class World:
    """What the cases are tried on; loaded once.

    Attributes:
        folder: for files of a case; emptied between cases.
        tokenizer: of the tiny model.
        lora: on a small UNet, of rank 2.
        factors: its low-rank factors.
        checkpoint: a good checkpoint's bytes.
    """

    folder: Path
    tokenizer: Any
    lora: Lora
    factors: dict[str, Tensor] = field(default_factory=dict)
    checkpoint: bytes = b""

    def __post_init__(self) -> None:
        self.factors = {name: value.clone() for name, value in self.lora.state().items()}
        folder = RunFolder(self.folder / "good", RUN)
        with folder.in_use():
            folder.begin()
            folder.save({"step": 1}, [{"step": 0}])
        self.checkpoint = (self.folder / "good" / "checkpoint.pt").read_bytes()
        shutil.rmtree(self.folder / "good")


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Cut, flip, insert or repeat some bytes."""
    place = rng.randrange(len(content) + 1)
    return rng.choice(
        [
            content[:place],
            content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :],
            content[:place] + rng.randbytes(rng.randrange(1, 9)) + content[place:],
            content + content[:place],
            b"\xef\xbb\xbf" + content,
            content.replace(b"\n", b"\r\n"),
            b"",
        ]
    )


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def metadata_lines(rng: random.Random, world: World) -> str:
    """Lines with odd values, missing and additional keys, damaged bytes, several sets at once."""
    Image.new("RGB", (8, 8), "red").save(world.folder / "a.png")
    lines = []
    for _ in range(rng.randrange(1, 4)):
        entry: dict[str, Any] = dict(GOOD)
        for _ in range(rng.randrange(3)):
            key = rng.choice([*GOOD, "phrases", "replaces", "mask_file", "text", "other"])
            entry[key] = rng.choice(ODD)
        for key in list(entry):
            if rng.random() < 0.05:
                del entry[key]
        lines.append(json.dumps(rng.choice(ODD) if rng.random() < 0.1 else entry, ensure_ascii=rng.random() < 0.5))
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    _put(world.folder / "metadata.jsonl", damaged(rng, content) if rng.random() < 0.5 else content)
    if rng.random() < 0.2:
        _put(world.folder / "references.jsonl", damaged(rng, content))
    CustomSet.load(world.folder, rng.choice(["named", "named", "named", "silent", "loud"]))
    return str(world.folder)


def images(rng: random.Random, world: World) -> str:
    """Every mode and format, odd sizes, damaged files, files that are no images, masks that do not fit."""
    mode = rng.choice(["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr"])
    size = (rng.choice([1, 7, 8, 64, 65]), rng.choice([1, 8, 33, 64]))
    file = world.folder / "a.png"
    formats = {"RGB": ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"], "CMYK": ["JPEG", "TIFF"], "F": ["TIFF"]}
    kind = rng.choice(formats.get(mode, ["TIFF"] if mode in ("YCbCr", "I") else ["PNG"]))
    Image.new(mode, size).save(file, kind)
    roll = rng.random()
    if roll < 0.5:
        file.write_bytes(damaged(rng, file.read_bytes()))
    elif roll < 0.55:
        file.unlink()
        file.mkdir()
    entry: dict[str, Any] = dict(GOOD)
    if rng.random() < 0.2:
        Image.new("L", (rng.choice([1, 8]), 8)).save(world.folder / "mask.png")
        entry["mask_file"] = "mask.png"
    _put(world.folder / "metadata.jsonl", json.dumps(entry).encode())
    CustomSet.load(world.folder)
    return str(file)


def prompts(rng: random.Random, world: World) -> str:
    """Texts of words, punctuation, controls and other scripts; phrases and replacements that may not be there."""
    pieces = ["a person", "red hair", ",", ",,", " ", "\n", "\t", "\x00", "\u200b", "é", "\U0001f60e", "漢字", "'s",
              "sunglasses", "hair " * 20, "\ufeff", "\u0301", "<|endoftext|>", "İ", "ﬁ"]  # fmt: skip

    def text() -> str:
        return "".join(rng.choice(pieces) for _ in range(rng.randrange(6)))

    base = text()
    replaces = rng.choice([None, None, base[1:4], text()])
    phrases = rng.choice([None, None, [], [base[:5]], [text()], [base, base]])
    encode_pair(world.tokenizer, base, text(), replaces=replaces, phrases=phrases)
    return base


def adapter_files(rng: random.Random, world: World) -> str:
    """Files with odd keys, shapes, types, values and damaged bytes, and folders where files should be."""
    tensors = {f"unet.{name}": value.clone() for name, value in world.factors.items()}
    for _ in range(rng.randrange(3)):
        name = rng.choice(list(tensors))
        value = tensors.pop(name)
        change = rng.randrange(7)
        if change == 0:
            tensors[rng.choice(["base_model.model.", "lora_unet_", "", "text_encoder."]) + name] = value
        elif change == 1:
            tensors[name] = value[:1] if rng.random() < 0.5 else value.T.contiguous()
        elif change == 2:
            tensors[name] = value.to(rng.choice([torch.float16, torch.bfloat16, torch.int8, torch.float64]))
        elif change == 3:
            tensors[name] = torch.full_like(value, rng.choice([math.nan, math.inf, 0.0]))
        elif change == 4:
            tensors[name], tensors[f"{name}.alpha"] = value, torch.tensor(4.0)
        elif change == 5:
            tensors[name] = torch.zeros(rng.choice([(), (0,), (2, 2, 2), (1,)]))
    file = world.folder / rng.choice(["pytorch_lora_weights.safetensors", "other.safetensors"])
    save_file(tensors, file)
    if rng.random() < 0.3:
        file.write_bytes(damaged(rng, file.read_bytes()))
    path = rng.choice([world.folder, file, file.with_name("nowhere")])
    if rng.random() < 0.5:
        read_lora(path, world.lora.network)
    else:
        world.lora.start_from(read_lora(path, world.lora.network))
        if not all(bool(value.isfinite().all()) for value in world.lora.state().values()):
            raise AssertionError("an adapter that is not finite was taken")
    return str(path)


def configurations(rng: random.Random, world: World) -> str:
    """Changes, recipe names and JSON with odd names and values."""
    names = [option.name for option in fields(TrainConfig)] + ["control.threshold", "control.rank", "steps", "", "="]
    if rng.random() < 0.5:
        values = ["1", "0", "-1", "nan", "inf", "1e400", "", "x", "true", "0.5", "1_0", " 2", "lora", "٣", "9" * 5000]
        change = f"{rng.choice(names)}{rng.choice(['=', '=', '==', ' = ', ''])}{rng.choice(values)}"
        config = recipe(f"{rng.choice([*RECIPES, 'magic', ''])},{change}") if rng.random() < 0.5 else None
        config = config or CONFIG.changed([change])
        text = change
    else:
        content = json.loads(CONFIG.to_json())
        target = content["control"] if rng.random() < 0.3 else content
        for _ in range(rng.randrange(3)):
            target[rng.choice([*target, "other"])] = rng.choice(ODD)
        text = json.dumps(rng.choice([content, content, content, rng.choice(ODD)]))
        text = damaged(rng, text.encode()).decode(errors="replace") if rng.random() < 0.3 else text
        config = TrainConfig.from_json(text)
    if TrainConfig.from_json(config.to_json()) != config:
        raise AssertionError("a configuration was accepted that does not survive being saved")
    return text


def run_folders(rng: random.Random, world: World) -> str:
    """Folders with damaged, missing and foreign files, asked for in every way."""
    folder = world.folder / "run"
    log = json.dumps({"step": 0}).encode() + b"\n"
    files = {
        "run.json": RUN.to_json().encode(),
        "config.json": CONFIG.to_json().encode(),
        "checkpoint.pt": world.checkpoint,
        "log.jsonl": log,
    }
    for name, content in files.items():
        roll = rng.random()
        if roll < 0.6:
            _put(folder / name, content)
        elif roll < 0.9:
            _put(folder / name, damaged(rng, rng.choice(list(files.values())) if roll < 0.65 else content))
        elif roll < 0.92:
            (folder / name).mkdir(parents=True)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    options = {name: rng.random() < share for name, share in (("resume", 0.7), ("overwrite", 0.2), ("extend", 0.2))}
    try:
        opened = RunFolder(folder, RUN)
        opened.check(**options)
    except (ValueError, OSError):
        if before != {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}:
            raise AssertionError("a refusal changed the folder") from None
        raise
    with opened.in_use():
        opened.begin(options["overwrite"])
        if options["resume"] or options["extend"]:
            opened.load()
        opened.save({"step": 2}, [{"step": 0}, {"step": 1}])
    found = opened.load()
    if found is None or found[0]["step"] != 2:
        raise AssertionError("what was saved is not what is loaded")
    return str(folder)


KINDS: dict[str, Callable[[random.Random, World], str]] = {
    "metadata lines": metadata_lines,
    "images": images,
    "prompts": prompts,
    "adapter files": adapter_files,
    "configurations": configurations,
    "run folders": run_folders,
}


def outcome(kind: str, seed: int, world: World) -> str:
    """Try one case: ``success``, or the name of a named error.

    Raises:
        AssertionError: for everything else.
    """
    for path in world.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    rng = random.Random(f"{kind} {seed}")
    try:
        KINDS[kind](rng, world)
        return "success"
    except (CustomSetError, PromptError, BackboneError, RunFolderError) as error:
        if not str(error).strip():
            raise AssertionError(f"{kind}, case {seed}: an error without a message") from error
        return type(error).__name__
    except ValueError as error:
        if type(error) is not ValueError or kind != "configurations" or not str(error).strip():
            raise AssertionError(f"{kind}, case {seed}: {error!r} is no named error") from error
        return "ValueError"
    except OSError as error:
        if str(world.folder) not in str(error):
            raise AssertionError(f"{kind}, case {seed}: {error!r} names no path") from error
        return "OSError"
    except Exception as error:
        raise AssertionError(f"{kind}, case {seed}: {error!r}") from error
