"""Loading is silent, and the user's settings survive it."""

from pathlib import Path

import pytest
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from spf_lite.models.backbone import load
from spf_lite.models.quiet import no_loading_bars


def settings() -> tuple[bool, bool, bool]:
    return (
        diffusers_logging.is_progress_bar_enabled(),
        transformers_logging.is_progress_bar_enabled(),
        not are_progress_bars_disabled(),
    )


def choose(diffusers: bool, transformers: bool, downloads: bool) -> None:
    for library, wanted in ((diffusers_logging, diffusers), (transformers_logging, transformers)):
        (library.enable_progress_bar if wanted else library.disable_progress_bar)()
    (enable_progress_bars if downloads else disable_progress_bars)()


@pytest.mark.parametrize("chosen", [(True, True, True), (False, True, True), (True, False, False), (True, True, False)])
def test_the_settings_come_back_also_after_an_exception(chosen: tuple[bool, bool, bool]) -> None:
    before = settings()
    try:
        choose(*chosen)
        with no_loading_bars():
            assert settings() == (False, False, chosen[2]), "downloads keep their bars"
        assert settings() == chosen
        with pytest.raises(KeyError), no_loading_bars():
            raise KeyError
        assert settings() == chosen
    finally:
        choose(*before)


def test_loading_prints_nothing(toy_folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    before = settings()
    try:
        choose(True, True, True)
        backbone = load(str(toy_folders["epsilon"]))
        assert backbone.clip.model is not None
        captured = capfd.readouterr()
        assert "Loading" not in captured.err + captured.out
        assert "%|" not in captured.err + captured.out
        assert settings() == (True, True, True)
        backbone.pipe.from_pretrained(toy_folders["epsilon"], safety_checker=None)
        assert "Loading" in capfd.readouterr().err, "without our help there is a bar: the test can fail"
    finally:
        choose(*before)
