import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from spf_lite.choices import MAPS, WEIGHTS
from spf_lite.config import TrainConfig
from spf_lite.options import ControlMapOptions

SAMPLES = Path(__file__).parent.parent / "data_samples"


def test_json_brings_everything_back() -> None:
    config = TrainConfig(seed=7, schedule="cosine", weight_text=0.3, control=ControlMapOptions(threshold=0.2))
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json(config.to_json()) != replace(config, seed=8)


def test_older_files_lack_newer_fields() -> None:
    config = TrainConfig(seed=7, weight_text=0.3)
    for name in ("schedule", "map_draws", "denoise_outside", "gradient_accumulation"):
        values = json.loads(config.to_json())
        del values[name]
        assert TrainConfig.from_json(json.dumps(values)) == config, name
    values = json.loads(replace(config, control=ControlMapOptions(threshold=0.2)).to_json())
    del values["control"]["subtraction"]
    assert TrainConfig.from_json(json.dumps(values)).control == ControlMapOptions(threshold=0.2)


def test_options_are_changed_by_texts_of_their_own_type() -> None:
    config = TrainConfig()
    changed = config.changed(
        [
            "stage2_steps=50",
            "learning_rate=1e-3",
            "weight_text=1",
            "gradient_checkpointing=True",
            "map_source=token",
            "control.threshold=0.2",
            "control.rescale=false",
            "control.smoothing=5",
            "stage2_steps=60",
        ]
    )
    assert changed == replace(
        config,
        stage2_steps=60,
        learning_rate=1e-3,
        weight_text=1.0,
        gradient_checkpointing=True,
        map_source="token",
        control=ControlMapOptions(threshold=0.2, rescale=False, smoothing=5),
    )
    assert [type(value) for value in asdict(changed).values()] == [type(value) for value in asdict(config).values()]
    assert config == TrainConfig(), "a copy"
    assert config.changed([]) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps=5", "cannot set 'steps=5': expected NAME=VALUE with one of stage1_steps, "),
        ("seed", "cannot set 'seed': expected NAME=VALUE with one of "),
        ("control=1", "expected NAME=VALUE with one of .*, control.weight, .*, control.subtraction$"),
        ("control.seed=1", "cannot set 'control.seed=1': expected NAME=VALUE"),
        ("threshold=0.2", "cannot set 'threshold=0.2': expected NAME=VALUE"),
        ("=5", "cannot set '=5': expected NAME=VALUE"),
        ("rank=many", "cannot set 'rank=many': expected a value like 16"),
        ("rank=1.5", "cannot set 'rank=1.5': expected a value like 16"),
        ("learning_rate=", "cannot set 'learning_rate=': expected a value like 0.0015"),
        ("gradient_checkpointing=1", "cannot set 'gradient_checkpointing=1': expected true or false"),
        ("rank=0", "rank=0: expected 1 or more"),
        ("control.smoothing=2", "smoothing=2: expected an odd number"),
        ("rewrite_limit=-1", "rewrite_limit=-1.0: expected 0 or more"),
        ("rewrite_limit=0.25", "rewrite_limit needs pure_pairs and map_source=surprise"),
    ],
)
def test_a_bad_change_is_named(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig().changed([change])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage1_steps": 0, "stage2_steps": 0}, r"0 \+ 0 steps: at least one is needed"),
        ({"stage1_steps": -1}, r"-1 \+ 150 steps: .*none negative"),
        ({"batch_size": 0}, "batch_size=0: expected 1 or more"),
        ({"gradient_accumulation": 0}, "gradient_accumulation=0: expected 1 or more"),
        ({"map_draws": 0}, "map_draws=0: expected 1 or more"),
        ({"warmup_steps": -1}, "warmup_steps=-1: expected 0 or more"),
        ({"reference_portraits": -1}, "reference_portraits=-1: expected 0 or more"),
        ({"weight_text": -0.5}, "weight_text=-0.5: expected 0 or more"),
        ({"weight_fine": float("nan")}, "weight_fine=nan: expected 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected more than 0"),
        ({"enclosed": 0.0}, "enclosed=0.0: expected more than 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: expected more than 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm=-1.0: expected more than 0"),
        ({"trusted": 1.1}, "trusted=1.1: expected 0 to 1"),
        ({"denoise_outside": -0.1}, "denoise_outside=-0.1: expected 0 to 1"),
        ({"trainable": "all"}, "trainable='all': expected one of lora, adalora, weights"),
        ({"layers": "all"}, "layers='all': expected one of cross-attention, resnets"),
        ({"layers": "resnets", "trainable": "weights"}, "layers=resnets needs trainable=lora"),
        ({"learning_limit": -0.1}, "learning_limit=-0.1: expected 0 or more"),
        ({"fine_features": "values"}, "fine_features='values': expected one of inputs, queries, outputs"),
        ({"map_source": "drawn"}, f"map_source='drawn': expected one of {', '.join(MAPS)}"),
        ({"mixed_precision": "fp8"}, "mixed_precision='fp8': expected one of no, fp16, bf16"),
        ({"schedule": "linear"}, "schedule='linear': expected one of constant, cosine"),
        ({"weight_reconstruction": 1.0}, "weight_reconstruction needs reference_portraits"),
        ({"weight_prior": 1.0}, "weight_prior needs reference_portraits"),
        ({"weight_denoise": 0.0}, "stage2_steps=150, but no loss term with a weight applies to any item: give one of"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)  # type: ignore[arg-type]


REFERENCE = {"reference_portraits": 4, "weight_denoise": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {**REFERENCE, "weight_reconstruction": 1.0, "reconstruction_share": 0.0},
        {**REFERENCE, "weight_prior": 1.0, "reference_share": 0.0},
        {"weight_enhancement": 1.0, "trusted": 0.0},
        {"weight_denoise": 1.0, "reference_portraits": 4, "reference_share": 1.0},
        {"weight_enhancement": 1.0, "reference_portraits": 4, "reference_share": 1.0},
    ],
)
def test_a_stage_2_that_would_learn_nothing_is_refused(options: dict[str, float]) -> None:
    given = {"weight_denoise": 0.0, **options}
    with pytest.raises(ValueError, match="no loss term with a weight applies to any item"):
        TrainConfig(**given)  # type: ignore[arg-type]
    assert TrainConfig(stage2_steps=0, **given).steps == 150  # type: ignore[arg-type]


