"""Fixtures: the two readers, and a place where test videos are written once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sfvqa.video import ReaderName

from .videos import Recipe, write_video

WriteVideo = Callable[[str, Recipe], Path]


@pytest.fixture(params=[ReaderName.PYAV, ReaderName.OPENCV], ids=str)
def reader(request: pytest.FixtureRequest) -> ReaderName:
    """Each reader in turn: one suite holds for both."""
    name: ReaderName = request.param
    return name


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> WriteVideo:
    """`video("name.mp4", recipe)` writes the file, once a session and name."""
    folder = tmp_path_factory.mktemp("videos")
    written: dict[str, Recipe] = {}

    def write(name: str, recipe: Recipe) -> Path:
        path = folder / name
        if name not in written:
            written[name] = recipe
            write_video(path, recipe)
        assert written[name] == recipe, f"two recipes for {name}"
        return path

    return write
