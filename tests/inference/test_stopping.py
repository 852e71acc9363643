"""Answers end before a text that stops them, whatever tokens it is written in, and where the caller ends them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.cli.options import BUNDLED_VIDEOS
from sfvqa.errors import UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.answer_row import TextBefore
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.schema import JsonSchema
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model.decode_step import StaticDecode

QUESTIONS = ("Which way does the bar move?", "What colour is it?", "Why?")
FREE = GenerationOptions(max_new_tokens=16)


def cut(text: str, ends: tuple[str, ...]) -> tuple[str, bool]:
    """What comes before the first end that is whole, found a character at a time."""
    for length in range(1, len(text) + 1):
        found = [end for end in ends if text[:length].endswith(end)]
        if found:
            return text[: length - max(map(len, found))], True
    return text, False


@given(
    pieces=st.lists(st.text("ab", max_size=4), max_size=8),
    ends=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_text_ends_before_the_same_character_in_whatever_pieces_it_comes(
    pieces: list[str], ends: tuple[str, ...]
) -> None:
    whole, is_cut = cut("".join(pieces), ends)
    text, said = TextBefore(ends), ""
    for piece in pieces:
        if not text.is_over:
            said += text.push(piece)
            assert whole.startswith(said)  # nothing came out that had to be taken back
    assert (said + text.finish(), text.is_over) == (whole, is_cut)


def test_only_what_may_be_the_beginning_of_an_end_is_held_back() -> None:
    text = TextBefore(("\n\n", "User:"))
    assert [text.push(piece) for piece in ("a\n", "b U", "se", "d.\n")] == ["a", "\nb ", "", "Used."]
    assert text.finish() == "\n"


@pytest.fixture(scope="module")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def shapes(tiny: VideoQA) -> EncodedVideo:
    return tiny.encode(BUNDLED_VIDEOS / "shapes.mp4")


FLASH, SHAPES, DIGIT = "What colour does the screen flash?", "Describe the video.", "Which digit is shown?"
STOP = replace(GenerationOptions(), stop=("never written", "es gr"))  # of “The screen flashes green.”


def test_an_answer_ends_before_a_text_of_several_tokens(tiny: VideoQA, shapes: EncodedVideo) -> None:
    with tiny.stream(shapes, FLASH) as free:
        assert not any("es gr" in piece for piece in free)
    whole = free.answer
    with tiny.stream(shapes, FLASH, STOP) as stream:
        assert "".join(stream) == "The screen flash"
    answer = stream.answer
    assert (answer.text, answer.finish_reason) == ("The screen flash", FinishReason.STOP)
    assert answer.settings.stop == STOP.stop
    assert answer.tokens.new < whole.tokens.new
    assert tiny.ask(shapes, FLASH, replace(STOP, static_decode=StaticDecode.ON)).text == "The screen flash"


def test_in_a_batch_only_the_answer_ends_that_writes_it(tiny: VideoQA, shapes: EncodedVideo) -> None:
    questions = [(shapes, question) for question in (FLASH, SHAPES, DIGIT)]
    free = [answer.text for answer in tiny.answer_batch(questions)]
    flash, described, digit = tiny.answer_batch(questions, STOP)
    assert (flash.text, digit.text) == ("The screen flash", free[2])
    assert described.text == free[1][: free[1].index("es gr")]


def test_a_chat_goes_on_from_the_text_that_was_said(tiny: VideoQA, shapes: EncodedVideo) -> None:
    chat = tiny.chat(shapes, STOP)
    assert chat.ask(FLASH).text == "The screen flash"
    second = chat.ask(SHAPES)
    run = AnswerRun(tiny.checkpoint, [Asked(shapes, SHAPES, ((FLASH, "The screen flash"),))], STOP)
    assert list(run.steps())
    assert second.text == run.answers()[0].text


def test_a_held_back_beginning_comes_out_where_the_answer_ends(tiny: VideoQA, shapes: EncodedVideo) -> None:
    answer = tiny.ask(shapes, FLASH, GenerationOptions(stop=("green. And",)))
    assert (answer.text, answer.finish_reason) == ("The screen flashes green.", FinishReason.STOP)
    cut_off = tiny.ask(shapes, FLASH, GenerationOptions(max_new_tokens=3, stop=("flashes green",)))
    assert cut_off.finish_reason is FinishReason.LENGTH
    assert cut_off.text == tiny.ask(shapes, FLASH, GenerationOptions(max_new_tokens=3)).text


def test_an_answer_ends_where_a_function_of_its_text_says_so(tiny: VideoQA, shapes: EncodedVideo) -> None:
    """Alone, in a batch, in a chat and in recorded steps; the others of the batch go on."""
    free = tiny.ask(shapes, FLASH)
    grown: list[str] = []

    def stop_when(text: str) -> bool:
        grown.append(text)
        return "flash" in text

    options = GenerationOptions(stop_when=stop_when)
    stopped = tiny.ask(shapes, FLASH, options)
    assert (stopped.text, stopped.finish_reason) == (grown[-1], FinishReason.STOP)
    assert free.text.startswith(stopped.text)
    assert "flash" in stopped.text != free.text
    assert grown == [free.text[: len(text)] for text in grown]  # every text once, as it grew
    assert len(set(grown)) == len(grown)
    assert tiny.ask(shapes, FLASH, replace(options, static_decode=StaticDecode.ON)).text == stopped.text
    both = tiny.answer_batch([(shapes, DIGIT), (shapes, FLASH)], options)
    assert [answer.text for answer in both] == ["The digit 7 is shown.", stopped.text]
    chat = tiny.chat(shapes, options)
    assert [chat.ask(question).text for question in (FLASH, DIGIT)] == [stopped.text, "The digit 7 is shown."]
    with_stop = tiny.ask(shapes, FLASH, replace(options, stop=("screen",)))
    assert with_stop.text == "The "


def test_what_a_function_raises_comes_to_the_caller(tiny: VideoQA, shapes: EncodedVideo) -> None:
    def fail(_text: str) -> bool:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        tiny.ask(shapes, FLASH, GenerationOptions(stop_when=fail))


@pytest.mark.parametrize("wrong", [{"stop": ("a",)}, {"stop_when": bool}])
def test_a_schema_says_where_its_answer_ends(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="ends where the schema says"):
        GenerationOptions(schema=JsonSchema.any_object(), **wrong)


def test_a_batch_is_watched_piece_by_piece_and_ended(tiny: VideoQA, shapes: EncodedVideo) -> None:
    asked = [(shapes, FLASH), (shapes, DIGIT)]
    came: list[list[str]] = []
    whole = tiny.answer_batch(asked, watch=came.append)
    assert ["".join(pieces) for pieces in zip(*came, strict=True)] == [answer.text for answer in whole]
    ended = tiny.answer_batch(asked, watch=lambda pieces: "digit" in pieces[1])
    assert [answer.finish_reason for answer in ended] == [FinishReason.INTERRUPTED] * 2
    assert ended[1].text == "The digit"


@pytest.mark.parametrize("stop", [("",), "END", ["END"], (1,)])
def test_what_is_no_text_to_stop_at_is_refused(stop: object) -> None:
    with pytest.raises(UsageError, match="stop is"):
        GenerationOptions(stop=stop)  # type: ignore[arg-type]


def test_choices_cannot_be_stopped(qa: VideoQA, encoded: EncodedVideo) -> None:
    with pytest.raises(UsageError, match="stop is"):
        qa.ask(encoded, QUESTIONS[0], replace(FREE, stop=("a",), max_new_tokens=256), choices=["a", "b"])


# --- ending a row ---


def run_of(qa: VideoQA, encoded: EncodedVideo, options: GenerationOptions = FREE) -> AnswerRun:
    return AnswerRun(qa.checkpoint, [Asked(encoded, question) for question in QUESTIONS], options)


@pytest.mark.parametrize("static_decode", [StaticDecode.OFF, StaticDecode.ON])
def test_an_ended_answer_keeps_what_came_and_the_others_go_on(
    qa: VideoQA, encoded: EncodedVideo, static_decode: StaticDecode
) -> None:
    options = replace(FREE, static_decode=static_decode)
    alone = [qa.ask(encoded, question, FREE).text for question in QUESTIONS]
    run = run_of(qa, encoded, options)
    steps = run.steps()
    came = [next(steps)[1] for _ in range(3)]
    run.end(1)
    assert all(pieces[1] == "" for pieces in steps)
    first, ended, last = run.answers()
    assert (ended.text, ended.finish_reason, ended.tokens.new) == ("".join(came), FinishReason.INTERRUPTED, 3)
    assert [first.text, last.text] == [alone[0], alone[2]]


def test_a_run_ends_when_none_of_its_answers_is_wanted(qa: VideoQA, encoded: EncodedVideo) -> None:
    run = run_of(qa, encoded)
    steps = run.steps()
    next(steps)
    for place in range(3):
        run.end(place)
    assert list(steps) == []
    assert [answer.tokens.new for answer in run.answers()] == [1, 1, 1]
    unbegun = run_of(qa, encoded)
    for place in range(3):
        unbegun.end(place)
    assert list(unbegun.steps()) == []


def test_an_answer_that_is_over_stays_so(qa: VideoQA, encoded: EncodedVideo) -> None:
    run = run_of(qa, encoded)
    assert list(run.steps())
    run.end(0)
    assert run.answers()[0].finish_reason is FinishReason.LENGTH


def test_choices_of_an_ended_question_are_not_compared(qa: VideoQA, encoded: EncodedVideo) -> None:
    asked = [Asked(encoded, question) for question in QUESTIONS]
    run = AnswerRun(qa.checkpoint, asked, GenerationOptions(), choices=["left", "right"])
    run.end(1)
    assert len(list(run.steps())) == 2
    assert [bool(answer.choices) for answer in run.answers()] == [True, False, True]
    assert run.answers()[1].finish_reason is FinishReason.INTERRUPTED


def test_evidence_of_an_ended_answer_is_that_of_its_tokens(qa: VideoQA, encoded: EncodedVideo) -> None:
    options = replace(FREE, evidence=True)
    few = qa.ask(encoded, QUESTIONS[1], replace(options, max_new_tokens=3))
    run = run_of(qa, encoded, options)
    steps = run.steps()
    for _ in range(3):
        next(steps)
    run.end(1)
    list(steps)
    evidence = run.answers()[1].evidence
    assert evidence
    assert few.evidence
    assert [frame.weight for frame in evidence] == pytest.approx([frame.weight for frame in few.evidence], abs=1e-5)