@pytest.mark.parametrize("term", WEIGHTS)
def test_a_single_term_is_enough_for_stage_2(term: str) -> None:
    given = {"weight_denoise": 0.0, "reference_portraits": 4, WEIGHTS[term]: 0.1}
    assert TrainConfig(**given).weight(term) == 0.1  # type: ignore[arg-type]


def test_every_shipped_configuration_is_accepted() -> None:
    found = [path for path in SAMPLES.rglob("*.json") if '"stage2_steps"' in path.read_text()]
    assert len(found) > 10
    for path in found:
        values = json.loads(path.read_text())
        values = values.get("config", values)  # a chain's file holds it beside the targets
        config = TrainConfig.from_json(json.dumps(values))
        assert {name: values[name] for name in WEIGHTS.values()} == {n: getattr(config, n) for n in WEIGHTS.values()}


@pytest.mark.parametrize("statement", ["import spf_lite.config", "from spf_lite import TrainConfig"])
def test_the_configuration_needs_no_heavy_library(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "spf_lite" in loaded
    assert not {"torch", "diffusers", "transformers", "peft", "accelerate", "numpy"} & set(loaded)


def test_every_weight_is_a_field_and_every_field_that_weighs_is_a_weight() -> None:
    names = {field.name for field in fields(TrainConfig) if field.name.startswith("weight_")}
    assert set(WEIGHTS.values()) == names
    given = {name: float(number) for number, name in enumerate(sorted(names))}
    config = TrainConfig(**given, reference_portraits=1)  # type: ignore[arg-type]
    assert {field: config.weight(term) for term, field in WEIGHTS.items()} == given
    assert TrainConfig(stage1_steps=3, stage2_steps=4).steps == 7
