"""What a GPU would be asked to do, seen at every operation: launches, waits, and what would fail there.

What follows from prompts and sizes is computed beside the fake tensors, so that code that asks for it gets the true
answer. Logits are not known: whatever is chosen by them is always the same token, and all of them are finite.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

CHOSEN_TOKEN = 5
"""The token that is always chosen; no tokenizer's end."""


class CudaError(AssertionError):
    """What would fail on CUDA, or break a recording, with its place."""


@dataclass
class Seen:
    """Numbers of operations that start something on the device, by name, and by place of waits for its results and of
    copies to it from memory that is not pinned, which wait too.

    `recorded` are launches that went into a graph instead; a replay of one is a launch.
    """

    launches: Counter[str] = field(default_factory=Counter)
    recorded: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    brought: Counter[str] = field(default_factory=Counter)


_MOST_KNOWN = 1 << 20
"""Numbers in the largest tensor whose values are computed: masks and prompts, no weights or activations."""

_ONE_DTYPE = {
    *("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "einsum", "conv1d", "conv2d", "convolution"),
    *("scaled_dot_product_attention", "layer_norm", "index_copy_", "index_add_", "scatter_add", "masked_scatter"),
}
"""Operations that refuse floating-point inputs of different dtypes."""

_GUESSED: dict[str, Callable[[Tensor], Tensor]] = {
    "argmax": lambda of: torch.full(of.shape, CHOSEN_TOKEN),
    "isfinite": lambda of: torch.ones(of.shape, dtype=torch.bool),
    "isnan": lambda of: torch.zeros(of.shape, dtype=torch.bool),
}
"""What is said of logits."""

_LOOKS = {"item", "_local_scalar_dense", "is_nonzero", "equal", "nonzero"}
"""Operations whose result the processor needs."""

_COPIES = {"to", "_to_copy", "copy_"}
_UNSET = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_STARTS_NOTHING = {*_UNSET, "lift_fresh", "lift", "detach", "alias", "device", "dropout"}  # nobody trains here
_OF_INTEREST = ("sfvqa", "transformers", "bitsandbytes", "accelerate")


def place() -> str:
    """The three innermost lines that are running of the product and the libraries that it calls."""
    frame: Any = sys._getframe(1)
    lines: list[str] = []
    while frame is not None and len(lines) < 3:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_OF_INTEREST) and not module.startswith(__package__ or ""):
            lines.append(f"{module}.{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return ", from ".join(lines)


@dataclass(frozen=True, eq=False)
class _Call:
    """An operation, with the tensors that go in, in whatever list they stand, and come out."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """Without the library and the variant: `add` of `aten::add.Tensor`."""
        return str(self.func._schema.name).split("::")[-1]

    @cached_property
    def inputs(self) -> list[Tensor]:
        return _tensors((self.args, self.kwargs))

    def argument(self, name: str) -> Any:
        """What was given for it, by whatever way; None for nothing."""
        names = [argument.name for argument in self.func._schema.arguments]
        if name in self.kwargs or name not in names:
            return self.kwargs.get(name)
        index = names.index(name)
        return self.args[index] if index < len(self.args) else None

    @property
    def overwritten(self) -> list[Tensor]:
        """The inputs that it writes into."""
        found = [
            self.argument(argument.name)
            for argument in self.func._schema.arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        return _tensors(found)

    @property
    def is_predictable(self) -> bool:
        """Whether its output follows from its inputs."""
        return self.name not in _UNSET and torch.Tag.nondeterministic_seeded not in self.func.tags


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


class Watch(TorchDispatchMode):
    """Sees every operation on the way to a FakeTensorMode, which has to be entered before.

    `on_launch` is called with the name, the arguments and the outputs of each launch. Raises CudaError for mixed
    dtypes and, while `is_recording`, for whatever waits; for mixed devices the FakeTensorMode raises.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = Seen()
        self.recorded_device: int | None = None
        self.on_launch: Callable[[str, tuple[Any, ...], dict[str, Any], list[Tensor]], None] | None = None
        self._known: Any = WeakTensorKeyDictionary()
        self._pinned: Any = WeakTensorKeyDictionary()

    @property
    def is_recording(self) -> bool:
        """Whether a graph is being recorded."""
        return self.recorded_device is not None

    def wait(self, where: str) -> None:
        """Note that the processor waits for the device."""
        self._refuse_in_recording(f"waits for the device at {where}")
        self.seen.waits[where] += 1

    def unknown_size(self) -> int:
        """Of an output that is as large as the numbers of an input want it: the processor waits to know."""
        self.wait(f"{place()} (an output's size)")
        return 1

    def start(self, name: str) -> None:
        """Note that something is started on the device."""
        (self.seen.recorded if self.is_recording else self.seen.launches)[name] += 1

    def known(self, tensor: Tensor) -> Tensor | None:
        """The values of a tensor, on the CPU, or None."""
        if not isinstance(tensor, FakeTensor):
            return tensor if tensor.device.type == "cpu" and tensor.numel() <= _MOST_KNOWN else None
        values: Tensor | None = self._known.get(tensor)
        return None if values is None or (values.numel() and not values.untyped_storage().nbytes()) else values

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = _Call(func, args, kwargs or {})
        for tensor in call.inputs:
            if isinstance(tensor, FakeTensor):
                tensor.constant = None  # with which torch would compute itself, on the device that is not there
        if call.name == "detach_" and not isinstance(args[0], FakeTensor):
            return args[0]  # of `torch.tensor`, whose numbers are real
        self._check_dtypes(call)
        if call.name in _LOOKS:
            return self._look(call)
        if call.name in ("pin_memory", "_pin_memory", "is_pinned"):
            return self._pin(call)
        output = func(*args, **call.kwargs)
        made = _tensors(output)
        self._note_move(call, made)
        self._note_launch(call, made)
        self._note_values(call, made)
        return output

    def _check_dtypes(self, call: _Call) -> None:
        if call.name in _ONE_DTYPE:
            dtypes = {tensor.dtype for tensor in call.inputs if tensor.is_floating_point()}
            if len(dtypes) > 1:
                raise CudaError(f"{call.name} of {', '.join(sorted(map(str, dtypes)))} at {place()}")

    def _refuse_in_recording(self, what: str) -> None:
        if self.is_recording:
            raise CudaError(f"a recorded step {what}")

    # --- what the processor asks for ---------------------------------------------------------------------------------

    def _look(self, call: _Call) -> Any:
        if any(tensor.device.type == "cuda" for tensor in call.inputs):
            self.wait(f"{place()} ({call.name})")
        values = [self.known(tensor) for tensor in call.inputs]
        if any(value is None for value in values):
            return self._guess(call.name, call.inputs[0])
        with no_dispatch():
            found = call.func(*values)
        return self._as_fake(found, call.inputs[0].device) if isinstance(found, Tensor) else found

    def listed(self, tensor: Tensor) -> Any:
        """As `tensor.tolist()`, which copies a tensor to the processor at once."""
        if tensor.device.type == "cuda":
            self.wait(f"{place()} (tolist)")
        values = self.known(tensor)
        with no_dispatch():
            return (torch.full(tensor.shape, self._guess("tolist", tensor)) if values is None else values).tolist()

    def _guess(self, name: str, tensor: Tensor) -> Any:
        if name == "equal":
            return True
        if name == "nonzero" or tensor.dtype is torch.bool:
            raise CudaError(f"{place()} asks for values that nothing is known of ({name} of {tensor.dtype})")
        return -1.0 if tensor.is_floating_point() else CHOSEN_TOKEN

    def _as_fake(self, values: Tensor, device: torch.device) -> Tensor:
        fake = torch.empty(values.shape, dtype=values.dtype, device=device)
        self._known[fake] = values
        return fake

    def _pin(self, call: _Call) -> Any:
        (tensor,) = call.inputs
        if call.name == "is_pinned":
            return tensor in self._pinned
        copy = torch.empty_like(tensor)
        self._pinned[copy] = True
        if (values := self.known(tensor)) is not None:
            with no_dispatch():
                self._known[copy] = values.clone()
        return copy

    # --- what is noted of an operation -------------------------------------------------------------------------------

    def _note_move(self, call: _Call, made: list[Tensor]) -> None:
        """A copy between processor and device; a number without dimensions goes along with a launch."""
        is_copy = call.name in _COPIES
        out_of = {tensor.device.type for tensor in call.inputs if tensor.dim() > 0 or is_copy}
        into = {tensor.device.type for tensor in made}
        if len(out_of | into) < 2 or not any(tensor.numel() for tensor in made):
            return
        goes_on = is_copy and bool(call.argument("non_blocking"))
        if into == {"cpu"}:
            self._refuse_in_recording(f"copies from the device at {place()}")
            if not goes_on:
                self.wait(f"{place()} ({call.name})")
        else:
            self._refuse_in_recording(f"brings numbers to the device at {place()}")
            if not (goes_on and call.inputs[-1] in self._pinned):  # the source: `copy_` has its target before it
                self.seen.brought[f"{place()} ({call.name})"] += 1

    def _note_launch(self, call: _Call, made: list[Tensor]) -> None:
        if call.name in _STARTS_NOTHING or not any(tensor.device.type == "cuda" for tensor in made):
            return
        if call.func._schema.is_mutable or any(not _shares_memory(tensor, call.inputs) for tensor in made):
            where = {tensor.device.index or 0 for tensor in made if tensor.device.type == "cuda"}
            if self.recorded_device not in (None, *where):
                raise CudaError(f"a recording on cuda:{self.recorded_device} misses what runs on another at {place()}")
            self.start(call.name)
            if self.on_launch is not None:
                self.on_launch(call.name, call.args, call.kwargs, made)

    def _note_values(self, call: _Call, made: list[Tensor]) -> None:
        """Compute on the CPU what is known, and forget what was overwritten with what is not."""
        values = {id(tensor): self.known(tensor) for tensor in call.inputs}
        is_small = all(tensor.numel() <= _MOST_KNOWN for tensor in made)
        if not is_small or not call.is_predictable or any(value is None for value in values.values()):
            with no_dispatch():
                for overwritten in map(self.known, call.overwritten):
                    if overwritten is not None:
                        overwritten.untyped_storage().resize_(0)  # of all its views, too: so `known` knows
                if is_small and call.name in _GUESSED:
                    self._known[made[0]] = _GUESSED[call.name](made[0])
            return

        def on_cpu(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return values[id(leaf)]
            return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

        kwargs = {key: value for key, value in call.kwargs.items() if key != "pin_memory"}
        with no_dispatch():
            found = _tensors(call.func(*tree_map(on_cpu, call.args), **tree_map(on_cpu, kwargs)))
            for fake, value in zip(made, found, strict=True):
                is_view = _shares_memory(fake, call.inputs) and not call.name.startswith("lift")
                self._known[fake] = value if is_view else value.clone()


def _shares_memory(tensor: Tensor, others: list[Tensor]) -> bool:
    return any(tensor.untyped_storage()._cdata == other.untyped_storage()._cdata for other in others)
