"""Evidence: which frames an answer looked at, the same however it was asked for, and nothing of it stays behind."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sfvqa.errors import UsageError
from sfvqa.inference.answer import Answer
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.evidence import NOTHING_LOOKED_AT, SlowAttentionRecorder
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA, VideoSource
from sfvqa.model import SlowAttention, SlowFastCache, SlowFastForConditionalGeneration
from sfvqa.model.decode_step import StaticDecode
from sfvqa.video.sampling import SamplingOptions
from sfvqa.video.subtitles import SubtitleLine, Subtitles

PLAIN = GenerationOptions(max_new_tokens=8)
WATCHED = GenerationOptions(max_new_tokens=8, evidence=True)
PREFILL = GenerationOptions(max_new_tokens=8, evidence=True, slow_attention=SlowAttention.PREFILL)
QUESTIONS = ("Which way does the bar move?", "Why?", "Which way?", "Which colour does it have, and is it alone?")
CHOICES = ("left", "right")


def weights(answer: Answer) -> torch.Tensor:
    assert answer.evidence is not None
    return torch.tensor([frame.weight for frame in answer.evidence], dtype=torch.float64)


def assert_alike(answers: Sequence[Answer], others: Sequence[Answer]) -> None:
    for one, other in zip(answers, others, strict=True):
        assert one.text == other.text
        torch.testing.assert_close(weights(one), weights(other), rtol=1e-4, atol=1e-6)


def alone(qa: VideoQA, asked: Sequence[tuple[VideoSource, str]], options: GenerationOptions) -> list[Answer]:
    return [qa.ask(video, question, options) for video, question in asked]


def num_hooks(model: SlowFastForConditionalGeneration) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def test_every_frame_has_its_share(qa: VideoQA, encoded: EncodedVideo) -> None:
    answer = qa.ask(encoded, QUESTIONS[0], WATCHED)
    assert answer.evidence is not None
    assert [frame.index for frame in answer.evidence] == list(answer.frames.indices)
    assert [frame.timestamp_seconds for frame in answer.evidence] == list(answer.frames.timestamps_seconds)
    assert weights(answer).sum().item() == pytest.approx(1)
    assert weights(answer).min() > 0
    assert weights(answer).std() > 1e-5
    listed = answer.to_dict()["evidence"]
    assert isinstance(listed, list)
    assert listed[0].keys() == {"timestamp_seconds", "index", "weight"}


def test_nothing_of_it_unless_asked_for(qa: VideoQA, encoded: EncodedVideo) -> None:
    answer = qa.ask(encoded, QUESTIONS[0], PLAIN)
    assert answer.evidence is None
    assert answer.to_dict()["evidence"] is None


@pytest.mark.parametrize("options", [WATCHED, PREFILL])
def test_a_batch_and_a_row_of_questions_give_each_what_it_has_alone(
    qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo, options: GenerationOptions
) -> None:
    asked: list[tuple[VideoSource, str]] = [(encoded, question) for question in QUESTIONS]
    asked[2:2] = [(encoded_short, "Why?"), (None, "Hello?")]
    expected = alone(qa, asked, options)
    assert_alike(qa.answer_batch(asked, options), expected)
    assert expected[3].evidence == ()
    streamed = []
    for stream in qa.stream_all(encoded, QUESTIONS, options):
        assert list(stream)
        streamed.append(stream.answer)
    assert_alike(streamed, [answer for answer, (video, _) in zip(expected, asked, strict=True) if video is encoded])
    assert len({str(weights(answer)) for answer in streamed}) == len(QUESTIONS)


@pytest.mark.parametrize("options", [WATCHED, PREFILL])
def test_a_batch_whose_cache_cannot_be_forked_has_it_too(
    qa: VideoQA, encoded: EncodedVideo, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sliding window every prompt goes through the model whole."""
    monkeypatch.setattr(SlowFastCache, "is_forkable", property(lambda _: False))
    asked: list[tuple[VideoSource, str]] = [(encoded, question) for question in QUESTIONS]
    answers = qa.answer_batch(asked, options)
    assert [answer.tokens.reused for answer in answers] == [0] * len(QUESTIONS)
    assert_alike(answers, alone(qa, asked, options))


@pytest.mark.parametrize("options", [WATCHED, PREFILL])
def test_it_changes_no_answer(qa: VideoQA, encoded: EncodedVideo, options: GenerationOptions) -> None:
    without = GenerationOptions(max_new_tokens=8, slow_attention=options.slow_attention)
    asked: list[tuple[VideoSource, str]] = [(encoded, question) for question in QUESTIONS]
    assert [answer.text for answer in qa.answer_batch(asked, options)] == [
        answer.text for answer in qa.answer_batch(asked, without)
    ]
    plain = [(list(stream), stream.answer.text) for stream in qa.stream_all(encoded, QUESTIONS, without)]
    assert [(list(stream), stream.answer.text) for stream in qa.stream_all(encoded, QUESTIONS, options)] == plain


