"""Where the names of other libraries lead: small inventories for intersphinx, made without a network.

The libraries' own inventories are hundreds of kilobytes that would have to be downloaded for every build. This table
holds the names that signatures and docstrings use. diffusers and transformers have no inventory at all.
"""

from __future__ import annotations

import zlib
from pathlib import Path

#: Of each project: the address of its documentation, and name to role and page.
REFERENCES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "python": (
        "https://docs.python.org/3/",
        {
            "argparse.ArgumentParser": ("class", "library/argparse.html#argparse.ArgumentParser"),
            "argparse.Namespace": ("class", "library/argparse.html#argparse.Namespace"),
            "collections.abc.Callable": ("class", "library/collections.abc.html#collections.abc.Callable"),
            "collections.abc.Iterable": ("class", "library/collections.abc.html#collections.abc.Iterable"),
            "collections.abc.Iterator": ("class", "library/collections.abc.html#collections.abc.Iterator"),
            "collections.abc.Mapping": ("class", "library/collections.abc.html#collections.abc.Mapping"),
            "collections.abc.Sequence": ("class", "library/collections.abc.html#collections.abc.Sequence"),
            "contextlib.AbstractContextManager": (
                "class", "library/contextlib.html#contextlib.AbstractContextManager",
            ),
            "pathlib.Path": ("class", "library/pathlib.html#pathlib.Path"),
            "random.Random": ("class", "library/random.html#random.Random"),
            "typing.Any": ("data", "library/typing.html#typing.Any"),
            "typing.Literal": ("data", "library/typing.html#typing.Literal"),
            "bool": ("class", "library/functions.html#bool"),
            "bytes": ("class", "library/stdtypes.html#bytes"),
            "dict": ("class", "library/stdtypes.html#dict"),
            "float": ("class", "library/functions.html#float"),
            "int": ("class", "library/functions.html#int"),
            "list": ("class", "library/stdtypes.html#list"),
            "object": ("class", "library/functions.html#object"),
            "set": ("class", "library/stdtypes.html#set"),
            "str": ("class", "library/stdtypes.html#str"),
            "tuple": ("class", "library/stdtypes.html#tuple"),
            "None": ("data", "library/constants.html#None"),
            "FileNotFoundError": ("exception", "library/exceptions.html#FileNotFoundError"),
            "FloatingPointError": ("exception", "library/exceptions.html#FloatingPointError"),
            "OSError": ("exception", "library/exceptions.html#OSError"),
            "RuntimeError": ("exception", "library/exceptions.html#RuntimeError"),
            "TypeError": ("exception", "library/exceptions.html#TypeError"),
            "ValueError": ("exception", "library/exceptions.html#ValueError"),
        },
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        {
            "torch.Generator": ("class", "generated/torch.Generator.html#torch.Generator"),
            "torch.Tensor": ("class", "tensors.html#torch.Tensor"),
            "torch.device": ("class", "tensor_attributes.html#torch.device"),
            "torch.dtype": ("class", "tensor_attributes.html#torch.dtype"),
            "torch.load": ("function", "generated/torch.load.html#torch.load"),
            "torch.nn.modules.module.Module": (
                "class",
                "generated/torch.nn.Module.html#torch.nn.Module",
            ),
            "torch._C.Generator": ("class", "generated/torch.Generator.html#torch.Generator"),
            "torch.autograd.graph.saved_tensors_hooks": (
                "class",
                "autograd.html#torch.autograd.graph.saved_tensors_hooks",
            ),
            "torch.nn.Module": ("class", "generated/torch.nn.Module.html#torch.nn.Module"),
            "torch.nn.Parameter": ("class", "generated/torch.nn.parameter.Parameter.html"),
            "torch.nn.parameter.Parameter": ("class", "generated/torch.nn.parameter.Parameter.html"),
            "torch.optim.Optimizer": ("class", "optim.html#torch.optim.Optimizer"),
            "torch.optim.optimizer.Optimizer": ("class", "optim.html#torch.optim.Optimizer"),
            "torch.optim.lr_scheduler.LambdaLR": ("class", "generated/torch.optim.lr_scheduler.LambdaLR.html"),
        },
    ),
    "diffusers": (
        "https://huggingface.co/docs/diffusers/",
        {
            name: ("class", page)
            for names, page in (
                (("diffusers.StableDiffusionPipeline",
                  "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion.StableDiffusionPipeline"),
                 "api/pipelines/stable_diffusion/text2img#diffusers.StableDiffusionPipeline"),
                (("diffusers.UNet2DConditionModel",
                  "diffusers.models.unets.unet_2d_condition.UNet2DConditionModel"),
                 "api/models/unet2d-cond#diffusers.UNet2DConditionModel"),
                (("diffusers.AutoencoderKL", "diffusers.models.autoencoders.autoencoder_kl.AutoencoderKL"),
                 "api/models/autoencoderkl#diffusers.AutoencoderKL"),
                (("diffusers.DDIMScheduler", "diffusers.schedulers.scheduling_ddim.DDIMScheduler"),
                 "api/schedulers/ddim#diffusers.DDIMScheduler"),
            )
            for name in names
        },
    ),
    "transformers": (
        "https://huggingface.co/docs/transformers/",
        {
            name: ("class", f"model_doc/clip#transformers.{name.rsplit('.', 1)[1]}")
            for name in (
                "transformers.CLIPModel",
                "transformers.CLIPTextModel",
                "transformers.CLIPTokenizer",
                "transformers.models.clip.modeling_clip.CLIPModel",
                "transformers.models.clip.modeling_clip.CLIPTextModel",
                "transformers.models.clip.tokenization_clip.CLIPTokenizer",
            )
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "numpy.dtype": ("class", "reference/generated/numpy.dtype.html#numpy.dtype"),
            "numpy.bool": ("class", "reference/arrays.scalars.html#numpy.bool"),
            "numpy.float32": ("class", "reference/arrays.scalars.html#numpy.float32"),
            "numpy.float64": ("class", "reference/arrays.scalars.html#numpy.float64"),
            "numpy.uint8": ("class", "reference/arrays.scalars.html#numpy.uint8"),
            "numpy.ndarray": ("class", "reference/generated/numpy.ndarray.html#numpy.ndarray"),
            "numpy.typing.ArrayLike": ("data", "reference/typing.html#numpy.typing.ArrayLike"),
            "numpy.typing.NDArray": ("data", "reference/typing.html#numpy.typing.NDArray"),
            "numpy.random.Generator": ("class", "reference/random/generator.html#numpy.random.Generator"),
        },
    ),
    "pillow": (
        "https://pillow.readthedocs.io/en/stable/",
        {"PIL.Image.Image": ("class", "reference/Image.html#PIL.Image.Image")},
    ),
    "matplotlib": (
        "https://matplotlib.org/stable/",
        {
            "matplotlib.figure.Figure": ("class", "api/figure_api.html#matplotlib.figure.Figure"),
            "matplotlib.axes.Axes": ("class", "api/_as_gen/matplotlib.axes.Axes.html#matplotlib.axes.Axes"),
        },
    ),
}  # fmt: skip


def write_inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write one inventory (Sphinx's format, version 2) for each project; returns the mapping for intersphinx."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (address, names) in REFERENCES.items():
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The rest is compressed with zlib.\n"
        lines = "".join(f"{name} py:{role} 1 {page} -\n" for name, (role, page) in sorted(names.items()))
        path = folder / f"{project}.inv"
        content = head.encode() + zlib.compress(lines.encode())
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        mapping[project] = (address, str(path))
    return mapping
