"""The options of the commands that measure: adapters, methods, costs."""

from __future__ import annotations

from spf_lite.cli import arguments as kinds
from spf_lite.cli import auditing, measuring, memory
from spf_lite.cli.arguments import Commands
from spf_lite.cli.models import add_model_options


def add_compare(commands: Commands) -> None:
    """``spf-lite compare``."""
    compare = commands.add_parser("compare", help="naive fine-tuning against the method on one target")
    compare.set_defaults(run=measuring.compare)
    compare.add_argument("target", type=kinds.target)
    compare.add_argument("output", type=kinds.output_folder, help="folder for adapters and the table")
    compare.add_argument("--methods", type=kinds.recipe, nargs="+", default=["naive", "pure-pairs"], help="recipes")
    compare.add_argument("--prompts", type=kinds.at_least(1), default=64)
    compare.add_argument("--seeds", type=kinds.seed, nargs="+", default=[0, 1, 2])
    compare.add_argument("--captions", choices=["named", "silent"], default="silent")
    compare.add_argument(
        "--confounders",
        choices=["shipped", "drawn"],
        default="drawn",
        help="spurious attributes: those of the shipped custom set, or (default) others for each seed",
    )
    compare.add_argument("--save", type=kinds.output_file, help="write the table into this Markdown file, too")
    compare.add_argument("--pictures", type=kinds.picture_file, help="a picture of a few people by every method")


def add_incremental(commands: Commands) -> None:
    """``spf-lite incremental``."""
    incremental = commands.add_parser(
        "incremental", help="learn targets one after another, and measure what is left of the earlier ones"
    )
    incremental.set_defaults(run=measuring.incremental)
    incremental.add_argument("output", type=kinds.output_folder, help="folder for the chains and the table")
    incremental.add_argument("--methods", type=kinds.recipe, nargs="+", default=["naive", "pure-pairs"], help="recipes")
    incremental.add_argument(
        "--targets",
        metavar="TARGET,...",
        type=kinds.order,
        action="append",
        help="an order of targets, may be given again; default: three orders of five",
    )
    incremental.add_argument(
        "--separately", action="store_true", help="learn each target alone and add the adapters up instead"
    )
    incremental.add_argument("--prompts", type=kinds.at_least(1), default=32, help="for each target")
    incremental.add_argument("--seeds", type=kinds.seed, nargs="+", default=[0, 1, 2])
    incremental.add_argument("--save", type=kinds.output_file, help="write the table into this Markdown file, too")


def add_paint(commands: Commands) -> None:
    """``spf-lite paint``."""
    paint = commands.add_parser("paint", help="the same people by the base model and by adapters, as one picture")
    paint.set_defaults(run=measuring.paint)
    paint.add_argument("target", type=kinds.target)
    paint.add_argument("output", type=kinds.picture_file, help="PNG file")
    paint.add_argument("adapters", type=kinds.input_path, nargs="+", help="folders or files of LoRAs")
    paint.add_argument("--people", type=kinds.at_least(1), default=5)
    paint.add_argument("--strength", type=kinds.finite, default=1.0, help="of the adapter; 0 is the base model")