def test_choices_have_it_and_stay_what_they_are(qa: VideoQA, encoded: EncodedVideo) -> None:
    watched = GenerationOptions(evidence=True)
    expected = [qa.ask(encoded, question, watched, choices=CHOICES) for question in QUESTIONS]
    assert [answer.choices for answer in expected] == [
        qa.ask(encoded, question, choices=CHOICES).choices for question in QUESTIONS
    ]
    streamed = []
    for stream in qa.stream_all(encoded, QUESTIONS, watched, choices=CHOICES):
        assert list(stream)
        streamed.append(stream.answer)
    assert_alike(streamed, expected)
    assert_alike(qa.answer_batch([(encoded, q) for q in QUESTIONS], watched, choices=CHOICES), expected)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the last positions are recorded, a pass after the other."""
    counts: list[int] = []

    class Counting(SlowAttentionRecorder):
        def recording(self, rows, num_last):  # type: ignore[no-untyped-def]
            counts.extend(num_last)
            return super().recording(rows, num_last)

    monkeypatch.setattr("sfvqa.inference.answering.SlowAttentionRecorder", Counting)
    return counts


def test_of_choices_the_question_counts_and_the_chosen_one(
    qa: VideoQA, encoded: EncodedVideo, recorded: list[int]
) -> None:
    """A token is a byte here: of the five of “right” the last one writes nothing."""
    answer = qa.ask(encoded, "Why?", GenerationOptions(evidence=True), choices=CHOICES)
    around = len("\nWhy?<|im_end|>\n<|im_start|>assistant\n") - len("<|im_end|><|im_start|>") + 2
    assert recorded == [around, len(answer.text) - 1]


def test_subtitles_are_no_part_of_the_question(qa: VideoQA, encoded: EncodedVideo, recorded: list[int]) -> None:
    """They stand between video and question, many of them; what they look at is not the question's."""
    lines = Subtitles((SubtitleLine(0.0, 1.0, "Hello there, how do you do?"),), "talk.srt")
    qa.ask(encoded, "Why?", PREFILL)
    alone = list(recorded)
    qa.ask(encoded, "Why?", PREFILL, prompt=PromptOptions(subtitles=lines))
    assert recorded == 2 * alone
    assert alone[0] > 1


def test_a_chat_has_it_too(qa: VideoQA, encoded: EncodedVideo) -> None:
    """The first turn is a question alone; the second goes on from what is kept, and is watched all the same."""
    chat = qa.chat(encoded, WATCHED)
    assert_alike([chat.ask(QUESTIONS[0])], [qa.ask(encoded, QUESTIONS[0], WATCHED)])
    assert weights(chat.ask("And then?")).sum().item() == pytest.approx(1)


def test_what_is_read_so_far_when_it_is_left_early_and_no_hook_stays(qa: VideoQA, encoded: EncodedVideo) -> None:
    before = num_hooks(qa.checkpoint.model)
    with qa.stream(encoded, QUESTIONS[0], WATCHED) as stream:
        next(stream)
        assert num_hooks(qa.checkpoint.model) == before
    assert stream.answer.finish_reason == "interrupted"
    assert weights(stream.answer).sum().item() == pytest.approx(1)
    assert num_hooks(qa.checkpoint.model) == before


def test_a_single_frame_has_all_of_it(qa: VideoQA, video_path: Path) -> None:
    one = qa.encode(video_path, SamplingOptions(num_frames=1))
    assert weights(qa.ask(one, "Why?", WATCHED)).tolist() == pytest.approx([1.0])


def test_gates_that_are_shut_leave_none_and_say_so(qa: VideoQA, encoded: EncodedVideo) -> None:
    with qa.checkpoint.model.without_slow():
        answer = qa.ask(encoded, "Why?", WATCHED)
    assert answer.evidence == ()
    assert NOTHING_LOOKED_AT in answer.warnings


def test_recorded_steps_cannot_be_watched() -> None:
    with pytest.raises(UsageError, match="watched for evidence"):
        GenerationOptions(evidence=True, static_decode=StaticDecode.ON)
    with pytest.raises(UsageError, match="evidence"):
        GenerationOptions(evidence=1)  # type: ignore[arg-type]


@pytest.mark.slow
def test_tiny_looks_at_the_flash_and_what_a_batch_computes_behind_an_answer_s_end_counts_nothing() -> None:
    """In the bundled demo the screen flashes at 2.08 s; the other answer of the batch is three times as long."""
    tiny = VideoQA.load("tiny", device="cpu")
    video = tiny.encode(Path("sfvqa/assets/demo/flash.mp4").resolve())
    asked: list[tuple[VideoSource, str]] = [
        (video, "What colour does the screen flash?"),
        (video, "Describe the video."),
    ]
    options = GenerationOptions(evidence=True)
    answers = tiny.answer_batch(asked, options)
    assert answers[0].text == "The screen flashes purple."
    assert answers[0].tokens.new * 2 < answers[1].tokens.new
    assert_alike(answers, alone(tiny, asked, options))
    strongest = max(answers[0].evidence or (), key=lambda frame: frame.weight)
    assert strongest.timestamp_seconds == pytest.approx(2.08, abs=0.2)
    assert strongest.weight > 2.5 / len(answers[0].frames.indices)
