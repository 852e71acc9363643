"""One row of annotations, in any of the forms that people have, becomes what it shows and what is said; strict.

LLaVA's:        {"video": "a.mp4", "conversations": [
                    {"from": "human", "value": "<image>\\nWhat moves?"}, {"from": "gpt", "value": "A circle."}]}
chat messages:  {"videos": ["a.mp4"], "messages": [
                    {"role": "user", "content": "<video>What moves?"}, {"role": "assistant", "content": "A circle."}]}
and a content in parts, such as [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "What moves?"}].
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfvqa.errors import UsageError
from sfvqa.inference.question import check_question, check_text
from sfvqa.wording import first_few, plural


@dataclass(frozen=True)
class Conversation:
    """The name of the video or picture that is shown, None for text alone; questions and answers about it, in order.

    `system` is the message in place of the template's own, if any; `ignored` are keys that were not read.
    """

    shown: str | None
    turns: tuple[tuple[str, str], ...]
    system: str | None
    ignored: tuple[str, ...]


PLACEHOLDERS = ("<image>", "<video>")
SHOWN = ("video", "videos", "image", "images")
_SAID = ("conversations", "messages")
_READ = {"id", "system", *SHOWN, *_SAID}
_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_ADDRESS = re.compile(r"data:|[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters and more, so that C:/ is a path
_CALLED = {"system": "a system message", "user": "a question", "assistant": "an answer"}
_TURN = (
    'Write {"from": "human", "value": "…"} and {"from": "gpt", "value": "…"}, or {"role": "user", "content": "…"} and '
    '{"role": "assistant", "content": "…"}.'
)


class RepeatedKey(dict[str, Any]):
    """An object of JSON in which a key stands twice, of which Python would keep the last."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.key = next(name for name in names if names.count(name) > 1)


def as_object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """What json makes of an object, as its `object_pairs_hook`."""
    made = dict(pairs)
    return made if len(made) == len(pairs) else RepeatedKey(pairs)


def read_conversation(row: Any, came_with: Sequence[str] = ()) -> Conversation:
    """Read it; UsageError says what is wrong with it, of several faults the first.

    `came_with` are the names of videos or pictures that lay beside the row, which are those that it names itself.
    """
    if not isinstance(row, dict):
        raise UsageError("It is not an object.", 'Write {"video": …, "conversations": [{"from": …, "value": …}, …]}.')
    _refuse_repeated(row)  # before a key is missed
    key = _key_of_turns(row)
    said = row[key]
    if not isinstance(said, list):
        raise UsageError(f"Its {key} are {_short(said)}, not a list of turns.", _TURN)
    _refuse_repeated(*said)
    shown = _named(row)
    turns: list[tuple[str, str]] = []
    for number, turn in enumerate(said, start=1):
        role, text, in_parts = _turn(turn, number)
        shown += in_parts
        turns.append((role, text))
    shown[: len(came_with)] = came_with
    if len(shown) > 1:
        raise UsageError(
            f"It shows {len(shown)} videos or images: {first_few(shown)}.",
            "A row shows one: ask about each in a row of its own.",
        )
    if not shown:
        _refuse_other_names(row)
    elif _ADDRESS.match(shown[0]):
        raise UsageError(f"It shows {_short(shown[0])}, and only local files are read.", "Save it to a file first.")
    system = _system(row, turns)
    texts = _in_turn(turns, first_number=len(said) - len(turns) + 1)
    texts[0] = _without_placeholder(texts, has_video=bool(shown))
    asked = [
        (check_question(question), check_text(answer, "answer", "Leave out questions without an answer."))
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
    ]
    ignored = [
        *(row.keys() - _READ),
        *(f"{key}.{name}" for name in {name for turn in said for name in turn} - _OF_TURN),
    ]
    return Conversation(shown[0] if shown else None, tuple(asked), system, tuple(ignored))


def _refuse_repeated(*objects: Any) -> None:
    for each in objects:
        if isinstance(each, RepeatedKey):
            raise UsageError(f"It has the key {each.key!r} twice.", "Leave out one of them, or make two rows of it.")


def _key_of_turns(row: dict[str, Any]) -> str:
    """Which key holds the turns."""
    found = [key for key in _SAID if row.get(key) is not None]
    if len(found) > 1:
        raise UsageError("It has both conversations and messages.", "Leave one of them.")
    if found:
        return found[0]
    for key in _SAID:
        if key not in row and (near := difflib.get_close_matches(key, row, n=1, cutoff=0.8)):
            raise UsageError(f"It has {near[0]!r}, and no {key!r}.", "Rename it.")
    raise UsageError("It has no list of conversations.", 'Give it "conversations": [{"from": …, "value": …}, …].')


