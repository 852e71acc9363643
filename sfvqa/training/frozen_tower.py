"""What a frozen vision tower makes of the videos of a run: computed once, kept on disk, read by every process.

Nothing that is learned changes it, so that later epochs neither read a video nor run the tower on it. Where the bridge
to the decoder is frozen too, as in stage 1 of a model that came with one, visual tokens are kept; else features, which
are larger.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.errors import UnreadableVideoError
from sfvqa.inference.encode import SeenVideo
from sfvqa.inference.video_cache.entry import EncodingKey
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.training.annotations import Example
from sfvqa.video.clip import CHUNK_SIZE, ClipFacts
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions
from sfvqa.wording import plural, readable_size

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looking:
    """How videos are sampled, cropped and read."""

    sampling: SamplingOptions
    crop: CropMode
    reading: ReadOptions


@dataclass(frozen=True, eq=False)
class LookedAt:
    """A video as a row has it: `pixel_values` `[T, 3, S, S]` of its frames and their facts, or what was kept of them.

    `content` is what it is to be kept under, None where it is not.
    """

    facts: ClipFacts | SeenVideo
    pixel_values: Tensor | None = None
    content: str | None = None


@dataclass(frozen=True)
class FrozenTower:
    """Keeps what a frozen tower makes of `videos`; the others are looked at anew each time.

    Of a stream, whose videos are not known before they come, it keeps the first ones until what was used since
    `since_seconds`, its start, fills the cache: `videos` is None. What others left there makes room.
    `key` is what videos are found by, but for their content; visual tokens are kept if the bridge is frozen too.
    """

    cache: VideoCache
    key: EncodingKey
    bridge_is_frozen: bool
    videos: frozenset[Path] | None
    since_seconds: float = field(default_factory=time.time)

    @classmethod
    def of(
        cls,
        checkpoint: LoadedCheckpoint,
        examples: Iterable[Example],
        looking: Looking,
        cache: VideoCache,
        precision: str,
        *,
        streams: bool = False,
    ) -> Self | None:
        """Choose as many videos as the cache has room for, in their order, and say so; None where the tower learns.

        To be asked where the model computes, and as it does: two frames are looked at to learn what one takes.
        """
        model = checkpoint.model
        if cache.limit_bytes == 0 or any(part.requires_grad for part in model.vision_tower.parameters()):
            return None
        is_frozen = not any(part.requires_grad for part in model.projector.parameters())
        side = model.config.vision.image_size
        probe = _see(model, torch.zeros(2, 3, side, side, device=model.device), bridge_is_frozen=is_frozen)
        frame_bytes = probe.nbytes // len(probe)
        num_frames = {
            example.video: len(example.timestamps_seconds or ()) or looking.sampling.num_frames
            for example in examples
            if example.video is not None
        }
        kept, total = set[Path](), 0
        for video, count in num_frames.items():
            if total + (size := count * frame_bytes + _HEADER_BYTES) <= cache.limit_bytes:
                kept.add(video)
                total += size
        if streams:
            limit = readable_size(cache.limit_bytes)
            logger.info("The vision tower is frozen: what it makes of the first videos is kept, up to %s", limit)
        elif num_frames:
            _say(cache, len(kept), len(num_frames), total, sum(num_frames.values()) * frame_bytes)
        what = "visual tokens" if is_frozen else "features"
        key = EncodingKey(
            content="",
            sampling=looking.sampling,
            crop=looking.crop,
            reader=looking.reading.reader,
            checkpoint=f"{checkpoint.identity}: {what} in training, computed in {precision}",
            dtype=str(probe.dtype).removeprefix("torch."),
            device_kind=model.device.type,
        )
        return cls(cache, key, is_frozen, None if streams else frozenset(kept))

    def load(self, video: Path) -> LookedAt | None:
        """What is kept of a video, or None."""
        content = self.content_of(video)
        if content is None:
            return None
        found = self.cache.load(replace(self.key, content=content), video)
        if found.warning:
            logger.warning("%s: %s", video, found.warning)
        return None if found.seen is None else LookedAt(found.seen)

    def content_of(self, video: Path) -> str | None:
        """What a video is kept under; None where it is not: for want of room, or since its bytes cannot be read."""
        if self.videos is not None and video not in self.videos:
            return None
        try:
            return self.cache.content_of(video)
        except UnreadableVideoError:  # of bytes that a reader may do without
            return None

    def arguments(self, model: SlowFastForConditionalGeneration, looked: list[LookedAt | None]) -> dict[str, Any]:
        """What the model's forward takes in place of pixel values; the tower looks at what is not kept yet."""
        seen = [None if one is None else self.see(model, one) for one in looked]
        if not self.bridge_is_frozen:
            return {"features": seen}
        return {"visual_tokens": [None if tokens is None else model.split(tokens) for tokens in seen]}

    @torch.no_grad()
    def see(self, model: SlowFastForConditionalGeneration, looked: LookedAt) -> Tensor:
        """Visual tokens or features `[T, h, w, D]` of a video, which are kept from now on."""
        if isinstance(looked.facts, SeenVideo):
            return looked.facts.visual_tokens.to(model.device)
        assert looked.pixel_values is not None
        seen = _see(model, looked.pixel_values, bridge_is_frozen=self.bridge_is_frozen)
        if looked.content is not None and not looked.facts.missing:  # it may have been the disk, for once
            self._keep(looked.content, looked.facts, seen)
        return seen

    def _keep(self, content: str, facts: ClipFacts, seen: Tensor) -> None:
        video = facts.video.path
        if self.content_of(video) != content:  # it was written to meanwhile
            return
        if self.videos is None:
            own_bytes = self.cache.size_bytes(used_since_seconds=self.since_seconds)
            if own_bytes + seen.nbytes + _HEADER_BYTES > self.cache.limit_bytes:
                return
        if warning := self.cache.save(replace(self.key, content=content), SeenVideo.of(seen, facts, self.key.crop)):
            logger.warning("%s: %s", video, warning)


_HEADER_BYTES = 16_384  # more than the facts of an entry take


def _see(model: SlowFastForConditionalGeneration, pixel_values: Tensor, *, bridge_is_frozen: bool) -> Tensor:
    """What the frozen part makes of frames, by the very calls of `encode_video`."""
    with torch.no_grad():
        features = model.features(pixel_values.split(CHUNK_SIZE))
        if bridge_is_frozen:
            return model.visual_tokens_of(features, len(pixel_values))
        return torch.cat(list(features))


def seen_video(
    model: SlowFastForConditionalGeneration, looked: LookedAt, crop: CropMode, frozen: FrozenTower | None
) -> SeenVideo:
    """A video as `encoded_from` takes it."""
    if frozen is None:
        assert looked.pixel_values is not None
        tokens = _see(model, looked.pixel_values, bridge_is_frozen=True)
    else:
        tokens = frozen.see(model, looked)
        if not frozen.bridge_is_frozen:
            tokens = model.visual_tokens_of(tokens.split(CHUNK_SIZE), len(tokens))
    if isinstance(looked.facts, SeenVideo):
        return replace(looked.facts, visual_tokens=tokens)
    return SeenVideo.of(tokens, looked.facts, crop)


def _say(cache: VideoCache, num_kept: int, num_videos: int, kept_bytes: int, all_bytes: int) -> None:
    which = plural(num_videos, "video")
    if num_kept == num_videos:
        more = f"the limit is {readable_size(cache.limit_bytes)}"
    else:
        which = f"{num_kept:,} of {which}"
        more = f"all would take {readable_size(all_bytes)}: raise --cache-gigabytes to keep them"
    logger.info(
        "The vision tower is frozen: what it makes of %s is kept in %s and takes %s; %s",
        which,
        cache.folder,
        readable_size(kept_bytes),
        more,
    )
