"""What must work where the wheel is installed and there is no checkout. Run by the release workflow, not by pytest.

It is a program: ``python installed.py``, in an environment that has the wheel and no other part of the project.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import spf_lite
from spf_lite.cli.threads import set_thread_policy
from spf_lite.paths import DATA_SAMPLES
from spf_lite.tiny_world.portraits import TARGETS


def main() -> None:
    """Train, export, load and sample with what the package brings along."""
    set_thread_policy(threads=1)
    from spf_lite.models.adapters.lora import load_adapter  # imports torch

    package = Path(spf_lite.__file__).parent
    assert "site-packages" in package.parts, f"{package} is not an installed package"
    assert version("spf-lite") == spf_lite.__version__
    assert (package / "py.typed").is_file()
    assert (package / "widgets" / "before_after.js").is_file()
    assert DATA_SAMPLES.parent == package
    for target in TARGETS:
        for method in ("naive", "spf"):
            load_adapter(spf_lite.load("tiny").pipe, DATA_SAMPLES / "adapters" / target / method)
    config = replace(spf_lite.recipe("spf"), stage1_steps=1, stage2_steps=1, reference_portraits=4)
    custom_set = spf_lite.CustomSet.load(DATA_SAMPLES / "custom" / "sunglasses")
    with tempfile.TemporaryDirectory() as folder:
        trainer = spf_lite.DualPathTrainer(spf_lite.load("tiny"), custom_set, config, folder)
        trainer.fit()
        adapter = trainer.export(Path(folder) / "adapter")
        command = [
            str(Path(sys.executable).parent / "spf-lite"),
            "sample",
            "a person",
            str(Path(folder) / "portrait.png"),
        ]
        subprocess.run([*command, "--adapter", str(adapter), "--seeds", "0", "--steps", "2"], check=True)
        assert (Path(folder) / "portrait.png").is_file()
    sys.stdout.write(f"spf-lite {spf_lite.__version__} works where it is installed\n")


if __name__ == "__main__":
    main()
