"""The processes that train together, one a GPU, as torchrun or accelerate starts them."""

import os

import torch


def is_first_process() -> bool:
    """Whether this is the one of several that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def leave_group() -> None:
    """End the group of processes that trained together, once all have come here; nothing where there is none.

    A process that ends with its group's threads running may abort; the launcher then ends the one that still writes.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
