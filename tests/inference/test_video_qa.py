"""Load, encode, ask, stream and batch, through a whole checkpoint folder and real video files."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from sfvqa.errors import ExitCode, OutOfMemoryError, UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import SlowAttention, VisualTokens
from sfvqa.registry import find_model
from sfvqa.video import SamplingOptions, SamplingStrategy

QUESTION = "Which way does the bar move?"
SHORT = GenerationOptions(max_new_tokens=10)


# --- asking ---


def test_a_video_file_and_its_encoding_give_the_same_answer(
    qa: VideoQA, video_path: Path, encoded: EncodedVideo
) -> None:
    from_file, from_encoding = qa.ask(video_path, QUESTION, SHORT), qa.ask(encoded, QUESTION, SHORT)
    assert from_file.text == from_encoding.text != ""
    assert qa.ask(str(video_path), QUESTION, SHORT).text == from_file.text


def test_both_checkpoint_formats_give_the_same_answer(qa: VideoQA, reference_folder: Path, video_path: Path) -> None:
    reference = VideoQA.load(reference_folder, device="cpu")
    assert reference.ask(video_path, QUESTION, SHORT).text == qa.ask(video_path, QUESTION, SHORT).text
    assert reference.default_sampling == qa.default_sampling == SamplingOptions(num_frames=8)


def test_video_question_and_slow_tokens_all_change_the_answer(
    qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo
) -> None:
    """An answer that stays the same would mean that one of them never reaches the model."""
    other_slow = VisualTokens(slow=encoded.visual_tokens.slow.roll(1, dims=1), fast=encoded.visual_tokens.fast)
    texts = [
        qa.ask(encoded, QUESTION, SHORT).text,
        qa.ask(encoded_short, QUESTION, SHORT).text,
        qa.ask(encoded, "What colour is it?", SHORT).text,
        qa.ask(None, QUESTION, SHORT).text,
        qa.ask(encoded, QUESTION, dataclasses.replace(SHORT, slow_attention=SlowAttention.PREFILL)).text,
        qa.ask(dataclasses.replace(encoded, visual_tokens=other_slow), QUESTION, SHORT).text,
    ]
    assert len(set(texts)) == len(texts)


def test_nothing_is_left_of_one_question_in_the_next(
    qa: VideoQA, checkpoint_folder: Path, encoded: EncodedVideo, encoded_short: EncodedVideo
) -> None:
    """The reference kept the last video's slow tokens on its layers."""
    for video in (encoded, None, encoded_short, None):
        fresh = VideoQA.load(checkpoint_folder, device="cpu")
        assert qa.ask(video, QUESTION, SHORT).text == fresh.ask(video, QUESTION, SHORT).text


def test_an_answer_knows_what_was_seen(qa: VideoQA, video_path: Path, encoded: EncodedVideo) -> None:
    answer = qa.ask(encoded, QUESTION, SHORT)
    assert (answer.question, answer.video) == (QUESTION, str(video_path))
    assert answer.model == str(qa.checkpoint.location.folder)
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.tokens.new == 10
    assert (answer.tokens.fast, answer.tokens.slow) == (16, 32)  # 8 frames of 4, averaged 2 at a time
    without = qa.ask(None, QUESTION, SHORT)
    assert answer.tokens.prompt == without.tokens.prompt + 16 + len("\n")
    assert answer.frames.indices == encoded.indices
    assert answer.settings.reader == "pyav"


def test_an_answer_without_a_video_says_so(qa: VideoQA) -> None:
    answer = qa.ask(None, QUESTION, SHORT)
    assert (answer.video, answer.settings.reader, answer.frames.strategy) == (None, None, None)
    assert (answer.tokens.fast, answer.tokens.slow, answer.timings.read_seconds) == (0, 0, 0.0)


def test_an_end_token_stops_it_and_is_not_text(qa: VideoQA, encoded: EncodedVideo) -> None:
    free = qa.ask(encoded, QUESTION, SHORT)
    ids = token_ids(qa, encoded)
    place = next(n for n in range(2, 10) if ids[n] not in ids[:n])
    ending = VideoQA(dataclasses.replace(qa.checkpoint, end_token_ids=frozenset({ids[place]})))
    answer = ending.ask(encoded, QUESTION, SHORT)
    assert answer.finish_reason is FinishReason.STOP
    assert answer.tokens.new == place + 1
    assert answer.text == qa.checkpoint.tokenizer.decode(ids[:place])
    assert free.text == qa.checkpoint.tokenizer.decode(ids)


