"""HTML written piece by piece, where text can never become markup: `escape` is the only way in for text."""

import html
import re

# Controls, and overrides of direction, by which a name could look like another; lone surrogates are no text.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(text: str) -> Html:
    r"""Text as it is read; control characters are spelt out, as `\x1b`."""
    return Html(html.escape(_UNSEEN.sub(lambda found: ascii(found.group())[1:-1], text)))


def tag(name: str, /, *inner: str, **attributes: str | None) -> Html:
    """An element: what is in it and its attributes' values are escaped unless they are Html; None leaves one out.

    A `_` at the end of an attribute's name goes, any other is a `-`.

    >>> tag("p", "1 < 2 ", tag("b", "yes"), class_="a")
    '<p class="a">1 &lt; 2 <b>yes</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_as_html(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{''.join(map(_as_html, inner))}</{name}>")


def join(pieces: "list[Html]") -> Html:
    """One after the other."""
    return Html("".join(pieces))


_VOID = frozenset({"br", "img", "input", "meta"})


def _as_html(text: str) -> Html:
    return text if isinstance(text, Html) else escape(text)
