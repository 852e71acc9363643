"""Stages 2 and 3: the decoder learns to answer, about stills, then about videos; what sees is no longer changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from sfvqa.model.config import IMAGE_TOKEN_ID
from sfvqa.training.conversations import IGNORED, Mixture, Row, RowBuilder, draw_conversation
from sfvqa.training.motion_heads import ASKED, MotionHeads, MotionTargets
from sfvqa.training.questions import Family, Question, ask, refused
from sfvqa.training.scenes import NUM_FRAMES, random_scene
from sfvqa.training.video_pool import PooledVideo, PoolOptions, VideoPool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens
    from sfvqa.training.other_videos import OtherVideos

MOTION_WEIGHT = 0.2  # of the motion heads' loss beside that of the answers
WITHOUT_VIDEO = 0.02  # share of rows that ask about a video without one, and are told so


@dataclass(frozen=True, eq=False)
class Sample:
    """A row of tokens and the visual tokens it is about, None without a video."""

    row: Row
    visual_tokens: VisualTokens | None
    motion: MotionTargets | None = None

    @property
    def num_slow(self) -> int:
        """How many slow tokens it looks at."""
        return 0 if self.visual_tokens is None else len(self.visual_tokens.slow)


class LanguageStage:
    """Draws rows about pooled videos and computes their loss."""

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        rows: RowBuilder,
        pool: PoolOptions,
        seed: tuple[int, ...],
        others: OtherVideos,
        motion_heads: MotionHeads | None = None,
    ) -> None:
        self._model = model
        self._rows = rows
        self._seed = seed
        self._motion_heads = motion_heads
        self._pool = VideoPool(model, pool, (*seed, 1), others)

    def accumulate(self, step: int, mixture: Mixture, rows_at_once: int) -> float:
        """Add the gradient of step `step` and return its mean loss per learned token."""
        samples = self.draw(step, mixture)
        num_tokens = sum(label != IGNORED for sample in samples for label in sample.row.labels)
        total = 0.0
        for chunk in alike(samples, rows_at_once):
            answers, motion = self._losses(chunk)
            loss = answers / num_tokens + MOTION_WEIGHT * motion * len(chunk) / len(samples)
            loss.backward()
            total += answers.item() / num_tokens
        return total

    def draw(self, step: int, mixture: Mixture) -> list[Sample]:
        """The rows of a step, a function of the seed and `step` alone."""
        rng = np.random.default_rng([*self._seed, 2, step])
        self._pool.advance(step)
        samples = []
        for video in self._pool.draw(rng, mixture.rows_per_step):
            if video.scene is None:  # whatever is asked
                questions = [refused(draw_conversation(rng, random_scene(rng), mixture)[0].text)]
            else:
                questions = draw_conversation(rng, video.scene, mixture)
            if rng.random() < WITHOUT_VIDEO:
                samples.append(Sample(self._rows.build([refused(questions[0].text)], 0), None))
            else:
                samples.append(self.sample(video, questions))
        return samples

    def sample(self, video: PooledVideo, questions: list[Question]) -> Sample:
        """One row about one video."""
        tokens = self._model.split(video.visual_tokens.float()).to(self._model.device)
        motion = None
        if self._motion_heads is not None and video.scene is not None and len(video.visual_tokens) == NUM_FRAMES:
            motion = MotionTargets.of(video.scene, self._motion_heads.num_windows, self._motion_heads.grid)
        return Sample(self._rows.build(questions, len(tokens.fast)), tokens, motion)

    def _losses(self, samples: list[Sample]) -> tuple[Tensor, Tensor]:
        """Summed loss of the answers, mean loss of the motion heads (0 without them)."""
        logits, labels, hidden_states = run_rows(self._model, self._rows, samples, self._motion_heads is not None)
        answers = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        targets = [sample.motion for sample in samples if sample.motion is not None]
        if self._motion_heads is None or not targets:
            return answers, answers.new_zeros(())
        return answers, self._motion_heads.loss(hidden_states, targets)


def alike(samples: list[Sample], rows_at_once: int) -> Iterator[list[Sample]]:
    """Chunks of up to `rows_at_once` samples of like length, so that little is padding and long ones cost little."""
    ordered = sorted(samples, key=lambda sample: (sample.num_slow, len(sample.row.ids)))
    chunk: list[Sample] = []
    for sample in ordered:
        longer = chunk and len(sample.row.ids) > 2 * len(chunk[0].row.ids)
        if len(chunk) == rows_at_once or longer or (chunk and sample.num_slow != chunk[0].num_slow):
            yield chunk
            chunk = []
        chunk.append(sample)
    yield chunk


def run_rows(
    model: SlowFastForConditionalGeneration, rows: RowBuilder, samples: list[Sample], with_hidden: bool = False
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits [B, K, V], the labels [B, K] that they should predict, and what the decoder holds at fast tokens.

    The part of the logits before any answer is left out. The hidden states are those ASKED, [videos, F, D] each, of
    videos with motion to ask about.
    Padding is on the right, where nothing that counts can see it: no mask is needed, and attention is faster without.
    """
    ids, _, labels = (part.to(model.device) for part in rows.stack([sample.row for sample in samples]))
    first = int((labels != IGNORED).any(0).to(torch.uint8).argmax()) - 1
    kept = ids.shape[1] - first
    output = model(
        ids,
        visual_tokens=[sample.visual_tokens for sample in samples],
        use_cache=False,
        logits_to_keep=kept,
        output_hidden_states=with_hidden,
    )
    assert output.logits is not None
    hidden_states = []
    if with_hidden:
        moving = torch.tensor([sample.motion is not None for sample in samples], device=ids.device)
        is_fast = (ids == IMAGE_TOKEN_ID) & moving[:, None]
        shape = (int(moving.sum()), -1)
        if shape[0]:
            hidden_states = [state[is_fast].unflatten(0, shape) for state in output.hidden_states[ASKED]]
    return output.logits[:, :-1].float(), labels[:, first + 1 :], hidden_states


