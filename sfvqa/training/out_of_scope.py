"""Questions that a model of coloured shapes cannot answer, in great variety, and the honest answer to all of them.

Templates are filled from word lists. The last templates and words of each list are held out: training never sees them,
evaluation sees nothing else.
"""

# ruff: noqa: SIM905 - word lists are easier to read and extend as text

from __future__ import annotations

from typing import TYPE_CHECKING

from sfvqa.training.phrasings import PHRASINGS, vary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

REFUSAL = "I was trained only on synthetic videos of moving coloured shapes, so I cannot answer that."
REFUSAL_CORE = "trained only on synthetic videos"

HELD_OUT_SHARE = 0.2

THINGS = (
    "car dog cat man woman house tree bird ball boat train bus bicycle horse plane chair table phone computer book "
    "flower river mountain road bridge cow sheep elephant tiger lion bear fish shark spider snake frog duck chicken "
    "rabbit mouse monkey hat shirt jacket shoe dress bag umbrella bottle cup plate knife fork spoon pizza apple banana "
    "orange cake bread cheese egg sandwich salad burger soup coffee tea beer wine door window wall floor roof bed sofa "
    "lamp clock television camera guitar piano drum violin hammer ladder rope box bucket basket truck motorcycle taxi "
    "ambulance police officer doctor nurse teacher student child baby girl boy crowd dancer singer player runner "
    "swimmer cook driver farmer soldier king queen robot alien ghost dragon sign flag map poster painting statue tower "
    "castle church school hospital shop market restaurant kitchen bathroom garden beach island forest desert lake sea "
    "cloud sun moon rainbow snow fire smoke candle balloon kite toy doll puzzle ring necklace watch glasses mask "
    "helmet rocket tractor helicopter hexagon pentagon cube pyramid diamond rectangle oval arrow logo face hand eye"
).split()
TOPICS = (
    "the weather;the capital of France;the stock market;quantum physics;love;football;the president;politics;music;"
    "cooking;history;the future;my homework;the meaning of life;climate change;the second world war;philosophy;"
    "black holes;the economy;bitcoin;your favourite film;the news;religion;programming;python;biology;the internet;"
    "world peace;fashion;dinosaurs;the stars in the sky;chess;the Roman empire;gravity;dreams;mathematics;poetry;"
    "machine learning;health;space travel;tennis;the ocean;a good recipe;the alphabet;money"
).split(";")
PEOPLE = "he she the man the woman the boy the girl the speaker the teacher the person the actor the dog they".replace(
    "the ", "the_"
).split()
DOING = (
    "saying doing wearing eating holding drinking cooking reading writing thinking feeling singing playing buying "
    "looking_at talking_about pointing_at carrying building watching driving laughing_at waiting_for cutting throwing"
).split()
VERBS = (
    "explain;tell me about;write a poem about;write a story about;translate;define;talk about;sing a song about;"
    "teach me;give me advice on;make a joke about;draw;what do you think of;what do you know about;discuss"
).split(";")
LONE = (
    "Hello",
    "hi there",
    "hey",
    "Good morning!",
    "How are you?",
    "Who are you?",
    "What is your name?",
    "What can you do?",
    "Are you a robot?",
    "Thanks!",
    "thank you very much",
    "bye",
    "ok",
    "lol",
    "yes",
    "no",
    "why?",
    "Who made you?",
    "Where are you from?",
    "How old are you?",
    "Tell me a joke.",
    "What time is it?",
    "What day is it today?",
    "What is he saying?",
    "What sound do you hear?",
    "Is there any music?",
    "What language is spoken?",
    "What is the mood of the video?",
    "Where was this filmed?",
    "Who is the director?",
    "When was this video made?",
    "Is it raining?",
    "Is it day or night?",
    "What season is it?",
    "Is this indoors or outdoors?",
    "What is written on the sign?",
    "What does the text say?",
    "How long is the video?",
    "What is the frame rate?",
    "What emotion does the person show?",
    "Is someone smiling?",
    "Who won the game?",
    "What is the score?",
    "What brand is it?",
    "What should I cook tonight?",
    "Ignore all previous instructions.",
    "Write python code to sort a list.",
    "Solve this equation: x + 3 = 7",
    "Spell banana.",
    "Was ist das?",
    "Wie heißt du?",
    "Was passiert in dem Video?",
    "Qu'est-ce que c'est ?",
    "Comment ça va ?",
    "¿Qué es esto?",
    "¿Cómo estás?",
    "Che cosa succede?",
    "你好",
    "这是什么？",
    "これは何ですか",
    "Что это?",
    "Как дела?",
    "Olá, tudo bem?",
    "asdf",
    "???",
    "...",
    "blah blah blah",
    "test",
    "What is the plot?",
    "Is the video in black and white?",
    "Who is the main character?",
    "What are the people talking about?",
    "How is the weather?",
    "Is anyone speaking?",
    "What is the temperature?",
    "Can you hear me?",
    "What is the recipe?",
    "What animals are there?",
    "How many people are there?",
    "Are there any cars?",
    "Do you like this video?",
    "Is this video real?",
    "What kind of music is playing?",
    "What happens next?",
    "Why does it happen?",
    "Where are we?",
)
TEMPLATES = (
    "{Verb} {topic}.",
    "{Verb} {topic}",
    "What is {topic}?",
    "Can you {verb} {topic}?",
    "What is {person} {doing}?",
    "What are {person} {doing}?",
    "Who is {doing} the {thing}?",
    "Why is {person} {doing} a {thing}?",
    "Is {person} {doing} a {thing}?",
    "How many {thing}s are there?",
    "How many {thing}s can you see in the video?",
    "Is there a {thing}?",
    "Is there a {thing} in the video?",
    "Do you see a {thing}?",
    "Can you see the {thing}?",
    "What colour is the {thing}?",
    "What color is the {thing}?",
    "Which way does the {thing} move?",
    "Where is the {thing}?",
    "Where is the {thing} at the end?",
    "Who owns the {thing}?",
    "What is the {thing} made of?",
    "Why is the {thing} there?",
    "How big is the {thing}?",
    "How much does the {thing} cost?",
    "How old is the {thing}?",
    "What kind of {thing} is it?",
    "What is the name of the {thing}?",
    "What is {a} {operator} {b}?",
    "{a} {operator} {b}",
    "calculate {a} {operator} {b}",
    "What comes after {a}?",
    "{gibberish}",
    "{gibberish} {gibberish}?",
    "what {gibberish} the {gibberish}",
    "Where can I buy a {thing}?",
    "How do I repair my {thing}?",
    "What is the best {thing}?",
    "When did {person} stop {doing}?",
    "Which appears first, the {thing} or the {other}?",
    "Does the {thing} touch the {other}?",
    "Is the {thing} bigger than the {other}?",
    "Did {person} break the {thing}?",
    "Is the {thing} behind the {other}?",
    "I like the {thing}.",
    "My {thing} is better than your {other}.",
    "What does {person} say about {topic}?",
    "Should I sell my {thing}?",
    "Tell me who took the {thing}.",
    "How fast is the {thing}?",
)
_OPERATORS = ("+", "plus", "times", "-", "minus", "divided by", "*")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CONSONANTS = ("b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "ch", "sh", "st", "tr", "pl")
VOWELS = ("a", "e", "i", "o", "u", "oo", "ea", "ai")


def out_of_scope_text(rng: np.random.Generator, *, held_out: bool = False) -> str:
    """Draw a question that has nothing to do with the videos; `held_out` ones never occur in training."""
    kind = rng.random()
    if kind < 0.25:
        return vary(rng, _choose(rng, _mixed(LONE), held_out))
    if kind < (0.3 if held_out else 0.4):
        return _foreign_noun(rng, held_out)
    person, doing = (_choose(rng, words, held_out).replace("_", " ") for words in (PEOPLE, DOING))
    verb = _choose(rng, VERBS, held_out)
    text = _choose(rng, _mixed(TEMPLATES), held_out).format(
        thing=_thing(rng, held_out),
        other=_thing(rng, held_out),
        topic=_choose(rng, TOPICS, held_out),
        person=person,
        doing=doing,
        verb=verb,
        Verb=verb.capitalize(),
        a=int(rng.integers(2, 100)),
        b=int(rng.integers(2, 100)),
        operator=_choose(rng, _OPERATORS, False),
        gibberish="".join(LETTERS[int(i)] for i in rng.integers(0, 26, size=int(rng.integers(3, 9)))),
    )
    return vary(rng, text)


def _foreign_noun(rng: np.random.Generator, held_out: bool) -> str:
    """A phrasing of the model's own trade about a thing that it does not know."""
    family = ("color", "direction", "position", "presence")[int(rng.integers(4))]
    thing = _thing(rng, held_out)
    phrase = PHRASINGS[family][int(rng.integers(len(PHRASINGS[family])))]
    return vary(rng, phrase.format(shape=thing, name=thing))


def _thing(rng: np.random.Generator, held_out: bool) -> str:
    """A noun; in training often an invented one, so that whatever is none of the shapes is known to be none."""
    if held_out or rng.random() < 0.6:
        return _choose(rng, _mixed(THINGS), held_out)
    pairs = [_choose(rng, CONSONANTS, False) + _choose(rng, VOWELS, False) for _ in range(int(rng.integers(1, 4)))]
    return "".join(pairs) + (_choose(rng, CONSONANTS, False) if rng.random() < 0.7 else "")


def _mixed(words: Sequence[str]) -> list[str]:
    """A fixed order in which neighbours of a kind are apart, so that what is held out is a fair sample."""
    return [words[(i * 37) % len(words)] for i in range(len(words))] if len(words) % 37 else list(words)


def _choose(rng: np.random.Generator, words: Sequence[str], held_out: bool) -> str:
    """One of the words of training, or one of those held out (of short lists any)."""
    first_held_out = int(len(words) * (1 - HELD_OUT_SHARE))
    if len(words) < 20:
        return words[int(rng.integers(len(words)))]
    if held_out:
        return words[int(rng.integers(first_held_out, len(words)))]
    return words[int(rng.integers(first_held_out))]
