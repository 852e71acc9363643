"""Read a JSON file of conversations about videos in LLaVA's format, strictly: nothing is skipped silently.

[{"id": "a", "video": "a.mp4", "conversations": [
    {"from": "human", "value": "<image>\\nWhat moves?"}, {"from": "gpt", "value": "A circle."}, …]}, …]

A system message may come first: {"from": "system", "value": "Answer in one word."}.
"""

import difflib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfvqa.errors import UsageError, VideoError
from sfvqa.inference.question import check_question, check_text
from sfvqa.video.readers import ReadOptions, open_video
from sfvqa.video.reading import choose_unread
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.wording import plural

logger = logging.getLogger(__name__)

PLACEHOLDERS = ("<image>", "<video>")
_SPEAKERS = ("human", "gpt")
_READ = {"id", "video", "conversations"}
_NUM_NAMED = 3  # of the videos that cannot be read


@dataclass(frozen=True)
class Example:
    """A video, None for text alone, and the questions and answers about it, in order.

    `timestamps_seconds` are those of the frames that are to be read and `duration_seconds` is the video's, None and 0
    where they are not known yet; `system` is the system message in place of the template's own, if any. One that is
    `held_out` is not learned from: the model is validated on it.
    """

    name: str
    video: Path | None
    turns: tuple[tuple[str, str], ...]
    timestamps_seconds: tuple[float, ...] | None = None
    duration_seconds: float = 0.0
    system: str | None = None
    held_out: bool = False


def read_annotations(path: Path, video_folder: Path) -> list[Example]:
    """Read all examples of a file; videos are in `video_folder`. UsageError names the first invalid entry and why."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"There is no annotation file {path}.", "Name a JSON file of conversations.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The annotations in {path} cannot be read: {error}.", "Check that it is JSON.") from error
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path} does not hold a list of examples.", 'It should be [{"id": …, "video": …, …}, …].')
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
        logger.warning("Only id, video and conversations are read from %s; ignored: %s.", path, named)
    return examples


def _example(entry: Any, number: int, video_folder: Path) -> Example:
    said = _conversation(entry)
    _check_pictures(entry)
    video = entry.get("video")
    if video is not None and (not isinstance(video, str) or not video):
        raise UsageError(f"Its video is {video!r}, not a file name.", "Give a path within the video folder.")
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in said]
    begins = int(speakers[:1] == ["system"])
    system = check_text(_text(said[0], 1, "system"), "system message", "Leave it out.") if begins else None
    texts = [_text(turn, begins + place + 1, _SPEAKERS[place % 2]) for place, turn in enumerate(said[begins:])]
    if not texts:
        raise UsageError("It has no questions.", "Give it turns of human and gpt, or remove it.")
    if len(texts) % 2:
        raise UsageError("Its last question has no answer.", "Give the answer, or leave out the question.")
    texts[0] = _without_placeholder(texts, has_video=video is not None)
    turns = [
        (check_question(question), check_text(answer, "answer", "Leave out questions without an answer."))
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
    ]
    path = None if video is None else video_folder / video
    return Example(str(entry.get("id", number)), path, tuple(turns), system=system)


def _conversation(entry: Any) -> list[Any]:
    if not isinstance(entry, dict):
        raise UsageError("It is not an object.", 'Give it "conversations": [{"from": …, "value": …}, …].')
    said = entry.get("conversations")
    if isinstance(said, list):
        return said
    if "conversations" not in entry and (near := difflib.get_close_matches("conversations", entry, n=1, cutoff=0.8)):
        raise UsageError(f"It has {near[0]!r}, and no 'conversations'.", "Rename it.")
    raise UsageError("It has no list of conversations.", 'Give it "conversations": [{"from": …, "value": …}, …].')


def _without_placeholder(texts: Sequence[str], *, has_video: bool) -> str:
    """The first question without the mark of where the video goes; UsageError for marks that mean no video."""
    for place, text in enumerate(texts[1:], start=1):
        for mark in PLACEHOLDERS:
            if mark in text:
                which = f"{'Answer' if place % 2 else 'Question'} {place // 2 + 1}"
                raise UsageError(f"{which} contains {mark}.", f"Write {mark} in the first question alone, or nowhere.")
    num_places = sum(texts[0].count(mark) for mark in PLACEHOLDERS)
    if num_places > has_video:
        raise UsageError(
            f"It places {plural(num_places, 'video')} and has {'one' if has_video else 'none'}.",
            "Write <image> at most once, in the first question, and only with a video.",
        )
    first = texts[0]
    for mark in PLACEHOLDERS:
        first = first.replace(mark, "")
    return first.strip()


def _check_pictures(entry: dict[str, Any]) -> None:
    """Raise UsageError for what would not be looked at: a row would be learned as text alone, or with one video of two.

    LLaVA's files hold pictures too, and others name videos otherwise.
    """
    for key, value in entry.items():
        is_other_video = entry.get("video") is None and "video" in key.lower()
        if value and key != "video" and (is_other_video or key.lower() in ("image", "images", "videos")):
            raise UsageError(f"It has {key} {value!r}.", "Remove the entry, or give it one video, as `video`.")


def _text(turn: Any, number: int, speaker: str) -> str:
    form = 'Write {"from": "human", "value": "…"} and {"from": "gpt", "value": "…"} in turn, "system" first if at all.'
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
        raise UsageError(f"Turn {number} is {turn!r}.", form)
    if turn["from"] != speaker:
        raise UsageError(f"Turn {number} is from {turn['from']!r}, where {speaker} is expected.", form)
    if not isinstance(turn["value"], str):
        raise UsageError(f"Turn {number} says {turn['value']!r}, which is not text.", form)
    return turn["value"]


def check_videos(
    examples: Sequence[Example], sampling: SamplingOptions, reading: ReadOptions, *, skip_unreadable: bool
) -> list[Example]:
    """Open every video once; return the readable examples with what is known of their frames.

    Raises UsageError with the count and the first few that cannot, unless they are to be skipped: then it is a warning.
    """
    failures: dict[Path, str] = {}
    known: dict[Path | None, dict[str, Any]] = {}
    for video in dict.fromkeys(example.video for example in examples):
        if video is not None:
            try:
                with open_video(video, reading) as opened:
                    chosen = choose_unread(opened, sampling).indices
                if sampling.strategy is not SamplingStrategy.SCENE:  # of which only a highest number is known
                    times = tuple(opened.timestamps_seconds[index] for index in chosen)
                    known[video] = {"timestamps_seconds": times, "duration_seconds": opened.info.duration_seconds}
            except VideoError as error:
                failures[video] = error.message
    kept = [replace(example, **known.get(example.video, {})) for example in examples if example.video not in failures]
    if not failures:
        return kept
    named = " ".join(list(failures.values())[:_NUM_NAMED])
    counts = (
        f"{plural(len(failures), 'video')} of {len(examples) - len(kept)} of {plural(len(examples), 'example')} "
        "cannot be read"
    )
    if not skip_unreadable or not kept:
        raise UsageError(f"{counts}: {named}", "Repair or remove them, or skip them with --skip-unreadable.")
    logger.warning("%s; these examples are left out: %s", counts, named)
    return kept
