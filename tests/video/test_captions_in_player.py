"""Captions in the HTML5 player of a real browser: each is shown in its time, and as the text that it is."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import sfvqa
from sfvqa.video.captions import CaptionFormat, CaptionWriter
from sfvqa.video.subtitles import SubtitleLine
from tests.chromium import chromium

pytestmark = pytest.mark.browser
SHAPES = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
PAGE = """<!doctype html><meta charset="utf-8"><video width="576" muted controls>
<track default kind="captions" srclang="en" label="English" src="shapes.vtt"></video>
<script>  // from a blob, since a plain server has no ranges to seek in
fetch("shapes.mp4").then(answer => answer.blob()).then(blob => {
  document.querySelector("video").src = URL.createObjectURL(blob);
});
</script>"""
LINES = [
    SubtitleLine(0.0, 2.0, "A red circle moves left."),
    SubtitleLine(1.5, 3.5, "5 < 7 & <b>bold</b> --> {\\an8}\n\nüber 漢字 🎬"),
    SubtitleLine(3.0, 3.0, "An instant"),
]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where a page with the video and its captions is served."""
    shutil.copy(SHAPES, tmp_path)
    with (tmp_path / "shapes.vtt").open("w", encoding="utf-8") as file:
        captions = CaptionWriter(file, CaptionFormat.VTT)
        for line in LINES:
            captions.write(line)
    (tmp_path / "index.html").write_text(PAGE, encoding="utf-8")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def test_a_player_shows_each_caption_in_its_time(browser: Browser, address: str, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(address)
    expect(page.locator("video")).to_have_js_property("readyState", 4)
    expect(page.locator("track")).to_have_js_property("readyState", 2)
    cues = "[...document.querySelector('track').track.cues].map(cue => [cue.startTime, cue.endTime, text(cue)])"
    text = "const text = cue => cue.getCueAsHTML().textContent;"
    shown = "[...document.querySelector('track').track.activeCues].map(text)"
    second = "5 < 7 & <b>bold</b> --> {⁠\\an8}\nüber 漢字 🎬"
    assert page.evaluate(f"() => {{ {text} return {cues} }}") == [
        [0, 2, "A red circle moves left."],
        [1.5, 3.5, second],
        [3, 3.001, "An instant"],
    ]
    for seconds, expected in ((1.0, [LINES[0].text]), (1.75, [LINES[0].text, second]), (2.5, [second]), (4.5, [])):
        page.evaluate(
            "seconds => new Promise(done => { const video = document.querySelector('video');"
            " video.onseeked = () => requestAnimationFrame(done); video.currentTime = seconds; })",
            seconds,
        )
        page.wait_for_function(
            f"expected => {{ {text} return JSON.stringify({shown}) === JSON.stringify(expected) }}", arg=expected
        )
        page.screenshot(path=str(tmp_path / f"at-{seconds}.png"))
    page.close()
