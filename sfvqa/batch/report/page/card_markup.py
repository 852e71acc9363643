"""A video on the page: frames that were looked at, and below them what was asked and answered."""

import base64
from collections.abc import Sequence

from sfvqa.batch.report.page.cards import PageItem, SeenFrames, VideoCard
from sfvqa.batch.report.page.markup import Html, join, tag
from sfvqa.batch.report.page.thumbnails import Thumbnails, spread
from sfvqa.batch.report.wording import duration, percent, plural
from sfvqa.video import format_time

_NUM_LIKELY = 6


def card_markup(card: VideoCard, thumbnails: Thumbnails, num_thumbnails: int) -> Html:
    """The card of a video."""
    views = [
        join([_strip(frames, thumbnails, num_thumbnails), *(_item(item, thumbnails) for item in items)])
        for frames, items in card.views.items()
    ]
    return tag("section", tag("h2", tag("bdi", card.name)), *views, class_="card")


def _strip(frames: SeenFrames, thumbnails: Thumbnails, num: int) -> Html:
    """The pictures in a row, or why there are none."""
    if not frames.indices:
        return Html("")
    seen = [frames.timestamps_seconds[0], frames.timestamps_seconds[-1]]
    caption = f"{plural(len(frames.indices), 'frame')} seen, {format_time(seen[0])} to {format_time(seen[1])}"
    shown = {index: time for index, time in spread(frames, num).items() if num and index in thumbnails.pictures}
    parts = [tag("p", f"{caption}, {len(shown)} of them here" if 0 < len(shown) < len(frames.indices) else caption)]
    if shown:
        pictures = [_picture(thumbnails.pictures[index], time) for index, time in shown.items()]
        parts.insert(0, tag("div", *pictures, class_="strip"))
    if thumbnails.failure is not None:
        parts.insert(0, tag("div", "No pictures. " if not shown else "", thumbnails.failure, class_="gone"))
    return tag("div", *parts, class_="seen")


def _picture(jpeg: bytes, time_seconds: float, more: str = "") -> Html:
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
    time = format_time(time_seconds)
    return tag("figure", tag("img", src=source, alt=f"Frame at {time}"), tag("figcaption", time, more))


def _item(item: PageItem, thumbnails: Thumbnails) -> Html:
    states = ["failed" if item.failure else "ok", *([item.verdict.value] if item.verdict else [])]
    if item.warnings:
        states.append("warned")
    said = [_badge(item), tag("h3", tag("bdi", item.question))]
    if item.failure is None:
        said.append(
            tag("p", tag("bdi", item.answer or "(nothing)"), class_="answer" if item.answer else "answer empty")
        )
    else:
        said.append(tag("p", tag("b", item.failure.kind), " ", item.failure.message, class_="error"))
    if item.expected is not None:
        said.append(tag("p", "Expected: ", tag("bdi", item.expected), class_="expected"))
    said += [
        _likely(item.likely),
        _looked_at(item, thumbnails),
        *(tag("p", warning, class_="warning") for warning in item.warnings),
    ]
    return tag("article", *said, _small_print(item), class_="item", data_state=" ".join(states))


def _badge(item: PageItem) -> Html:
    word = item.verdict.value if item.verdict else ("failed" if item.failure else "answered")
    return tag("span", word, class_=f"badge {word}")


def _likely(likely: Sequence[tuple[str, float]]) -> Html:
    """The choices by probability."""
    if not likely:
        return Html("")
    ordered = sorted(likely, key=lambda choice: -choice[1])[:_NUM_LIKELY]
    return tag("ul", *(tag("li", tag("bdi", text), f" {percent(share)}") for text, share in ordered), class_="likely")


def _looked_at(item: PageItem, thumbnails: Thumbnails) -> Html:
    """The moments that stand out in an answer's evidence, with their pictures where there are some."""
    if not item.looked_at:
        return Html("")
    pictures = [
        _picture(thumbnails.pictures[moment.index], moment.timestamp_seconds, f" · {percent(moment.weight)}")
        for moment in item.looked_at
        if moment.index in thumbnails.pictures
    ]
    if not pictures:
        times = [f"{format_time(moment.timestamp_seconds)} ({percent(moment.weight)})" for moment in item.looked_at]
        return tag("p", f"Looked most at {', '.join(times)}", class_="small")
    return tag("div", tag("p", "Looked most at (a hint, no proof)", class_="small"), *pictures, class_="looked")


def _small_print(item: PageItem) -> Html:
    """How long it took and what else there is to know, in one line."""
    facts = [f"{stage} {duration(value)}" for stage, value in item.seconds.items() if value >= 0.005]
    if item.new_tokens:
        facts.append(plural(item.new_tokens, "token"))
    if item.finish_reason not in (None, "stop", "choice"):
        facts.append(f"ended by {item.finish_reason}")
    named = [("id", item.own_id), ("group", item.group)]
    facts += [f"{name} {value}" for name, value in named if value is not None]
    return tag("p", " · ".join(facts), class_="small") if facts else Html("")
