from pathlib import Path

import torch

from spf_lite.models.digests import digest_of
from spf_lite.training.run.fingerprint import backbone_digest

from ...conftest import load_toy


def test_the_same_weights_have_the_same_digest_and_others_another(toy_folders: dict[str, Path]) -> None:
    backbone, again = (load_toy(toy_folders["v_prediction"]) for _ in range(2))
    digest = backbone_digest(backbone)
    assert digest == backbone_digest(again) != backbone_digest(load_toy(toy_folders["epsilon"]))
    for module in (again.pipe.unet, again.pipe.text_encoder, again.pipe.vae, again.clip.model):
        parameter = next(module.parameters())
        old = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-3
        assert backbone_digest(again) != digest, type(module).__name__
        with torch.no_grad():
            parameter.copy_(old)
    assert backbone_digest(again) == digest


def test_names_shapes_and_types_are_part_of_a_digest() -> None:
    ones = torch.ones(4)
    digests = [
        digest_of([("a", ones)]),
        digest_of([("b", ones)]),
        digest_of([("a", ones.view(2, 2))]),
        digest_of([("a", ones.to(torch.bfloat16))]),
        digest_of([("a", ones), ("b", torch.tensor(1.0))]),
    ]
    assert len(set(digests)) == 5
    assert digest_of([("b", ones), ("a", torch.zeros(1))]) == digest_of([("a", torch.zeros(1)), ("b", ones)])
