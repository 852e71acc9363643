"""The page: nothing a record says becomes markup or a request, and all of it is there."""

import base64
import hashlib
import io
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sfvqa
from sfvqa.batch.record import Record
from sfvqa.batch.report.against import compare_runs
from sfvqa.batch.report.facts import collect
from sfvqa.batch.report.page import PageOutcome, write_page
from sfvqa.batch.report.summary import summarise
from sfvqa.inference.answer import ChoiceProbability, FinishReason, FrameEvidence, SampledFrames
from tests.batch.report.records import SETTINGS, failed, item, ok, write

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "</style><style>*{display:none}</style>",
    "<!--",
    "]]><svg onload=alert(1)>",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "</bdi></h2></section><iframe src=//example.invalid></iframe>",
    "\u202e\x00\x1b[31m\udcff",
)
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "h4", "bdi", "p", "div", "span",
    "strong", "small", "section", "svg", "rect", "ul", "ol", "li", "i", "b", "details", "summary", "table", "tr", "th",
    "td", "form", "input", "select", "option", "output", "main", "article", "script", "figure", "img", "figcaption",
    "br",
}  # fmt: skip
ATTRIBUTES = {
    "charset", "http-equiv", "content", "name", "lang", "class", "id", "hidden", "data-state", "viewbox", "role", "x",
    "width", "height", "preserveaspectratio", "aria-label", "type", "placeholder", "value", "src", "alt", "selected",
}  # fmt: skip


# Ends of lines are read alike, and what is invisible is spelt out: neither comes back as it was.
PLAIN = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp")), min_size=1)


