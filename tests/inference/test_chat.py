"""A chat's turn equals one prompt that holds the whole conversation, and prefills only what is new of it."""

from pathlib import Path

import pytest

from sfvqa.errors import PromptTooLongError, UsageError
from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.chat import Chat
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import SlowAttention
from sfvqa.video.subtitles import SubtitleLine, Subtitles

SHORT = GenerationOptions(max_new_tokens=8)
QUESTIONS = ("Which way?", "And then?", "Why?")


def one_prompt(
    qa: VideoQA,
    chat: Chat,
    question: str,
    options: GenerationOptions = SHORT,
    prompt: PromptOptions | None = None,
) -> Answer:
    """The whole conversation so far and one more question, prefilled in one pass, nothing kept."""
    history = tuple((turn.question, turn.answer.text) for turn in chat.turns)
    run = AnswerRun(qa.checkpoint, [Asked(chat.encoded, question, history)], options, prompt=prompt)
    list(run.steps())
    return run.answers()[0]


@pytest.mark.parametrize("shows_video", [True, False])
def test_every_turn_equals_one_prompt_with_the_whole_conversation(
    qa: VideoQA, encoded: EncodedVideo, shows_video: bool
) -> None:
    chat = qa.chat(encoded if shows_video else None, SHORT)
    for question in QUESTIONS:
        expected = one_prompt(qa, chat, question)
        answer = chat.ask(question)
        assert answer.text == expected.text
        assert answer.tokens.prompt == expected.tokens.prompt
    assert [turn.question for turn in chat.turns] == list(QUESTIONS)


@pytest.mark.slow
def test_the_bundled_model_chats_as_in_one_prompt(video_path: Path) -> None:
    tiny = VideoQA.load("tiny", device="cpu")
    chat = tiny.chat(video_path)
    for question in ("Describe the video.", "What flashes?", "Which digit is shown?"):
        expected = one_prompt(tiny, chat, question, GenerationOptions())
        answer = chat.ask(question)
        assert answer.text == expected.text
    reused = chat.turns[-1].answer.tokens
    assert reused.prompt - reused.reused < 30


def test_earlier_turns_change_what_is_said(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT)
    chat.ask("Which way?")
    assert chat.ask("Why?").text != qa.ask(encoded, "Why?", SHORT).text


def test_only_the_new_turn_is_prefilled_and_only_the_first_pays_for_the_video(qa: VideoQA, video_path: Path) -> None:
    chat = qa.chat(video_path, SHORT)
    first, second = chat.ask("Which way?"), chat.ask("Why?")
    assert first.tokens.reused == 0 < first.timings.encode_seconds
    assert second.tokens.reused >= first.tokens.prompt
    assert second.timings.encode_seconds == second.timings.read_seconds == 0.0


def test_an_answer_that_is_spelt_otherwise_is_prefilled_again(qa: VideoQA, encoded: EncodedVideo) -> None:
    """What the model wrote need not be how the tokenizer spells its text: bytes that are no character, say."""
    chat = qa.chat(encoded, GenerationOptions(max_new_tokens=30, temperature=2.0, seed=3))
    answer = chat.ask("Which way?")
    assert "\N{REPLACEMENT CHARACTER}" in answer.text
    greedy = Chat(qa.checkpoint, encoded, SHORT)
    greedy._turns, greedy._kept = chat._turns, chat._kept
    expected = one_prompt(qa, chat, "Why?")
    following = greedy.ask("Why?")
    assert following.text == expected.text
    assert answer.tokens.prompt <= following.tokens.reused < answer.tokens.prompt + answer.tokens.new


def test_a_stopped_answer_stays_as_far_as_it_came(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT)
    with chat.stream("Which way?") as stream:
        piece = next(stream)
    (turn,) = chat.turns
    assert turn.answer.text.startswith(piece)
    assert turn.answer.finish_reason is FinishReason.INTERRUPTED
    expected = one_prompt(qa, chat, "Why?")
    assert chat.ask("Why?").text == expected.text


def test_a_turn_of_which_nothing_came_is_none(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT)
    chat.stream("Which way?").close()
    assert chat.turns == ()
    assert chat.ask("Why?").text == qa.ask(encoded, "Why?", SHORT).text


def test_a_new_question_ends_the_answer_before_it(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT)
    stream = chat.stream("Which way?")
    next(stream)
    chat.ask("Why?")
    assert list(stream) == []
    assert [turn.question for turn in chat.turns] == ["Which way?", "Why?"]


