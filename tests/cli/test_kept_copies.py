"""A model of which only quantized copies are kept is asked, listed and described like any other."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.inference import plan
from tests.cli.conftest import RunCli
from tests.inference.hub.fake_hub import FakeHub
from tests.inference.hub.published import connected, shard
from tests.inference.small_checkpoint import write_checkpoint, write_reference_checkpoint

ASK = ("ask", load_demo_videos()[0].path, "What happens?", "--device", "cpu", "--max-new-tokens", "3")
NAMED = (*ASK, "--model", "small")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """With a checkpoint in the published form."""
    ours = write_checkpoint(tmp_path / "ours")
    published = shard(write_reference_checkpoint(tmp_path / "reference", ours), tmp_path / "published")
    with connected(tmp_path, monkeypatch) as hub:
        monkeypatch.setattr(plan, "free_memory_bytes", lambda _device: 100 * 10**9)
        hub.publish_folder(published)
        yield hub


@pytest.fixture
def folders(hub: FakeHub, run_cli: RunCli) -> dict[str, str]:
    """The copies of a model that was pulled."""
    assert hub
    assert run_cli("models", "pull", "small", "--yes").exit_code == 0
    return {
        bits: json.loads(run_cli("models", "quantize", "small", "--quant", bits, "--device", "cpu", "--json").stdout)[
            "folder"
        ]
        for bits in ("8bit", "4bit")
    }


def test_a_copy_alone_answers_without_being_asked_for(run_cli: RunCli, folders: dict[str, str]) -> None:
    assert run_cli("models", "remove", "small", "--yes").exit_code == 0
    for asked in (NAMED, ASK):
        run = run_cli(*asked)
        assert run.exit_code == 0
        assert "Using the 8bit copy that is kept of small: its own files are not here." in run.stderr
        assert f"Using the 8bit copy in {folders['8bit']}." in run.stderr
    assert "Using small, which is kept here in 8bit and 4bit." in run.stderr
    dry = json.loads(run_cli(*NAMED, "--dry-run", "--json", "-q").stdout)
    assert (dry["quantization"], [said for said in dry["warnings"] if "not on this machine" in said]) == ("8bit", [])
    run = run_cli(*NAMED, "--quant", "none")
    assert (run.exit_code, "A copy of it in 8bit is: use --quant 8bit." in run.stderr) == (4, True)
    assert "would see, which is on this machine" in run_cli("frames", load_demo_videos()[0].path).stderr
    assert "small" in [model["name"] for model in json.loads(run_cli("doctor", "--json").stdout)["models"]]


def test_copies_are_listed_and_described(run_cli: RunCli, folders: dict[str, str]) -> None:
    run_cli("models", "remove", "small", "--yes")
    (small,) = (m for m in json.loads(run_cli("models", "list", "--json").stdout)["models"] if m["name"] == "small")
    assert (small["available"], small["folder"]) == (True, None)
    assert {copy["quantization"]: copy["folder"] for copy in small["copies"]} == folders
    on_disk = sum(path.stat().st_size for path in Path(folders["4bit"]).iterdir())
    assert small["copies"][1]["disk_bytes"] == on_disk
    assert json.loads(run_cli("models", "info", "small", "--json").stdout)["copies"] == small["copies"]
    for command in (("list",), ("info", "small")):
        assert (
            f"Kept in 4bit: {on_disk / 1000:.1f} kB on disk in {folders['4bit']}" in run_cli("models", *command).stdout
        )


def test_auto_that_comes_to_a_copy_loads_it_beside_the_model(
    run_cli: RunCli, folders: dict[str, str], tmp_path: Path
) -> None:
    assert "copy" not in run_cli(*NAMED).stderr, "everything fits"
    models = tmp_path / "models.toml"
    models.write_text(models.read_text() + 'quantization = "4bit"\n')
    assert f"Using the 4bit copy in {folders['4bit']}." in run_cli(*NAMED).stderr
