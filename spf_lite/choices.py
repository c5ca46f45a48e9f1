"""What the options of a configuration may be, where they are names.

Importing this module needs the standard library alone.
"""

#: Loss terms of stage 2 and the configuration field that holds their weight.
WEIGHTS = {
    "denoise": "weight_denoise",
    "text": "weight_text",
    "fine": "weight_fine",
    "enhancement": "weight_enhancement",
    "output": "weight_output",
    "reconstruction": "weight_reconstruction",
    "prior": "weight_prior",
    "purecc": "weight_purecc",
}
#: Sources of M, the map of where the target may act. ``sfcm``: the paper's control map, made anew in every step.
#: ``averaged``: the same, made once when stage 2 begins, from several noises at low timesteps (ours). ``token``: the
#: attention map of the target's own tokens. ``surprise``: where the reference model cannot explain the portrait, made
#: once (ours, :mod:`spf_lite.pure_pairs.surprise`). ``given``: a mask that comes with the custom set. ``none``: M = 0.
MAPS = ("sfcm", "averaged", "token", "surprise", "given", "none")
#: What is trained of the cross-attention projections: a LoRA adapter, an AdaLoRA adapter, or the weights themselves.
KINDS = ("lora", "adalora", "weights")
#: Layers that a LoRA is put on: the projections of cross-attention (the paper's choice), or the convolutions of ResNet
#: blocks as well, which draw what attention asks for (ours).
LAYERS = ("cross-attention", "resnets")
PRECISIONS = ("no", "fp16", "bf16")
SCHEDULES = ("constant", "cosine")
#: AdamW, or bitsandbytes' AdamW with moments of 8 bits (Dettmers et al. 2022, arXiv 2110.02861).
OPTIMIZERS = ("adamw", "adamw8bit")
#: Forms of the texts: as they are given, or also with dropped phrases.
TEXT_FORMS = ("given", "both")
#: Distributions of the timesteps of training: all alike, or as Stable Diffusion 3 was trained (Esser et al. 2024,
#: arXiv 2403.03206, section 3.1).
TIMESTEPS = ("uniform", "logit-normal")
#: Features of cross-attention that the fine-grained loss can align.
FEATURES = ("inputs", "queries", "outputs")
#: The options and their values.
CHOICES = {
    "trainable": KINDS,
    "layers": LAYERS,
    "fine_features": FEATURES,
    "map_source": MAPS,
    "mixed_precision": PRECISIONS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "text_forms": TEXT_FORMS,
    "timesteps": TIMESTEPS,
}
