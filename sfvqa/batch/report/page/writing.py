"""The whole page, written card by card while the thumbnails are read: memory holds the text, not the pictures."""

import base64
import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO

from sfvqa.batch.report.against import Comparison
from sfvqa.batch.report.collecting import RunFacts, last_records
from sfvqa.batch.report.page.card_markup import card_markup
from sfvqa.batch.report.page.cards import VideoCard, gather_cards
from sfvqa.batch.report.page.figures import figures_markup
from sfvqa.batch.report.page.markup import Html, tag
from sfvqa.batch.report.page.thumbnails import find_video, read_thumbnails, spread
from sfvqa.batch.report.summary import Summary


@dataclass(frozen=True)
class PageOptions:
    """How many frames of a video are shown, and the folder that the videos lie in now, if it is known."""

    num_thumbnails: int = 6
    videos: Path | None = None


@dataclass(frozen=True)
class PageProgress:
    """`done` of `total` videos are on the page."""

    done: int
    total: int
    stage: str = "Reading thumbnails"


@dataclass(frozen=True)
class PageOutcome:
    """How many videos are on the page, and how many of them without the pictures that were wanted."""

    num_videos: int
    num_without_pictures: int


def write_page(
    stream: IO[str], run: RunFacts, summary: Summary, comparison: Comparison | None, options: PageOptions
) -> Generator[PageProgress, None, PageOutcome]:
    """Write the page, a card a video; a video that cannot be read has its place and the reason."""
    cards = gather_cards(last_records(run), run.rule)
    stream.write(_opening(run.path.name))
    stream.write(figures_markup(run.path.name, summary, comparison))
    stream.write(_filters(summary))
    stream.write('<main id="cards">\n')
    num_without = 0
    yield PageProgress(0, len(cards))
    wanted = ((_place_of(card, run, options), _wanted(card, options), card.reader) for card in cards)
    for done, (card, thumbnails) in enumerate(zip(cards, read_thumbnails(wanted), strict=True), start=1):
        num_without += thumbnails.failure is not None
        stream.write(card_markup(card, thumbnails, options.num_thumbnails) + "\n")
        yield PageProgress(done, len(cards))
    stream.write("</main>\n")
    stream.write(tag("p", "No item fits the filter.", id="nothing", hidden=""))
    stream.write(f"<script>{_asset('page.js')}</script>\n</body>\n</html>\n")
    return PageOutcome(len(cards), num_without)


def _wanted(card: VideoCard, options: PageOptions) -> dict[int, float]:
    """The frames to read of a video: of everything that was seen some, and what answers looked at most."""
    if not options.num_thumbnails:
        return {}
    looked_at = [moment for items in card.views.values() for item in items for moment in item.looked_at]
    wanted = {index: time for frames in card.views for index, time in spread(frames, options.num_thumbnails).items()}
    return wanted | {moment.index: moment.timestamp_seconds for moment in looked_at}


def _place_of(card: VideoCard, run: RunFacts, options: PageOptions) -> Path | None:
    if options.videos is not None:
        return find_video(card, [options.videos], recorded_first=False)
    return find_video(card, [Path.cwd(), run.path.resolve().parent], recorded_first=True)


def _opening(name: str) -> str:
    """The head: nothing may be loaded from anywhere, and only this style and this script count."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{name} · sfvqa report"),
        Html(f"<style>{style}</style>"),
    ]
    return "<!doctype html>\n" + '<html lang="en">\n<head>\n' + "\n".join(head) + "\n</head>\n<body>\n"


def _filters(summary: Summary) -> Html:
    """The box to search in and the states to choose from; without scripts there is nothing to filter with."""
    states = {"": "all", "ok": "answered", "failed": "failed"}
    if summary.score is not None:
        states |= {"right": "right", "wrong": "wrong"}
    if summary.warnings:
        states["warned"] = "with warnings"
    options = Html("".join(tag("option", text, value=state) for state, text in states.items()))
    return tag(
        "form",
        tag("input", type="search", id="query", placeholder="Search videos, questions, answers", aria_label="Search"),
        tag("select", options, id="state", aria_label="Show"),
        tag("output", "", id="count"),
        id="filters",
        hidden="",
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
