"""Whatever refuses a pull, the user reads what it was and what to do; all of it leads to exit code 4."""

import socket

import pytest

from sfvqa.errors import DownloadError, ExitCode, ModelError
from sfvqa.inference.hub.pull import plan_pull, pull
from sfvqa.registry import ModelSpec, find_model
from tests.inference.hub.fake_hub import FakeHub
from tests.inference.hub.published import MODELS_TOML, REPO, SHARDS
from tests.inference.steps import run

API = "/api/models/"
STATUSES = [
    (401, {}, r"private, or there is no such repository .* \(401, and there is no token\)\. .*HF_TOKEN.*hf auth login"),
    (403, {}, r"forbids reading acme/small-slow-fast \(403\)\. .*HF_TOKEN the right"),
    (
        403,
        {"X-Error-Code": "GatedRepo"},
        r"accepted its licence \(403\)\. Accept it at http://.*/acme/small-slow-fast, then",
    ),
    (401, {"X-Error-Code": "GatedRepo"}, r"accepted its licence \(401\)"),
    (
        404,
        {"X-Error-Code": "RepoNotFound"},
        r"There is no repository .* \(404\)\. Correct `repo_id` of small in .*toml",
    ),
    (404, {"X-Error-Code": "RevisionNotFound"}, r"has no revision .* `sfvqa models pull small --update`"),
    (429, {"Retry-After": "7"}, r"takes no more requests .* \(429\)\. Try again in 7 seconds"),
    (429, {"ratelimit": '"api";r=0;t=55'}, r"Try again in 55 seconds"),
    (429, {}, r"Try again in some minutes"),
    (500, {}, r"out of order \(500\)\. Try again later"),
    (503, {}, r"out of order \(503\)"),
    (418, {}, r"refuses acme/small-slow-fast \(418\)"),
]


@pytest.mark.parametrize(("status", "headers", "sentences"), STATUSES)
def test_each_status_has_its_own_sentences(
    hub: FakeHub, spec: ModelSpec, status: int, headers: dict[str, str], sentences: str
) -> None:
    hub.statuses[API] = (status, headers)
    with pytest.raises(DownloadError, match=sentences) as raised:
        plan_pull(spec)
    assert raised.value.exit_code == ExitCode.MODEL


@pytest.mark.parametrize(("status", "headers", "sentences"), STATUSES)
def test_a_status_in_the_midst_of_a_pull_says_the_same(
    hub: FakeHub, spec: ModelSpec, status: int, headers: dict[str, str], sentences: str
) -> None:
    plan = plan_pull(spec)
    hub.statuses["/resolve/"] = (status, headers)
    with pytest.raises(DownloadError, match=sentences):
        run(pull(plan))


def test_a_hub_that_recovers_is_asked_again(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server out of order for a moment in the midst of seventeen gigabytes ends nothing."""
    hub.statuses["/storage/"] = (502, {})
    monkeypatch.setattr("sfvqa.inference.hub.transfer.time.sleep", lambda _seconds: hub.statuses.clear())
    _, pulled = run(pull(plan_pull(spec)))
    assert all((pulled.location.folder / shard).is_file() for shard in SHARDS)
    assert not hub.statuses  # it was refused, waited, and asked again


def test_a_refused_token_is_named(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.statuses[API] = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    with pytest.raises(DownloadError, match="refuses the token") as raised:
        plan_pull(spec)
    assert "hf_wrong" not in str(raised.value)


def test_a_password_in_the_endpoint_is_not_shown(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, hub.url.replace("http://", "http://me:secret@"))
    hub.statuses[API] = (403, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(DownloadError, match=r"Accept it at http://127\.0\.0\.1:\d+/acme"):
        plan_pull(spec)


def test_a_dead_network(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        point_to(monkeypatch, f"http://127.0.0.1:{reserved.getsockname()[1]}")
        with pytest.raises(DownloadError, match=r"Nothing answers at 127\.0\.0\.1:\d+: the connection was refused"):
            plan_pull(spec)
    point_to(monkeypatch, "http://no-such-host.invalid")
    with pytest.raises(DownloadError, match=r"The name no-such-host\.invalid cannot be looked up"):
        plan_pull(spec)


def test_a_hub_that_does_not_answer_in_time(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_to(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.1)
        with pytest.raises(DownloadError, match="does not answer in time"):
            plan_pull(spec)


def test_a_connection_without_tls_where_tls_is_asked_for(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, hub.url.replace("http:", "https:"))
    with pytest.raises(DownloadError, match="No safe connection"):
        plan_pull(spec)


@pytest.mark.parametrize("endpoint", ["", "nonsense", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_none(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    point_to(monkeypatch, endpoint)
    with pytest.raises(DownloadError, match="HF_ENDPOINT"):
        plan_pull(spec)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sha": "../../etc"},
        {"sha": None},
        {"siblings": [{"rfilename": "config.json", "size": 2, "blobId": "../../../etc/passwd"}]},
        {"siblings": [{"rfilename": "config.json", "size": None, "blobId": "0" * 40}]},
        {"id": None},
    ],
)
def test_an_answer_that_is_none_of_a_hub(
    hub: FakeHub, spec: ModelSpec, wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names in the cache are made of what the hub says: nothing but hashes gets there."""
    info = hub.info(hub.head) | wrong
    if wrong.get("id", "") is None:
        del info["id"]
    monkeypatch.setattr(FakeHub, "info", lambda _hub, _commit: info)
    with pytest.raises(DownloadError, match="does not answer as a Hugging Face hub does"):
        plan_pull(spec)


def test_offline_is_respected(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        plan_pull(spec)
    assert not hub.requests


def test_a_repository_id_that_is_none(hub: FakeHub) -> None:
    import os
    from pathlib import Path

    Path(os.environ["SFVQA_MODELS"]).write_text(MODELS_TOML.replace(REPO, "a/b/c"))
    with pytest.raises(ModelError, match=r"'small' in .*models\.toml has a `repo_id` that is none"):
        plan_pull(find_model("small"))
    assert not hub.of(SHARDS[0])


def point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
