"""How long parts of the network run, by hooks that are there for a while only; nothing is written onto its modules."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sfvqa.inference.device import synchronize
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.hybrid_layer import HybridLayerMixin


class PartClock:
    """Adds up the device time between `start` and `stop`, without making a GPU wait: CUDA notes when it got there.

    A part that is started again before it was stopped begins anew: only what was stopped counts.
    """

    def __init__(self, device: torch.device, *, waits: bool) -> None:
        self._device, self._waits = device, waits
        self._started: Any = None
        self._spans: list[tuple[Any, Any]] = []  # of seconds, or of CUDA's events

    def start(self) -> None:
        """The part begins."""
        self._started = self._now()

    def stop(self) -> None:
        """It is over."""
        self._spans.append((self._started, self._now()))

    @property
    def seconds(self) -> float:
        """All spans together; waits for the device."""
        synchronize(self._device)
        if self._waits:
            return float(sum(stop - start for start, stop in self._spans))
        return float(sum(start.elapsed_time(stop) for start, stop in self._spans)) / 1000

    def _now(self) -> Any:
        if self._waits:
            synchronize(self._device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


class PartClocks:
    """The clocks of the vision tower and of the slow keys and values: the slow tokens' norm and their projection."""

    def __init__(self, model: SlowFastForConditionalGeneration) -> None:
        devices = {parameter.device for parameter in model.parameters()}
        waits = not (len(devices) == 1 and model.device.type == "cuda")
        self.vision_tower, self.slow_keys_values = (PartClock(model.device, waits=waits) for _ in range(2))


@contextlib.contextmanager
def watch_parts(model: SlowFastForConditionalGeneration) -> Iterator[PartClocks]:
    """Let the clocks run while the block does; the hooks are gone behind it."""
    clocks = PartClocks(model)
    tower, slow = clocks.vision_tower, clocks.slow_keys_values
    with contextlib.ExitStack() as hooks:
        _hook(hooks, model.vision_tower, before=tower.start, after=tower.stop)
        layers: list[Any] = [layer for layer in model.language_model.layers if isinstance(layer, HybridLayerMixin)]
        for layer in layers:
            # The norm runs on the prompt too, but only after the slow tokens' does the projection follow.
            _hook(hooks, layer.input_layernorm, before=slow.start)
            _hook(hooks, layer.self_attn.slow_attention.kv_proj, after=slow.stop)
        yield clocks


def _hook(
    hooks: contextlib.ExitStack,
    module: Any,
    *,
    before: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> None:
    def call_before(_module: nn.Module, _arguments: Any) -> None:
        assert before is not None
        before()

    def call_after(_module: nn.Module, _arguments: Any, _output: Any) -> None:
        assert after is not None
        after()

    if before is not None:
        hooks.callback(module.register_forward_pre_hook(call_before).remove)
    if after is not None:
        hooks.callback(module.register_forward_hook(call_after).remove)
