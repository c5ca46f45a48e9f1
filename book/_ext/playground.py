"""The files of the playground: the shipped model and its adapters for a browser, made when the book is built.

A page that is opened as a file may load scripts, but not fetch. So every file becomes a script that hands over the
base64 of a gzip. Nothing of it is loaded before a reader clicks. ``catalogue.js``, which says what there is, and
``places.js``, which the explorers share, are small and loaded with the page.

ONNX Runtime Web comes from npm, in the version below; its three files are kept in the virtual environment. What is
exported is kept under a key that is a hash of the exporter and the weights. Exporting takes half a minute, while Sphinx
reads pages on another core.
"""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging

from execution_key import ROOT, digest
from fetch_offline_scripts import NpmError, unpack

logger = logging.getLogger(__name__)
#: The page that they are for.
PAGE = "playground"
#: The package, the SHA-256 of its archive, and the files that are taken from it.
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_FILES = {
    "ort.js": "dist/ort.wasm.min.js",
    "ort.mjs": "dist/ort-wasm-simd-threaded.mjs",
    "ort.wasm": "dist/ort-wasm-simd-threaded.wasm",
}
#: The worker's code, in this order.
ENGINE = ("tokenizer.js", "noise.js", "weights.js", "engine.js")
#: What the page says in words of a map; the explorers say the same.
PLACES = ROOT / "spf_lite" / "widgets" / "places.js"
#: What the exported files depend on.
INPUTS = (
    "spf_lite/export/*.py",
    "spf_lite/models/**/*.py",
    "spf_lite/method/attention.py",
    "data_samples/tiny-portraits/**/*",
    "data_samples/adapters/**/*",
    "constraints.txt",
)
#: Recipes whose adapters are offered, and what the page calls them, as the chapters do. It starts with the last one.
METHODS = {
    "naive": "naive fine-tuning",
    "spf": "our first recipe",
    "pure-pairs": "pure pairs",
}


def runtime() -> dict[str, bytes]:
    """The files of ONNX Runtime Web by the names in :data:`RUNTIME_FILES`, fetched with npm the first time.

    Raises:
        ExtensionError: if they cannot be fetched, or are not those that were tried.
    """
    folder = Path(sys.prefix) / "share" / RUNTIME
    if not all((folder / name).is_file() for name in RUNTIME_FILES):
        with tempfile.TemporaryDirectory() as work:
            try:
                package = unpack(RUNTIME, Path(work), RUNTIME_SHA256)
            except NpmError as error:
                raise ExtensionError(str(error)) from error
            folder.mkdir(parents=True, exist_ok=True)
            for name, source in RUNTIME_FILES.items():
                shutil.copyfile(package / source, folder / name)
    return {name: (folder / name).read_bytes() for name in RUNTIME_FILES}


def as_script(files: Mapping[str, bytes]) -> str:
    """A script that hands files over to the page."""
    packed = {name: base64.b64encode(gzip.compress(content, mtime=0)).decode() for name, content in files.items()}
    return "".join(f'spfPlayground.receive("{name}","{text}");\n' for name, text in packed.items())


def adapters() -> list[dict[str, str]]:
    """The shipped adapters that the page offers."""
    from spf_lite.tiny_world.portraits import TARGETS

    folder = ROOT / "data_samples" / "adapters"
    return [
        {"name": f"{target}-{method}", "target": target, "method": method, "title": title}
        for target in TARGETS
        for method, title in METHODS.items()
        if (folder / target / method).is_dir()
    ]


def exported(cache: Path) -> Path:
    """The folder that ``spf-lite export-onnx`` writes, from the cache if it is there."""
    folder = cache / digest(INPUTS)
    if not (folder / "model.json").is_file():
        logger.info("exporting the model for the playground")
        samples = ROOT / "data_samples" / "adapters"
        offered = [f"{one['name']}={samples / one['target'] / one['method']}" for one in adapters()]
        command = [sys.executable, "-m", "spf_lite.cli", "export-onnx", str(folder), "--adapters", *offered]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ExtensionError(f"the model could not be exported: {done.stderr.strip()}")
    return folder


def catalogue(megabytes: float) -> str:
    """The script with what can be chosen on the page."""
    from spf_lite.tiny_world.portraits import ATTRIBUTES, TARGETS

    targets = {
        name: {"text": target.text, "kind": target.kind, "replaces": target.replaces, "color": target.color}
        for name, target in TARGETS.items()
    }
    content = {
        "attributes": ATTRIBUTES, "targets": targets, "adapters": adapters(), "methods": METHODS,
        "megabytes": round(megabytes),
    }  # fmt: skip
    return f"spfPlayground.offer({json.dumps(content)});\n"


def small_scripts(megabytes: float) -> dict[str, str]:
    """What is written and loaded with the page; a click loads so many megabytes more."""
    return {"catalogue.js": catalogue(megabytes), "places.js": PLACES.read_text("utf-8")}


def write(folder: Path, source: Path) -> None:
    """Write the scripts of the playground into a folder of the rendered book.

    Args:
        folder: with the worker's code.
        source: what :func:`exported` returned.
    """
    engine = "".join((folder / name).read_text("utf-8") for name in ENGINE).encode()
    scripts = {"runtime.js": as_script({**runtime(), "engine.js": engine})}
    scripts["model.js"] = as_script(_files(source.glob("*.*")))
    size = sum(map(len, scripts.values())) / 1e6
    for one in adapters():
        file = source / "adapters" / f"{one['name']}.safetensors"
        scripts[f"adapter-{one['name']}.js"] = as_script(_files([file]))
    scripts |= small_scripts(size)
    for name, content in scripts.items():
        (folder / name).write_text(content, encoding="utf-8")


def _files(paths: Iterable[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(paths) if path.is_file()}


def begin(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Begin to export if the book has the page."""
    if app.builder.format == "html" and PAGE in env.found_docs:
        pool = ThreadPoolExecutor(1)
        app.__dict__["_spf_exported"] = pool.submit(exported, Path(app.outdir).parent / ".playground")
        pool.shutdown(wait=False)


def finish(app: Sphinx, error: Exception | None) -> None:
    """Write the files if the book has the page."""
    began: Future[Path] | None = app.__dict__.get("_spf_exported")
    if error is None and began is not None:
        write(Path(app.outdir) / "_static" / PAGE, began.result())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("env-before-read-docs", begin, priority=900)  # when chapters have been executed on all cores
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
