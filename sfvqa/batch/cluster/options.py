"""What is asked of a Ray cluster: where it is, how many workers, how many GPUs each. Data only."""

from dataclasses import dataclass

from sfvqa.errors import UsageError


@dataclass(frozen=True)
class ClusterOptions:
    """How many workers run where; UsageError when built for what cannot be.

    - `address` None is the cluster that Ray finds (RAY_ADDRESS, else one on this machine), else one of our own.
    - `num_workers` None: as many as fit; `gpus_per_worker` None: one where the cluster has any. Below 1 they share.
    - `device` is the one asked for: `cpu` and `mps` need none of the GPUs that Ray counts.
    """

    address: str | None = None
    num_workers: int | None = None
    gpus_per_worker: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise UsageError(f"{self.num_workers} workers are asked for.", "Ask for at least 1 (--workers).")
        gpus = self.gpus_per_worker
        if gpus is not None and (not 0 <= gpus < 1e6 or (gpus > 1 and gpus != int(gpus))):
            raise UsageError(
                f"A worker cannot have {gpus:g} GPUs.", "--gpus-per-worker is a part of one, such as 0.5, or whole."
            )
        if gpus == 0 and self.device.startswith("cuda"):
            raise UsageError(f"--device {self.device} needs a GPU.", "Leave out --gpus-per-worker 0.")
        if gpus and self.device in ("cpu", "mps"):
            raise UsageError(f"--device {self.device} needs no GPUs of Ray.", "Leave out --gpus-per-worker.")
        if ":" in self.device:
            raise UsageError("Which GPU a worker has is for Ray to say.", f"Use --device cuda, not {self.device}.")
        if (self.address or "").startswith("ray://"):
            raise UsageError(
                "Ray Client (ray://) does not stream what workers yield.",
                "Run this on a node of the cluster, with --ray-address HOST:PORT or auto.",
            )
