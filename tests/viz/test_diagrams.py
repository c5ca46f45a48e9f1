import numpy as np

from spf_lite.viz.diagrams import GRADIENT, dual_path_diagram


def test_the_diagram_names_both_paths_their_texts_and_where_the_gradient_stops() -> None:
    (axes,) = dual_path_diagram().axes
    words = " ".join(text.get_text() for text in axes.texts).replace("\n", " ")
    for part in ("reference path LoRA off", "response path LoRA on", "base text", "complete text", "stopped"):
        assert part in words
    middle = {text.get_text().split("\n")[0]: text.get_position()[1] for text in axes.texts}
    assert middle["reference path"] > middle["response path"]
    bar = next(line for line in axes.lines if line.get_color() == GRADIENT)
    x = np.asarray(bar.get_xdata())
    assert 59 < x.min() <= x.max() < 76, "the gradient stops between comparison and path"
