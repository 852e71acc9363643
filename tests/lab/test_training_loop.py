"""A loop that stopped after any step goes on as if it had not, and learns."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sfvqa.errors import UsageError
from sfvqa.lab.training_loop import TrainingLoop, make_optimizers


def loop_of(path: Path, seed: int = 0) -> tuple[nn.Module, TrainingLoop]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    read_out = model[1].parameters()
    return model, TrainingLoop(
        {"model": model}, path, num_steps=60, rate=0.1, outside=read_out, seed=seed, save_every=7
    )


def run(model: nn.Module, loop: TrainingLoop, stop_after: int = 60) -> None:
    def take_step(step: int) -> dict[str, float]:
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        loss.backward()
        return {"loss": loss.item()}

    def stop(step: int) -> None:
        if step == stop_after < loop.num_steps:
            raise KeyboardInterrupt

    loop.run(take_step, stop)


def test_a_loop_learns_and_resumes_bit_by_bit(tmp_path: Path) -> None:
    whole, loop = loop_of(tmp_path / "whole.pt")
    run(whole, loop)
    assert loop.losses[-1] < 0.1 * loop.losses[0]
    model, stopped = loop_of(tmp_path / "stopped.pt")
    with pytest.raises(KeyboardInterrupt):
        run(model, stopped, stop_after=30)
    model, resumed = loop_of(tmp_path / "stopped.pt")
    assert resumed.step == 28  # the last one that was saved
    run(model, resumed)
    assert resumed.losses == loop.losses
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)
    run(*loop_of(tmp_path / "stopped.pt"))  # nothing is left to do


def test_a_state_of_another_seed_is_refused(tmp_path: Path) -> None:
    run(*loop_of(tmp_path / "a.pt"))
    with pytest.raises(UsageError, match="seed 0, not 1"):
        loop_of(tmp_path / "a.pt", seed=1)


def test_muon_is_for_matrices_inside_the_network() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    muon, adam = make_optimizers(model.parameters(), {id(model[1].weight)})
    assert [part is model[0].weight for group in muon.param_groups for part in group["params"]] == [True]
    assert sum(len(group["params"]) for group in adam.param_groups) == 3
