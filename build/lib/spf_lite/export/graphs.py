"""The networks of a backbone as ONNX graphs.

The weights that a LoRA may change are inputs of the UNet's graph. So one graph serves the base model and every adapter:
whoever runs it passes ``W`` for the one and ``W + s B A`` for the other.

In the book: :doc:`/playground`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spf_lite.method.attention import mean_maps, record
from spf_lite.models.adapters.lora import check_no_adapter
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.unet import StableDiffusion
from spf_lite.models.errors import BackboneError

if TYPE_CHECKING:
    from onnx import ModelProto

#: Version of the ONNX operators: the first with ``Gelu``.
OPSET = 20
#: How the exported UNet calls its batch.
_BATCH = "batch"


class _TextEncoder(nn.Module):
    """Token ids (B, L) to ``encoder_hidden_states`` (B, L, width)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model = backbone.pipe.text_encoder

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.model(ids).last_hidden_state
        return hidden


class _UNet(nn.Module):
    """Latents (B, C, h, w), timesteps (B,) and text (B, L, width) to the prediction and the mean attention maps."""

    def __init__(self, backbone: Backbone, side: int) -> None:
        super().__init__()
        self.unet, self.size, self.resolution = backbone.pipe.unet, (side, side), backbone.spec.attention_resolution

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        with record(self.unet, self.size, self.resolution) as layers:
            (prediction,) = self.unet(latents, timesteps, text, return_dict=False)
        return prediction, mean_maps(layers)


class _Decoder(nn.Module):
    """Scaled latents (B, C, h, w) to images (B, 3, 8h, 8w), in [0, 1] but for small overshoots."""

    def __init__(self, backbone: Backbone, preview: bool) -> None:
        super().__init__()
        self.model: Any = backbone.preview if preview else backbone.pipe.vae
        self.scale = 1.0 if preview else float(backbone.pipe.vae.config.scaling_factor)

    def forward(self, latents: Tensor) -> Tensor:
        decoded: Tensor = self.model.decode(latents / self.scale).sample
        return decoded / 2 + 0.5


def export_graphs(backbone: Backbone) -> tuple[dict[str, ModelProto], dict[str, np.ndarray]]:
    """Export the networks of a backbone.

    Args:
        backbone: without an adapter, in float32, on the CPU.

    Returns:
        the graphs, and the weights that the UNet's graph takes as inputs, by the names of both. The graphs are

        * ``text_encoder``: ``ids`` (B, L), int64 -> ``text`` (B, L, width);
        * ``unet``: ``latents`` (B, C, h, w), ``timesteps`` (B,), int64, ``text`` and one input for each of the weights
          -> ``prediction`` (B, C, h, w) and ``maps`` (B, L, h', w'), attention averaged over heads and the recorded
          layers;
        * ``decoder``, and ``preview`` if the backbone has one: scaled ``latents`` -> ``images`` (B, 3, 8h, 8w).

        B is free. Weights that 16 bits hold without loss are stored so, and computed with in float32.

    Raises:
        BackboneError: if the backbone is of another class than Stable Diffusion 1 and 2, has an adapter or 16-bit
            weights, or ``onnx`` and ``onnxscript`` are missing.
    """
    check_exportable(backbone)
    pipe, architecture = backbone.pipe, backbone.architecture
    side = int(pipe.unet.config.sample_size)
    latents = torch.zeros(2, pipe.unet.config.in_channels, side, side)
    ids = torch.zeros(2, pipe.tokenizer.model_max_length, dtype=torch.int64)
    text = torch.zeros(*ids.shape, pipe.unet.config.cross_attention_dim)
    graphs = {
        "text_encoder": _exported(_TextEncoder(backbone), {"ids": ids}, ["text"]),
        "unet": _exported(
            _UNet(backbone, side),
            {"latents": latents, "timesteps": torch.tensor([500, 500]), "text": text},
            ["prediction", "maps"],
        ),
        "decoder": _exported(_Decoder(backbone, preview=False), {"latents": latents}, ["images"]),
    }
    if backbone.preview is not None:
        graphs["preview"] = _exported(_Decoder(backbone, preview=True), {"latents": latents}, ["images"])
    adapted = {name for name, _ in pipe.unet.named_modules() if name.endswith(architecture.trained_layers("resnets"))}
    weights = _take_out(graphs["unet"], {f"unet.{name}.weight": name for name in sorted(adapted)})
    return {name: _stored_in_16_bits(_folded(graph)) for name, graph in graphs.items()}, weights


def check_exportable(backbone: Backbone) -> None:
    """Check that a backbone can be exported.

    Raises:
        BackboneError: as :func:`export_graphs` does.
    """
    if not isinstance(backbone.architecture, StableDiffusion):
        raise BackboneError(f"{backbone.architecture.title} is not exported: only Stable Diffusion 1 and 2 are")
    unet = backbone.pipe.unet
    check_no_adapter(unet)
    if unet.dtype != torch.float32 or unet.device.type != "cpu":
        raise BackboneError("only a backbone in float32 on the CPU is exported: load it with dtype=torch.float32")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BackboneError(f"exporting needs onnx and onnxscript: pip install 'spf-lite[onnx]' ({error})") from error


def _exported(module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str]) -> ModelProto:
    batch = torch.export.Dim(_BATCH)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            optimize=False,  # folded now, weights would lose their names
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    assert program is not None
    exported: ModelProto = program.model_proto
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporter remarks on packages that it does not need, and on its own deprecations."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _take_out(model: ModelProto, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Make inputs of weights; ``names`` maps what the graph calls them to the inputs' names. Returns their values."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    values = {}
    for weight in [weight for weight in graph.initializer if weight.name in names]:
        values[names[weight.name]] = numpy_helper.to_array(weight)
        graph.initializer.remove(weight)
        graph.input.append(helper.make_tensor_value_info(names[weight.name], TensorProto.FLOAT, list(weight.dims)))
    missing = sorted(set(names.values()) - set(values))
    if missing:
        raise BackboneError(f"the exported graph does not name the weights of {', '.join(missing)}")
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in names:
                node.input[position] = names[name]
    return values


def _folded(model: ModelProto) -> ModelProto:
    """The graph with its constants computed; it starts faster."""
    from onnxscript import optimizer

    folded: ModelProto = optimizer.optimize(model)
    return folded


def _stored_in_16_bits(model: ModelProto) -> ModelProto:
    """Store weights in 16 bits where that loses nothing; the graph turns them into float32 at its beginning."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for weight in [weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT]:
        value = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if value.size < 64 or not np.array_equal(half.astype(np.float32), value):
            continue
        stored = f"{weight.name}.stored"
        casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(half, stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model
