"""A Hugging Face hub on loopback: what huggingface_hub asks of the real one, and on demand what goes wrong there."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_PIECE = 1 << 16


@dataclass(frozen=True)
class Request:
    """A request as it came, and how many bytes of a file it was given."""

    method: str
    path: str
    headers: dict[str, str]
    status: int
    sent_bytes: int

    @property
    def range_start(self) -> int:
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])


@dataclass
class FakeHub:
    """One repository with its commits; the fields below the line make it misbehave.

    Large files (`*.safetensors`) are redirected to a storage of another host name, as on the real hub.
    """

    repo_id: str
    server: ThreadingHTTPServer
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""
    requests: list[Request] = field(default_factory=list)
    # ---
    statuses: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """A part of a path → the status, and headers, of the answer."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """A file → after how many bytes each of its next answers breaks off."""
    wrong_bytes: set[str] = field(default_factory=set)
    stated_sizes: dict[str, int] = field(default_factory=dict)
    ignores_range: bool = False
    pause_seconds: float = 0.0
    """Between two pieces of 64 KiB."""
    drips: set[str] = field(default_factory=set)
    """Parts of paths whose answers are a header that has no end, a byte at a time."""
    endless_pages: bool = False
    """Whether each page of a listing points to another one."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def publish(self, files: dict[str, bytes]) -> str:
        """Make a commit of these files, to which the main branch moves."""
        commit = hashlib.sha1(json.dumps({name: _sha256(data) for name, data in files.items()}).encode()).hexdigest()
        self.commits[commit], self.head = files, commit
        return commit

    def publish_folder(self, folder: Path) -> str:
        return self.publish({path.name: path.read_bytes() for path in sorted(folder.iterdir())})

    def of(self, name: str, method: str = "GET") -> list[Request]:
        """The requests for a file that were answered with bytes of it, or for an API by a part of its path."""
        return [asked for asked in self.requests if asked.method == method and name in asked.path]

    def info(self, commit: str) -> dict[str, Any]:
        siblings = []
        for name, data in self.commits[commit].items():
            size = self.stated_sizes.get(name, len(data))
            entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git_sha1(data)}
            if _is_large(name):
                entry["lfs"] = {"size": size, "sha256": _sha256(data), "pointerSize": 134}
            siblings.append(entry)
        return {"id": self.repo_id, "modelId": self.repo_id, "sha": commit, "siblings": siblings, "tags": []}

    def tree(self, commit: str) -> list[dict[str, Any]]:
        entries = self.info(commit)["siblings"]
        return [
            {"type": "file", "path": entry["rfilename"], "size": entry["size"], "oid": entry["blobId"]}
            | (
                {"lfs": {"oid": entry["lfs"]["sha256"], "size": entry["size"], "pointerSize": 134}}
                if "lfs" in entry
                else {}
            )
            for entry in entries
        ]


def start(repo_id: str) -> FakeHub:
    """A hub that answers in threads of its own until `stop`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = FakeHub(repo_id, server)
    server.hub = hub  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return hub


def stop(hub: FakeHub) -> None:
    hub.server.shutdown()
    hub.server.server_close()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    @property
    def _hub(self) -> FakeHub:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def _answer(self) -> None:
        hub, path = self._hub, unquote(urlsplit(self.path).path)
        if any(part in path for part in hub.drips):
            return self._drip()
        for part, (status, headers) in hub.statuses.items():
            if part in path:
                return self._reply(status, headers)
        api, repo = f"/api/models/{hub.repo_id}", f"/{hub.repo_id}/resolve/"
        if path == api or path.startswith(f"{api}/revision/"):
            revision = path.removeprefix(api).removeprefix("/revision/") or "main"
            commit = hub.head if revision == "main" else revision
            if commit not in hub.commits:
                return self._reply(404, {"X-Error-Code": "RevisionNotFound"})
            return self._reply(200, {"Content-Type": "application/json"}, json.dumps(hub.info(commit)).encode())
        if path.startswith(f"{api}/tree/"):
            commit = path.removeprefix(f"{api}/tree/")
            if commit not in hub.commits:
                return self._reply(404, {"X-Error-Code": "RevisionNotFound"})
            more = {"Link": f'<{hub.url}{api}/tree/{commit}>; rel="next"'} if hub.endless_pages else {}
            return self._reply(200, more, json.dumps(hub.tree(commit)).encode())
        if path.startswith(repo):
            return self._resolve(*path.removeprefix(repo).split("/", 1))
        if path.startswith("/storage/"):
            _, _, commit, name = path.split("/", 3)
            return self._send_file(name, hub.commits[commit][name], {})
        return self._reply(404, {"X-Error-Code": "RepoNotFound"})

    def _drip(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            while self._hub.drips:
                self.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            pass
        self.close_connection = True

    def _resolve(self, revision: str, name: str) -> None:
        hub = self._hub
        commit = hub.head if revision == "main" else revision
        data = hub.commits.get(commit, {}).get(name)
        if data is None:
            return self._reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit}
        if not _is_large(name):
            return self._send_file(name, data, headers | {"ETag": f'"{git_sha1(data)}"'})
        size = hub.stated_sizes.get(name, len(data))
        linked = {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{_sha256(data)}"'}
        storage = f"http://localhost:{hub.server.server_port}/storage/{commit}/{name}"
        return self._reply(302, headers | linked | {"Location": storage})

    def _send_file(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        hub, start, status = self._hub, 0, 200
        if name in hub.wrong_bytes:
            data = bytes([data[0] ^ 1]) + data[1:]
        if (asked := self.headers.get("Range")) and not hub.ignores_range:
            start, status = int(asked.removeprefix("bytes=").split("-")[0]), 206
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        cuts = hub.cuts.get(name, [])
        allowed = cuts.pop(0) if cuts and self.command == "GET" else None
        self._reply(status, headers | {"Accept-Ranges": "bytes"}, data[start:], allowed)

    def _reply(self, status: int, headers: dict[str, str], body: bytes = b"", allowed: int | None = None) -> None:
        """Send an answer; its body, if `allowed` is a number, only so far, and then the line goes dead."""
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        if self.command == "GET":
            end = len(body) if allowed is None else allowed
            try:
                while sent < end:
                    sent += self.wfile.write(body[sent : min(end, sent + _PIECE)])
                    if self._hub.pause_seconds:
                        time.sleep(self._hub.pause_seconds)
            except OSError:
                self.close_connection = True  # nobody wants the rest
        seen = {name.lower(): value for name, value in self.headers.items()}
        self._hub.requests.append(Request(self.command, self.path, seen, status, sent))
        if allowed is not None:
            self.close_connection = True
