"""A checkpoint folder goes to the hub with a card that says what it was made of, and nothing of this machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import save_file

import sfvqa
from sfvqa.errors import CheckpointError, UploadError, UsageError
from sfvqa.training import publish
from sfvqa.training.convert import VisionSource, add_slow_path, convert
from sfvqa.training.origin import write_origin
from sfvqa.training.publish import model_card, push_to_hub
from sfvqa.training.validation import Figures, write_figures
from tests.model.decoders import DECODERS
from tests.model.families.published import save_whole
from tests.training.plain_decoder import save_plain_decoder

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
        self.files: dict[str, Any] = {}
        self.refusal: Exception | None = None
        monkeypatch.setattr(HfApi, "create_repo", self.create_repo)
        monkeypatch.setattr(HfApi, "create_commit", self.create_commit)

    def create_repo(self, repo_id: str, **how: Any) -> str:
        self.made = {"repo_id": repo_id, **how}
        return f"https://huggingface.co/{repo_id}"

    def create_commit(self, repo_id: str, operations: list[CommitOperationAdd], commit_message: str) -> None:
        if self.refusal:
            raise self.refusal
        assert commit_message
        assert repo_id == self.made["repo_id"]
        self.files = {each.path_in_repo: each.path_or_fileobj for each in operations}


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
    with pytest.raises(UsageError, match="is the card, and does not say what is given"):  # it was left out, silently
        push_to_hub(trained, REPOSITORY, licence="MIT")


def test_an_upload_that_was_refused_can_be_tried_again(trained: Path, hub: Hub) -> None:
    """The card that it left behind is the one that would be written."""
    hub.refusal = ConnectionError("No route to the hub.")
    with pytest.raises(UploadError):
        push_to_hub(trained, REPOSITORY, licence="MIT")
    hub.refusal = None
    push_to_hub(trained, REPOSITORY, licence="MIT")
    assert "README.md" in hub.files


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


def test_a_card_shows_what_the_last_run_measured(trained: Path) -> None:
    base = f"base {trained.parent.parent / 'run-1' / 'checkpoint'}"
    write_figures(trained.parent, {base: Figures(2.5, 0, 1, 8), "trained": Figures(0.25, 6, 7, 8, step=40)})
    _, text = read_card(trained)
    assert "base checkpoint   2.500  0 of 8   1 of 8   (2 to 47 %)" in text
    assert "trained, step 40  0.250  6 of 8   7 of 8  (53 to 98 %)" in text
    assert str(trained.parent.parent) not in text


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    """As a third run writes it that began with the checkpoint of the second, PEFT's blank card included."""
    folder = tmp_path / "run-3" / "adapter"
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": str(trained)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    looked = {"training_num_frames": 8, "training_sampling": "uniform", "training_crop": "center"}
    (folder / "training.json").write_text(json.dumps(looked))
    (folder / "README.md").write_text("---\nbase_model: ''\n---\n# Model Card for Model ID\n[More Information Needed]")
    (folder / "training_args.bin").write_bytes(b"/home/somebody")
    settings(folder.parent, model=str(trained), lora_rank=4)
    return folder


def test_an_adapter_is_published_with_its_base_as_others_know_it(adapter: Path, hub: Hub, tmp_path: Path) -> None:
    """It was refused; PEFT's config holds the path that the base has on this machine."""
    with pytest.raises(UsageError, match=r"trained on .*, which nobody else has"):
        push_to_hub(adapter, REPOSITORY)
    assert not hub.made
    push_to_hub(adapter, REPOSITORY, base="somebody/base")
    assert set(hub.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors", "training.json"}
    config = json.loads(hub.files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["r"]) == ("somebody/base", 4)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] != "somebody/base"
    card = ModelCard((adapter / "README.md").read_text(encoding="utf-8"))
    data, text = vars(card.data), card.text
    assert (data["base_model"], data["library_name"], data["license"]) == ("somebody/base", "peft", "apache-2.0")
    assert "lora" in data["tags"]
    assert "**Frames**: 8, chosen by uniform sampling" in text
    assert "| setting | run 1 | run 2 | run 3 |" in text
    assert "--model ./base --adapter ./garage" in text
    assert str(tmp_path) not in text
    assert "Needed" not in text


def test_an_adapter_of_a_published_model_is_asked_by_its_name(adapter: Path) -> None:
    settings(adapter.parent, model="slowfast-7b-64f", lora_rank=4)
    data, text = read_card(adapter)
    assert data["base_model"] == "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame64-s1t4"
    assert "--model slowfast-7b-64f --adapter ./garage" in text


def test_an_adapter_that_was_moved_knows_its_base(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, moved := tmp_path / "elsewhere" / "adapter")
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "tiny"}
    (moved / "adapter_config.json").write_text(json.dumps(config))
    assert "**Base**: tiny" in read_card(moved)[1]


def test_a_moved_adapter_is_not_said_to_be_of_what_its_base_was_trained_on(adapter: Path, tmp_path: Path) -> None:
    """The base lies in a run of its own, and what that began with was taken for the adapter's base."""
    shutil.copytree(adapter, moved := tmp_path / "elsewhere" / "adapter")
    with pytest.raises(UsageError, match=r"trained on .*run-2/checkpoint, which nobody else has"):
        model_card(moved, REPOSITORY)


def test_a_folder_that_took_the_name_of_its_base_has_to_be_told_its_base(adapter: Path, trained: Path) -> None:
    """It was followed round and round."""
    write_origin(trained, trained, adapter)
    with pytest.raises(UsageError, match="Nothing beside"):
        model_card(trained, REPOSITORY)


def test_a_merged_folder_knows_its_runs_wherever_it_lies(adapter: Path, trained: Path, tmp_path: Path) -> None:
    """Outside the run's folder it was of unknown origin."""
    shutil.copytree(TINY, merged := tmp_path / "elsewhere" / "merged")
    write_origin(merged, trained, adapter)
    _, text = read_card(merged)
    assert "**Base**: tiny" in text
    assert "| setting | run 1 | run 2 | run 3 |" in text
    assert "| lora_rank |  |  | 4 |" in text
    assert str(tmp_path) not in text


def test_a_slow_path_was_added_to_something(tmp_path: Path) -> None:
    save_whole("llava_onevision", tmp_path / "my-base")
    add_slow_path(tmp_path / "my-base", tmp_path / "it", num_fast_frames=2, num_slow_frames=4)
    assert "**Base**: my-base\n" in model_card(tmp_path / "it", REPOSITORY, licence="MIT")


def test_a_decoder_got_the_tower_of_something(tmp_path: Path) -> None:
    """What a plain decoder was converted from was not recorded."""
    save_plain_decoder(tmp_path / "my-decoder", DECODERS["llama"])
    convert(tmp_path / "my-decoder", VisionSource.of("tiny"), tmp_path / "it")
    with pytest.raises(UsageError, match="what licence my-decoder has"):
        model_card(tmp_path / "it", REPOSITORY)
    shutil.copytree(tmp_path / "it", tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "checkpoint" / "origin.json").unlink()
    settings(tmp_path / "run", model=str(tmp_path / "it"))
    text = model_card(tmp_path / "run" / "checkpoint", REPOSITORY, licence="MIT")
    assert "**Base**: my-decoder, with the vision tower of tiny\n" in text
    assert str(tmp_path) not in text