def add_measure(commands: Commands) -> None:
    """``spf-lite measure``."""
    measure = commands.add_parser(
        "measure", help="measure an adapter: on a target of the tiny world, or anyone's on any model, without a judge"
    )
    measure.set_defaults(run=measuring.measure)
    measure.add_argument("adapter", type=kinds.input_path, help="folder or file of a LoRA")
    measure.add_argument(
        "target", type=kinds.target, nargs="?", help="of the tiny world, right after the adapter: its judge measures"
    )
    add_model_options(measure)
    measure.add_argument("--prompts", type=kinds.at_least(1), help="default: 64 with a target, else all there are")
    measure.add_argument("--strength", type=kinds.finite, default=1.0, help="of the adapter; 0 is the base model")
    measure.add_argument(
        "--custom-set",
        type=kinds.input_path,
        help="written by 'spf-lite custom': count what its portraits share as bias; default: the shipped set",
    )
    measure.add_argument("--save", type=kinds.output_file, help="write the report into this JSON file")
    audit = measure.add_argument_group("without a target of the tiny world")
    audit.add_argument(
        "--texts",
        type=kinds.input_path,
        help="file of prompts: a base text a line, or JSON lines with base_text and complete_text; default: shipped",
    )
    audit.add_argument("--target-text", help="what the adapter shows: 'sunglasses'; it is added to each base text")
    audit.add_argument("--replaces", help="the phrase of each base text that the target takes the place of")
    audit.add_argument("--strengths", type=kinds.finite, nargs="+", help="measure a few prompts at each of these, too")
    audit.add_argument("--steps", type=kinds.at_least(1), help="denoising steps of each portrait; default: 25")
    audit.add_argument("--guidance-scale", type=kinds.finite, help="default: what suits the model")
    audit.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="of the model's weights")
    audit.add_argument(
        "--mask",
        type=kinds.input_path,
        help="folder of masks, white where the target may act: 1.png for the first prompt, mask.png for all others",
    )
    audit.add_argument("--clip", help="folder or hub id of the CLIP model that measures; default: the model's own")
    audit.add_argument("--lpips", action="store_true", help="measure LPIPS, too (pip install 'spf-lite[lpips]')")
    audit.add_argument("--dino", help="folder or hub id of a DINO model to measure with, too")
    audit.add_argument(
        "--identity", action="store_true", help="measure whose face it is, too (pip install 'spf-lite[identity]')"
    )
    audit.add_argument("--age", action="store_true", help="measure how old it looks, too (pip install 'spf-lite[age]')")
    audit.add_argument(
        "--expression", action="store_true", help="measure its expression, too (pip install 'spf-lite[identity]')"
    )
    audit.add_argument("--html", type=kinds.output_file, help="write a page with pictures into this file")
    audit.add_argument(
        "--fail-above",
        metavar="MEASURE=VALUE",
        type=kinds.upper_limit,
        action="append",
        default=[],
        help="exit with status 1 if the mean of this measure is higher, may be given again",
    )
    audit.add_argument(
        "--fail-below",
        metavar="MEASURE=VALUE",
        type=kinds.lower_limit,
        action="append",
        default=[],
        help="exit with status 1 if the mean of this measure is lower, may be given again",
    )


def add_agreement(commands: Commands) -> None:
    """``spf-lite agreement``."""
    agree = commands.add_parser(
        "agreement", help="which measures without a judge rank the tiny world's adapters as the judge does"
    )
    agree.set_defaults(run=auditing.agreement)
    agree.add_argument("adapters", type=kinds.input_path, help="folder with <target>/<adapter>, each with its measures")
    agree.add_argument("kept", type=kinds.output_file, help="JSON lines of what was audited: what is there is kept")
    agree.add_argument("--prompts", type=kinds.at_least(1), default=16, help="for each adapter")
    agree.add_argument("--steps", type=kinds.at_least(1), default=12, help="denoising steps of each portrait")


def add_cost(commands: Commands) -> None:
    """``spf-lite cost``."""
    cost = commands.add_parser("cost", help="what the method costs: time and memory, measured side by side")
    cost.set_defaults(run=measuring.cost)
    cost.add_argument(
        "--model",
        choices=["tiny", "sd15-size", "sdxl", "sd3", "pixart-sigma"],
        default="tiny",
        help="the shipped model, or random weights of the shape of a large one; of the last three the network alone",
    )
    cost.add_argument("--pixels", type=kinds.at_least(1), default=256, help="of the last three models' portraits")
    cost.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of the last three models' weights"
    )
    cost.add_argument("--rounds", type=kinds.at_least(1), default=5)
    cost.add_argument("--save", type=kinds.output_file, help="write the figures into this JSON file")


def add_memory(commands: Commands) -> None:
    """``spf-lite memory``."""
    command = commands.add_parser("memory", help="count what a training step or a whole run takes, without running it")
    command.set_defaults(run=memory.memory)
    command.add_argument("shape", choices=["sd15", "sdxl", "sd3", "pixart-sigma"], help="shape of a published model")
    command.add_argument("--pixels", type=kinds.at_least(1), help="a side; default: what the model was trained on")
    command.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float16", help="frozen weights"
    )
    command.add_argument(
        "--card",
        type=kinds.card,
        metavar="NAME_OR_GB",
        help="T4, L4, A100, or a memory in GB: exit status 1 if it is too small; a name also gives a time",
    )
    run = command.add_argument_group("a whole run")
    run.add_argument("--method", type=kinds.recipe, help="a recipe: all of its large moments, and its arithmetic")
    run.add_argument(
        "--set",
        dest="changes",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="change the recipe, such as --set batch_size=4 --set mixed_precision=fp16",
    )
    step = command.add_argument_group("a single step")
    step.add_argument("--batch-size", type=kinds.at_least(1), help="default: 1")
    step.add_argument(
        "--step",
        choices=list(memory.STEPS),
        help="plain LoRA; the dual path (default); with response enhancement; with a second model as the reference",
    )
    step.add_argument("--mixed-precision", choices=list(memory.COMPUTE), help="default: fp16")
    step.add_argument("--gradient-checkpointing", action="store_true", default=None, help="compute activations again")
    step.add_argument("--save", type=kinds.output_file, help="write the count with its settings into this JSON file")
