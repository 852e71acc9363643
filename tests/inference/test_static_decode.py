"""Steps of fixed size write the tokens that growing ones do; recorded on CUDA, over the same buffers elsewhere."""

import pytest

from sfvqa.checkpoints.device import check_static_decode
from sfvqa.errors import UsageError
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions, generate_tokens, prefill
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, SlowAttention, SlowFastForConditionalGeneration, VisualTokens

NUM_TOKENS = 24
Inputs = tuple[list[list[int]], list[VisualTokens | None]]


@pytest.fixture(scope="module")
def model(qa: VideoQA) -> SlowFastForConditionalGeneration:
    return qa.checkpoint.model


def inputs_of(encoded: EncodedVideo) -> Inputs:
    """A prompt with the video, a longer one, and one without a video: padding on the left, slow tokens ragged."""
    fast = [IMAGE_TOKEN_ID] * len(encoded.visual_tokens.fast)
    prompts = [[1, *fast, 3, 4], [1, 2, *fast, 5, 6, 7, 8], [9, 10]]
    tokens = [encoded.visual_tokens, encoded.visual_tokens, None]
    return prompts, tokens


def written(model: SlowFastForConditionalGeneration, inputs: Inputs, options: GenerationOptions) -> list[list[int]]:
    state = prefill(model, *inputs)
    if options.slow_attention is SlowAttention.PREFILL:
        state.cache.forget_slow()
    steps = list(generate_tokens(model, state, options, frozenset()))
    return [[token.token_id for token in step if token] for step in steps]


@pytest.mark.parametrize("slow_attention", list(SlowAttention))
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_the_tokens_are_those_of_a_growing_cache(
    model: SlowFastForConditionalGeneration, encoded: EncodedVideo, slow_attention: SlowAttention, penalty: float
) -> None:
    growing, static = (
        GenerationOptions(NUM_TOKENS, repetition_penalty=penalty, slow_attention=slow_attention, static_decode=static)
        for static in (False, True)
    )
    assert written(model, inputs_of(encoded), static) == written(model, inputs_of(encoded), growing)


def test_what_has_no_fixed_size_is_refused() -> None:
    for attention in ("flash_attention_2", "eager"):
        with pytest.raises(UsageError, match="by sdpa"):
            check_static_decode(attention)
    with pytest.raises(UsageError, match="8-bit"):
        check_static_decode("sdpa", "8bit")
    check_static_decode("sdpa", "4bit")


def test_what_cannot_be_stepped_is_refused_and_not_silently_decoded_otherwise(
    model: SlowFastForConditionalGeneration, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.inference.engine.DecodeStep.is_possible", lambda *_: False)
    options = GenerationOptions(max_new_tokens=2, static_decode=True)
    with pytest.raises(UsageError, match="no fixed size"):
        written(model, inputs_of(encoded), options)


def test_an_answer_says_how_it_was_decoded(qa: VideoQA, encoded: EncodedVideo) -> None:
    static = qa.ask(encoded, "What moves?", GenerationOptions(max_new_tokens=8, static_decode=True))
    growing = qa.ask(encoded, "What moves?", GenerationOptions(max_new_tokens=8))
    assert static.text == growing.text
    assert static.settings.static_decode
    assert not growing.settings.static_decode


@pytest.mark.cuda
def test_a_recorded_step_writes_the_same_tokens(qa: VideoQA, encoded: EncodedVideo) -> None:
    model = VideoQA.load(str(qa.checkpoint.location.folder), device="cuda", dtype="float32").checkpoint.model
    growing, static = (GenerationOptions(NUM_TOKENS, static_decode=static) for static in (False, True))
    assert written(model, inputs_of(encoded), static) == written(model, inputs_of(encoded), growing)