class Page(HTMLParser):
    """The elements of a page, their attributes, and the text of each kind of element."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.markup = markup
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input", "br"}:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(
    folder: Path,
    records: Iterable[Record],
    *,
    against: Iterable[Record] = (),
    num_thumbnails: int = 2,
    name: str = "out.jsonl",
) -> tuple[Page, PageOutcome]:
    old = list(against)
    run = collect(write(folder / name, records), keeps_answers=bool(old))
    comparison = compare_runs(run, collect(write(folder / "old.jsonl", old), keeps_answers=True)) if old else None
    stream = io.StringIO()
    steps = write_page(stream, run, summarise(run), comparison, num_thumbnails=num_thumbnails)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: PageOutcome = end.value
            return Page(stream.getvalue()), outcome


def hostile_records(text: str) -> list[Record]:
    of = item(text, text, own_id=text, group=text, answer=text, choices=(text, "other"))
    again = item(text, text + "2", group=text, answer="x")
    choices = (ChoiceProbability(text, 0.9, -0.1), ChoiceProbability("other", 0.1, -2.0))
    settings = {**SETTINGS, text: text}
    odd = {"model": text, "revision": text, "finish_reason": text, "host": text}
    return [
        {**ok(of, text, warnings=(text,), choices=choices, finish_reason=FinishReason.LENGTH), **odd},
        ok(again, "y", settings=settings),
        failed(item(text, text + "3"), RuntimeError(text)),
        {**failed(item(text + "4", "?")), "error": {"type": text, "message": text}},
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_record_becomes_markup(text: str, tmp_path: Path) -> None:
    old = [ok(item(text, text + "2", group=text, answer="x"), "x")]
    page, _ = page_of(tmp_path, hostile_records(text), against=old)
    assert {name for name, _ in page.elements} <= ELEMENTS
    assert {attribute for _, attributes in page.elements for attribute in attributes} <= ATTRIBUTES
    assert (len(page.of("script")), len(page.of("style")), len(page.of("article"))) == (1, 1, 4)
    assert page.open == []
    seen = re.sub(r"[\x00-\x1f\u202e\udcff]", lambda found: ascii(found[0])[1:-1], text)
    assert page.texts["h2"].count(seen) == 1
    assert page.texts["h3"].count(seen) == 1


def test_what_cannot_be_seen_is_spelt_out(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, [ok(item(question="a\x1b[31m\u202egpj.exe\udcff\n\tend"))])
    assert page.texts["h3"] == ["a\\x1b[31m\\u202egpj.exe\\udcff\n\tend"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLAIN)
def test_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    page, _ = page_of(tmp_path, [ok(item("a", text), text)])
    assert page.texts["h3"] == [text]
    assert text in page.texts["p"]


def test_a_hostile_file_name_is_text_too(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, [ok()], name="<script>alert(1)<x>.jsonl")
    assert len(page.of("script")) == 1
    assert page.texts["h1"] == ["<script>alert(1)<x>.jsonl"]


def test_nothing_is_loaded_and_only_our_script_and_style_may_run(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, [ok()])
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    for kind in ("script", "style"):
        content = re.search(f"<{kind}>(.*?)</{kind}>", page.markup, re.DOTALL)
        assert content
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not any("href" in attributes or "style" in attributes for _, attributes in page.elements)
    assert "http" not in re.sub("http-equiv", "", page.markup)


def test_everything_is_on_it(tmp_path: Path) -> None:
    likely = (ChoiceProbability("left", 0.75, -0.3), ChoiceProbability("right", 0.25, -1.4))
    records = [
        ok(item("a", "Which way?", answer="left", group="motion"), "Left.", choices=likely),
        ok(item("a", "What flashes?", answer="square"), "A star.\nOr not.", warnings=("It ends early.",)),
        failed(item("b", "Which way?")),
        ok(item("c", "Unlabelled?"), ""),
    ]
    page, outcome = page_of(tmp_path, records)
    states = [attributes["data-state"] for attributes in page.of("article")]
    assert states == ["ok right", "ok wrong warned", "failed", "ok"]
    first, second, third, fourth = page.texts["article"]
    assert all(text in first for text in ("Which way?", "Left.", "Expected: left", "left 75.0 %", "group motion"))
    assert all(text in second for text in ("A star.\nOr not.", "Expected: square", "It ends early.", "encode 0.50 s"))
    assert all(text in third for text in ("UnreadableVideoError", "“b” holds no picture. Convert it."))
    assert "(nothing)" in fourth
    assert outcome == PageOutcome(num_videos=3, num_without_pictures=2)  # b was never looked at
    assert page.of("main")
    assert page.of("svg")


def test_cards_are_written_one_by_one(tmp_path: Path) -> None:
    """So the pictures of a few videos are in memory, not those of all."""
    run = collect(write(tmp_path / "out.jsonl", [ok(item(name)) for name in "abc"]))
    stream = io.StringIO()
    written = [
        (progress.done, stream.getvalue().count("</article>")) for progress in write_page(stream, run, summarise(run))
    ]
    assert written == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    page, outcome = page_of(tmp_path, [])
    assert (page.of("article"), outcome) == ([], PageOutcome(0, 0))


def test_a_video_that_is_gone_has_its_place(tmp_path: Path) -> None:
    page, outcome = page_of(tmp_path, [ok(item("gone.mp4"))])
    assert "The video is no longer here." in page.texts["section"][-1]
    assert (page.of("img"), outcome.num_without_pictures) == ([], 1)


def test_without_thumbnails_no_video_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfvqa.batch.report.cards.open_video", None)
    page, outcome = page_of(tmp_path, [ok(item("gone.mp4"))], num_thumbnails=0)
    assert outcome.num_without_pictures == 0
    assert "4 frames seen, 0:00 to 0:03.75" in page.texts["section"][-1]


def evidence(*weights: float) -> tuple[FrameEvidence, ...]:
    """Of the frames of `ok`."""
    return tuple(map(FrameEvidence, (0.0, 1.25, 2.5, 3.75), (0, 30, 60, 90), weights))


def test_what_an_answer_looked_at_most_is_shown_even_if_the_strip_leaves_it_out(tmp_path: Path) -> None:
    shapes = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
    records = [{**ok(evidence=evidence(0.05, 0.45, 0.5, 0.0)), "video_path": str(shapes)}]
    page, outcome = page_of(tmp_path, records, num_thumbnails=1)
    assert outcome.num_without_pictures == 0
    assert page.texts["figcaption"] == ["0:02.5", "0:02.5 · 50.0 %", "0:01.25 · 45.0 %"]
    pictures = [image["src"] for image in page.of("img")]
    assert pictures[0] == pictures[1] != pictures[2]
    assert {attribute for _, attributes in page.elements for attribute in attributes} <= ATTRIBUTES


def test_without_pictures_the_moments_are_named(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, [ok(evidence=evidence(0.1, 0.1, 0.7, 0.1))], num_thumbnails=0)
    assert any("Looked most at 0:02.5 (70.0 %)" in text for text in page.texts["p"])


@pytest.mark.parametrize(
    "odd", [None, [], "<b>", [1, 2, 3, 4], [{"weight": 1.0}], [{"weight": "<b>"}] * 4, {"weight": 1}]
)
def test_evidence_that_is_none_is_left_out(odd: object, tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, [{**ok(), "evidence": odd}])
    assert "Looked most" not in page.markup


def test_answers_that_differ_stand_beside_each_other(tmp_path: Path) -> None:
    """Right in one run only, wrong in both, without a true answer, failed in one; what is alike is shown once."""
    a, b, c, d, e = (item("v", question, answer="left") for question in "abcde")
    new = [ok(a, "left"), ok(b, "up"), ok(c, "up"), ok(item("v", "free"), "x"), failed(d), ok(e, "left")]
    old = [ok(a, "up"), ok(b, "left"), ok(c, "down"), ok(item("v", "free"), "y"), ok(d, "down"), ok(e, "Left.")]
    page, _ = page_of(tmp_path, new, against=old)
    states = [str(attributes["data-state"]) for attributes in page.of("article")]
    assert states == [
        "ok right differs better",
        "ok wrong differs worse",
        "ok wrong differs both-wrong",
        "ok differs different",
        "ok right",
        "failed failed differs both-wrong",
    ]
    assert page.texts["h4"] == ["out.jsonl", "old.jsonl"] * 5
    said = [text for text in page.texts["p"] if text in {"left", "Left.", "up", "down", "x", "y"}]
    assert said == ["left", "up", "up", "left", "up", "down", "x", "y", "left", "down"]
    assert "out.jsonl is as good as old.jsonl: 2 of 5 questions changed" in page.texts["p"][0]


def test_the_frames_of_both_runs_are_shown_where_they_differ(tmp_path: Path) -> None:
    shapes = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
    more = SampledFrames((15, 45, 105), (0.625, 1.875, 4.375), "uniform")
    new = [{**ok(item(question=question), "left"), "video_path": str(shapes)} for question in "ab"]
    old = [{**ok(item(question=question), said, frames=more), "video_path": "/gone"} for question, said in ("a1", "b2")]
    page, outcome = page_of(tmp_path, new, against=old)
    assert outcome.num_without_pictures == 0
    assert page.texts["figcaption"] == ["0:00", "0:03.75", "0:00.625", "0:04.375"]
    assert any("3 frames seen in old.jsonl, 0:00.625 to 0:04.375, 2 of them here" in text for text in page.texts["p"])
    same, _ = page_of(tmp_path, new, against=[{**record, "frames": new[0]["frames"]} for record in old])
    assert same.texts["figcaption"] == ["0:00", "0:03.75"]


def test_a_video_that_has_changed_since_the_old_run_is_shown_as_the_new_one_saw_it(tmp_path: Path) -> None:
    """What the old run looked at was shown in pictures of the new file, or neither run had any."""
    shapes = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
    other = SampledFrames((0, 30, 60, 90), (0.0, 1.0, 2.0, 3.0), "uniform")
    weights = evidence(0.9, 0.1, 0.0, 0.0)
    new = [{**ok(evidence=weights), "video_path": str(shapes)}]
    old = [ok(item(), "another", frames=other, evidence=weights)]
    page, outcome = page_of(tmp_path, new, against=old)
    assert page.texts["figcaption"] == ["0:00", "0:03.75", "0:00 · 90.0 %"]
    said = "No pictures. The video has changed since: frame 30 was seen at 0:01, and is at 0:01.25 now."
    assert sum(said in text for text in page.texts["div"]) == 1
    assert any(text.startswith("Looked most at 0:00 (90.0 %)") for text in page.texts["p"])
    assert outcome == PageOutcome(num_videos=1, num_without_pictures=1)


def test_what_can_be_filtered_by_is_what_there_is(tmp_path: Path) -> None:
    labelled, bare = item(answer="left"), item("b")

    def filters(new: list[Record], old: list[Record]) -> list[str | None]:
        return [option["value"] for option in page_of(tmp_path, new, against=old)[0].of("option")]

    compared = ["differs", "better", "worse", "both-wrong"]
    assert filters([ok(labelled, "left")], [ok(labelled, "up")]) == ["", *compared, "ok", "failed", "right", "wrong"]
    assert filters([ok(bare, "left")], [ok(bare, "up")]) == ["", "differs", "ok", "failed"]
    assert filters([ok(bare, "left")], [ok(bare, "left")]) == ["", "ok", "failed"]
