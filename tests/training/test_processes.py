"""Processes that train together end together."""

from pathlib import Path

import torch

from sfvqa.training.run_folder import leave_group


def test_processes_that_trained_together_end_their_group(tmp_path: Path) -> None:
    """Left to the end of the process, the group's threads once aborted one of two, and the launcher failed."""
    leave_group()  # one process alone has none
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    leave_group()
    assert not torch.distributed.is_initialized()
