"""A checkpoint folder goes to the hub with a card that says what it was made of, and nothing of this machine."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError

import sfvqa
from sfvqa.errors import CheckpointError, UploadError, UsageError
from sfvqa.training import publish
from sfvqa.training.publish import model_card, push_to_hub

TINY = Path(sfvqa.__file__).parent / "assets" / "tiny"
REPOSITORY = "somebody/garage"


def settings(folder: Path, **more: Any) -> None:
    """As a run writes them."""
    own = {
        "model": "tiny",
        "annotations": "/home/Some Body/secret/garage.json\n/home/Some Body/more/yard.json:2",
        "videos": "/home/Some Body/secret/clips/",
        "annotations_sha256": "ab12",
        "stage": 1,
        "learning_rate": 0.001,
        "num_steps": None,
        "left_out": ["/home/somebody/secret/clips/broken.mp4"],
    }
    (folder / "settings.json").write_text(json.dumps(own | more), encoding="utf-8")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The checkpoint of a second run, which began with that of a first, which began with tiny."""
    for number in (1, 2):
        shutil.copytree(TINY, tmp_path / f"run-{number}" / "checkpoint", ignore=shutil.ignore_patterns("README.md"))
    settings(tmp_path / "run-1")
    first = str(tmp_path / "run-1" / "checkpoint")
    settings(tmp_path / "run-2", model=first, stage=2, learning_rate=1e-5, precision="bfloat16")
    (tmp_path / "run-2" / "checkpoint" / "training_args.bin").write_bytes(b"/home/somebody")
    return tmp_path / "run-2" / "checkpoint"


class Hub:
    """What a hub is asked, in place of one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: dict[str, Any] = {}
        self.files: list[str] = []
        self.refusal: Exception | None = None
        monkeypatch.setattr(HfApi, "create_repo", self.create_repo)
        monkeypatch.setattr(HfApi, "upload_folder", self.upload_folder)

    def create_repo(self, repo_id: str, **how: Any) -> str:
        self.made = {"repo_id": repo_id, **how}
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str]) -> None:
        if self.refusal:
            raise self.refusal
        assert repo_id == self.made["repo_id"]
        names = sorted(path.name for path in folder_path.iterdir())
        self.files = [name for name in names if any(fnmatch(name, pattern) for pattern in allow_patterns)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


def read_card(folder: Path, **stated: str) -> tuple[dict[str, Any], str]:
    """The fields at the head of a card, and its text."""
    card = ModelCard(model_card(folder, REPOSITORY, **stated))
    return vars(card.data), card.text


def test_a_card_states_base_data_licence_and_the_settings_of_every_run(trained: Path) -> None:
    data, text = read_card(trained)
    assert (data["license"], data["pipeline_tag"]) == ("apache-2.0", "video-text-to-text")
    assert data["base_model"] is None  # no repository holds tiny
    for said in (
        "# garage",
        "**Base**: tiny",
        "garage.json, yard.json:2 (SHA-256 ab12)",
        "**Licence**: Apache-2.0.",
        "32, chosen by",
    ):
        assert said in text
    assert "| setting | run 1 | run 2 |" in text
    assert "| model | tiny | checkpoint |" in text
    assert "| learning_rate | 0.001 | 1e-05 |" in text
    assert "| precision |  | bfloat16 |" in text
    assert "| left_out | 1 | 1 |" in text
    assert f"hf download {REPOSITORY} --local-dir garage" in text
    assert "/home" not in text
    assert "Body" not in text
    assert str(trained.parent.parent) not in text


def test_what_is_given_goes_before_what_is_recorded(trained: Path) -> None:
    data, text = read_card(trained, licence="MIT", base="a/b", data="Clips of a garage.")
    assert (data["license"], data["base_model"]) == ("mit", "a/b")
    assert "**Licence**: MIT. The base is under Apache-2.0." in text
    assert "Clips of a garage." in text


def test_a_base_of_the_hub_is_named_by_its_repository(trained: Path) -> None:
    settings(trained.parent, model="slowfast-7b-64f")
    data, _ = read_card(trained)
    assert data["base_model"] == "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame64-s1t4"
    assert data["license"] == "cc-by-nc-4.0"


def test_what_nothing_records_has_to_be_said(trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "model"
    shutil.copytree(trained, alone)
    with pytest.raises(UsageError, match="which model it was made from"):
        model_card(alone, REPOSITORY)
    with pytest.raises(UsageError, match="what licence my-base has"):
        model_card(alone, REPOSITORY, base="my-base")
    said = model_card(alone, REPOSITORY, base="my-base", licence="MIT")
    assert "**Data**: not recorded" in said
    assert "Settings" not in said
    settings(trained.parent, model=str(tmp_path / "gone"))  # a folder that was moved since
    with pytest.raises(UsageError, match="what licence gone has"):
        model_card(trained, REPOSITORY)


def test_the_checkpoint_and_its_card_are_uploaded_and_nothing_else(
    trained: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish.main([str(trained), REPOSITORY]) == 0
    assert capsys.readouterr().out == f"https://huggingface.co/{REPOSITORY}\n"
    assert hub.made == {"repo_id": REPOSITORY, "private": True, "exist_ok": True}
    assert set(hub.files) == {path.name for path in TINY.iterdir()}
    assert "training_args.bin" not in hub.files
    assert (trained / "README.md").read_text(encoding="utf-8") == model_card(trained, REPOSITORY)


def test_a_card_of_one_s_own_is_kept_and_one_may_only_look(
    trained: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish.main([str(trained), REPOSITORY, "--card", "--licence", "MIT"]) == 0
    assert "license: mit" in capsys.readouterr().out
    assert not hub.made
    assert not (trained / "README.md").exists()
    (trained / "README.md").write_text("My own.", encoding="utf-8")
    assert push_to_hub(trained, REPOSITORY, private=False) == f"https://huggingface.co/{REPOSITORY}"
    assert hub.made["private"] is False
    assert (trained / "README.md").read_text(encoding="utf-8") == "My own."


@pytest.mark.parametrize(
    ("refusal", "message", "remedy"),
    [
        (403, "the hub answers 403: You may not", "hf auth login"),
        (401, "the hub answers 401", "HF_TOKEN"),
        (500, "the hub answers 500", "upload again"),
        (ConnectionError("No route to the hub."), "not uploaded: No route to the hub.", "Check the network"),
    ],
)
def test_a_refused_upload_says_why(trained: Path, hub: Hub, refusal: Any, message: str, remedy: str) -> None:
    if isinstance(refusal, int):
        response = httpx.Response(refusal, request=httpx.Request("POST", "https://huggingface.co"))
        refusal = HfHubHTTPError("It failed", response=response, server_message="You may not.")  # type: ignore[arg-type]
    hub.refusal = refusal
    with pytest.raises(UploadError) as caught:
        push_to_hub(trained, REPOSITORY)
    assert message in str(caught.value)
    assert remedy in str(caught.value)


def test_the_hub_s_own_client_fails_in_our_words(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, and of a name that cannot be."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UploadError, match="was not uploaded"):
        push_to_hub(trained, REPOSITORY)
    with pytest.raises(UploadError, match="USER/NAME"):
        push_to_hub(trained, "a/b/c")


def test_nothing_is_sent_of_what_is_no_checkpoint(trained: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        push_to_hub(trained, REPOSITORY)
    assert publish.main([str(trained), REPOSITORY]) == 4
    assert "missing" in capsys.readouterr().err
    assert not hub.made
