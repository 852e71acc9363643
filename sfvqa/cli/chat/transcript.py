"""A conversation as a file: Markdown to read, or JSON to work with."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.text import printable, printable_line
from sfvqa.cli.whole_file import check_place, whole_file
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.inference.answer import Answer

_ENDINGS = {"length": "cut: the longest answer was reached", "interrupted": "stopped before its end"}


class TranscriptWriter:
    """Writes conversations to files, over none but its own."""

    def __init__(self) -> None:
        self._written: set[Path] = set()

    def save(self, path: Path, title: str, facts: str, answers: "Sequence[Answer]") -> None:
        """Write them. UsageError where there are none, or something else is in the way; SfvqaError if it fails."""
        if not answers:
            raise UsageError("There is nothing to save: no question was answered yet.", "Ask something first.")
        check_place(path)
        target = path.resolve()
        if target.exists() and target not in self._written:
            raise UsageError(f"{path} is there already, and not from this chat.", "Name another file, or remove it.")
        is_json = path.suffix.lower() == ".json"
        text = as_json(answers) if is_json else as_markdown(title, facts, answers)
        with whole_file(path, what="conversation") as file:
            file.write(text.encode())
        self._written.add(target)


def as_json(answers: "Sequence[Answer]") -> str:
    """A list of the objects that --json prints, one a line."""
    objects = ",\n".join(json.dumps(answer.to_dict(), allow_nan=False) for answer in answers)
    return f"[\n{objects}\n]\n"


def as_markdown(title: str, facts: str, answers: "Sequence[Answer]") -> str:
    """Questions as quotations, answers below them; `facts` say what the model saw."""
    parts = [f"# {printable_line(title)}", f"{printable_line(facts)}. Answered by {answers[0].model}."]
    for answer in answers:
        question = "\n".join(f"> {line}".rstrip() for line in printable(answer.question).splitlines())
        parts += [question, printable(answer.text).strip()]
        if ending := _ENDINGS.get(answer.finish_reason.value):
            parts.append(f"*({ending})*")
    return "\n\n".join(parts) + "\n"
