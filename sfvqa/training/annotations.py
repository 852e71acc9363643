"""A JSON file of conversations about videos, in the LLaVA form, read strictly: nothing in it is skipped silently.

[{"id": "a", "video": "a.mp4", "conversations": [
    {"from": "human", "value": "<image>\\nWhat moves?"}, {"from": "gpt", "value": "A circle."}, …]}, …]
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sfvqa.errors import UsageError, VideoError
from sfvqa.inference.question import check_question, check_text
from sfvqa.video.readers import open_video
from sfvqa.video.reading import choose_unread
from sfvqa.video.sampling import SamplingStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sfvqa.video.readers import ReadOptions
    from sfvqa.video.sampling import SamplingOptions

logger = logging.getLogger(__name__)

PLACEHOLDERS = ("<image>", "<video>")
_SPEAKERS = ("human", "gpt")
_READ = {"id", "video", "conversations"}
_NUM_NAMED = 3  # of the videos that cannot be read


@dataclass(frozen=True)
class Example:
    """A video, None for text alone, and the questions and answers about it, in order.

    `num_frames` is how many of its frames are read, None where that is not known yet.
    """

    name: str
    video: Path | None
    turns: tuple[tuple[str, str], ...]
    num_frames: int | None = None


def read_annotations(path: Path, video_folder: Path) -> list[Example]:
    """Every example of a file; videos lie in `video_folder`. UsageError names the first entry that is none and why."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no annotation file {path}.", "Name a JSON file of conversations.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The annotations in {path} cannot be read: {error}.", "Check that it is JSON.") from error
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path} holds no list of examples.", 'It should be [{"id": …, "video": …, …}, …].')
    examples = []
    unread: Counter[str] = Counter()
    for number, entry in enumerate(entries):
        try:
            examples.append(_example(entry, number, video_folder))
            unread.update(entry.keys() - _READ)
        except UsageError as error:
            name = entry.get("id", "without id") if isinstance(entry, dict) else "no object"
            raise UsageError(f"Entry {number} ({name}) of {path}: {error.message}", error.remedy) from error
    if unread:
        named = ", ".join(f"{key} ({count})" for key, count in sorted(unread.items()))
        logger.warning("Nothing in %s is read but id, video and conversations; there also is: %s.", path, named)
    return examples


def _example(entry: Any, number: int, video_folder: Path) -> Example:
    if not isinstance(entry, dict) or not isinstance(entry.get("conversations"), list):
        raise UsageError("It has no list of conversations.", 'Give it "conversations": [{"from": …, "value": …}, …].')
    _check_pictures(entry)
    video = entry.get("video")
    if video is not None and (not isinstance(video, str) or not video):
        raise UsageError(f"Its video is {video!r}, no file name.", "Give a path within the video folder.")
    said = entry["conversations"]
    if not said or len(said) % 2:
        raise UsageError(f"It has {len(said)} turns.", "Every question needs an answer.")
    texts = [_text(turn, _SPEAKERS[place % 2]) for place, turn in enumerate(said)]
    num_places = sum(text.count(mark) for text in texts for mark in PLACEHOLDERS)
    if num_places > (video is not None) or any(mark in text for text in texts[1:] for mark in PLACEHOLDERS):
        raise UsageError(
            f"It places {num_places} videos and has {0 if video is None else 1}.",
            "Write <image> at most once, in the first question, and only with a video.",
        )
    for mark in PLACEHOLDERS:
        texts[0] = texts[0].replace(mark, "").strip()
    turns = [
        (check_question(question), check_text(answer, "answer", "Leave out questions without an answer."))
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
    ]
    return Example(str(entry.get("id", number)), None if video is None else video_folder / video, tuple(turns))


def _check_pictures(entry: dict[str, Any]) -> None:
    """Raise UsageError for what would not be looked at: a row would be learned as text alone, or with one video of two.

    LLaVA's files hold pictures too, and others name videos otherwise.
    """
    for key, value in entry.items():
        is_other_video = entry.get("video") is None and "video" in key.lower()
        if value and key != "video" and (is_other_video or key.lower() in ("image", "images", "videos")):
            raise UsageError(f"It has {key} {value!r}.", "Remove the entry, or give it one video, as `video`.")


def _text(turn: Any, speaker: str) -> str:
    if not isinstance(turn, dict) or turn.get("from") != speaker or not isinstance(turn.get("value"), str):
        raise UsageError(f"{turn!r} is no turn of {speaker}.", "Turns alternate: human asks, gpt answers.")
    text: str = turn["value"]
    return text


def check_videos(
    examples: Sequence[Example], sampling: SamplingOptions, reading: ReadOptions, *, skip_unreadable: bool
) -> list[Example]:
    """Open every video once; those examples whose video can be read, with the number of frames that will be.

    Raises UsageError with the count and the first few that cannot, unless they are to be skipped: then it is a warning.
    """
    failures: dict[Path, str] = {}
    num_frames: dict[Path | None, int] = {}
    for video in dict.fromkeys(example.video for example in examples):
        if video is not None:
            try:
                with open_video(video, reading) as opened:
                    num_chosen = len(choose_unread(opened, sampling).indices)
                if sampling.strategy is not SamplingStrategy.SCENE:  # of which only a highest number is known
                    num_frames[video] = num_chosen
            except VideoError as error:
                failures[video] = error.message
    kept = [
        replace(example, num_frames=num_frames.get(example.video))
        for example in examples
        if example.video not in failures
    ]
    if not failures:
        return kept
    named = " ".join(list(failures.values())[:_NUM_NAMED])
    counts = f"{len(failures)} videos of {len(examples) - len(kept)} of {len(examples)} examples cannot be read"
    if not skip_unreadable or not kept:
        raise UsageError(f"{counts}: {named}", "Mend or remove them, or leave them out with --skip-unreadable.")
    logger.warning("%s, and are left out: %s", counts, named)
    return kept
