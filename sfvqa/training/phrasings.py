"""The many ways in which people ask the same thing. Words only: no answers, no scenes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PHRASINGS: dict[str, tuple[str, ...]] = {
    "color": (
        "What colour is the {shape}?",
        "What color is the {shape}?",
        "Which colour does the {shape} have?",
        "Which color is the {shape}?",
        "What is the colour of the {shape}?",
        "What is the color of the {shape}?",
        "Tell me the colour of the {shape}.",
        "The {shape} is which color?",
        "What's the {shape}'s color?",
        "What colour is the {shape} in this video?",
        "Name the color of the {shape}.",
        "{shape} colour?",
    ),
    "direction": (
        "Which way does the {shape} move?",
        "In which direction does the {shape} move?",
        "What direction does the {shape} move in?",
        "Which direction is the {shape} moving?",
        "Where does the {shape} move?",
        "Where does the {shape} go?",
        "How does the {shape} move?",
        "Which way is the {shape} going?",
        "Where is the {shape} moving to?",
        "What does the {shape} do?",
        "Does the {shape} move left, right, up or down?",
        "Which way does the {shape} go?",
        "Tell me the direction of the {shape}.",
        "What is the {shape} doing?",
        "Does the {shape} move?",
    ),
    "count": (
        "How many objects are there?",
        "How many shapes are there?",
        "How many objects are in the video?",
        "How many shapes can you see?",
        "How many things are there?",
        "Count the objects.",
        "Count the shapes in the video.",
        "What is the number of objects?",
        "How many objects do you see?",
        "How many different shapes appear?",
        "How many objects does the video show?",
        "Number of shapes?",
    ),
    "presence": (
        "Is there a {name}?",
        "Is there a {name} in the video?",
        "Can you see a {name}?",
        "Do you see a {name}?",
        "Does the video show a {name}?",
        "Does a {name} appear?",
        "Is a {name} visible?",
        "Is a {name} in the video?",
        "Does the video contain a {name}?",
        "Is there any {name}?",
        "Does a {name} show up?",
    ),
    "order_first": (
        "Which shape appears first?",
        "Which object appears first?",
        "What appears first?",
        "What comes first?",
        "Which shape is the first to appear?",
        "What is the first object that appears?",
        "Which object comes first?",
        "What do you see first?",
        "Which one shows up first?",
        "What shape is there first?",
    ),
    "order_last": (
        "Which shape appears last?",
        "Which object appears last?",
        "What appears last?",
        "What comes last?",
        "Which shape is the last to appear?",
        "What is the last object that appears?",
        "Which object comes last?",
        "Which one shows up last?",
        "What shape appears at the end?",
        "Which object is the latest to appear?",
    ),
    "order_between": (
        "Which appears first, the {a} or the {b}?",
        "What comes first, the {a} or the {b}?",
        "Which is first, the {a} or the {b}?",
        "Which appears earlier, the {a} or the {b}?",
        "Which one comes first: the {a} or the {b}?",
        "Does the {a} or the {b} appear first?",
        "Is the {a} or the {b} there first?",
        "Of the {a} and the {b}, which appears first?",
    ),
    "position": (
        "Where is the {shape} at the end?",
        "Where does the {shape} end up?",
        "Where is the {shape} at the end of the video?",
        "Where does the {shape} end?",
        "What is the final position of the {shape}?",
        "In which part of the picture is the {shape} at the end?",
        "Where does the {shape} stop?",
        "Where is the {shape} in the last frame?",
        "Which corner is the {shape} in at the end?",
        "What is the position of the {shape} at the end?",
        "Where is the {shape} finally?",
        "Where can I find the {shape} at the end?",
    ),
    "flash": (
        "What colour does the screen flash?",
        "What color does the screen flash?",
        "Which colour flashes?",
        "What color flashes?",
        "What flashes?",
        "Which color does the background flash?",
        "What colour is the flash?",
        "What color is the flash?",
        "Which colour does the screen turn for a moment?",
        "Is there a flash?",
        "Does the screen flash?",
        "What colour lights up the screen?",
        "What color does the background turn briefly?",
        "Which color is the flash of the screen?",
        "Does anything flash?",
    ),
    "digit": (
        "Which digit is shown?",
        "What digit is shown?",
        "Which number is shown?",
        "What number appears?",
        "Which digit appears?",
        "What digit do you see?",
        "Which number appears briefly?",
        "What digit flashes up?",
        "Is there a digit?",
        "Is a digit shown?",
        "What number can you see?",
        "Which digit is shown for a moment?",
        "Which digit pops up?",
        "What is the digit?",
        "Do you see a number?",
        "What is the number in the video?",
        "Read the digit.",
    ),
    "describe": (
        "Describe the video.",
        "What happens in the video?",
        "Describe what you see.",
        "What is in the video?",
        "What do you see?",
        "What can you see in the video?",
        "Please describe this video in detail.",
        "What is going on?",
        "What is shown in the video?",
        "Summarize the video.",
        "Tell me what happens.",
        "What is happening here?",
        "Give a description of the video.",
        "What is the video about?",
        "Explain what happens in this video.",
        "What objects are in the video?",
        "Which shapes are there?",
        "Caption this video.",
    ),
}

_POLITE = (
    "Please tell me: {}",
    "Hey, {}",
    "Can you tell me: {}",
    "{} please",
    "Tell me, {}",
    "Hi, {}",
    "So {}",
    "And {}",
)


def with_article(text: str) -> str:
    """The text with "an" where a vowel follows.

    >>> with_article("a orange star and a red circle")
    'an orange star and a red circle'
    """
    return re.sub(r"\b([Aa]) (?=o)", r"\1n ", text)


def vary(rng: np.random.Generator, text: str) -> str:
    """The text as people type it: mostly unchanged, sometimes politer, in other case, or without its last mark."""
    text = with_article(text)
    if rng.random() < 0.1:
        inner = text[0].lower() + text[1:] if rng.random() < 0.8 else text
        text = _POLITE[int(rng.integers(len(_POLITE)))].format(inner)
        text = re.sub(r"([?.]) please", r" please\1", text)
    if rng.random() < 0.12:
        text = text.rstrip("?.") or text
    choice = rng.random()
    if choice < 0.15:
        return text.lower()
    if choice < 0.17:
        return text.upper()
    return text[0].upper() + text[1:]
