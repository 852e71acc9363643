"""Reads the READMEs of the repository, and CONTRIBUTING.md: their commands, and the transcripts of what they print."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
LAB = ROOT / "sfvqa" / "lab"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
READMES = [
    README,
    CONTRIBUTING,
    *sorted(path for part in ("sfvqa", "tests") for path in (ROOT / part).rglob("README.md")),
]
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command of a README, and the lines a transcript shows under it."""

    readme: Path
    line: str
    output: str = ""

    @property
    def typed(self) -> list[str]:
        """What a person types while it runs, behind the prompt `> `."""
        return [line.removeprefix("> ") for line in self.output.splitlines() if line.startswith("> ")]

    @property
    def words(self) -> list[str]:
        """The command as the shell splits it, up to a pipe."""
        words = shlex.split(self.line, comments=True)
        return words[: words.index("|")] if "|" in words else words


def commands(readme: Path = README) -> list[Command]:
    """Every command of a README: the lines of ```sh blocks, and the lines after `$ ` of ```console blocks."""
    found: list[Command] = []
    for kind, text in _BLOCK.findall(readme.read_text(encoding="utf-8")):
        if kind == "sh":
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            found += [Command(readme, line) for line in lines]
        else:
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                found.append(Command(readme, line, output))
    return found
