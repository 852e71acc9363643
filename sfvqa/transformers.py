"""transformers' Auto classes for slow-fast checkpoints; importing this module tells them of model and processor.

`import sfvqa` alone does not: it would have to import transformers, and help and completion would wait for that.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from sfvqa.checkpoints.known import TrainedWith, read_trained_with
from sfvqa.checkpoints.load import load_tokenizer
from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
from sfvqa.errors import UsageError
from sfvqa.inference.encode import pixel_values
from sfvqa.inference.prompt import Role, Turn, build_prompt, layout_of, question_turn
from sfvqa.inference.question import check_text
from sfvqa.model import SlowFastConfig, read_config
from sfvqa.model.families import VideoLayout
from sfvqa.registry.architecture import prompt_size
from sfvqa.video.clip import Clip
from sfvqa.video.readers.in_memory import FramesInMemory
from sfvqa.video.reading import read_clip
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]
"""`{"role": …, "content": …}`, the content a text, or parts: `{"type": "text", "text": …}`, `{"type": "video", …}`."""


class SlowFastProcessor(ProcessorMixin):
    """Chat messages → what `generate` takes, and tokens → text: prompts and frames are those of `VideoQA.ask`.

    A video is `{"type": "video", "path": …}`, read as the model saw videos in training, or frames in memory:
    `{"type": "video", "video": frames, "timestamps_seconds": […]}` (see FramesInMemory). It stands before the text of
    its message, wherever it is in it. `{"type": "image", "path" or "image": …}` is a video of one frame. Nothing is
    ever fetched.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: SlowFastConfig, trained_with: TrainedWith) -> None:
        super().__init__(tokenizer)  # type: ignore[no-untyped-call]
        self._config, self._trained_with = config, trained_with

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **_of_transformers: Any) -> Self:  # type: ignore[override]
        """Read it from a checkpoint folder. Raises CheckpointError."""
        folder = Path(pretrained_model_name_or_path)
        config = read_config(folder)
        return cls(load_tokenizer(folder, config), config, read_trained_with(folder))

    @property
    def model_input_names(self) -> list[str]:
        """What `apply_chat_template` returns."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def __call__(self, *_: Any, **__: Any) -> BatchFeature:
        """UsageError: only a conversation says where a video stands."""
        raise UsageError("A prompt is made of a conversation.", "Call `apply_chat_template` with its messages.")

    def apply_chat_template(  # type: ignore[override]  # not all that transformers' takes
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        return_dict: bool = True,
        return_tensors: str = "pt",
        processor_kwargs: Mapping[str, Any] | None = None,
        **frames: Any,
    ) -> BatchFeature:
        """One conversation or several → `input_ids` and `attention_mask` `[B, L]`, padded on the left, and
        `pixel_values`: for each the frames `[T, 3, S, S]` of its video, or None.

        `num_frames` at most, or `fps` frames a second, here or in `processor_kwargs`, are taken in place of the model's
        own. Raises UsageError, VideoError.
        """
        if not (tokenize and add_generation_prompt and return_dict and return_tensors == "pt"):
            raise UsageError(
                "A prompt of a slow-fast model is tensors, and asks for an answer.",
                "Leave out tokenize, add_generation_prompt, return_dict and return_tensors, or give True and “pt”.",
            )
        if continue_final_message:
            raise UsageError("An answer cannot be begun for the model.", "End with a message of the user.")
        sampling = self._sampling(**{**(processor_kwargs or {}), **frames})
        is_one = not conversation or isinstance(conversation[0], Mapping)
        several: Any = [conversation] if is_one else conversation
        written = [self._write(messages, sampling) for messages in several]
        longest = max((len(ids) for ids, _ in written), default=0)
        padding = [longest - len(ids) for ids, _ in written]
        data = {
            "input_ids": torch.tensor([[0] * pad + ids for pad, (ids, _) in zip(padding, written, strict=True)]),
            "attention_mask": torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding]),
        }
        pixels = [each for _, each in written]
        return BatchFeature({**data, "pixel_values": pixels} if any(each is not None for each in pixels) else data)

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> list[str]:
        """The text of each row of tokens; the places of a video's fast tokens have none."""
        return [self.decode(row, *args, **kwargs) for row in sequences]

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> str:
        """The text of tokens."""
        own = [int(token) for token in token_ids if token >= 0]
        return str(self.tokenizer.decode(own, *args, **kwargs))

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """The same, under the name by which transformers' pipelines know it."""
        return self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)

    def _sampling(self, num_frames: int | None = None, fps: float | None = None) -> SamplingOptions | None:
        """The frames that are asked for, None where that is left to the model."""
        if num_frames is None and fps is None:
            return None
        own = self._trained_with.sampling
        strategy = SamplingStrategy.implied(None, fps, None, own.strategy)
        return SamplingOptions(num_frames or own.num_frames, strategy, fps)

    def _write(self, messages: Sequence[Message], sampling: SamplingOptions | None) -> tuple[list[int], Tensor | None]:
        turns: list[Turn] = []
        videos: list[Message] = []
        for message in messages:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            shown = [part for part in parts if part["type"] in ("video", "image")]
            if unknown := [part["type"] for part in parts if part["type"] != "text" and part not in shown]:
                raise UsageError(f"A message has a part of type {unknown[0]!r}.", "Give text and a video.")
            videos += shown
            text = "".join(part["text"] for part in parts if part["type"] == "text")
            turns.append(_turn(message["role"], text, shows_video=bool(shown)))
        if not turns or turns[-1].role is not Role.USER:
            raise UsageError("A conversation does not end with a question.", "End it with a message of the user.")
        if len(videos) > 1:
            raise UsageError(f"A conversation has {len(videos)} videos.", "Show one, in one message.")
        clip = self._read(videos[0], sampling) if videos else None
        ids = build_prompt(self.tokenizer, turns, self._config.family, self._layout(clip) if clip else ())
        return ids, None if clip is None else pixel_values(clip.frames, self._config.vision)

    def _layout(self, clip: Clip) -> VideoLayout:
        times = clip.timestamps_seconds
        num_fast = prompt_size(architecture_of(self._config), fast_tokens_of(self._config), len(times), 0).length
        return layout_of(num_fast, times, clip.video.duration_seconds, self._config)

    def _read(self, part: Message, sampling: SamplingOptions | None) -> Clip:
        source: Any = part.get("path", part.get("url", part.get(part["type"])))
        fit = self._config.family.fit(self._config.vision, self._trained_with.crop)
        if isinstance(source, str | Path):
            if urlsplit(str(source)).scheme in ("http", "https", "file", "data"):
                raise UsageError(f"“{str(source)[:80]}” is an address.", "Nothing is fetched: give the path of a file.")
            clip = read_clip(source, sampling or self._trained_with.sampling, fit=fit)
        else:
            frames, times = (source, part.get("timestamps_seconds")) if part["type"] == "video" else ([source], [0.0])
            reader = FramesInMemory(frames, times or ())
            clip = read_clip(reader, sampling or SamplingOptions(len(reader.timestamps_seconds)), fit=fit)
        for warning in clip.warnings:
            logger.warning("%s", warning)
        return clip


def _turn(role: str, text: str, *, shows_video: bool) -> Turn:
    if role not in list(Role):
        raise UsageError(f"A message is of the role {role!r}.", f"Use one of {', '.join(Role)}.")
    if role != Role.USER and shows_video:
        raise UsageError(f"The {role} shows a video.", "Put it into a message of the user.")
    if role == Role.USER:
        return question_turn(text, shows_video=shows_video)
    return Turn(Role(role), check_text(text, f"{role}'s message", "Leave it out, or write something."))


AutoProcessor.register(SlowFastConfig, SlowFastProcessor, exist_ok=True)