def test_a_reset_forgets_the_turns_and_keeps_the_video(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT)
    chat.ask("Which way?")
    chat.reset()
    assert (chat.turns, chat.num_dropped) == ((), 0)
    answer = chat.ask("Why?")
    assert answer.text == qa.ask(encoded, "Why?", SHORT).text
    assert answer.tokens.reused > answer.tokens.fast


# --- a context that runs full ---


def test_the_oldest_turns_drop_and_that_is_said(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT, context_tokens=330)
    said, foretold = [], []
    for number in range(5):
        foretold.append(chat.will_drop)
        stream = chat.stream(f"What is thing number {number}?")
        before = stream.answer.warnings  # before the first piece
        said.append([warning for warning in before if "dropped" in warning])
        expected = one_prompt(qa, chat, f"What is thing number {number}?")
        list(stream)
        assert stream.answer.text == expected.text
        assert stream.answer.tokens.prompt + SHORT.max_new_tokens <= 330
    drops = [bool(warnings) for warnings in said]
    assert drops[0] is False
    assert any(drops)
    assert all(was_foretold for was_foretold, dropped in zip(foretold, drops, strict=True) if dropped)
    assert said[drops.index(True)] == [
        "The oldest turn was dropped from the conversation, which may take 330 tokens: “What is thing number 0?”."
    ]
    assert chat.num_dropped + len(chat.turns) == 5
    assert chat.context.num_tokens <= chat.context.limit == 330
    assert chat.context.room == 330 - chat.context.num_tokens


def test_after_a_drop_the_video_is_still_prefilled(qa: VideoQA, encoded: EncodedVideo) -> None:
    """It moves to the first turn that is left, and stands there at the same place."""
    chat = qa.chat(encoded, SHORT, context_tokens=190)
    answers = [chat.ask(question) for question in ("What is this?", "What is that?", "And the other?", "Why?")]
    assert chat.num_dropped
    assert answers[-1].tokens.reused > answers[-1].tokens.fast


def test_the_video_is_paid_for_once_though_every_turn_dropped(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT, context_tokens=200)
    assert chat.ask("Which way?").timings.read_seconds > 0
    stream = chat.stream("why " * 20)
    assert chat.turns == ()
    assert stream.answer.timings.read_seconds == 0


def test_a_question_that_never_fits_is_an_error_and_drops_no_turn(qa: VideoQA, encoded: EncodedVideo) -> None:
    chat = qa.chat(encoded, SHORT, context_tokens=200)
    chat.ask("Which way?")
    with pytest.raises(PromptTooLongError, match="200"):
        chat.ask("why " * 100)
    assert [turn.question for turn in chat.turns] == ["Which way?"]
    assert chat.ask("Why?").text


@pytest.mark.parametrize("tokens", [0, -1, 641])
def test_a_context_the_model_has_not_is_refused(qa: VideoQA, encoded: EncodedVideo, tokens: int) -> None:
    with pytest.raises(UsageError, match="640 positions"):
        qa.chat(encoded, context_tokens=tokens)


def test_a_chat_looks_at_the_slow_tokens_throughout(qa: VideoQA, encoded: EncodedVideo) -> None:
    with pytest.raises(UsageError, match="slow"):
        qa.chat(encoded, GenerationOptions(slow_attention=SlowAttention.PREFILL))


# --- what stands in the prompt ---


def test_system_message_template_and_subtitles_hold_for_every_turn(qa: VideoQA, encoded: EncodedVideo) -> None:
    lines = tuple(SubtitleLine(second / 10, second / 10 + 0.05, f"line {second}") for second in range(20))
    prompt = PromptOptions("Be brief.", "{question} Now!", Subtitles(lines, "talk.srt"), 120)
    chat = qa.chat(encoded, SHORT, prompt=prompt)
    for question in QUESTIONS:
        expected = one_prompt(qa, chat, question, prompt=prompt)
        answer = chat.ask(question)
        assert answer.text == expected.text
        assert answer.subtitles == expected.subtitles
    assert answer.tokens.reused > 0


def test_the_subtitles_do_not_shrink_as_the_conversation_grows(qa: VideoQA, encoded: EncodedVideo) -> None:
    """Their budget is what training leaves beside the prompt: the same text in every turn, or none could go on."""
    lines = tuple(SubtitleLine(second / 20, second / 20 + 0.05, f"line {second}") for second in range(40))
    chat = qa.chat(encoded, SHORT, prompt=PromptOptions(subtitles=Subtitles(lines, "talk.srt")))
    first, second = chat.ask("Which way?"), chat.ask("Why?")
    assert first.subtitles == second.subtitles
    assert first.subtitles is not None
    assert first.subtitles.cut
    assert second.tokens.reused >= first.tokens.prompt
