"""The pictures that the page shows: which frames, how many, how large, and of no other file."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sfvqa.errors import UnreadableVideoError
from sfvqa.serve.app import Server, build_app
from sfvqa.serve.filmstrip import MOST_FRAMES, read_filmstrip
from sfvqa.serve.guard import Guard
from sfvqa.serve.sources import Folders, Uploads
from sfvqa.video.readers import ReadOptions
from tests.serve.page_server import DEMO

SHAPES = DEMO / "shapes.mp4"
HERE = ReadOptions(isolated=False)


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    with Uploads(1 << 20, 1 << 22) as uploads:
        yield uploads


@pytest.fixture
def client(uploads: Uploads) -> TestClient:
    """A client of a server with a model that is never asked."""
    return TestClient(build_app(Server(Mock(), Folders([DEMO]), uploads)), base_url="http://127.0.0.1")


def frames_of(strip: dict[str, Any]) -> list[Image.Image]:
    """The pictures in a strip, cut up as the page does."""
    sheet = Image.open(io.BytesIO(base64.b64decode(strip["jpeg"])))
    columns, count = strip["columns"], len(strip["indices"])
    width, height = sheet.width // columns, sheet.height // -(-count // columns)
    places = [divmod(place, columns) for place in range(count)]
    return [
        sheet.crop((column * width, row * height, (column + 1) * width, (row + 1) * height)) for row, column in places
    ]


def middle_is_green(picture: Image.Image) -> bool:
    """Whether it is the flash of shapes.mp4."""
    red, green, blue = picture.convert("RGB").getpixel((3, 3))  # type: ignore[misc]
    return bool(green > 100 and red < 80 and blue < 100)


def test_gives_the_very_frames(client: TestClient) -> None:
    response = client.post("/sfvqa/filmstrip", json={"video": SHAPES.as_uri(), "indices": [90, 81, 0]})
    strip = response.json()
    assert (strip["indices"], strip["missing"]) == ([0, 81, 90], [])
    assert strip["timestamps_seconds"] == pytest.approx([index / 24 for index in strip["indices"]], abs=0.001)
    assert [middle_is_green(picture) for picture in frames_of(strip)] == [False, True, False]
    assert frames_of(strip)[0].size == (160, 160)


def test_spreads_as_many_as_are_asked_for(client: TestClient) -> None:
    strip = client.post("/sfvqa/filmstrip", json={"video": SHAPES.as_uri(), "count": 5, "side": 32}).json()
    assert len(strip["indices"]) == 5
    assert strip["indices"][0] < 24
    assert strip["indices"][-1] > 90
    assert (strip["duration_seconds"], strip["width"], strip["height"]) == (5.0, 288, 288)


def test_many_frames_come_out_smaller(tmp_path: Path) -> None:
    for number in range(MOST_FRAMES):
        Image.new("RGB", (600, 300), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    alone = read_filmstrip(tmp_path, [7], 1280, HERE)
    assert Image.open(io.BytesIO(alone.jpeg)).size == (1280, 640)
    all_of_them = Image.open(io.BytesIO(read_filmstrip(tmp_path, MOST_FRAMES, 1280, HERE).jpeg))
    assert all_of_them.width * all_of_them.height <= 4_000_000
    assert all_of_them.width == 16 * 125


def test_a_frame_that_cannot_be_read_is_black_and_named(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (64, 64), (200, 200, 200)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    strip = read_filmstrip(tmp_path, [0, 1, 2], 64, HERE)
    assert strip.missing == (1,)
    sheet = Image.open(io.BytesIO(strip.jpeg))
    assert [sheet.getpixel((column * 64 + 32, 32)) for column in (0, 1)] == [(200, 200, 200), (0, 0, 0)]


def test_a_video_that_is_shorter_by_now_is_an_error() -> None:
    with pytest.raises(UnreadableVideoError, match="only 120 frames"):
        read_filmstrip(SHAPES, [0, 120], 64, HERE)


@pytest.mark.parametrize(
    "body",
    [
        {"video": SHAPES.as_uri(), "indices": list(range(MOST_FRAMES + 1))},
        {"video": SHAPES.as_uri(), "indices": []},
        {"video": SHAPES.as_uri(), "indices": [-1]},
        {"video": SHAPES.as_uri(), "count": MOST_FRAMES + 1},
        {"video": SHAPES.as_uri(), "side": 100_000},
        {"video": SHAPES.as_uri(), "side": 1},
        {"video": SHAPES.as_uri(), "width": 20},
        {"video": 1},
        {},
    ],
    ids=lambda body: json.dumps(body)[-30:],
)
def test_what_is_too_much_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/sfvqa/filmstrip", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("The request is not valid")


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", f"{DEMO.as_uri()}/../tiny/README.md", "http://127.0.0.1/a.mp4"]
)
def test_no_other_file_is_read(client: TestClient, address: str) -> None:
    assert client.post("/sfvqa/filmstrip", json={"video": address}).status_code in (400, 404)


def test_an_upload_is_named_as_it_was_sent(client: TestClient) -> None:
    sent = client.post("/v1/files", files={"file": ("mine.mp4", SHAPES.read_bytes())}).json()
    assert len(client.post("/sfvqa/filmstrip", json={"video": sent["id"], "count": 3}).json()["indices"]) == 3
    broken = client.post("/v1/files", files={"file": ("broken.mp4", b"\0\1" * 99)}).json()
    error = client.post("/sfvqa/filmstrip", json={"video": broken["id"]})
    assert error.status_code == 422
    assert error.json()["error"]["message"].startswith("“broken.mp4” cannot be read")


def test_the_page_is_open_and_the_pictures_need_the_key(uploads: Uploads) -> None:
    app = Guard(
        build_app(Server(Mock(), Folders([DEMO]), uploads)), Mock(), key="key", hosts=None, largest_body_bytes=1 << 20
    )
    client = TestClient(app, base_url="http://127.0.0.1")
    kinds = ("text/html", "javascript", "javascript", "text/css", "svg")
    for path, kind in zip(("/", "/page.js", "/server.js", "/page.css", "/icon.svg"), kinds, strict=True):
        response = client.get(path)
        assert (response.status_code, kind in response.headers["content-type"]) == (200, True)
        assert "default-src 'none'" in response.headers["content-security-policy"]
    assert client.post("/sfvqa/filmstrip", json={"video": SHAPES.as_uri()}).status_code == 401
    assert client.get("/sfvqa/model").status_code == 401
