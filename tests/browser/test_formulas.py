"""What the browser computes is what the library computes: control map, AUC, attention."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect

from spf_lite.evaluation.measures.maps import map_auc
from spf_lite.method.control_map import combine
from spf_lite.options import ControlMapOptions
from spf_lite.widgets import AttentionExplorer, ControlMapExplorer

from .conftest import Live
from .test_explorers import PIXELS, attention_item, control_item

pytestmark = pytest.mark.browser


def _formula_cases() -> list[tuple[Any, Any, Any, ControlMapOptions]]:
    """D, A, distances and options: random ones, and the edges."""
    draw = np.random.default_rng(7)
    inputs = []
    for phrases in (0, 1, 5):
        maps = draw.integers(0, 256, (phrases, 16)) / 255
        inputs.append((draw.integers(0, 256, 16) / 255, maps, draw.random(phrases) * 2))
    flat = np.full(16, 0.5)
    inputs += [
        (flat, draw.random((2, 16)), np.array([0.3, 0.9])),
        (draw.random(16), np.stack([flat, flat]), np.array([0.3, 0.9])),
        (flat, np.stack([flat, 0 * flat]), np.array([2.0, 2.0])),
        (0 * flat, draw.random((2, 16)), np.array([0.3, 0.9])),
        (flat / flat, 0 * draw.random((1, 16)), np.array([1.0])),
        (draw.random(16), draw.random((2, 16)), np.zeros(2)),
        (draw.random(16), draw.random((2, 16)), np.array([0.0, 1e-9])),
    ]
    choices = product((0.0, 0.7, 3.0), (0.0, 0.31, 0.99), (0.0, 0.6, 1.0), ("mean", "sum"), (True, False))
    options = [
        ControlMapOptions(weight=w, threshold=t, softness=s, subtraction=kind, rescale=stretch)
        for w, t, s, kind, stretch in choices
    ]
    return [(*one, option) for one in inputs for option in options]


def _in_the_browser(page: Page, cases: list[tuple[Any, Any, Any, ControlMapOptions]]) -> list[list[float]]:
    names = ("weight", "threshold", "softness", "subtraction", "rescale")
    plain = [
        [d.tolist(), maps.tolist(), distances.tolist(), {name: getattr(options, name) for name in names}]
        for d, maps, distances, options in cases
    ]
    result: list[list[float]] = page.evaluate("cases => cases.map((one) => [...module.combine(...one)])", plain)
    return result


def _in_python(case: tuple[Any, Any, Any, ControlMapOptions], dtype: torch.dtype) -> np.ndarray:
    difference, maps, distances = (torch.tensor(values, dtype=dtype) for values in case[:3])
    maps = maps.reshape(1, len(distances), 4, 4)
    return combine(difference.reshape(1, 1, 4, 4), maps, distances[None], case[3]).flatten().numpy()


def test_the_browsers_formula_is_the_librarys(live: Live) -> None:
    page = live(ControlMapExplorer([control_item()]))
    cases = _formula_cases()
    found = _in_the_browser(page, cases)
    assert len(found) == len(cases) > 1000
    for case, control in zip(cases, found, strict=True):
        assert control == pytest.approx(_in_python(case, torch.float64), abs=1e-12), case


def test_the_browsers_formula_is_the_trainers_too(live: Live) -> None:
    """The trainer works in 32 bits. Where a hair decides about the hard threshold, neither is wrong: left out."""
    page = live(ControlMapExplorer([control_item()]))
    draw, cases = np.random.default_rng(1), []
    for number in range(200):
        maps = draw.random((3, 16))
        options = ControlMapOptions(
            weight=draw.random(), threshold=draw.random() * 0.6, softness=draw.random(),
            rescale=number % 2 == 0, subtraction="mean" if number % 3 else "sum",
        )  # fmt: skip
        values = (0.5 + draw.random(16) / 2, maps / 4, draw.random(3))
        soft = _in_python((*values, ControlMapOptions(options.weight, 1, options.rescale, 0, 1, options.subtraction)),
                          torch.float64)  # fmt: skip
        if np.abs(soft - options.threshold).min() > 1e-4 and np.ptp(soft) > 0.1 and soft[soft > 0].min() > 1e-4:
            cases.append((*values, options))
    assert len(cases) > 100
    for case, control in zip(cases, _in_the_browser(page, cases), strict=True):
        assert control == pytest.approx(_in_python(case, torch.float32), abs=1e-6)


def test_the_browsers_auc_is_the_librarys(live: Live) -> None:
    draw = np.random.default_rng(3)
    region = draw.random((16, 16)) < 0.3
    explorer = ControlMapExplorer([{**control_item(), "region": region}, {**control_item(), "label": "no region"}])
    page = live(explorer)
    cases = [(draw.integers(0, 5, 64) / 4, draw.random(64) < share) for share in (0.1, 0.5, 0.9)]
    cases += [(draw.random(64), draw.random(64) < 0.5), (np.zeros(4), np.array([True, False, False, False]))]
    plain = [[values.tolist(), inside.tolist()] for values, inside in cases]
    found = page.evaluate("cases => cases.map((one) => module.auc(...one))", plain)
    assert found == pytest.approx([map_auc(*case) for case in cases], abs=1e-12)
    assert page.evaluate("[module.auc([1, 2], [true, true]), module.auc([1, 2], [false, false])]") == [None, None]

    readout, note = page.locator(".spf-readout"), page.get_by_text("Outline: where the target really")
    expect(readout).to_contain_text(f"AUC against the outline: {explorer.auc():.2f}.")
    expect(note).to_be_visible()
    outline = np.array(page.locator(".spf-tint + canvas").evaluate(PIXELS)).reshape(16 * 24, 16 * 24, 4)[..., 3] > 0
    edges = np.argwhere(region[:, 1:] != region[:, :-1])
    assert all(outline[24 * y + 12, 24 * (x + 1)] for y, x in edges), "between two positions, one inside"
    same = np.argwhere(region[:, 1:] == region[:, :-1])
    assert not any(outline[24 * y + 12, 24 * (x + 1)] for y, x in same)
    page.get_by_label("Portrait").select_option("no region")
    expect(note).to_be_hidden()
    expect(readout).not_to_contain_text("AUC")


@pytest.mark.parametrize("layer", ["all layers", "up 2.0"])
def test_the_map_drawn_is_the_map_in_python(live: Live, layer: str) -> None:
    explorer = ControlMapExplorer([control_item()], layer=layer, timestep=300, threshold=0.2, softness=0.7)
    page = live(explorer)
    pixels = np.array(page.locator(".spf-tint").evaluate(PIXELS)).reshape(16, 16, 4)
    assert pixels[..., 3] / 255 / 0.75 == pytest.approx(explorer.map(), abs=0.004)
    strong = pixels[pixels[..., 3] > 100][:, :3]
    assert len(strong) and np.abs(strong - [0, 114, 178]).max() <= 2
    share = round(100 * (explorer.map() > 0).mean())
    expect(page.locator(".spf-readout")).to_contain_text(f"The target may change {share} % of the picture")


@pytest.mark.parametrize("layer", ["all layers", "up 2.1"])
@pytest.mark.parametrize("head", ["mean", "3"])
def test_the_browsers_attention_is_pythons(live: Live, layer: str, head: str) -> None:
    explorer = AttentionExplorer([attention_item()], layer=layer, head=head, timestep=700, token=4)
    page = live(explorer)
    choice = {name: getattr(explorer, name) for name in ("layer", "head", "timestep", "token")}
    found = page.evaluate("choice => [...module.attentionMap(model.get('items')[0], choice)]", choice)
    assert found == pytest.approx(explorer.map().flatten(), abs=1e-12)
    expect(page.locator(".spf-readout")).to_contain_text(f"peak attention {explorer.map().max():.2f}")
