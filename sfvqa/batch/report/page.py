"""The report as one HTML page that loads nothing from anywhere. `page.html.jinja` beside this file has its markup."""

import base64
import hashlib
import json
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfvqa.batch.report import wording
from sfvqa.batch.report.against import Comparison
from sfvqa.batch.report.cards import (
    SeenFrames,
    Thumbnails,
    VideoCard,
    find_video,
    gather_cards,
    read_thumbnails,
    spread,
)
from sfvqa.batch.report.facts import RunFacts, last_records
from sfvqa.batch.report.summary import Summary
from sfvqa.video import format_time
from sfvqa.wording import plural

_NUM_LISTED = 50  # wrong answers

# Control characters, overrides of direction, which can make a name look like another, and lone surrogates.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class PageProgress:
    """`done` of `total` videos are on the page."""

    done: int
    total: int
    stage: str = "Reading thumbnails"


@dataclass(frozen=True)
class PageOutcome:
    """How many videos are on the page, and how many of them lack pictures that were wanted."""

    num_videos: int
    num_without_pictures: int


def write_page(
    stream: IO[str],
    run: RunFacts,
    summary: Summary,
    comparison: Comparison | None = None,
    *,
    num_thumbnails: int = 6,
    videos: Path | None = None,
) -> Generator[PageProgress, None, PageOutcome]:
    """Write the page, with a card for each video; one that cannot be read has its card and the reason.

    `num_thumbnails` frames of each video are shown; `videos` is the folder that holds them now, if it is known.
    Pictures are read while the page is written, so memory holds those of a few videos only.
    """
    cards = gather_cards(last_records(run), run.rule, comparison)
    lacking: list[bool] = []  # pictures, of the videos whose cards are written

    def with_thumbnails() -> Iterator[tuple[VideoCard, Thumbnails]]:
        wanted = ((find_video(card, run.path, videos), _wanted(card, num_thumbnails), card.reader) for card in cards)
        for card, thumbnails in zip(cards, read_thumbnails(wanted), strict=True):
            yield card, thumbnails
            lacking.append(bool(thumbnails.failure or thumbnails.changed))

    template = _environment().get_template("page.html.jinja")
    pieces = template.generate(
        name=run.path.name,
        summary=summary,
        comparison=comparison,
        cards=with_thumbnails(),
        num_thumbnails=num_thumbnails,
        num_listed=_NUM_LISTED,
        retry=wording.RETRY,
        method=wording.COMPARISON_METHOD,
        style=_asset("page.css"),
        script=_asset("page.js"),
    )
    yield PageProgress(0, len(cards))
    done = 0
    for piece in pieces:
        stream.write(_INVISIBLE.sub(lambda found: ascii(found[0])[1:-1], piece))  # spelt out, as `\x1b`
        if len(lacking) > done:
            done = len(lacking)
            yield PageProgress(done, len(cards))
    return PageOutcome(len(cards), sum(lacking))


def _wanted(card: VideoCard, num_thumbnails: int) -> dict[SeenFrames, set[int]]:
    """The frames to read of all that were seen: some, evenly spread, and those that answers looked at most."""
    seen = [(frames, item) for frames, items in card.views.items() for item in items]
    seen += [(item.old.frames, item.old.item) for _, item in seen if item.old is not None]
    wanted: dict[SeenFrames, set[int]] = {}
    for frames, item in seen if num_thumbnails else ():
        if frames:
            some = wanted.setdefault(frames, set(spread(frames, num_thumbnails)))
            some.update(moment.index for moment in item.looked_at)
    return wanted


def _environment() -> Environment:
    """Templates in which every value is escaped, and one that is missing is an error."""
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "advice": wording.advice_for,
        "data_url": lambda jpeg: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}",
        "comparison_groups": wording.comparison_groups_table,
        "comparison_rows": wording.comparison_table,
        "comparison_texts": wording.comparison_texts,
        "digest": _digest,
        "duration": wording.duration,
        "differing_settings": wording.setting_difference_rows,
        "field_rows": wording.field_table,
        "headline": wording.headline,
        "percent": wording.percent,
        "plural": plural,
        "scores": wording.score_table,
        "setting_rows": _setting_rows,
        "span": wording.span_text,
        "spread": spread,
        "stages": wording.stages_text,
        "thousands": "{:,}".format,
        "time": format_time,
    }
    return environment


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The name by which the page's policy allows this style or script, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _setting_rows(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in settings.items()]
