"""The page in a real browser: every way to a video, an answer as it comes, and what it looked at."""

import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    FileChooser,
    Locator,
    Page,
    Request,
    Route,
    expect,
)

from sfvqa.inference.answering import AnswerRun
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from tests.chromium import chromium
from tests.serve.page_server import DEMO, Pace, PageServer, page_server

pytestmark = pytest.mark.browser
FLASH, DIGIT = "What colour does the screen flash?", "Which digit is shown?"
GREEN, SEVEN = "The screen flashes green.", "The digit 7 is shown."
SHAPES = DEMO / "shapes.mp4"
_REFUSED = "Failed to load resource"  # what the browser notes of every status from 400 on
expect.set_options(timeout=30_000)

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server(tiny: VideoQA) -> Iterator[PageServer]:
    with page_server(tiny) as server:
        yield server


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens the page; at the end there were no complaints in its console, and no requests to anybody else."""
    complaints: list[str] = []
    with ExitStack() as contexts:

        def open_page(server: PageServer, **options: Any) -> Page:
            context = contexts.enter_context(browser.new_context(**options))
            page = context.new_page()

            def note(message: ConsoleMessage) -> None:
                if message.type in ("error", "warning") and _REFUSED not in message.text:
                    complaints.append(message.text)

            def check(request: Request) -> None:
                if not request.url.startswith((server.url, f"blob:{server.url}")):
                    complaints.append(request.url)

            page.on("console", note)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", check)
            page.goto(server.url)
            return page

        yield open_page
    assert complaints == []


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pace]:
    """Answers wait for every step to be allowed."""
    pace = Pace()
    monkeypatch.setattr(AnswerRun, "steps", lambda run: pace.steps_of(run))
    yield pace
    pace.allow(10_000)


def take(page: Page, name: str) -> None:
    """Choose a video from the server."""
    page.locator("#listed-videos").get_by_role("button", name=name).click()
    expect(page.locator("#preview .picture")).to_have_count(8)


def ask(page: Page, question: str) -> Locator:
    """Ask, and wait until nothing is under way; the turn."""
    turn = begin(page, question)
    expect(page.locator("#submit")).to_have_text("Ask")
    return turn


def begin(page: Page, question: str) -> Locator:
    page.fill("#question", question)
    page.press("#question", "Enter")
    return page.locator(".turn").last


def answer_of(turn: Locator) -> Locator:
    return turn.locator(".answer")


def requests_of(page: Page) -> list[dict[str, Any]]:
    """The bodies of the chat requests from now on."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/chat/completions"):
            bodies.append(json.loads(request.post_data or ""))

    page.on("request", note)
    return bodies


