"""Who may ask, and how much; and connections on which nothing comes."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve import connection, guard
from sfvqa.serve.connection import Connection
from tests.serve.serving import Served, about, serving, until


@pytest.fixture(scope="module")
def locked(tiny: VideoQA) -> Iterator[Served]:
    with serving(tiny, key="a-käy", largest_body_bytes=10_000) as running:
        yield running


def status(served: Served, path: str = "/v1/models", method: str = "GET", **headers: str) -> int:
    sent = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return httpx.request(method, f"{served.url}{path}", headers=sent).status_code


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer a-käy", 200), ("bearer a-käy", 200), ("Bearer a-kay", 401), ("Bearer a-käyx", 401), ("a-käy", 401),
        ("Basic a-käy", 401), ("Bearer", 401), ("Bearer None", 401), ("", 401),
    ],
)  # fmt: skip
def test_a_key_opens(locked: Served, authorization: str, expected: int) -> None:
    for path in ("/v1/models", "/metrics", "/sfvqa/videos", "/v1/files"):
        assert status(locked, path, Authorization=authorization) == expected
    assert status(locked, "/health", Authorization=authorization) == 200


def test_no_key_closes(locked: Served) -> None:
    """Nor are there ways around it."""
    response = httpx.post(f"{locked.url}/v1/chat/completions", json=about(None, "Hello?"))
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.json()["error"]["type"] == "authentication_error"
    for path in ("/V1/models", "/v1/models/", "//v1/models", "/health/../v1/models", "/%76%31/models"):
        assert status(locked, path) == 401


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "", "[::1", "127.0.0.2", "169.254.169.254"])
def test_another_name_is_not_answered(served: Served, host: str) -> None:
    """Or any page could reach this server under a name of its own."""
    assert status(served, Host=host) == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:8484"])
def test_its_own_name_is_answered(served: Served, host: str) -> None:
    assert status(served, Host=host) == 200


@pytest.mark.parametrize("origin", ["http://example.com", "null", "", "http://[", "file://", "http://127.0.0.1:1"])
def test_pages_of_others_may_not_ask(served: Served, origin: str) -> None:
    assert status(served, Origin=origin) == 403
    assert status(served, Origin=served.url) == 200


def test_every_answer_says_what_a_page_may_do(served: Served) -> None:
    for path in ("/health", "/v1/absent", "/v1/models/other"):
        headers = httpx.get(f"{served.url}{path}").headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_a_body_has_a_limit(served: Served, locked: Served) -> None:
    """Announced or not; an upload has one of its own."""
    key = {b"Authorization": "Bearer a-käy".encode()}
    for content in (b"x" * 10_001, iter([b"x" * 6000, b"x" * 6000])):
        response = httpx.post(f"{locked.url}/v1/chat/completions", content=content, headers=key)
        assert (response.status_code, response.json()["error"]["type"]) == (413, "invalid_request_error")
    files = {"file": ("clip.mp4", b"x" * (5 << 20))}
    assert httpx.post(f"{served.url}/v1/files", files=files).status_code == 413
    assert httpx.get(f"{served.url}/v1/models").status_code == 200


def test_bodies_at_the_same_time_have_a_limit(tiny: VideoQA) -> None:
    with serving(tiny, largest_body_bytes=1000) as served, contextlib.ExitStack() as held:
        for _ in range(4):
            begun = http.client.HTTPConnection("127.0.0.1", served.port)
            held.callback(begun.close)
            begun.putrequest("POST", "/v1/chat/completions")
            begun.putheader("Content-Length", "1000")
            begun.endheaders(b"x" * 999)
        until(lambda: httpx.post(f"{served.url}/v1/chat/completions", content=b"x" * 100).status_code == 429)
        held.close()
        until(lambda: httpx.post(f"{served.url}/v1/chat/completions", content=b"x" * 100).status_code == 400)


def test_a_body_that_does_not_come_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that comes a byte at a time."""
    monkeypatch.setattr(guard, "PATIENCE_SECONDS", 0.3)
    for drips in (False, True):
        with served.connect() as raw:
            raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{")
            over = threading.Event()
            if drips:
                threading.Thread(target=_drip, args=(raw, over), daemon=True).start()
            assert raw.recv(12) == b"HTTP/1.1 408"
            over.set()


def _drip(raw: object, over: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not over.wait(0.05):
            raw.sendall(b" ")  # type: ignore[attr-defined]


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_connection_on_which_nothing_is_asked_is_closed(
    served: Served, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second time, when uvicorn's own timer has been reset."""
    monkeypatch.setattr(Connection, "patience_seconds", 0.3)
    with served.connect() as fresh:
        fresh.sendall(sent)
        assert _end_of(fresh) == b""
    with served.connect() as used:
        used.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert used.recv(12) == b"HTTP/1.1 200"
        used.sendall(sent)
        assert _end_of(used).endswith(b'"model":"tiny"}')


def _end_of(raw: object) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := raw.recv(65536):  # type: ignore[attr-defined]
            received += piece
    return received


def test_connections_are_bounded_in_number(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 4)
    with contextlib.ExitStack() as held:
        opened = [held.enter_context(served.connect()) for _ in range(12)]
        time.sleep(0)
        assert any(_end_of(raw) == b"" for raw in opened[8:])
    until(lambda: httpx.get(f"{served.url}/health").status_code == 200)


def test_requests_are_counted_by_route(tiny: VideoQA) -> None:
    with serving(tiny) as served:
        for path in ("/v1/models/tiny", "/v1/models/other", "/a", "/b"):
            httpx.get(f"{served.url}{path}")
        text = httpx.get(f"{served.url}/metrics").text
    assert 'sfvqa_http_requests_total{route="/v1/models/{name:path}",status="200"} 1.0' in text
    assert 'sfvqa_http_requests_total{route="/v1/models/{name:path}",status="404"} 1.0' in text
    assert 'sfvqa_http_requests_total{route="other",status="404"} 2.0' in text
