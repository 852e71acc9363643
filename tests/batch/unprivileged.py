"""A folder and a user without privileges, so that permissions mean something even where root runs the tests."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """A folder of that user's, who this process is while the block runs."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if is_root:
            os.chown(folder, _NOBODY, -1)
            os.seteuid(_NOBODY)
        try:
            yield Path(folder)
        finally:
            if is_root:
                os.seteuid(0)
            for path, folders, _ in os.walk(folder):
                for name in folders:
                    Path(path, name).chmod(0o700)