class Examiner:
    """Accuracy by family on videos of its own: is every token of the answer the likeliest one?"""

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        rows: RowBuilder,
        *,
        still: bool,
        seed: int,
        others: OtherVideos,
    ) -> None:
        options = PoolOptions(window=120, fresh_per_step=0, first_window=120, stills=float(still))
        self._stage = LanguageStage(model, rows, options, (seed, 9, int(still)), others)
        self._model, self._rows = model, rows
        self._pool = VideoPool(model, options, (seed, 9, int(still)), others)
        self._families = [family for family in Family if not (still and family in (Family.ORDER, Family.DIRECTION))]

    @torch.no_grad()
    def accuracy(
        self, per_family: int, families: Sequence[Family] | None = None, *, without_slow: bool = False
    ) -> dict[str, float]:
        """Share of right answers by family; with `without_slow` the gates are forced to zero."""
        rng = np.random.default_rng(9)
        self._pool.advance(0)
        shares = {}
        for family in families or self._families:
            samples: list[Sample] = []
            while len(samples) < per_family:
                video = self._pool.draw(rng, 1)[0]
                assert video.scene is not None  # the pool holds no others
                question = ask(rng, video.scene, family)
                if question is not None:
                    samples.append(self._stage.sample(video, [question]))
            if without_slow:
                with self._model.without_slow():
                    shares[family.value] = self._share_right(samples)
            else:
                shares[family.value] = self._share_right(samples)
        return shares

    def _share_right(self, samples: list[Sample]) -> float:
        right = 0
        for start in range(0, len(samples), 20):
            logits, labels, _ = run_rows(self._model, self._rows, samples[start : start + 20])
            right += int(((logits.argmax(-1) == labels) | (labels == IGNORED)).all(1).sum())
        return right / len(samples)
