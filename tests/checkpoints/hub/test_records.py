"""The first commit is kept: in a small file, written whole or not at all, and never misread."""

import dataclasses
import json
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import fixed_commit, forget_commit, is_downloaded, record_commit, records_path
from sfvqa.errors import ModelError
from sfvqa.registry import ModelSpec, find_model

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data" / "revisions.json"
    monkeypatch.setenv("SFVQA_REVISIONS", str(path))
    return path


@pytest.fixture
def spec() -> ModelSpec:
    return find_model("slowfast-7b-64f")


def test_a_commit_is_kept_until_another_is_recorded_or_forgotten(records: Path, spec: ModelSpec) -> None:
    other = find_model("slowfast-7b-96f")
    assert fixed_commit(spec) is None
    record_commit(spec, COMMIT)
    record_commit(other, OTHER)
    assert (fixed_commit(spec), fixed_commit(other)) == (COMMIT, OTHER)
    record_commit(spec, OTHER)
    forget_commit(other)
    assert (fixed_commit(spec), fixed_commit(other)) == (OTHER, None)
    assert [path.name for path in records.parent.iterdir()] == ["revisions.json"], "nothing temporary is left"
    assert json.loads(records.read_text()) == {"schema_version": 1, "revisions": {f"{spec.repo_id}@main": OTHER}}


@pytest.mark.usefixtures("records")
def test_what_models_toml_says_comes_first(spec: ModelSpec) -> None:
    """A pinned commit needs no record; a branch has a record of its own."""
    record_commit(spec, COMMIT)
    pinned = dataclasses.replace(spec, revision=OTHER)
    record_commit(pinned, COMMIT)
    assert fixed_commit(pinned) == OTHER
    assert fixed_commit(dataclasses.replace(spec, revision="some-branch")) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ('{"schema_version": 1, "revisions": {"a@', "Unterminated string"),
        ("[]", "it has no `revisions`"),
        ('{"schema_version": 2, "revisions": {}}', "its schema_version is 2, not 1"),
        ('{"schema_version": 1, "revisions": {"a@main": "../../etc"}}', r"'\.\./\.\./etc' for a@main is not a commit"),
        ("\udcff", "codec"),
    ],
)
def test_a_corrupt_record_is_an_error_that_names_it(records: Path, spec: ModelSpec, text: str, why: str) -> None:
    records.parent.mkdir()
    records.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=rf"{records}, cannot be read: .*{why}.*Remove that file"):
        is_downloaded(spec)
    with pytest.raises(ModelError):
        record_commit(spec, COMMIT)
    assert records.read_bytes() == text.encode("utf-8", "surrogateescape"), "it is not written over"


def test_a_record_that_cannot_be_written_says_so(
    records: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_commit(spec, COMMIT)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ModelError, match=f"cannot be recorded in {records}: Read-only file system.*SFVQA_REVISIONS"):
        record_commit(spec, OTHER)
    assert list(records.parent.iterdir()) == [records]
    assert fixed_commit(spec) == COMMIT


def test_without_the_variable_it_lies_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("SFVQA_REVISIONS")
    assert records_path().parent == Path(platformdirs.user_data_dir("sfvqa", appauthor=False))
