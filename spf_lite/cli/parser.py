"""The command line's parser: every command with its options, and the function that it runs."""

from __future__ import annotations

from spf_lite.cli import arguments as kinds
from spf_lite.cli import commands as run
from spf_lite.cli import measuring_options, training_options
from spf_lite.cli.arguments import Commands
from spf_lite.cli.models import add_model_options

DESCRIPTION = "Fine-tune a text-to-image model to a new portrait attribute without semantic pollution."


def build_parser() -> kinds.OneLineParser:
    """The parser of ``spf-lite``. Each command's options carry the function that runs it, as ``run``."""
    parser = kinds.OneLineParser(prog="spf-lite", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    add_render(commands)
    add_custom(commands)
    add_pretrain(commands)
    add_check(commands)
    training_options.add_train(commands)
    add_sample(commands)
    measuring_options.add_compare(commands)
    measuring_options.add_incremental(commands)
    measuring_options.add_paint(commands)
    add_combine(commands)
    add_parts(commands)
    add_export_onnx(commands)
    measuring_options.add_measure(commands)
    measuring_options.add_agreement(commands)
    measuring_options.add_cost(commands)
    measuring_options.add_memory(commands)
    return parser


def add_render(commands: Commands) -> None:
    """``spf-lite render``."""
    render = commands.add_parser("render", help="draw random portraits of the tiny world")
    render.set_defaults(run=run.render)
    render.add_argument("output", type=kinds.picture_file, help="PNG file: a sheet of portraits")
    render.add_argument("--count", type=kinds.at_least(1), default=24)
    render.add_argument("--size", type=kinds.at_least(8), default=128, help="pixels a side")
    render.add_argument("--seed", type=kinds.seed, default=0)
    render.add_argument("--target", type=kinds.target, help="show this target on every portrait")


def add_custom(commands: Commands) -> None:
    """``spf-lite custom``."""
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


def add_pretrain(commands: Commands) -> None:
    """``spf-lite pretrain``."""
    pretrain = commands.add_parser("pretrain", help="make the shipped weights; resumes what was interrupted")
    pretrain.set_defaults(run=run.pretrain)
    usual = ["autoencoder", "clip", "unet", "decoder", "judge", "preview", "all"]
    pretrain.add_argument("part", choices=[*usual, "transformer", "judge-final"])
    pretrain.add_argument("--work", type=kinds.output_folder, help="default: ~/.cache/spf-lite/pretrain")
    pretrain.add_argument(
        "--parts-of",
        metavar="FOLDER",
        type=kinds.input_path,
        help="begin with the parts of this shipped model, such as data_samples/tiny-portraits: only what it lacks is "
        "trained",
    )
    pretrain.add_argument("--steps", type=kinds.at_least(1), help="instead of the part's schedule")
    pretrain.add_argument("--ship", type=kinds.output_folder, help="afterwards write the pipeline folder here")


def add_check(commands: Commands) -> None:
    """``spf-lite check``."""
    check = commands.add_parser("check", help="does the model follow prompts, and does it not know the targets yet?")
    check.set_defaults(run=run.check)
    add_model_options(check)
    check.add_argument("--prompts", type=kinds.at_least(1), default=256)
    check.add_argument("--save", type=kinds.output_file, help="write the table into this file, too")
    check.add_argument(
        "--last-test", action="store_true", help="look at the targets that nobody tuned on, and at their judge, instead"
    )


def add_sample(commands: Commands) -> None:
    """``spf-lite sample``."""
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


def add_combine(commands: Commands) -> None:
    """``spf-lite combine``."""
    combine = commands.add_parser("combine", help="write several LoRAs as one file, or leave parts of one out")
    combine.set_defaults(run=run.combine)
    combine.add_argument("output", type=kinds.output_folder, help="folder of the combined adapter")
    combine.add_argument("adapters", type=kinds.input_path, nargs="+", help="folders or files of LoRAs")
    combine.add_argument("--strengths", type=kinds.finite, nargs="+", help="one for each adapter; default: 1")
    combine.add_argument("--without", metavar="NAME", nargs="+", default=[], help="leave these parts out")
    add_model_options(combine, "that the adapters are for")


def add_parts(commands: Commands) -> None:
    """``spf-lite parts``."""
    parts = commands.add_parser("parts", help="what LoRA files hold: name, strength and rank of each part")
    parts.set_defaults(run=run.parts)
    parts.add_argument("adapters", type=kinds.input_path, nargs="+", help="folders or files of LoRAs")
    add_model_options(parts, "that the adapters are for")


def add_export_onnx(commands: Commands) -> None:
    """``spf-lite export-onnx``."""
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
