"""How good a model is on conversations that it does not learn from: its loss, and how many of its answers are right.

Answers are those that `ask` would give, each behind the true turns before it, and are judged as `report` judges them.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.errors import UsageError, VideoError
from sfvqa.evaluation.matching import Rule, is_match
from sfvqa.evaluation.scores import Share
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo, encoded_from
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.training.annotations import Example
from sfvqa.training.frozen_tower import LookedAt, seen_video
from sfvqa.training.rows import IGNORED, TokenRow, VideoDataset, collate
from sfvqa.training.run_folder import FIGURES_FILE, is_first_process
from sfvqa.wording import plural

Batch = list[tuple[Example, list[TokenRow], LookedAt | None]]


# --- which conversations ---------------------------------------------------------------------------------------------


def hold_out(examples: Sequence[Example], share: float, seed: int, videos: VideoCache) -> list[Example]:
    """Mark a share of the videos, at least one, as held out; UsageError where none would be left to learn from.

    Which they are depends on the content of each and on the seed alone: a copy goes with its original, and further
    videos move none of these from one part to the other, but for the last few. `videos` knows what was hashed before.
    """
    contents = {source_of(example): content_of(example, videos) for example in examples}
    distinct = sorted(set(contents.values()), key=lambda content: hashlib.sha256(f"{seed} {content}".encode()).digest())
    if len(distinct) < 2:
        raise UsageError("All examples are about one video, which cannot be learned from and held out.", _GIVE_A_FILE)
    held = set(distinct[: min(max(1, round(share * len(distinct))), len(distinct) - 1)])
    return [replace(example, held_out=contents[source_of(example)] in held) for example in examples]


def check_apart(examples: Sequence[Example], videos: VideoCache) -> None:
    """Raise UsageError for videos, by their content, that are both learned from and held out."""
    learned = {content_of(example, videos) for example in examples if not example.held_out}
    both = {
        source_of(example): None for example in examples if example.held_out and content_of(example, videos) in learned
    }
    if both:
        raise UsageError(
            f"{plural(len(both), 'video')} of the validation file would be learned from too, first {next(iter(both))}.",
            "Remove them from one of the files.",
        )
    if not learned or all(not example.held_out for example in examples):
        raise UsageError("There is nothing to validate on, or nothing to learn from.", _GIVE_A_FILE)


def refuse_held_out(held_out: Sequence[Example], videos: VideoCache) -> Callable[[Example], None]:
    """What raises UsageError for an example that would be learned from, and is about what is validated on."""
    contents = {content_of(example, videos) for example in held_out}

    def refuse(example: Example) -> None:
        try:
            is_held_out = bool(contents) and content_of(example, videos) in contents
        except VideoError:  # which is raised, or skipped, where the video is read
            return
        if is_held_out:
            raise UsageError(f"{example.called} is about what is validated on.", "Remove it from one of the two.")

    return refuse


_GIVE_A_FILE = "Name a file of conversations about other videos with --validation."


def source_of(example: Example) -> str:
    """What a conversation is about: its video, or nothing but itself."""
    return f"text {example.called}" if example.video is None else str(example.video)


def content_of(example: Example, videos: VideoCache) -> str:
    """What two conversations share that may not be one learned from and one held out. VideoError."""
    return repr(example.turns) if example.video is None else videos.content_of(example.video)


# --- how good the model is on them -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """The mean loss of a learned token, and how many of so many answers are right, exactly and by the relaxed rule."""

    loss: float
    exact: int
    relaxed: int
    answers: int
    step: int | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """As Trainer logs them: loss, and shares."""
        return {"loss": self.loss, "exact": self.exact / self.answers, "relaxed": self.relaxed / self.answers}

    @classmethod
    def at_step(cls, step: int, logged: list[dict[str, float]], answers: int) -> "Figures":
        """Those that Trainer logged at a step."""
        found = next(each for each in logged if each["step"] == step and "eval_loss" in each)
        exact, relaxed = (round(found[f"eval_{name}"] * answers) for name in ("exact", "relaxed"))
        return cls(found["eval_loss"], exact, relaxed, answers, step)


class _Conversations(Dataset[Any]):
    """One item a conversation: its rows, and its video as it was looked at."""

    def __init__(self, rows: VideoDataset, examples: Sequence[Example]) -> None:
        self._rows, self._examples = rows, examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Example, list[TokenRow], LookedAt | None]:
        return (self._examples[index], *self._rows.conversation(self._examples[index]))


def _as_it_is(batch: Batch) -> Batch:
    return batch


class Validation:
    """Conversations on which a model is measured, as `rows` reads and writes them; several processes share them.

    No random state that training goes on from is touched.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        rows: VideoDataset,
        examples: Sequence[Example],
        *,
        batch_size: int,
        num_workers: int,
    ) -> None:
        self._checkpoint, self._rows = checkpoint, rows
        self._examples = sorted(examples, key=source_of)  # those about one video go together
        self._batch_size, self._num_workers = batch_size, num_workers

    def measure(
        self,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        *,
        process: tuple[int, int] = (0, 1),
        add_up: Callable[[Tensor], Any] = lambda sums: sums,
    ) -> Figures:
        """Measure the model as it is now; `process` is the number of this one of so many, whose sums `add_up` adds up.

        Raises what reading videos and answering raise.
        """
        model: Any = self._checkpoint.model
        place = slice(process[0], None, process[1])
        was_training = model.training
        model.eval()
        sums = torch.zeros(5, dtype=torch.float64)  # loss, tokens, exact, relaxed, answers
        try:
            for batch in self._batches(self._examples[place]):
                with torch.inference_mode(), autocast():
                    encoded = self._encode(batch)
                    sums[:2] += self._loss(batch, encoded)
                    sums[2:] += self._score(batch, encoded)
        finally:
            model.train(was_training)
        loss, tokens, *counts = add_up(sums).tolist()
        return Figures(loss / tokens, *map(int, counts))

    def _batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        yield from DataLoader(
            _Conversations(self._rows, examples),
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else a draw from torch's own would change what is learned next
        )

    def _encode(self, batch: Batch) -> list[EncodedVideo | None]:
        model, known = self._checkpoint.model, dict[Path, EncodedVideo]()
        for _, _, looked in batch:
            if looked is not None and (path := looked.facts.video.path) not in known:
                looking = self._rows.looking
                seen = seen_video(model, looked, looking.crop, self._rows.frozen)
                known[path] = encoded_from(seen, model, looking.sampling)
        return [None if looked is None else known[looked.facts.video.path] for _, _, looked in batch]

    def _loss(self, batch: Batch, encoded: Sequence[EncodedVideo | None]) -> Tensor:
        """The sum of the losses of all learned tokens, and their number."""
        pairs = [(row, one) for (_, rows, _), one in zip(batch, encoded, strict=True) for row in rows]
        sums, model = torch.zeros(2, dtype=torch.float64), self._checkpoint.model
        for start in range(0, len(pairs), self._batch_size):  # as many at a time as in training, whatever is asked
            part = pairs[start : start + self._batch_size]
            made = collate([{"input_ids": row.ids, "labels": row.labels, "pixel_values": None} for row, _ in part])
            del made["pixel_values"]
            inputs = {name: tensor.to(model.device) for name, tensor in made.items()}
            seen = [None if one is None else one.visual_tokens for _, one in part]
            loss = model(**inputs, visual_tokens=seen, use_cache=False, num_items_in_batch=1).loss
            sums += torch.tensor([float(loss), sum(label != IGNORED for row, _ in part for label in row.labels)])
        return sums

    def _score(self, batch: Batch, encoded: Sequence[EncodedVideo | None]) -> Tensor:
        """How many answers are right exactly, and by the relaxed rule; and how many there are."""
        runs: dict[tuple[str | None, int], list[tuple[Asked, str]]] = {}
        for (example, rows, _), one in zip(batch, encoded, strict=True):
            run = runs.setdefault((example.system, self._room(rows)), [])
            for number, (question, answer) in enumerate(example.turns):
                run.append((Asked(one, question, example.turns[:number]), answer))
        counts = torch.zeros(3)
        for (system, num_tokens), asked in runs.items():
            options = GenerationOptions(max_new_tokens=num_tokens)
            questions = [question for question, _ in asked]
            answers = AnswerRun(self._checkpoint, questions, options, prompt=PromptOptions(system=system))
            for _ in answers.steps():
                pass
            for said, (_, expected) in zip(answers.answers(), asked, strict=True):
                rules = [is_match(said.text, expected, question=said.question, rule=rule) for rule in _RULES]
                counts += torch.tensor([*rules, True])
        return counts

    def _room(self, rows: Sequence[TokenRow]) -> int:
        """New tokens that the answers of a conversation may take."""
        lengths = list(map(_lengths, rows))
        wanted = _MORE_TOKENS * (2 + max(answer for answer, _ in lengths) // _MORE_TOKENS)
        positions = int(self._checkpoint.model.config.decoder_config.max_position_embeddings)
        return min(wanted, positions - max(prompt for _, prompt in lengths))


_RULES = (Rule.EXACT, Rule.PHRASE)
_MORE_TOKENS = 16  # than the true answer takes, and rounded, so that more conversations are answered in one batch


def _lengths(row: TokenRow) -> tuple[int, int]:
    """Tokens of the longest answer that a row has at most, and of the prompt before its last."""
    num_learned = sum(label != IGNORED for label in row.labels)
    behind = next(place for place, label in enumerate(reversed(row.labels)) if label == IGNORED)
    return num_learned, len(row.ids) - behind


# --- what is kept of it in a run's folder ----------------------------------------------------------------------------


def read_figures(run: Path) -> dict[str, Figures]:
    """What was measured in a run, by which model; nothing where there is nothing that can be read."""
    try:
        return {
            name: Figures(**each) for name, each in json.loads((run / FIGURES_FILE).read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, TypeError):
        return {}


def write_figures(run: Path, figures: dict[str, Figures]) -> None:
    """Keep them."""
    document = {name: asdict(each) for name, each in figures.items()}
    if is_first_process():
        (run / FIGURES_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def figures_table(figures: dict[str, Figures]) -> str:
    """A line a model: its loss, and how many answers are right, the relaxed share with its 95 % interval.

    >>> print(figures_table({"untrained": Figures(2.5, 0, 1, 8), "trained": Figures(0.25, 6, 7, 8, step=40)}))
    validation         loss   exact  relaxed
    untrained         2.500  0 of 8   1 of 8   (2 to 47 %)
    trained, step 40  0.250  6 of 8   7 of 8  (53 to 98 %)
    """
    rows = [("validation", "loss", "exact", "relaxed", "")]
    for name, each in figures.items():
        interval = Share(each.relaxed, each.answers).interval
        rows.append(
            (
                name if each.step is None else f"{name}, step {each.step:,}",
                f"{each.loss:.3f}",
                f"{each.exact:,} of {each.answers:,}",
                f"{each.relaxed:,} of {each.answers:,}",
                f"({100 * interval.low:.0f} to {100 * interval.high:.0f} %)",
            )
        )
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = (
        "  ".join([f"{name:<{first}}", *(f"{cell:>{width}}" for cell, width in zip(cells, others, strict=True))])
        for name, *cells in rows
    )
    return "\n".join(map(str.rstrip, lines))
