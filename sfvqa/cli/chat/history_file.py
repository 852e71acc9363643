"""The file that keeps what was typed in chats, for this user's eyes only."""

import errno
import os
from pathlib import Path

import platformdirs


def history_path() -> Path | None:
    """Where it is: what SFVQA_HISTORY says, None where that is empty, else in the user's folder for states."""
    override = os.environ.get("SFVQA_HISTORY")
    if override is None:
        return Path(platformdirs.user_state_dir("sfvqa", appauthor=False)) / "chat_history"
    return Path(override).expanduser() if override else None


def prepare_history(path: Path) -> None:
    """Make the file, with mode 0600, unless it is there. OSError when it cannot be read and written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise OSError(errno.EINVAL, "it is no file") from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
