"""`sfvqa models list`, without a network."""

import json
from pathlib import Path

import pytest

from sfvqa.registry import load_registry
from tests.cli.conftest import RunCli


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_every_model_is_listed_with_what_it_costs(run_cli: RunCli) -> None:
    """Name, size and licence before anybody downloads, and the command that does."""
    run = run_cli("models", "list")
    assert (run.exit_code, run.stderr) == (0, "")
    for spec in load_registry():
        assert spec.name in run.stdout
        assert spec.license in run.stdout
        if spec.repo_id:
            assert f"sfvqa models pull {spec.name}" in run.stdout


def test_the_list_as_json(run_cli: RunCli) -> None:
    """One object with all models; what is bundled is available, what is not downloaded is not."""
    document = json.loads(run_cli("models", "list", "--json").stdout)
    assert document["schema_version"] == 1
    models = {model["name"]: model for model in document["models"]}
    assert list(models) == [spec.name for spec in load_registry()]
    assert models["tiny"]["available"] is models["tiny"]["bundled"] is True
    assert models["slowfast-7b-64f"]["available"] is False
