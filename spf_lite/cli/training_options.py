"""The options of ``spf-lite train``."""

from __future__ import annotations

from spf_lite.cli import arguments as kinds
from spf_lite.cli import commands as run
from spf_lite.cli.arguments import Commands
from spf_lite.cli.models import add_model_options


def add_train(commands: Commands) -> None:
    """``spf-lite train``."""
    train = commands.add_parser(
        "train",
        help="fine-tune on a custom set; on two cards: "
        "`accelerate launch --multi_gpu --num_processes 2 -m spf_lite.cli train CUSTOM_SET OUTPUT`",
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
