"""`sfvqa mcp` but for serving: what is refused before anything is loaded."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import RunCli


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["--folder", "absent"], 2, "“absent” is no folder."),
        (["--folder", __file__], 2, "is no folder."),
        (["--model", "tniy"], 4, "Did you mean tiny?"),
        (["--model", "bench-0.5b"], 4, "has no trained weights"),
        (["--device", "tpu"], 2, "is not a device"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int, says: str
) -> None:
    """On stderr: stdout is the protocol's."""
    monkeypatch.setattr("sfvqa.cli.mcp.import_once", None)
    outcome = run_cli("mcp", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (exit_code, "")
    assert says in " ".join(outcome.stderr.split())


def test_the_extra_is_named_where_it_is_missing(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def find_others(name: str, *more: Any) -> Any:
        return None if name == "mcp" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    outcome = run_cli("mcp")
    assert outcome.exit_code == 1
    assert 'pip install "sfvqa[mcp]"' in outcome.stderr


def test_only_the_folders_that_are_given_and_the_bundled_videos_are_open(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mcp")
    opened: list[list[str]] = []

    def serve(folders: Any, *_: object) -> bool:
        opened.append(folders.names)
        return True

    monkeypatch.setattr("sfvqa.serve.mcp.serve", serve)
    for arguments in ([], ["--folder", str(tmp_path)]):
        outcome = run_cli("mcp", *arguments)
        assert (outcome.exit_code, outcome.stdout) == (0, "")
        assert f"{len(arguments) // 2} folder" in outcome.stderr
    bundled = [name for name in opened[0] if name.endswith("demo")]
    assert opened == [bundled, [str(tmp_path.resolve()), *bundled]]