def test_sampling_repeats_with_its_seed(qa: VideoQA, encoded: EncodedVideo) -> None:
    drawn = [
        qa.ask(encoded, QUESTION, GenerationOptions(max_new_tokens=10, temperature=1.5, seed=seed)).text
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


# --- streaming ---


def test_pieces_are_the_answer(qa: VideoQA, encoded: EncodedVideo) -> None:
    stream = qa.stream(encoded, QUESTION, SHORT)
    pieces = list(stream)
    assert len(pieces) > 3
    assert "" not in pieces
    assert "".join(pieces) == stream.answer.text == qa.ask(encoded, QUESTION, SHORT).text
    assert stream.answer.finish_reason is FinishReason.LENGTH


def test_a_loop_over_a_stream_goes_on_where_another_was_left(qa: VideoQA, encoded: EncodedVideo) -> None:
    stream = qa.stream(encoded, QUESTION, SHORT)
    pieces = [next(stream)]
    for piece in stream:
        pieces.append(piece)
        break
    pieces += stream
    assert "".join(pieces) == stream.answer.text
    assert stream.answer.finish_reason is FinishReason.LENGTH


def test_a_stream_that_is_closed_keeps_what_came(qa: VideoQA, encoded: EncodedVideo) -> None:
    with qa.stream(encoded, QUESTION, SHORT) as stream:
        first = next(stream)
    assert stream.answer.text.startswith(first)
    assert stream.answer.finish_reason is FinishReason.INTERRUPTED
    assert 0 < stream.answer.tokens.new < 10
    assert list(stream) == []
    stream.close()


def test_ctrl_c_inside_the_model_keeps_what_came(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = qa.ask(encoded, QUESTION, SHORT).text
    head = qa.checkpoint.model.lm_head
    forward, calls = head.forward, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # the first is the prompt's
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(head, "forward", interrupted)
    stream = qa.stream(encoded, QUESTION, SHORT)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert stream.answer.finish_reason is FinishReason.INTERRUPTED
    assert stream.answer.tokens.new == 5
    assert stream.answer.text
    assert whole.startswith(stream.answer.text)


def test_a_stream_not_begun_has_an_empty_answer(qa: VideoQA, encoded: EncodedVideo) -> None:
    answer = qa.stream(encoded, QUESTION, SHORT).answer
    assert (answer.text, answer.tokens.new, answer.timings.tokens_per_second) == ("", 0, None)


# --- batches ---


@pytest.mark.parametrize("slow_attention", list(SlowAttention))
def test_a_batch_gives_what_each_gives_alone(
    qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo, slow_attention: SlowAttention
) -> None:
    options = GenerationOptions(max_new_tokens=16, slow_attention=slow_attention)
    questions: list[tuple[EncodedVideo | None, str]] = [
        (encoded, "A long question, so that the others are padded?"),
        (encoded_short, "Short?"),
        (None, QUESTION),
        (encoded, "Again?"),
    ]
    together = qa.answer_batch(questions, options)
    alone = [qa.ask(video, question, options) for video, question in questions]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [replace(answer.tokens, reused=0) for answer in together] == [answer.tokens for answer in alone]
    # The last one is about a video that the first had prefilled: what it shares is not all of its prompt.
    assert [answer.tokens.reused for answer in together[:3]] == [0, 0, 0]
    assert together[3].tokens.fast < together[3].tokens.reused < together[3].tokens.prompt
    assert [answer.question for answer in together] == [question for _, question in questions]
    assert [answer.timings.asked_together for answer in (*together, alone[0])] == [4, 4, 4, 4, 1]


def test_a_batch_draws_what_each_draws_alone(qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo) -> None:
    options = GenerationOptions(max_new_tokens=8, temperature=1.0, top_p=0.9, repetition_penalty=1.3, seed=7)
    questions: list[tuple[EncodedVideo | None, str]] = [(encoded, "One?"), (encoded_short, "The second?")]
    alone = [qa.ask(video, question, options).text for video, question in questions]
    assert [answer.text for answer in qa.answer_batch(questions, options)] == alone


def test_an_answer_that_ends_early_ends_alone(qa: VideoQA, encoded: EncodedVideo) -> None:
    ids = token_ids(qa, encoded)
    ending = VideoQA(dataclasses.replace(qa.checkpoint, end_token_ids=frozenset({ids[3]})))
    batch: list[tuple[EncodedVideo | None, str]] = [(encoded, QUESTION), (None, "Else?")]
    together = ending.answer_batch(batch, SHORT)
    assert [answer.text for answer in together] == [ending.ask(*asked, SHORT).text for asked in batch]
    assert together[0].finish_reason is FinishReason.STOP


def test_a_batch_takes_video_files_and_reads_each_once(
    qa: VideoQA, video_path: Path, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ask` took a path, and `answer_batch` failed on one with an AttributeError."""
    alone = [qa.ask(encoded, question, SHORT).text for question in (QUESTION, "What colour is it?")]
    reads = mock.Mock(wraps=qa.encode)
    monkeypatch.setattr(qa, "encode", reads)
    batch = qa.answer_batch(
        [(video_path, QUESTION), (str(video_path), "What colour is it?"), (None, QUESTION), (encoded, QUESTION)], SHORT
    )
    assert [answer.text for answer in batch[:2]] == alone
    assert batch[3].text == alone[0] != batch[2].text
    reads.assert_called_once_with(video_path)


@pytest.mark.parametrize("video", [42, b"clip.mp4", ["clip.mp4"]])
def test_what_is_no_video_is_a_usage_error(qa: VideoQA, video: object) -> None:
    """It was an AttributeError from deep inside."""
    with pytest.raises(UsageError, match="is not a video"):
        qa.ask(video, QUESTION)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is not a video"):
        qa.answer_batch([(video, QUESTION)])  # type: ignore[list-item]


def test_an_empty_question_is_refused_before_its_video_is_read(qa: VideoQA, tmp_path: Path) -> None:
    """The file need not even be there."""
    with pytest.raises(UsageError, match="empty"):
        qa.ask(tmp_path / "absent.mp4", " ")


def test_an_empty_batch_is_empty(qa: VideoQA) -> None:
    assert qa.answer_batch([]) == []


# --- defaults ---


def test_a_registered_model_is_asked_with_the_frames_of_its_training(qa: VideoQA) -> None:
    spec = find_model("slowfast-7b-96f")
    location = dataclasses.replace(qa.checkpoint.location, spec=spec, name=spec.name)
    registered = VideoQA(dataclasses.replace(qa.checkpoint, location=location))
    assert registered.default_sampling == SamplingOptions(num_frames=96, strategy=SamplingStrategy.UNIFORM)


def test_every_setting_of_attention_and_dtype_answers(checkpoint_folder: Path, video_path: Path) -> None:
    texts = {}
    for attention in ("sdpa", "eager"):
        for dtype in ("float32", "bfloat16"):
            loaded = VideoQA.load(checkpoint_folder, device="cpu", dtype=dtype, attention=attention)
            answer = loaded.ask(video_path, QUESTION, SHORT)
            texts[attention, dtype] = answer.text
            assert (answer.settings.attention, answer.settings.dtype) == (attention, dtype)
    assert texts["sdpa", "float32"] == texts["eager", "float32"]


def token_ids(qa: VideoQA, encoded: EncodedVideo) -> list[int]:
    """The ids of the free answer to QUESTION, re-encoded from a run that records them."""
    from sfvqa.inference.engine import generate_tokens
    from sfvqa.inference.prefill import prefill
    from sfvqa.inference.prompt import build_prompt, question_turn

    turns, layout = [question_turn(QUESTION, shows_video=True)], (len(encoded.visual_tokens.fast), "\n")
    expanded = build_prompt(qa.checkpoint.tokenizer, turns, layout=layout)
    state = prefill(qa.checkpoint.model, [expanded], [encoded.visual_tokens])
    steps = generate_tokens(qa.checkpoint.model, state, SHORT, frozenset())
    return [token.token_id for (token,) in steps if token is not None]


def test_memory_that_runs_out_over_the_prompt_names_what_should_fit(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("sfvqa.inference.answering.prefill_one", fail)
    monkeypatch.setattr("sfvqa.inference.answering.free_memory_bytes", lambda _: 1_000)
    with pytest.raises(OutOfMemoryError, match=r"reading the prompt.*(quantization|num_frames|dtype)") as caught:
        qa.ask(encoded, "What?")
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY
