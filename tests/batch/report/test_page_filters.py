"""The page in a real browser: what each filter leaves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from sfvqa.batch.report.facts import collect
from sfvqa.batch.report.page import write_page
from sfvqa.batch.report.summary import summarise
from tests.batch.report.records import compared, item, ok
from tests.chromium import chromium

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """Of items named by what became of them."""
    said = {"better": ("left", "up"), "worse": ("up", "left"), "wrong": ("up", "down"), "alike": ("left", "left")}
    items = {name: item(f"{name}.mp4", f"Which way, {name}?", answer="left") for name in said}
    new = [ok(items[name], answer) for name, (answer, _) in said.items()]
    comparison = compared(tmp_path, new, [ok(items[name], answer) for name, (_, answer) in said.items()])
    run = collect(tmp_path / "new.jsonl")
    with (tmp_path / "page.html").open("w", encoding="utf-8") as stream:
        for _ in write_page(stream, run, summarise(run), comparison, num_thumbnails=0):
            pass
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        yield page


def shown(page: Page) -> list[str]:
    return [card.text_content() or "" for card in page.locator(".card:not([hidden]) h2").all()]


def test_it_opens_with_the_answers_that_differ(page: Page) -> None:
    expect(page.locator("#count")).to_have_text("3 of 4 items")
    assert shown(page) == ["better.mp4", "worse.mp4", "wrong.mp4"]


@pytest.mark.parametrize(
    ("filter_name", "left"),
    [
        ("right only in new.jsonl", ["better.mp4"]),
        ("right only in old.jsonl", ["worse.mp4"]),
        ("both wrong, differently", ["wrong.mp4"]),
        ("all", ["better.mp4", "worse.mp4", "wrong.mp4", "alike.mp4"]),
    ],
)
def test_a_filter_leaves_what_it_names(filter_name: str, left: list[str], page: Page) -> None:
    page.locator("#state").select_option(label=filter_name)
    assert shown(page) == left


def test_both_answers_are_searched(page: Page) -> None:
    page.locator("#query").fill("down")
    assert shown(page) == ["wrong.mp4"]
