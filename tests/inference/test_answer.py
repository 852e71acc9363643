"""What comes with an answer: its limits and warnings, its record, and where its time went."""

import dataclasses
import json

import pytest
import torch

from sfvqa.errors import OutOfMemoryError, PromptTooLongError, UsageError
from sfvqa.inference.answer import Answer, ChoiceProbability, FrameEvidence, SubtitleUse, TokenProbability
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import Window

QUESTION = "Which way does the bar move?"
SHORT = GenerationOptions(max_new_tokens=10)


# --- what cannot be asked ---


def test_an_empty_question_is_a_usage_error(qa: VideoQA, encoded: EncodedVideo) -> None:
    with pytest.raises(UsageError, match="question is empty"):
        qa.ask(encoded, "  ")


@pytest.mark.parametrize("excess", [1, 7])
def test_a_prompt_beyond_the_positions_says_by_how_much(qa: VideoQA, encoded: EncodedVideo, excess: int) -> None:
    used = qa.ask(encoded, QUESTION, SHORT).tokens.prompt
    positions = 640
    fits = GenerationOptions(max_new_tokens=positions - used)
    qa.stream(encoded, QUESTION, fits).close()
    over = dataclasses.replace(fits, max_new_tokens=fits.max_new_tokens + excess)
    with pytest.raises(
        PromptTooLongError, match=f"takes {used} tokens.* {excess} more than the model's 640 positions"
    ) as caught:
        qa.stream(encoded, QUESTION, over)
    assert f"--max-new-tokens {positions - used}" in caught.value.remedy
    with pytest.raises(PromptTooLongError) as caught:
        qa.stream(encoded, "why " * 200, SHORT)
    assert "--max-new-tokens" not in caught.value.remedy


def test_beyond_the_length_of_training_is_a_warning(qa: VideoQA, encoded: EncodedVideo) -> None:
    used = qa.ask(encoded, QUESTION, SHORT).tokens.prompt
    longer = QUESTION.replace("the bar", "the bar " + "and " * 100)  # 512 is what it was trained with
    answer = qa.ask(encoded, longer, SHORT)
    total = used + 10 + len(longer) - len(QUESTION)
    assert total > 512
    assert any("longer than the 512 tokens" in warning for warning in answer.warnings)
    assert qa.ask(encoded, QUESTION, SHORT).warnings == ()


def test_running_out_of_memory_while_answering_is_said(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_args: object, **_kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(qa.checkpoint.model, "forward", run_out)
    with pytest.raises(OutOfMemoryError, match="reading the prompt"):
        qa.ask(encoded, QUESTION)


# --- the record ---


def test_the_json_is_the_documented_one(qa: VideoQA, encoded: EncodedVideo) -> None:
    """The object of CLI.md, key by key and in its order."""
    record = json.loads(json.dumps(qa.ask(encoded, QUESTION, SHORT).to_dict(), allow_nan=False))
    assert list(record) == [
        "schema_version",
        "video",
        "window",
        "question",
        "answer",
        "fields",
        "choices",
        "evidence",
        "log_probabilities",
        "model",
        "revision",
        "finish_reason",
        "frames",
        "from_video_cache",
        "subtitles",
        "tokens",
        "timings",
        "peak_memory_bytes",
        "warnings",
        "settings",
    ]
    assert list(record["frames"]) == ["count", "indices", "timestamps_seconds", "strategy"]
    assert list(record["tokens"]) == ["prompt", "fast", "slow", "new", "reused"]
    assert list(record["timings"]) == [
        *("load_seconds", "read_seconds", "encode_seconds", "overlap_seconds", "prefill_seconds"),
        *("ttft_seconds", "decode_seconds", "total_seconds", "tokens_per_second", "asked_together"),
    ]
    assert record["settings"] == {
        **{"quantization": "none", "random_weights": False, "attention": "sdpa"},
        **{
            "slow_attention": "always",
            "device": "cpu",
            "dtype": "float32",
            "reader": "pyav",
            "crop": "center",
            "temperature": 0.0,
            "top_p": 1.0,
        },
        **{"repetition_penalty": 1.0, "max_new_tokens": 10, "seed": 0, "static_decode": False},
        **{"system": None, "template": None, "stop": [], "schema": None, "top_k": None},
    }
    assert (record["choices"], record["subtitles"]) == (None, None)
    assert (record["schema_version"], record["finish_reason"], record["frames"]["count"]) == (1, "length", 8)


def test_an_answer_is_had_back_from_its_json(qa: VideoQA, encoded: EncodedVideo) -> None:
    """All of it, whatever there is to it."""
    plain = qa.ask(encoded, QUESTION, SHORT)
    full = dataclasses.replace(
        plain,
        fields={"digit": [7]},
        warnings=("It is late.",),
        choices=(ChoiceProbability("A", 0.75, -0.1), ChoiceProbability("B", 0.25, -1.2)),
        subtitles=SubtitleUse("talk.srt", 3, 1, 30),
        evidence=(FrameEvidence(0.5, 12, 1.0),),
        window=Window(30.0, 60.0),
        log_probabilities=(TokenProbability(7, " red", -0.25),),
        settings=dataclasses.replace(plain.settings, stop=(".",), system="Be brief.", schema="{}"),
    )
    for answer in (plain, full, dataclasses.replace(plain, from_video_cache=True, revision="abc", evidence=())):
        assert Answer.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer


def test_timings_are_what_their_docstring_says(qa: VideoQA, encoded: EncodedVideo) -> None:
    timings = qa.ask(encoded, QUESTION, SHORT).timings
    assert timings.load_seconds == qa.checkpoint.load_seconds
    assert (timings.read_seconds, timings.encode_seconds) == (encoded.read_seconds, encoded.encode_seconds)
    assert 0 <= timings.overlap_seconds == encoded.overlap_seconds  # 0 where all was read before encoding began
    seeing_seconds = timings.read_seconds + timings.encode_seconds - timings.overlap_seconds
    before_choosing = seeing_seconds + timings.prefill_seconds
    assert before_choosing < timings.ttft_seconds < before_choosing + 1
    assert timings.total_seconds == pytest.approx(timings.ttft_seconds + timings.decode_seconds)
    assert timings.tokens_per_second == pytest.approx(9 / timings.decode_seconds)


def test_what_ran_at_the_same_time_is_waited_for_once(qa: VideoQA, encoded: EncodedVideo) -> None:
    slow = dataclasses.replace(encoded, read_seconds=100.0, encode_seconds=50.0, overlap_seconds=40.0)
    timings = qa.ask(slow, QUESTION, SHORT).timings
    assert 110 < timings.ttft_seconds < 115


def test_one_token_has_no_speed(qa: VideoQA, encoded: EncodedVideo) -> None:
    timings = qa.ask(encoded, QUESTION, GenerationOptions(max_new_tokens=1)).timings
    assert timings.tokens_per_second is None
    assert timings.ttft_seconds > 0


def test_decoding_leaves_out_what_the_caller_does(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stream = qa.stream(encoded, QUESTION, SHORT)
    for _ in stream:
        now[0] += 1000.0
    assert stream.answer.timings.decode_seconds == 0.0