def _named(row: dict[str, Any]) -> list[str]:
    """The videos and pictures that a row names beside its turns."""
    named = []
    for key in SHOWN:
        value = row.get(key)
        for name in value if isinstance(value, list) else [] if value is None else [value]:
            if not isinstance(name, str) or not name.strip():
                remedy = f"Give a path within the video folder{', or leave it out for text alone' if not name else ''}."
                raise UsageError(f"Its {key} is {_short(name)}, not a file name.", remedy)
            named.append(name)
    return named


def _refuse_other_names(row: dict[str, Any]) -> None:
    """Refuse what would be learned as text alone because its video is named otherwise."""
    for key, value in row.items():
        if value and key not in SHOWN and any(shown in key.lower() for shown in ("video", "image")):
            raise UsageError(
                f"It has {key} {_short(value)}, and neither video nor image.",
                f"Rename it to video or image, or leave out {key} if the row is text alone.",
            )


_OF_TURN = {"from", "value", "role", "content"}


def _turn(turn: Any, number: int) -> tuple[str, str, list[str]]:
    """Who says a turn, what, and the videos or pictures among its parts."""
    if not isinstance(turn, dict) or not any(
        {*form} <= turn.keys() for form in (("from", "value"), ("role", "content"))
    ):
        raise UsageError(f"Turn {number} is {_short(turn)}.", _TURN)
    speaker, said = (turn["from"], turn["value"]) if "from" in turn else (turn["role"], turn["content"])
    role = _ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise UsageError(f"Turn {number} is from {_short(speaker)}.", _TURN)
    shown: list[str] = []
    if isinstance(said, list):
        said = "\n".join(_part(part, number, shown) for part in said)
    if not isinstance(said, str):
        raise UsageError(f"Turn {number} says {_short(said)}, which is not text.", _TURN)
    return role, said, shown


def _part(part: Any, number: int, shown: list[str]) -> str:
    """The text of a part of a turn, or a placeholder for what it shows; its name, if it has one, goes to `shown`."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind not in ("video", "image", "video_url", "image_url"):
        raise UsageError(
            f"Turn {number} has the part {_short(part)}.",
            'Write {"type": "text", "text": "…"} or {"type": "video", "video": "a.mp4"}.',
        )
    named = [part[key] for key in (kind, "path", "url") if key in part]
    names = [str(name.get("url") or "") if isinstance(name, dict) else name for name in named]
    if not all(isinstance(name, str) and name for name in names) or len(names) > 1:
        raise UsageError(f"Turn {number} has the part {_short(part)}.", 'Write {"type": "video", "video": "a.mp4"}.')
    shown += map(str, names)
    return f"<{kind.removesuffix('_url')}>"


def _system(row: dict[str, Any], turns: list[tuple[str, str]]) -> str | None:
    """The system message, taken out of `turns`; a row may have it as a key of its own."""
    texts = [row["system"]] if row.get("system") not in (None, "") else []  # tables have it empty where there is none
    if turns and turns[0][0] == "system":
        texts.append(turns.pop(0)[1])
    if len(texts) > 1:
        raise UsageError("It has two system messages.", "Leave one of them.")
    return check_text(texts[0], "system message", "Leave it out.") if texts else None


def _in_turn(turns: Sequence[tuple[str, str]], first_number: int) -> list[str]:
    """The texts of turns that alternate and end with an answer."""
    if not turns:
        raise UsageError("It has no questions.", "Give it turns of human and gpt, or remove it.")
    for place, (role, _) in enumerate(turns):
        if role != (expected := ("user", "assistant")[place % 2]):
            raise UsageError(
                f"Turn {first_number + place} is {_CALLED[role]}, where {_CALLED[expected]} is expected.",
                "Let questions and answers alternate; a system message comes first, if there is one.",
            )
    if len(turns) % 2:
        raise UsageError("Its last question has no answer.", "Give the answer, or leave out the question.")
    return [text for _, text in turns]


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
            "Write <video> at most once, in the first question, and only with a video or an image.",
        )
    first = texts[0]
    for mark in PLACEHOLDERS:
        first = first.replace(mark, "")
    return first.strip()


_LONGEST_SHOWN = 80


def _short(value: object) -> str:
    """How Python writes a value, cut to what fits a line."""
    written = repr(value)
    return written if len(written) <= _LONGEST_SHOWN else f"{written[: _LONGEST_SHOWN - 1]}…"
