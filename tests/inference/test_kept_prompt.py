"""Questions that share the prefill of what their prompts begin with are answered as if each were alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfvqa.errors import UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions, decode
from sfvqa.inference.prefill import KeptPrompt, num_shared, prefill_together
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, SlowAttention
from sfvqa.model.block_attention import attend
from sfvqa.model.packing import onednn_has_bfloat16

SHORT = GenerationOptions(max_new_tokens=10)
QUESTIONS = (
    "Which way does the bar move?",
    "Which way does the bar move?",  # the same again: one token is left to prefill
    "Why?",
    "Which colour does it have, and is it alone?",
    "D",
)
MODES = [SlowAttention.ALWAYS, SlowAttention.PREFILL]


def alone(qa: VideoQA, video: EncodedVideo | None, options: GenerationOptions = SHORT) -> list[str]:
    return [qa.ask(video, question, options).text for question in QUESTIONS]


# --- one after the other ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shows_video", [True, False])
def test_a_forked_prefix_gives_the_answers_of_separate_prefills(
    qa: VideoQA, encoded: EncodedVideo, mode: SlowAttention, shows_video: bool
) -> None:
    options = GenerationOptions(max_new_tokens=10, slow_attention=mode)
    video = encoded if shows_video else None
    answers = []
    for stream in qa.stream_all(video, QUESTIONS, options):
        assert list(stream)
        answers.append(stream.answer)
    assert [answer.text for answer in answers] == alone(qa, video, options)
    assert len({answer.text for answer in answers}) > 2


@pytest.mark.slow
def test_the_bundled_model_answers_alike(video_path: Path) -> None:
    """Its slow tokens were trained, and its tokens are longer than a byte."""
    tiny = VideoQA.load("tiny", device="cpu")
    video = tiny.encode(video_path)
    streams = [(list(stream), stream.answer.text) for stream in tiny.stream_all(video, QUESTIONS, SHORT)]
    assert [text for _, text in streams] == alone(tiny, video)
    assert [answer.text for answer in tiny.answer_batch([(video, q) for q in QUESTIONS], SHORT)] == alone(tiny, video)


def test_a_second_question_prefills_only_what_is_its_own(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = qa.checkpoint.model.language_model.forward

    def counting(*args: object, **kwargs: object) -> object:
        embeddings = kwargs["inputs_embeds"]
        assert isinstance(embeddings, torch.Tensor)
        seen.append(embeddings.shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(qa.checkpoint.model.language_model, "forward", counting)
    counts = []
    for stream in qa.stream_all(encoded, QUESTIONS, SHORT):
        seen.clear()
        list(stream)
        counts.append((seen[0], stream.answer.tokens))
    first, again, other, *_ = counts
    assert (first[0], first[1].reused) == (first[1].prompt, 0)
    assert (again[0], again[1].reused) == (1, again[1].prompt - 1)
    assert other[0] == other[1].prompt - other[1].reused < 50
    assert other[1].reused > other[1].fast


def test_only_the_first_answer_pays_for_the_video(qa: VideoQA, video_path: Path) -> None:
    timings = []
    for stream in qa.stream_all(video_path, QUESTIONS[:2], SHORT):
        list(stream)
        timings.append(stream.answer.timings)
    assert timings[0].read_seconds > 0 < timings[0].encode_seconds
    assert (timings[1].read_seconds, timings[1].encode_seconds) == (0.0, 0.0)
    assert timings[1].ttft_seconds < timings[0].ttft_seconds


def test_a_stream_that_is_left_early_or_not_begun_spoils_nothing(qa: VideoQA, encoded: EncodedVideo) -> None:
    texts = []
    for place, stream in enumerate(qa.stream_all(encoded, QUESTIONS, SHORT)):
        if place == 0:
            next(stream)
            stream.close()
        elif place > 1:
            texts.append("".join(stream))
    assert texts == alone(qa, encoded)[2:]


def test_ctrl_c_in_the_middle_of_a_pass_keeps_what_every_layer_holds(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers before the one that was interrupted are a token ahead of those behind it."""
    last = qa.checkpoint.model.language_model.layers[2].mlp.down_proj
    forward, calls = last.forward, []

    def interrupted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    run = AnswerRun(qa.checkpoint, [Asked(encoded, QUESTIONS[0])], SHORT, keep=True)
    with monkeypatch.context() as patched:
        patched.setattr(last, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(run.steps())
    kept = run.kept
    assert kept is not None
    (answer,) = run.answers()
    assert answer.finish_reason is FinishReason.INTERRUPTED
    assert len(kept.token_ids) == answer.tokens.prompt + 2
    after = AnswerRun(qa.checkpoint, [Asked(encoded, QUESTIONS[3])], SHORT, kept=kept)
    list(after.steps())
    assert after.answers()[0].text == qa.ask(encoded, QUESTIONS[3], SHORT).text


def test_another_video_shares_nothing(qa: VideoQA, encoded: EncodedVideo, video_path: Path) -> None:
    """Its placeholders are the same tokens."""
    same_length = qa.encode(video_path)
    run = AnswerRun(qa.checkpoint, [Asked(encoded, "Why?")], SHORT, keep=True)
    list(run.steps())
    other = AnswerRun(qa.checkpoint, [Asked(same_length, "Why?")], SHORT, kept=run.kept)
    list(other.steps())
    assert other.answers()[0].tokens.reused == 0


def test_choices_are_scored_behind_a_shared_prefix(qa: VideoQA, encoded: EncodedVideo) -> None:
    choices = ("left", "right", "up, then down")
    answers = []
    for stream in qa.stream_all(encoded, QUESTIONS, choices=choices):
        list(stream)
        answers.append(stream.answer)
    assert answers[2].tokens.reused > 0
    for question, answer in zip(QUESTIONS, answers, strict=True):
        expected = [choice.log_probability for choice in qa.ask(encoded, question, choices=choices).choices]
        assert [choice.log_probability for choice in answer.choices] == pytest.approx(expected, abs=1e-5)


def test_wrong_options_are_found_before_the_video_is_read(qa: VideoQA) -> None:
    with pytest.raises(UsageError):
        next(iter(qa.stream_all("missing.mp4", QUESTIONS, choices=["only one"])))


# --- as one batch ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shows_video", [True, False])
def test_a_batch_about_one_video_gives_the_answers_of_single_questions(
    qa: VideoQA, encoded: EncodedVideo, mode: SlowAttention, shows_video: bool
) -> None:
    options = GenerationOptions(max_new_tokens=10, slow_attention=mode)
    video = encoded if shows_video else None
    answers = qa.answer_batch([(video, question) for question in QUESTIONS], options)
    assert [answer.text for answer in answers] == alone(qa, video, options)
    assert [answer.tokens.reused > 0 for answer in answers] == [False, True, True, True, True]


def test_a_batch_prefills_its_video_once(qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int]] = []
    forward = qa.checkpoint.model.language_model.forward

    def counting(*args: object, **kwargs: object) -> object:
        embeddings = kwargs["inputs_embeds"]
        assert isinstance(embeddings, torch.Tensor)
        shapes.append((embeddings.shape[0], embeddings.shape[1]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(qa.checkpoint.model.language_model, "forward", counting)
    answers = qa.answer_batch([(encoded, question) for question in QUESTIONS], SHORT)
    shared = answers[1].tokens.reused
    assert shapes[0] == (1, shared)
    assert shapes[1] == (len(QUESTIONS), max(answer.tokens.prompt for answer in answers) - shared)


def test_a_batch_about_several_videos_shares_nothing(
    qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo
) -> None:
    questions = [(encoded, "Why?"), (encoded_short, "Why?"), (None, "Why?")]
    answers = qa.answer_batch(questions, SHORT)
    assert [answer.text for answer in answers] == [qa.ask(video, question, SHORT).text for video, question in questions]
    assert [answer.tokens.reused for answer in answers] == [0, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_about_several_videos_with_several_questions_each(
    qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo, mode: SlowAttention
) -> None:
    options = GenerationOptions(max_new_tokens=10, slow_attention=mode)
    videos = [encoded, encoded_short, None, encoded, None, encoded, encoded_short, None]
    asked = [(video, QUESTIONS[place % len(QUESTIONS)]) for place, video in enumerate(videos)]
    answers = qa.answer_batch(asked, options)
    assert [answer.text for answer in answers] == [qa.ask(video, question, options).text for video, question in asked]
    assert len({answer.text for answer in answers}) > 2
    assert [answer.tokens.reused > 0 for answer in answers] == [False, False, False, True, True, True, True, True]


@pytest.mark.parametrize("mode", MODES)
def test_batches_go_on_from_the_beginnings_of_earlier_ones(
    qa: VideoQA,
    encoded: EncodedVideo,
    encoded_short: EncodedVideo,
    mode: SlowAttention,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server is asked about the same few videos again and again, seldom in the same batch."""
    monkeypatch.setattr("sfvqa.inference.prefill._WORTH_KEEPING", 4)
    options, beginnings = GenerationOptions(max_new_tokens=10, slow_attention=mode), list[KeptPrompt]()
    reused = []
    for questions in (QUESTIONS[:2], QUESTIONS[2:], QUESTIONS[::-1]):
        asked = [(video, question) for question in questions for video in (encoded, encoded_short, None)]
        asked = [*asked[:-2], asked[-1]]  # one question about the short video less than about the other
        run = AnswerRun(qa.checkpoint, [Asked(*each) for each in asked], options, beginnings=beginnings)
        assert all(run.steps())
        assert [answer.text for answer in run.answers()] == [qa.ask(*each, options).text for each in asked]
        reused.append([answer.tokens.reused > 0 for answer in run.answers() if answer.video])
        assert [prompt.visual_tokens for prompt in beginnings] == [encoded.visual_tokens, encoded_short.visual_tokens]
    assert reused[0] == [False, False, True]
    assert all(reused[1])
    assert all(reused[2])


def test_in_16_bits_a_batch_is_as_exact_as_single_questions(
    qa: VideoQA,
    encoded: EncodedVideo,
    encoded_short: EncodedVideo,
    checkpoint_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long prompts take another way there, attention in blocks, whose masks and padding no answer in float32 shows."""
    sizes = []

    def counted(query: Tensor, *others: Any, **how: Any) -> Tensor:
        sizes.append(len(query))
        return attend(query, *others, **how)

    monkeypatch.setattr("sfvqa.model.block_attention.attend", counted)
    asked: list[tuple[EncodedVideo | None, str]] = [
        (encoded, "Why? " * 60),
        (encoded_short, "Which way does the bar move? " * 11),
        (encoded, "Where? " * 40),
        (None, "Is it alone? " * 30),
    ]
    rounded = VideoQA.load(checkpoint_folder, device="cpu", dtype="bfloat16")
    truth, alone = (torch.cat([first_logits(each, [one]) for one in asked]) for each in (qa, rounded))
    sizes.clear()
    together = first_logits(rounded, asked)
    assert set(sizes) == ({2} if onednn_has_bfloat16() else set())  # rests behind one beginning, and the others
    errors = [(found - truth).norm(dim=1) / truth.norm(dim=1) for found in (alone, together)]
    assert errors[0].max() < 0.05
    assert errors[1].max() < 2 * errors[0].max()
    assert not torch.equal(alone, together)  # or the answers could be promised to be the same


def first_logits(qa: VideoQA, asked: Sequence[tuple[EncodedVideo | None, str]]) -> Tensor:
    """Of the first two tokens of each answer `[B, 2 V]`, the first of which is given."""
    model, tokenizer = qa.checkpoint.model, qa.checkpoint.tokenizer
    ask = partial(prompt_for, tokenizer, options=PromptOptions(), config=model.config, num_new_tokens=2)
    prompts = [ask(video, question).token_ids for video, question in asked]
    prefilled, _ = prefill_together(model, prompts, [video.visual_tokens if video else None for video, _ in asked])
    logits = [prefilled.logits, decode(model, prefilled, torch.full((len(asked),), 5)).logits]
    return torch.cat(logits, dim=1).float()


def test_a_short_beginning_is_not_kept(qa: VideoQA, encoded: EncodedVideo) -> None:
    beginnings = list[KeptPrompt]()
    run = AnswerRun(qa.checkpoint, [Asked(encoded, question) for question in QUESTIONS], SHORT, beginnings=beginnings)
    assert all(run.steps())
    assert not beginnings


# --- how much is shared ---


def test_what_is_shared_holds_the_whole_video_or_nothing() -> None:
    video = [IMAGE_TOKEN_ID] * 3
    assert num_shared([[1, *video, 2, 3], [1, *video, 2, 4]]) == 5
    assert num_shared([[1, *video, 2], [9, *video, 2]]) == 0
    assert num_shared([[1, *video], [1, *video[:2]]]) == 0
    assert num_shared([[1, 2], [1, 2]]) == 2
    assert num_shared([[], [1]]) == 0


def test_a_cache_that_forgets_is_not_kept(qa: VideoQA, encoded: EncodedVideo) -> None:
    """A sliding window throws its oldest positions away, and a fork would go on from the wrong ones."""
    from transformers.cache_utils import DynamicSlidingWindowLayer

    run = AnswerRun(qa.checkpoint, [Asked(encoded, "Why?")], SHORT, keep=True)
    list(run.steps())
    assert run.kept is not None
    cache = run.kept.cache.fork(10)
    cache.layers[1] = DynamicSlidingWindowLayer(sliding_window=4)
    assert KeptPrompt.of(range(10), encoded.visual_tokens, cache) is None


def test_other_words_before_the_video_share_nothing(qa: VideoQA, encoded: EncodedVideo) -> None:
    run = AnswerRun(qa.checkpoint, [Asked(encoded, "Why?")], SHORT, keep=True)
    list(run.steps())
    prompt = PromptOptions(system="Answer in French.")
    other = AnswerRun(qa.checkpoint, [Asked(encoded, "Why?")], SHORT, prompt=prompt, kept=run.kept)
    list(other.steps())
    assert other.answers()[0].tokens.reused == 0
    assert other.answers()[0].text == qa.ask(encoded, "Why?", SHORT, prompt=prompt).text