def drop(page: Page, name: str, content: bytes) -> None:
    """What a browser does when a file is dropped on the page."""
    page.evaluate(
        """([name, content]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type: "video/mp4" }));
            for (const type of ["dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [name, base64.b64encode(content).decode()],
    )


# --- From a video to an answer ---


def test_asks_about_a_video_of_the_server(server: PageServer, open_page: OpenPage, tiny: VideoQA) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    expect(page.locator("#video-facts")).to_have_text("0:05, 288 × 288 pixels")
    turn = ask(page, FLASH)
    expect(answer_of(turn)).to_have_text(GREEN)
    expect(turn.locator("summary")).to_have_text(
        re.compile(r"First words after \d+\.\d\d s, \d+\.\d\d s in all, 32 frames")
    )
    expect(turn.locator(".error")).to_be_hidden()
    evidence = tiny.ask(SHAPES, FLASH, GenerationOptions(evidence=True)).evidence
    assert evidence is not None
    strongest = max(evidence, key=lambda frame: frame.weight)
    frames = turn.locator(".frame")
    expect(frames).to_have_count(32)
    shown = [float(text.replace("0:", "")) for text in turn.locator(".time").all_inner_texts()]
    assert shown == [pytest.approx(frame.timestamp_seconds, abs=0.0006) for frame in evidence]
    bars = frames.locator(".bar span").evaluate_all("bars => bars.map((bar) => parseFloat(bar.style.height))")
    assert bars == [pytest.approx(100 * frame.weight / strongest.weight, abs=0.1) for frame in evidence]
    expect(turn.locator(".is-peak")).to_have_count(1)
    peak = frames.nth(evidence.index(strongest))
    expect(peak).to_have_class(re.compile("is-peak"))
    expect(peak).to_have_attribute("aria-label", re.compile("of the attention, the most$"))
    expect(peak).to_be_in_viewport()
    assert _looks_green(peak.locator(".picture"))
    assert not _looks_green(frames.nth(0).locator(".picture"))


def _looks_green(picture: Locator) -> bool:
    """Whether the corner of what is on the screen there is the flash of shapes.mp4."""
    import io

    from PIL import Image

    expect(picture).to_have_css("background-image", re.compile("blob:"))
    picture.page.wait_for_timeout(200)  # until the picture is painted
    red, green, blue = Image.open(io.BytesIO(picture.screenshot())).convert("RGB").getpixel((12, 12))  # type: ignore[misc]
    return bool(green > 100 and red < 80 and blue < 100)


@pytest.mark.parametrize("way", ["dropped", "picked"])
def test_asks_about_a_file(server: PageServer, open_page: OpenPage, way: str) -> None:
    page = open_page(server)
    expect(page.locator("#listed")).to_be_visible()
    if way == "dropped":
        drop(page, "mine.mp4", SHAPES.read_bytes())
    else:
        page.set_input_files("#file", SHAPES)
    expect(page.locator("#video-name")).to_have_text("mine.mp4" if way == "dropped" else "shapes.mp4")
    expect(answer_of(ask(page, DIGIT))).to_have_text(SEVEN)
    expect(page.locator("#preview .picture")).to_have_count(8)


def test_shows_how_far_it_is_then_text_as_it_comes(server: PageServer, open_page: OpenPage, pace: Pace) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    page.evaluate("""() => {
        window.seen = new Set();
        new MutationObserver(() => document.querySelectorAll(".status span").forEach(
            (status) => window.seen.add(status.textContent))
        ).observe(document.body, { subtree: true, childList: true, characterData: true });
    }""")
    turn = begin(page, FLASH)
    pace.allow(3)
    expect(answer_of(turn)).to_have_text(re.compile("^The"))
    assert GREEN.startswith(answer_of(turn).inner_text())
    assert answer_of(turn).inner_text() != GREEN
    expect(answer_of(turn)).to_have_attribute("aria-busy", "true")
    expect(page.locator("#submit")).to_have_text("Stop")
    expect(turn.locator("figure")).to_be_hidden()
    seen = page.evaluate("[...window.seen]")
    assert {"Waiting for the model …", "Reading frames, 1 of 32", "Reading frames, 32 of 32"} <= set(seen)
    assert "Looking at frames, 32 of 32" in seen
    pace.allow(1000)
    expect(answer_of(turn)).to_have_text(GREEN)
    expect(answer_of(turn)).not_to_have_attribute("aria-busy", "true")


def test_a_second_question_knows_the_first(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    sent = requests_of(page)
    ask(page, FLASH)
    second = ask(page, DIGIT)
    expect(answer_of(second)).to_have_text(SEVEN)
    expect(page.locator(".turn")).to_have_count(2)
    assert [message["role"] for message in sent[1]["messages"]] == ["user", "assistant", "user"]
    assert sent[1]["messages"][:2] == [sent[0]["messages"][0], {"role": "assistant", "content": GREEN}]
    assert sent[1]["messages"][2]["content"] == DIGIT
    page.click("#start-over")
    expect(page.locator(".turn")).to_have_count(0)
    expect(answer_of(ask(page, DIGIT))).to_have_text(SEVEN)
    assert len(sent[2]["messages"]) == 1


def test_another_video_begins_another_conversation(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    sent = requests_of(page)
    ask(page, FLASH)
    page.click("#change")
    take(page, "flash.mp4")
    expect(page.locator(".turn")).to_have_count(0)
    expect(answer_of(ask(page, FLASH))).to_have_text("The screen flashes purple.")
    assert len(sent[1]["messages"]) == 1


def test_settings_are_sent(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    sent = requests_of(page)
    page.click("#settings-button")
    expect(page.locator("[name=frames]")).to_have_attribute("placeholder", "32")
    page.fill("[name=frames]", "8")
    page.select_option("[name=sampling]", label="at a rate")
    page.fill("[name=fps]", "2")
    page.fill("[name=start]", "0:01")
    page.fill("[name=end]", "4.5")
    page.fill("[name=temperature]", "0.5")
    page.fill("[name=max_tokens]", "3")
    page.get_by_label("Show which frames").uncheck()
    page.get_by_role("button", name="Done").click()
    turn = ask(page, FLASH)
    assert (sent[0]["temperature"], sent[0]["max_tokens"]) == (0.5, 3)
    own = {"frames": 8, "sampling": "fps", "fps": 2, "start": "0:01", "end": "4.5", "evidence": False, "progress": True}
    assert sent[0]["sfvqa"] == own
    expect(answer_of(turn)).to_have_class(re.compile("is-cut"))
    expect(turn.locator(".frame")).to_have_count(8)
    expect(turn.locator(".bar")).to_have_count(0)
    expect(turn.locator(".warnings li")).not_to_have_count(0)
    page.click("#settings-button")
    page.get_by_role("button", name="Defaults").click()
    page.get_by_role("button", name="Done").click()
    ask(page, FLASH)
    assert sent[1]["sfvqa"] == {"evidence": True, "progress": True}
    assert not {"temperature", "max_tokens"} & set(sent[1])


def test_choices_are_compared(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    page.click("#settings-button")
    page.get_by_label("Compare these answers").fill("The screen flashes red.\n\nThe screen flashes green.\n")
    page.keyboard.press("Escape")
    turn = ask(page, FLASH)
    expect(answer_of(turn)).to_have_text(GREEN)
    choices = turn.locator(".choices li")
    expect(choices).to_have_count(2)
    expect(choices.first).to_contain_text(GREEN)


def test_a_model_that_cannot_show_where_it_looked_is_not_asked_to(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    facts = {"name": "tiny", "gives_evidence": False, "num_frames": 32, "max_tokens": 256, "largest_video_bytes": 1}
    page.route("**/sfvqa/model", lambda route: route.fulfill(json=facts))
    page.reload()
    take(page, "shapes.mp4")
    sent = requests_of(page)
    turn = ask(page, FLASH)
    assert sent[0]["sfvqa"]["evidence"] is False
    expect(turn.locator(".frame")).to_have_count(32)
    expect(turn.locator("figcaption")).to_have_text("What the model saw.")
    page.click("#settings-button")
    expect(page.get_by_label("Show which frames")).to_be_disabled()
    expect(page.locator("#no-evidence")).to_be_visible()


def test_of_many_frames_the_strongest_are_shown(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    take(page, "order.mp4")
    answer = {
        "finish_reason": "stop",
        "choices": None,
        "warnings": [],
        "frames": {
            "count": 300,
            "indices": list(range(300)),
            "timestamps_seconds": [place / 10 for place in range(300)],
        },
        "evidence": [
            {"index": place, "timestamp_seconds": place / 10, "weight": (place % 3 + 1) / 600} for place in range(300)
        ],
        "tokens": {"new": 1, "prompt": 1, "slow": 1},
        "timings": {
            f"{stage}_seconds": 0.5 for stage in ("read", "encode", "overlap", "prefill", "ttft", "decode", "total")
        },
        "from_video_cache": True,
    }
    events = [{"choices": [{"delta": {"content": "Much."}}]}, {"choices": [{"delta": {}}], "sfvqa": answer}]
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=lines, content_type="text/event-stream"))
    turn = ask(page, "What happens?")
    expect(turn.locator("figcaption")).to_contain_text("128 of 300 frames are shown.")
    times = turn.locator(".time").all_inner_texts()
    assert len(times) == 128
    assert {"0:00.2", "0:29.9"} <= set(times)
    assert "0:00" not in times


# --- Stopping, and what goes wrong ---


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_stop_drops_the_request_and_keeps_what_came(
    server: PageServer, open_page: OpenPage, pace: Pace, way: str
) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    turn = begin(page, FLASH)
    pace.allow(3)
    expect(answer_of(turn)).to_have_text(re.compile("^The"))
    page.click("#submit") if way == "button" else page.keyboard.press("Escape")
    expect(page.locator("#submit")).to_have_text("Ask")
    expect(turn.locator(".error")).to_be_hidden()
    expect(answer_of(turn)).to_have_class(re.compile("is-cut"))
    while server.service.room.num_requests:
        page.wait_for_timeout(50)
        pace.allow(1)
    assert answer_of(turn).inner_text() != GREEN
    pace.allow(1000)
    expect(answer_of(ask(page, DIGIT))).to_have_text(SEVEN)


def test_enter_does_not_stop_and_shift_enter_breaks_the_line(
    server: PageServer, open_page: OpenPage, pace: Pace
) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    turn = begin(page, FLASH)
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.locator("#question")).to_have_value("one\ntwo")
    expect(page.locator("#submit")).to_have_text("Stop")
    pace.allow(1000)
    expect(answer_of(turn)).to_have_text(GREEN)
    expect(page.locator(".turn")).to_have_count(1)


def test_what_is_no_video_is_said_in_one_sentence(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    drop(page, "broken.mp4", b"\0\1\2\3" * 1000)
    expect(page.get_by_role("alert").first).to_contain_text("broken.mp4")
    expect(page.get_by_role("alert").first).not_to_contain_text("sfvqa-uploads")
    turn = ask(page, FLASH)
    expect(turn.get_by_role("alert")).to_contain_text("broken.mp4")
    expect(page.locator("#question")).to_have_value(FLASH)
    page.click("#change")
    take(page, "shapes.mp4")
    expect(page.locator("#error")).to_be_hidden()
    expect(answer_of(ask(page, FLASH))).to_have_text(GREEN)


def test_what_cannot_be_answered_is_said_and_the_question_kept(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    expect(page.locator("#model")).to_have_text("answered by tiny")
    begin(page, FLASH)
    expect(page.get_by_role("alert")).to_have_text("Choose a video first.")
    take(page, "shapes.mp4")
    page.click("#settings-button")
    page.fill("[name=start]", "9:00")
    page.get_by_role("button", name="Done").click()
    turn = ask(page, FLASH)
    expect(turn.get_by_role("alert")).to_contain_text("9:00")
    expect(page.locator("#question")).to_have_value(FLASH)


def test_what_is_asked_before_the_server_is_there_is_answered_once_it_is(
    server: PageServer, open_page: OpenPage
) -> None:
    page = open_page(server)
    page.route("**/sfvqa/model", lambda route: route.abort())
    page.reload()
    gone = "The server does not answer. Check that it is still running."
    expect(page.get_by_role("alert")).to_have_text(gone)
    drop(page, "shapes.mp4", SHAPES.read_bytes())
    expect(page.locator("#preview .picture")).to_have_count(8)
    begin(page, FLASH)
    expect(page.get_by_role("alert")).to_have_text(gone)
    expect(page.locator("#question")).to_have_value(FLASH)
    page.unroute("**/sfvqa/model")
    page.press("#question", "Enter")
    expect(answer_of(page.locator(".turn"))).to_have_text(GREEN)


def test_a_file_that_is_too_large_is_not_sent(tiny: VideoQA, open_page: OpenPage) -> None:
    with page_server(tiny, largest_bytes=1 << 20) as server:
        page = open_page(server)
        expect(page.locator("#listed")).to_be_visible()
        drop(page, "large.mp4", bytes((1 << 20) + 1))
        expect(page.get_by_role("alert")).to_have_text("“large.mp4” is larger than the 1 MB that this server takes.")
        expect(page.locator("#chooser")).to_be_visible()


def test_a_server_that_is_gone_is_said(server: PageServer, open_page: OpenPage, pace: Pace) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    pace.allow(1000)
    ask(page, FLASH)
    server.stop()
    turn = ask(page, DIGIT)
    expect(turn.get_by_role("alert")).to_have_text("The server does not answer. Check that it is still running.")


def test_a_stream_that_breaks_is_said(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")

    def cut(route: Route) -> None:
        body = 'data: {"choices": [{"delta": {"content": "The screen"}}]}\n\n'
        route.fulfill(body=body, content_type="text/event-stream")

    page.route("**/v1/chat/completions", cut)
    turn = ask(page, FLASH)
    expect(answer_of(turn)).to_have_text("The screen")
    expect(turn.get_by_role("alert")).to_contain_text("The connection broke")


def test_a_server_that_dies_while_it_answers_is_said(tiny: VideoQA, open_page: OpenPage, pace: Pace) -> None:
    with page_server(tiny) as server:
        page = open_page(server)
        take(page, "shapes.mp4")
        turn = begin(page, FLASH)
        pace.allow(3)
        expect(answer_of(turn)).to_have_text(re.compile("^The"))
        server.stop()
        expect(turn.get_by_role("alert")).to_contain_text("The connection broke")
        expect(page.locator("#submit")).to_have_text("Ask")


def test_names_and_questions_are_text(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    expect(page.locator("#listed")).to_be_visible()
    markup = "<img src=x onerror=alert(1)>"
    drop(page, f"{markup}.mp4", SHAPES.read_bytes())
    expect(page.locator("#video-name")).to_have_text(f"{markup}.mp4")
    turn = ask(page, markup)
    expect(turn.locator("h2")).to_have_text(markup)
    expect(page.locator("main img")).to_have_count(0)


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes")
def test_a_name_that_is_no_utf8_is_listed(tiny: VideoQA, open_page: OpenPage, tmp_path: Path) -> None:
    shutil.copy(SHAPES, tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    with page_server(tiny, folders=[tmp_path]) as server:
        page = open_page(server)
        take(page, "caf\N{REPLACEMENT CHARACTER}.mp4")
        expect(answer_of(ask(page, FLASH))).to_have_text(GREEN)


# --- The key ---


def test_a_key_is_asked_for_and_kept_in_the_tab(tiny: VideoQA, open_page: OpenPage) -> None:
    with page_server(tiny, key="open sesame") as server:
        page = open_page(server)
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The server does not accept this key.")
        page.fill("#key", "open sesame")
        page.keyboard.press("Enter")
        take(page, "shapes.mp4")
        expect(page.locator("#key-form")).to_be_hidden()
        page.click("#change")
        page.set_input_files("#file", SHAPES)
        turn = ask(page, FLASH)
        expect(answer_of(turn)).to_have_text(GREEN)
        expect(turn.locator(".picture").first).to_have_css("background-image", re.compile("blob:"))
        page.reload()
        expect(page.locator("#listed")).to_be_visible()
        expect(page.locator("#key-form")).to_be_hidden()
        assert page.evaluate("localStorage.length") == 0
        assert page.context.cookies() == []
        assert "sesame" not in page.content()


def test_without_a_key_none_is_asked_for(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    take(page, "shapes.mp4")
    expect(page.locator("#key-form")).to_be_hidden()


# --- By keyboard, on a phone, in the dark ---


def test_everything_can_be_done_by_keyboard(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    choosers: list[FileChooser] = []
    page.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # so early that the browser knows of it when Enter is pressed
    expect(page.locator("#listed")).to_be_visible()
    keyboard = page.keyboard
    keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    expect(page.locator("#drop")).to_have_css("outline-style", "solid")
    keyboard.press("Enter")
    while not choosers:
        page.wait_for_timeout(50)
    choosers[0].set_files(SHAPES)
    expect(page.locator("#question")).to_be_focused()
    expect(page.locator("#preview .picture")).to_have_count(8)
    keyboard.type(FLASH)
    keyboard.press("Enter")
    expect(page.locator("summary")).to_be_visible()
    stops = ["start-over", "change", "is-peak", "SUMMARY", "question", "settings-button", "submit"]
    page.evaluate("document.activeElement.blur()")
    page.mouse.click(1, 1)
    for stop in stops:
        keyboard.press("Tab")
        focused = page.evaluate(
            "(({id, className, tagName}) => `${id} ${className} ${tagName}`)(document.activeElement)"
        )
        assert stop in focused
        outline = page.evaluate(
            "(({outlineStyle, outlineWidth}) => outlineStyle + outlineWidth)(getComputedStyle(document.activeElement))"
        )
        assert outline == "solid3px", focused
    page.locator(".is-peak").focus()
    keyboard.press("ArrowRight")
    keyboard.press("Enter")
    label = page.evaluate("document.querySelector('.is-peak + .frame').getAttribute('aria-label')")
    expect(page.locator("#viewer-caption")).to_have_text(label)
    expect(page.locator("#viewer-picture")).to_have_attribute("src", re.compile("blob:"))
    keyboard.press("ArrowLeft")
    expect(page.locator("#viewer-caption")).to_have_text(re.compile("^0:03.375"))
    keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator(".is-peak + .frame")).to_be_focused()


def test_a_video_of_the_server_is_chosen_by_keyboard(server: PageServer, open_page: OpenPage) -> None:
    page = open_page(server)
    expect(page.locator("#listed")).to_be_visible()
    names = page.locator("#listed-videos button").all_inner_texts()
    for key in ("Tab", "Tab", "ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("#video-name")).to_have_text(names[1])
    expect(page.locator("#question")).to_be_focused()


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(server: PageServer, open_page: OpenPage, width: int) -> None:
    page = open_page(server, viewport={"width": width, "height": 740}, has_touch=width < 500, is_mobile=width < 500)

    def check() -> None:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert page.evaluate("visualViewport.width") == width

    expect(page.locator("#listed")).to_be_visible()
    check()
    drop(page, f"{'a-name-without-end' * 12}.mp4", SHAPES.read_bytes())
    expect(page.locator("#preview .picture")).to_have_count(8)
    check()
    turn = ask(page, f"Describe the video. {'Longer' * 60}?")
    turn.locator("summary").click()
    check()
    page.click("#settings-button")
    check()
    page.get_by_role("button", name="Done").click()
    turn.locator(".frame").first.click()
    expect(page.locator("#viewer-picture")).to_be_visible()
    check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(server: PageServer, open_page: OpenPage, scheme: str) -> None:
    page = open_page(server, color_scheme=scheme)
    take(page, "shapes.mp4")
    turn = ask(page, FLASH)
    paper = _luminance(page.locator("body"), "backgroundColor")
    assert (paper > 0.8) if scheme == "light" else (paper < 0.1)
    for part in (answer_of(turn), turn.locator("h2"), turn.locator(".is-peak .time"), turn.locator("figcaption")):
        assert _contrast(_luminance(part, "color"), paper) >= 4.5
    button = page.locator("#submit")
    assert _contrast(_luminance(button, "color"), _luminance(button, "backgroundColor")) >= 4.5


def _luminance(part: Locator, property_name: str) -> float:
    """Relative luminance as WCAG defines it."""
    colour = part.first.evaluate(f"(part) => getComputedStyle(part).{property_name}")
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
