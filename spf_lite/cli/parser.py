"""The options of every command, and the function that each runs."""

from __future__ import annotations

import argparse

from spf_lite.cli import arguments as kinds
from spf_lite.cli import commands as run
from spf_lite.cli import measuring

DESCRIPTION = "Fine-tune a text-to-image model to a new portrait attribute without semantic pollution."


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``spf-lite``. Each command's options carry the function that runs it, as ``run``."""
    parser = kinds.OneLineParser(prog="spf-lite", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)

    render = commands.add_parser("render", help="draw random portraits of the tiny world")
    render.set_defaults(run=run.render)
    render.add_argument("output", type=kinds.picture_file, help="PNG file: a sheet of portraits")
    render.add_argument("--count", type=kinds.at_least(1), default=24)
    render.add_argument("--size", type=kinds.at_least(8), default=128, help="pixels a side")
    render.add_argument("--seed", type=kinds.seed, default=0)
    render.add_argument("--target", type=kinds.target, help="show this target on every portrait")

    custom = commands.add_parser("custom", help="write a confounded custom set: portraits, masks and captions")
    custom.set_defaults(run=run.custom)
    custom.add_argument("targets", metavar="target", type=kinds.targets, help="a target, or all: a folder for each")
    custom.add_argument("folder", type=kinds.new_folder, help="new, or empty")
    custom.add_argument(
        "--confounders",
        metavar="SEED",
        type=kinds.seed,
        help="draw other spurious attributes with this seed; default: the shipped set's",
    )

    pretrain = commands.add_parser("pretrain", help="make the shipped weights; resumes what was interrupted")
    pretrain.set_defaults(run=run.pretrain)
    pretrain.add_argument("part", choices=["autoencoder", "clip", "unet", "decoder", "judge", "preview", "all"])
    pretrain.add_argument("--work", type=kinds.output_folder, help="default: ~/.cache/spf-lite/pretrain")
    pretrain.add_argument("--steps", type=kinds.at_least(1), help="instead of the part's schedule")
    pretrain.add_argument("--ship", type=kinds.output_folder, help="afterwards write the pipeline folder here")

    check = commands.add_parser("check", help="does the model follow prompts, and does it not know the targets yet?")
    check.set_defaults(run=run.check)
    check.add_argument("--model", default="tiny")
    check.add_argument("--prompts", type=kinds.at_least(1), default=256)
    check.add_argument("--save", type=kinds.output_file, help="write the table into this file, too")

    train = commands.add_parser(
        "train", help="fine-tune on a custom set; also under `accelerate launch -m spf_lite.cli train ...`"
    )
    train.set_defaults(run=run.train)
    train.add_argument(
        "custom_set",
        type=kinds.input_path,
        help="folder of images with metadata.jsonl, metadata.csv or .txt captions",
    )
    train.add_argument("output", type=kinds.output_folder, help="checkpoints, log and the exported adapter")
    train.add_argument("--model", default="tiny")
    train.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="of the model's frozen weights"
    )
    train.add_argument(
        "--method", type=kinds.recipe, default="pure-pairs", help="a recipe: pure-pairs (default), naive, spf, ..."
    )
    train.add_argument(
        "--captions",
        choices=["named", "silent", "txt"],
        default="named",
        help="the folder's metadata or .txt files; the version that does not name spurious attributes; .txt files",
    )
    train.add_argument("--target-text", help="what is learned, given once: 'sunglasses'; captions may name it or not")
    train.add_argument("--replaces", help="the phrase of each base text that the target takes the place of")
    train.add_argument("--repair", action="store_true", help="take a target that stands in a base text out of it")
    train.add_argument("--shape", choices=["square", "buckets"], default="square", help="crop, or keep aspect ratios")
    train.add_argument("--background", default="white", help="colour that transparent pictures are composed on")
    train.add_argument("--alpha-as-mask", action="store_true", help="the target may act where a picture is opaque")
    train.add_argument("--seed", type=kinds.seed, default=0)
    again = train.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    again.add_argument("--extend", action="store_true", help="go on from the checkpoint of a run with fewer steps")
    again.add_argument("--overwrite", action="store_true", help="replace the run in the output folder by a new one")
    train.add_argument("--from-adapter", type=kinds.input_path, help="a LoRA to start from: folder or file")
    train.add_argument(
        "--after",
        metavar="ADAPTER",
        type=kinds.input_path,
        action="append",
        default=[],
        help="a LoRA that was learned before, may be given again: the reference has its attribute, too",
    )
    train.add_argument(
        "--continued", action="store_true", help="train on with the factors of --after, which then hold everything"
    )
    train.add_argument(
        "--set",
        dest="changes",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="change the recipe, such as --set stage2_steps=50 --set mixed_precision=fp16",
    )

    sample = commands.add_parser("sample", help="sample a prompt with a model and, if given, an adapter")
    sample.set_defaults(run=run.sample)
    sample.add_argument("prompt")
    sample.add_argument("output", type=kinds.picture_file, help="PNG file: one portrait a seed, side by side")
    sample.add_argument("--model", default="tiny")
    sample.add_argument(
        "--adapter",
        type=kinds.input_path,
        action="append",
        default=[],
        help="folder or file of a LoRA, may be given again: they add up",
    )
    sample.add_argument(
        "--strength", type=kinds.finite, action="append", help="of each adapter in turn; default: 1; 0 is without it"
    )
    sample.add_argument("--seeds", type=kinds.seed, nargs="+", default=[0, 1, 2, 3])
    sample.add_argument("--steps", type=kinds.at_least(1), default=25)
    sample.add_argument("--guidance-scale", type=kinds.finite, help="default: what suits the model")

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

    paint = commands.add_parser("paint", help="the same people by the base model and by adapters, as one picture")
    paint.set_defaults(run=measuring.paint)
    paint.add_argument("target", type=kinds.target)
    paint.add_argument("output", type=kinds.picture_file, help="PNG file")
    paint.add_argument("adapters", type=kinds.input_path, nargs="+", help="folders or files of LoRAs")
    paint.add_argument("--people", type=kinds.at_least(1), default=5)
    paint.add_argument("--strength", type=kinds.finite, default=1.0, help="of the adapter; 0 is the base model")

    combine = commands.add_parser("combine", help="write several LoRAs as one file, or leave parts of one out")
    combine.set_defaults(run=run.combine)
    combine.add_argument("output", type=kinds.output_folder, help="folder of the combined adapter")
    combine.add_argument("adapters", type=kinds.input_path, nargs="+", help="folders or files of LoRAs")
    combine.add_argument("--strengths", type=kinds.finite, nargs="+", help="one for each adapter; default: 1")
    combine.add_argument("--without", metavar="NAME", nargs="+", default=[], help="leave these parts out")
    combine.add_argument("--model", default="tiny", help="that the adapters are for")

    parts = commands.add_parser("parts", help="what LoRA files hold: name, strength and rank of each part")
    parts.set_defaults(run=run.parts)
    parts.add_argument("adapters", type=kinds.input_path, nargs="+", help="folders or files of LoRAs")
    parts.add_argument("--model", default="tiny", help="that the adapters are for")

    export = commands.add_parser("export-onnx", help="write a model and LoRAs for it as ONNX graphs")
    export.set_defaults(run=run.export_onnx)
    export.add_argument("output", type=kinds.output_folder, help="folder of the graphs")
    export.add_argument("--model", default="tiny")
    export.add_argument(
        "--adapters",
        metavar="NAME=ADAPTER",
        type=kinds.named_path,
        nargs="+",
        default=[],
        help="LoRAs to write beside it, each with a name: sunglasses=runs/sunglasses/adapter",
    )

    measure = commands.add_parser("measure", help="measure an adapter on a target of the tiny world")
    measure.set_defaults(run=measuring.measure)
    measure.add_argument("adapter", type=kinds.input_path, help="folder or file of a LoRA")
    measure.add_argument("target", type=kinds.target)
    measure.add_argument("--model", default="tiny")
    measure.add_argument("--prompts", type=kinds.at_least(1), default=64)
    measure.add_argument("--strength", type=kinds.finite, default=1.0, help="of the adapter; 0 is the base model")
    measure.add_argument(
        "--custom-set",
        type=kinds.input_path,
        help="written by 'spf-lite custom': count what its portraits share as bias; default: the shipped set",
    )
    measure.add_argument("--save", type=kinds.output_file, help="write the report into this JSON file")

    cost = commands.add_parser("cost", help="what the method costs: time and memory, measured side by side")
    cost.set_defaults(run=measuring.cost)
    cost.add_argument("--model", choices=["tiny", "sd15-size"], default="tiny")
    cost.add_argument("--rounds", type=kinds.at_least(1), default=5)
    cost.add_argument("--save", type=kinds.output_file, help="write the figures into this JSON file")
    return parser
