"""Answers end before a text that stops them, whatever tokens it is written in, and where the caller ends them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.errors import UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.answering import AnswerRun, Asked, TextBefore
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA

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


def across_tokens(qa: VideoQA, encoded: EncodedVideo, question: str) -> tuple[str, str]:
    """A text that the free answer writes in several tokens, and what comes before it."""
    with qa.stream(encoded, question, FREE) as stream:
        pieces = list(stream)
    start = len("".join(pieces[:5]))
    text = "".join(pieces)
    stop = text[start - 1 : start + len(pieces[5]) + 1]
    assert len(stop) > max(map(len, pieces[4:7]))
    return stop, text[: text.index(stop)]


def test_an_answer_ends_before_a_text_of_several_tokens(qa: VideoQA, encoded: EncodedVideo) -> None:
    stop, expected = across_tokens(qa, encoded, QUESTIONS[0])
    options = replace(FREE, stop=("never written", stop))
    answer = qa.ask(encoded, QUESTIONS[0], options)
    assert (answer.text, answer.finish_reason) == (expected, FinishReason.STOP)
    assert answer.settings.stop == options.stop
    assert answer.tokens.new < FREE.max_new_tokens
    with qa.stream(encoded, QUESTIONS[0], options) as stream:
        assert "".join(stream) == expected
    static = qa.ask(encoded, QUESTIONS[0], GenerationOptions(16, stop=(stop,), static_decode="on"))  # type: ignore[arg-type]
    assert static.text == expected


def test_in_a_batch_only_the_answer_ends_that_writes_it(qa: VideoQA, encoded: EncodedVideo) -> None:
    stop, expected = across_tokens(qa, encoded, QUESTIONS[0])
    free = [qa.ask(encoded, question, FREE).text for question in QUESTIONS]
    answers = qa.answer_batch([(encoded, question) for question in QUESTIONS], replace(FREE, stop=(stop,)))
    assert [answer.text for answer in answers] == [cut(text, (stop,))[0] for text in free]
    assert answers[0].text == expected
    assert any(answer.finish_reason is FinishReason.LENGTH for answer in answers[1:])


def test_a_chat_goes_on_from_the_text_that_was_said(qa: VideoQA, encoded: EncodedVideo) -> None:
    stop, expected = across_tokens(qa, encoded, QUESTIONS[0])
    chat = qa.chat(encoded, replace(FREE, stop=(stop,)))
    assert chat.ask(QUESTIONS[0]).text == expected
    second = chat.ask(QUESTIONS[1])
    history = Asked(encoded, QUESTIONS[1], ((QUESTIONS[0], expected),))
    run = AnswerRun(qa.checkpoint, [history], replace(FREE, stop=(stop,)))
    assert list(run.steps())
    assert second.text == run.answers()[0].text


def test_a_held_back_beginning_comes_out_where_the_answer_ends(qa: VideoQA, encoded: EncodedVideo) -> None:
    free = qa.ask(encoded, QUESTIONS[0], FREE)
    options = replace(FREE, stop=(f"{free.text[-2:]} and more",))
    answer = qa.ask(encoded, QUESTIONS[0], options)
    assert (answer.text, answer.finish_reason) == (free.text, FinishReason.LENGTH)


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


@pytest.mark.parametrize("static_decode", ["off", "on"])
def test_an_ended_answer_keeps_what_came_and_the_others_go_on(
    qa: VideoQA, encoded: EncodedVideo, static_decode: str
) -> None:
    options = GenerationOptions(16, static_decode=static_decode)  # type: ignore[arg-type]
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
