"""transformers' Trainer, with eyes that see a video once where they are frozen, and validation by answers."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer

from sfvqa.training.engines import Engine
from sfvqa.training.frozen_tower import FrozenTower
from sfvqa.training.rates import Part, set_rates
from sfvqa.training.stream import Stream, StreamBatches
from sfvqa.training.validation import Figures, Validation


class VideoTrainer(Trainer):
    """Trains on rows of a VideoDataset; what `frozen` keeps is not looked at again, and `validation` evaluates."""

    frozen: FrozenTower | None = None
    validation: Validation | None = None
    order: Sampler[int] | None = None
    """In which rows are learned from; None: at random."""

    stream: Stream | None = None
    """What draws the rows, where they come from a stream."""

    rates: Mapping[Part, float] = MappingProxyType({})

    def create_accelerator_and_postprocess(self) -> None:
        """As Trainer's; the engine is the same on the CPU, where accelerate would go over to DDP without a word."""
        state = self.args.distributed_state
        if Engine.launched() is not Engine.DDP and state.distributed_type is DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU
        super().create_accelerator_and_postprocess()

    def autocast(self) -> AbstractContextManager[Any]:
        """What the model computes in, outside of `forward` too."""
        if self.is_deepspeed_enabled:  # of which accelerate leaves it to DeepSpeed, inside
            return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16)
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def whole_weights(self) -> dict[str, Tensor] | None:
        """All weights, on the first process, of a model that processes share; None where each holds all."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return None
        gathered = self.accelerator.get_state_dict(self.model_wrapped) or {}
        learner: Any = self.model
        names = {name for name, _ in learner.named_parameters()}  # of tied ones, one
        return {name: tensor for name, tensor in gathered.items() if name in names}

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As Trainer's; parts of the network that have a learning rate in `rates` learn at that."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new and self.rates:
            learner: Any = model or self.model
            set_rates(optimizer, learner, self.rates)
        return optimizer

    def _init_training_state(self, max_steps: int, *given: Any, **named: Any) -> Any:
        """As Trainer's; a run that goes on saves and logs as often as it is told now, not as it was before."""
        begins_at = super()._init_training_state(max_steps, *given, **named)
        self.state.compute_steps(self.args, max_steps)
        return begins_at

    def _run_epoch(self, *given: Any, **named: Any) -> None:
        """As Trainer's, which forgets that the run was over when its last state was saved, and would learn on."""
        saved: Any = self.state.stateful_callbacks
        if saved["TrainerControl"]["args"]["should_training_stop"]:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*given, **named)  # type: ignore[no-untyped-call]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    def get_train_dataloader(self) -> Any:
        """As Trainer's; a stream has a loader of its own, which deals out rows to processes itself."""
        if self.stream is None:
            return super().get_train_dataloader()
        rows: Any = self.train_dataset
        return StreamBatches(self.stream, rows, self._train_batch_size, self.args.dataloader_num_workers)

    def _save_rng_state(self, output_dir: str) -> None:
        """As Trainer's, which calls it in each process when a state is saved; and where the stream is."""
        super()._save_rng_state(output_dir)
        if self.stream is not None:
            self.stream.save(Path(output_dir))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """As Trainer's; videos of which something is kept go in as that."""
        drawn = inputs.pop("place", 0), inputs.pop("num_skipped", 0)
        looked = inputs.pop("looked", None)
        if self.frozen is not None and looked is not None:
            del inputs["pixel_values"]
            with self.autocast():
                inputs |= self.frozen.arguments(self.accelerator.unwrap_model(model), looked)
        loss = super().compute_loss(model, inputs, *arguments, **named)
        if self.stream is not None:
            self.stream.learned(*drawn)
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the model as it is now; the rest of it, from logs to early stopping, is Trainer's."""
        metrics = {f"eval_{name}": value for name, value in self.measure().metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure(self, validation: Validation | None = None) -> Figures:
        """The figures of the model as it is now, or of another one's `validation`, over all processes."""
        other, accelerator = validation is not None, self.accelerator
        validation = validation or self.validation
        assert validation is not None
        return validation.measure(
            nullcontext if other else self.autocast,
            process=(accelerator.process_index, accelerator.num_processes),
            add_up=self._add_up,
        )

    def _add_up(self, sums: Tensor) -> Tensor:
        """The sums of all processes; a device of one alone need not know float64."""
        if self.accelerator.num_processes == 1:
            return sums
        total: Tensor = self.accelerator.reduce(sums.to(self.accelerator.device))
        return total
