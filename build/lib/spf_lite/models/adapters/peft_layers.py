"""Adapters of peft on any network: put on, switched off and on, scaled, taken off.

diffusers gives most of its networks methods for that, but not all (PixArt's has none).
"""

from __future__ import annotations

from diffusers import ModelMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.utils import recurse_remove_peft_layers
from peft import PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer


def put_on(network: ModelMixin, config: PeftConfig, name: str) -> None:
    """Put an adapter on a network.

    Args:
        network: gets it.
        config: of the adapter.
        name: of the adapter.
    """
    if isinstance(network, PeftAdapterMixin):  # it keeps account of its adapters
        network.add_adapter(config, adapter_name=name)
    else:
        inject_adapter_in_model(config, network, name)


def adapter_layers(network: ModelMixin) -> list[BaseTunerLayer]:
    """The layers of a network that carry adapters."""
    return [module for module in network.modules() if isinstance(module, BaseTunerLayer)]


def switch(network: ModelMixin, on: bool) -> None:
    """Switch all adapters of a network off or on."""
    for layer in adapter_layers(network):
        layer.enable_adapters(on)


def set_strength(network: ModelMixin, name: str, strength: float) -> None:
    """Set the factor of an adapter's change.

    Args:
        network: that carries it.
        name: of the adapter.
        strength: 1: as it was learned.
    """
    for layer in adapter_layers(network):
        layer.set_scale(name, strength)


def take_off(network: ModelMixin) -> None:
    """Take all adapters off a network."""
    if isinstance(network, PeftAdapterMixin):
        network.unload_lora()
    else:
        recurse_remove_peft_layers(network)
        del network.peft_config
