"""A fake hub with one commit of a small checkpoint, and the model that names it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sfvqa.registry import ModelSpec, find_model
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import checkpoint_of_numbers, connected


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with connected(tmp_path, monkeypatch) as hub:
        hub.publish(checkpoint_of_numbers())
        yield hub


@pytest.fixture
def spec(hub: FakeHub) -> ModelSpec:
    return find_model(hub.repo_id)
