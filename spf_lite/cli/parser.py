"""The options of every command, and the function that each runs."""

from __future__ import annotations

import argparse

from spf_lite.cli import arguments as kinds
from spf_lite.cli import auditing, measuring
from spf_lite.cli import commands as run
from spf_lite.cli.models import add_model_options

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
    add_model_options(check)
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
    add_model_options(train)
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
    train.add_argument(
        "--excludes",
        metavar="PHRASE",
        action="append",
        default=[],
        help="a phrase that no text holds together with the target, may be given again; later runs --after this one "
        "leave it out where they ask for the target",
    )
    train.add_argument("--repair", action="store_true", help="take a target that stands in a base text out of it")
    train.add_argument("--shape", choices=["square", "buckets"], default="square", help="crop, or keep aspect ratios")
    train.add_argument("--background", default="white", help="colour that transparent pictures are composed on")
    train.add_argument("--alpha-as-mask", action="store_true", help="the target may act where a picture is opaque")
    train.add_argument(
        "--cache-latents", metavar="FOLDER", type=kinds.output_folder, help="keep the encoded portraits for other runs"
    )
    train.add_argument(
        "--shard",
        action="store_true",
        help="spread the frozen weights over the processes of `accelerate launch`, for a model larger than a card",
    )
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
    add_model_options(sample)
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
    sample.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="of its weights")
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
    add_model_options(combine, "that the adapters are for")

    parts = commands.add_parser("parts", help="what LoRA files hold: name, strength and rank of each part")
    parts.set_defaults(run=run.parts)
    parts.add_argument("adapters", type=kinds.input_path, nargs="+", help="folders or files of LoRAs")
    add_model_options(parts, "that the adapters are for")

    export = commands.add_parser("export-onnx", help="write a model and LoRAs for it as ONNX graphs")
    export.set_defaults(run=run.export_onnx)
    export.add_argument("output", type=kinds.output_folder, help="folder of the graphs")
    add_model_options(export)
    export.add_argument(
        "--adapters",
        metavar="NAME=ADAPTER",
        type=kinds.named_path,
        nargs="+",
        default=[],
        help="LoRAs to write beside it, each with a name: sunglasses=runs/sunglasses/adapter",
    )

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
    audit.add_argument("--html", type=kinds.output_file, help="write a page with pictures into this file")
    audit.add_argument(
        "--fail-above",
        metavar="MEASURE=VALUE",
        type=kinds.limit,
        action="append",
        default=[],
        help="exit with status 1 if the mean of this measure is higher, may be given again",
    )

    agree = commands.add_parser(
        "agreement", help="which measures without a judge rank the tiny world's adapters as the judge does"
    )
    agree.set_defaults(run=auditing.agreement)
    agree.add_argument("adapters", type=kinds.input_path, help="folder with <target>/<adapter>, each with its measures")
    agree.add_argument("kept", type=kinds.output_file, help="JSON lines of what was audited: what is there is kept")
    agree.add_argument("--prompts", type=kinds.at_least(1), default=16, help="for each adapter")
    agree.add_argument("--steps", type=kinds.at_least(1), default=12, help="denoising steps of each portrait")

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

    memory = commands.add_parser("memory", help="count what a training step takes on a card, without running it")
    memory.set_defaults(run=measuring.memory)
    memory.add_argument("shape", choices=["sd15", "sdxl", "sd3", "pixart-sigma"], help="shape of a published model")
    memory.add_argument("--pixels", type=kinds.at_least(1), help="a side; default: what the model was trained on")
    memory.add_argument("--batch-size", type=kinds.at_least(1), default=1)
    memory.add_argument(
        "--step",
        choices=list(measuring.STEPS),
        default="dual",
        help="plain LoRA; the dual path (default); with response enhancement; with a second model as the reference",
    )
    memory.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float16", help="frozen weights")
    memory.add_argument("--mixed-precision", choices=list(measuring.COMPUTE), default="fp16")
    memory.add_argument("--gradient-checkpointing", action="store_true", help="compute activations again")
    memory.add_argument("--card", type=kinds.positive, metavar="GB", help="exit status 1 if it has too little memory")
    memory.add_argument("--save", type=kinds.output_file, help="write the count with its settings into this JSON file")
    return parser
