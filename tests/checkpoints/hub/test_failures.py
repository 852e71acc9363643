"""Whatever refuses a pull, the user reads what it was and what to do; all of it leads to exit code 4."""

import socket
from pathlib import Path

import pytest

from sfvqa.checkpoints.download import plan_pull, pull
from sfvqa.errors import DownloadError, ExitCode
from sfvqa.registry import ModelSpec
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import SHARDS
from tests.inference.steps import run

STATUSES = [
    (401, {}, r"HF_TOKEN.*hf auth login"),
    (403, {}, "does not let you read it"),
    (403, {"X-Error-Code": "GatedRepo"}, r"accepted its licence \(403\)\. Accept it at http://.*/acme/small-slow-fast"),
    (404, {"X-Error-Code": "RepoNotFound"}, r"correct `repo_id` in .*toml"),
    (404, {"X-Error-Code": "RevisionNotFound"}, r"`sfvqa models pull small --update`"),
    (429, {"Retry-After": "7"}, r"Try again in 7 seconds"),
    (429, {}, r"Try again later"),
    (503, {}, r"out of order \(503\)"),
    (418, {}, r"refuses acme/small-slow-fast \(418\)"),
]


@pytest.mark.parametrize("part", ["/api/models/", "/tree/", "/resolve/"])
@pytest.mark.parametrize(("status", "headers", "sentences"), STATUSES)
def test_each_status_has_its_own_sentences(
    hub: FakeHub, spec: ModelSpec, part: str, status: int, headers: dict[str, str], sentences: str
) -> None:
    hub.statuses[part] = (status, headers)
    with pytest.raises(DownloadError, match=sentences) as raised:
        plan_pull(spec)
    assert raised.value.exit_code == ExitCode.MODEL


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_status_in_the_midst_of_a_pull_says_the_same(hub: FakeHub, spec: ModelSpec, status: int) -> None:
    plan = plan_pull(spec)
    hub.statuses["/storage/"] = (status, {})
    with pytest.raises(DownloadError, match=rf"\({status}\)"):
        run(pull(plan))


def test_a_token_is_not_shown(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.statuses["/api/models/"] = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    with pytest.raises(DownloadError, match="HF_TOKEN") as raised:
        plan_pull(spec)
    assert "hf_wrong" not in str(raised.value)


def test_a_password_in_the_endpoint_is_not_shown(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, hub.url.replace("http://", "http://me:secret@"))
    hub.statuses["/api/models/"] = (403, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(DownloadError, match=r"Accept it at http://127\.0\.0\.1:\d+/acme"):
        plan_pull(spec)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://127.0.0.1:{closed}", r"The connection to 127\.0\.0\.1:\d+ failed: .*refused"),
        ("http://no-such-host.invalid", r"The connection to no-such-host\.invalid failed"),
        ("https://127.0.0.1:{port}", "SSL"),
        ("", "HF_ENDPOINT"),
        ("nonsense", "HF_ENDPOINT"),
        ("ftp://127.0.0.1", "HF_ENDPOINT"),
    ],
)
def test_a_network_that_is_none(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, endpoint: str, said: str
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        closed = reserved.getsockname()[1]
        point_to(monkeypatch, endpoint.format(closed=closed, port=hub.server.server_port))
        with pytest.raises(DownloadError, match=said) as raised:
            plan_pull(spec)
    assert "HF_ENDPOINT" in raised.value.remedy


@pytest.mark.parametrize("wrong", [{"sha": "../../etc"}, {"sha": None}, {"siblings": 3}])
def test_an_answer_that_is_none_of_a_hub(
    hub: FakeHub, spec: ModelSpec, wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = hub.info(hub.head) | wrong
    monkeypatch.setattr(FakeHub, "info", lambda _hub, _commit: info)
    with pytest.raises(DownloadError, match="does not answer like a Hugging Face hub"):
        plan_pull(spec)


def test_offline_is_respected(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        plan_pull(spec)
    assert not hub.requests


def test_a_disk_too_small_is_found_out_before_the_first_byte(hub: FakeHub, spec: ModelSpec) -> None:
    hub.stated_sizes[SHARDS[0]] = 10**15
    with pytest.raises(DownloadError, match=r"1,000\.0 TB.*cache has only .* free\. Free some space"):
        plan_pull(spec)
    assert not hub.of("/storage/")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "is full"),
        (PermissionError(13, "Permission denied", "/cache/blobs/x"), "/cache/blobs/x cannot be written"),
    ],
)
def test_a_disk_that_refuses_says_so(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    plan = plan_pull(spec)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
    with pytest.raises(DownloadError, match=f"{said}.*HF_HOME"):
        run(pull(plan))


def test_a_cache_that_is_a_file_says_so(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(DownloadError, match=r"cannot be written: Not a directory\. .*HF_HOME"):
        run(pull(plan_pull(spec)))


def point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
