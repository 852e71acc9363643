"""Fake devices tell the truth about what is known, count what waits, and leave nothing behind."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import masking_utils

from sfvqa.inference.engine import check_finite
from sfvqa.lab.fake_cuda.device import FakeCuda, why_not
from sfvqa.lab.fake_cuda.watch import CHOSEN_TOKEN, CudaError

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def cuda() -> Iterator[FakeCuda]:
    with FakeCuda() as devices, torch.inference_mode():
        yield devices


@pytest.mark.usefixtures("cuda")
def test_what_follows_from_numbers_is_known() -> None:
    ids = torch.tensor([[1, 2, 0], [3, 0, 0]], device="cuda")
    assert (ids > 0).sum(dim=1).tolist() == [2, 1]
    assert not bool((ids > 0).all())
    assert ids[[1, 0]].tolist() == [[3, 0, 0], [1, 2, 0]]
    assert ids.nonzero().shape == (3, 2)
    ids[:, 1] = 7
    assert ids[:, 1:].sum().item() == 14, "what is written through a view"
    assert ids.to("cuda:1").device == torch.device("cuda", 1)


@pytest.mark.usefixtures("cuda")
def test_what_is_overwritten_with_something_unknown_is_not_known_any_more() -> None:
    flags = torch.tensor([True, True], device="cuda")
    view = flags[:1]
    flags.copy_(torch.empty(2, device="cuda") > 0)
    with pytest.raises(CudaError, match="nothing is known"):
        bool(view)


@pytest.mark.usefixtures("cuda")
def test_logits_choose_always_the_same() -> None:
    assert torch.empty(2, 9, device="cuda").argmax(dim=-1).tolist() == [CHOSEN_TOKEN] * 2


def test_waits_are_counted_with_their_place(cuda: FakeCuda) -> None:
    logits = torch.empty(1, 9, device="cuda")
    with cuda.seeing() as seen:
        check_finite(logits)
    assert dict(seen.launches) == {"isfinite": 1, "all": 1}
    (where,) = seen.waits
    assert where.startswith("sfvqa.inference.engine.check_finite")


def test_only_pinned_memory_is_copied_without_a_wait(cuda: FakeCuda) -> None:
    there, here = torch.zeros(4, device="cuda"), torch.zeros(4)
    with cuda.seeing() as seen:
        there.cpu()
        here.to("cuda")
        here.to("cuda", non_blocking=True)
    assert (seen.waits.total(), seen.brought.total()) == (1, 2)
    with cuda.seeing() as seen:
        there.to("cpu", non_blocking=True)
        here.pin_memory().to("cuda", non_blocking=True)
    assert (seen.waits.total(), seen.brought.total()) == (0, 0)


def test_views_launch_nothing(cuda: FakeCuda) -> None:
    states = torch.empty(2, 8, device="cuda")
    with cuda.seeing() as seen:
        states.T.transpose(0, 1)[:, :1].unsqueeze(0).expand(3, 2, 1)
        states.T.reshape(-1)
    assert dict(seen.launches) == {"reshape": 1}, "the one that copies"


def test_what_waits_breaks_a_recording_and_what_is_recorded_is_counted_apart(cuda: FakeCuda) -> None:
    states, graph = torch.empty(2, device="cuda"), torch.cuda.CUDAGraph()
    with cuda.seeing() as seen:
        with torch.cuda.graph(graph):
            states + states
        graph.replay()
    assert (dict(seen.recorded), dict(seen.launches)) == ({"add": 1}, {"replay": 1})
    for waits in (states.sum().item, torch.cuda.synchronize, lambda: torch.tensor([1], device="cuda")):
        with pytest.raises(CudaError, match="a recorded step"), torch.cuda.graph(graph):
            waits()


@pytest.mark.usefixtures("cuda")
def test_mixed_dtypes_are_refused_where_cuda_refuses_them() -> None:
    half, single = (torch.empty(2, 2, device="cuda", dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert (half + single).dtype is torch.float32
    with pytest.raises(CudaError, match=r"linear of torch\.bfloat16, torch\.float32"):
        torch.nn.functional.linear(half, single)


def replaced() -> list[Any]:
    """Some of what fake devices put themselves in the place of."""
    inside: Any = masking_utils
    in_torch = [torch.cuda.is_available, torch.cuda.synchronize, torch.Generator, torch.Tensor.data_ptr]
    return [*in_torch, FakeTensor.tolist, inside.is_tracing]


def test_nothing_is_left_behind() -> None:
    before = replaced()
    with contextlib.suppress(KeyError), FakeCuda():
        assert torch.cuda.is_available()
        assert not any(map(operator.is_, replaced(), before))
        raise KeyError
    assert replaced() == before
    assert not isinstance(torch.ones(2), FakeTensor)
    assert torch.ones(2).sum().item() == 2
