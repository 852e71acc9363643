"""Learning rates by part of the network: vision tower, bridge to the decoder, slow path, decoder."""

from collections.abc import Mapping
from enum import StrEnum

from torch import nn
from torch.optim import Optimizer

from sfvqa.model import SlowFastConfig


class Part(StrEnum):
    """A part of the network that may learn at a rate of its own."""

    TOWER = "tower"
    BRIDGE = "bridge"
    SLOW = "slow"
    DECODER = "decoder"

    @classmethod
    def of(cls, name: str) -> "Part":
        """The part that a parameter of this name belongs to, PEFT's own names included."""
        for mark, part in ((".slow_attention.", cls.SLOW), (".vision_tower.", cls.TOWER), (".projector.", cls.BRIDGE)):
            if mark in f".{name}":
                return part
        return cls.DECODER


def new_parts(config: SlowFastConfig) -> dict[Part, str]:
    """The modules that a converted model got new, by part: every stage and form of training learns them in full."""
    new = {Part.SLOW: "slow_attention"} if config.hybrid_layers else {}
    if config.family.name == "slowfast":  # others come with a trained bridge
        new[Part.BRIDGE] = "projector"
    return new


def set_rates(optimizer: Optimizer, model: nn.Module, rates: Mapping[Part, float]) -> None:
    """Split the groups of a new optimizer by part, and give those in `rates` their own."""
    part_of = {id(parameter): Part.of(name) for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        for part in Part:
            learned = [parameter for parameter in group["params"] if part_of.get(id(parameter)) is part]
            if learned:
                groups.append({**group, "params": learned, "lr": rates.get(part, group["lr"])})
    assert sum(len(group["params"]) for group in groups) == sum(
        len(group["params"]) for group in optimizer.param_groups
    )
    optimizer.param_groups = groups
