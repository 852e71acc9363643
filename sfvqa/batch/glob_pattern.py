"""Patterns such as `videos/**/*.mp4`: where to look, and which names are meant. Looks at no files."""

import fnmatch
import glob
from collections.abc import Sequence
from pathlib import Path


class GlobPattern:
    """A pattern with `*`, `?` and `[…]` within names, and `**` for folders within folders, or none.

    `folder` is where to look: the part before the first of these. Names are relative to it, with "/" between parts.
    Unlike `glob` it leaves the walk to the caller, who knows what to do about links that lead back.
    """

    def __init__(self, pattern: str) -> None:
        parts = Path(pattern).parts
        num_fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
        self.folder = Path(*parts[:num_fixed])
        self._parts = parts[num_fixed:]

    def matches(self, name: str) -> bool:
        """Whether a file is meant.

        >>> pattern = GlobPattern("videos/**/*.mp4")
        >>> [pattern.matches(name) for name in ("a.mp4", "one/two/b.mp4", "one/b.txt")]
        [True, True, False]
        """
        return _matches(self._parts, name.split("/"))

    def leads_into(self, name: str) -> bool:
        """Whether a folder may hold files that are meant."""
        for place, folder in enumerate(name.split("/")):
            if self._parts[place] == "**":
                return True
            if place + 1 == len(self._parts) or not fnmatch.fnmatchcase(folder, self._parts[place]):
                return False
        return True


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts == ("**",):
        return True
    if parts[0] == "**":
        return any(_matches(parts[1:], names[place:]) for place in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _matches(parts[1:], names[1:])
