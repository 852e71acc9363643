"""Text never becomes markup."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from sfvqa.batch.report.page.markup import Html, escape, tag

# Line ends are read alike, and what is unseen is spelt out: neither comes back as it was.
PLAIN = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp")))


class Reader(HTMLParser):
    """What a browser makes of it: elements with their attributes, and all text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(PLAIN, PLAIN)
def test_text_and_attributes_come_back_as_they_were(text: str, value: str) -> None:
    page = Reader(tag("p", text, class_=value))
    assert page.elements == [("p", [("class", value)])]
    assert page.text == text


@given(st.text())
def test_no_text_opens_an_element(text: str) -> None:
    assert Reader(escape(text)).elements == []
    assert '"' not in escape(text)


def test_what_cannot_be_seen_is_spelt_out() -> None:
    assert escape("a\x1b[31m\u202egpj.exe\udcff") == "a\\x1b[31m\\u202egpj.exe\\udcff"
    assert escape("two\n\tlines") == "two\n\tlines"


def test_markup_is_not_escaped_twice() -> None:
    assert tag("p", tag("b", "&"), " & ", Html("&amp;")) == "<p><b>&amp;</b> &amp; &amp;</p>"


def test_attributes() -> None:
    assert tag("img", alt="", aria_label="x", hidden=None) == '<img alt="" aria-label="x">'
