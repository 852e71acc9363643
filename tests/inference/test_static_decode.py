"""Steps of fixed size write the tokens that growing ones do; recorded on CUDA, over the same buffers elsewhere."""

import itertools

import pytest
import torch

from sfvqa.checkpoints.memory import RunSize, estimate_memory, static_room
from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
from sfvqa.errors import OutOfMemoryError, UsageError
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions, Step, generate_tokens
from sfvqa.inference.prefill import Prefilled, prefill
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, RecordedSteps, SlowAttention, SlowFastForConditionalGeneration, VisualTokens
from sfvqa.model.decode_step import StaticDecode, check_static_decode, decodes_static, why_not_static

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


def written(
    model: SlowFastForConditionalGeneration,
    inputs: Inputs,
    options: GenerationOptions,
    recorded: RecordedSteps | None = None,
) -> list[list[int]]:
    state = prefill(model, *inputs)
    if options.slow_attention is SlowAttention.PREFILL:
        state.cache.forget_slow()

    def begin(state: Prefilled, num_steps: int) -> Step | None:
        room = static_room(state.attention_mask.shape[1] + num_steps)
        return recorded.begin(model, state.cache, state.attention_mask, room) if recorded else None

    steps = list(generate_tokens(model, state, options, frozenset(), begin))
    return [[token.token_id for token in step if token] for step in steps]


@pytest.mark.parametrize("slow_attention", list(SlowAttention))
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_the_tokens_are_those_of_a_growing_cache(
    model: SlowFastForConditionalGeneration, encoded: EncodedVideo, slow_attention: SlowAttention, penalty: float
) -> None:
    options = GenerationOptions(NUM_TOKENS, repetition_penalty=penalty, slow_attention=slow_attention)
    inputs = inputs_of(encoded)
    assert written(model, inputs, options, RecordedSteps()) == written(model, inputs, options)


def test_what_has_no_fixed_size_is_refused_where_it_is_asked_for_and_left_out_where_it_is_not() -> None:
    cuda = torch.device("cuda")
    for against, says in (
        (why_not_static(attention="eager", quantization="none"), "by sdpa"),
        (why_not_static(attention="sdpa", quantization="8bit"), "8-bit"),
        (why_not_static(attention="sdpa", quantization="none", evidence=True), "watched for evidence"),
    ):
        with pytest.raises(UsageError, match=says):
            check_static_decode("on", against)
        assert not decodes_static("auto", against, cuda)
    assert why_not_static(attention="flash_attention_2", quantization="4bit") is None


@pytest.mark.parametrize(
    ("wanted", "device", "expected"),
    [("auto", "cuda", True), ("auto", "cpu", False), ("on", "cpu", True), ("off", "cuda", False)],
)
def test_it_is_on_where_it_pays(wanted: str, device: str, expected: bool) -> None:
    assert decodes_static(wanted, None, torch.device(device)) is expected


def test_what_cannot_be_stepped_is_refused_and_not_silently_decoded_otherwise(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.inference.answering.RecordedSteps.is_possible", lambda *_: False)
    with pytest.raises(UsageError, match="no fixed size"):
        qa.ask(encoded, "What moves?", GenerationOptions(max_new_tokens=2, static_decode=StaticDecode.ON))


def test_an_answer_says_how_it_was_decoded(qa: VideoQA, encoded: EncodedVideo) -> None:
    static, growing = (
        qa.ask(encoded, "What moves?", GenerationOptions(max_new_tokens=8, static_decode=how))
        for how in (StaticDecode.ON, StaticDecode.AUTO)
    )
    assert static.text == growing.text
    assert static.settings.static_decode
    assert not growing.settings.static_decode


def test_buffers_are_kept_and_hold_nothing_of_the_answers_before(
    model: SlowFastForConditionalGeneration, encoded: EncodedVideo
) -> None:
    """Long, then short, then a batch, then short again: each as if it were the first, in as few sizes as there are."""
    recorded, options = RecordedSteps(), GenerationOptions(NUM_TOKENS)
    prompts, tokens = inputs_of(encoded)
    asked: list[Inputs] = [([prompts[1]], [tokens[1]]), ([[9, 10]], [None]), (prompts, tokens), ([[9, 10]], [None])]
    steps = set()
    for inputs in asked:
        assert written(model, inputs, options, recorded) == written(model, inputs, options)
        steps.add(tuple(map(id, recorded._recorded.values())))
    sizes = list(recorded._recorded)
    assert len(sizes) == len(set(sizes)) == 2, "the batch's buffers replaced the smaller ones, one size came back"


def test_the_size_that_was_used_longest_ago_makes_room(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.model.decode_step._MOST_RECORDED", 2)
    recorded, options = RecordedSteps(), GenerationOptions(2)
    for count in (3, 2, 3, 1):  # the largest first, so that no buffer outgrows another
        written(model, ([[9, 10]] * count, [None] * count), options, recorded)
    assert [size[0] for size in recorded._recorded] == [3, 1]


def test_running_out_of_memory_gives_the_buffers_back(
    qa: VideoQA, encoded: EncodedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = GenerationOptions(max_new_tokens=4, static_decode=StaticDecode.ON)
    qa.ask(encoded, "What moves?", options)
    recorded = qa.checkpoint.recorded_steps
    assert recorded._buffers

    def runs_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("sfvqa.inference.answering.prefill_one", runs_out)
    with pytest.raises(OutOfMemoryError):
        qa.ask(encoded, "What moves?", options)
    assert not recorded._buffers


def test_what_is_not_a_number_in_one_answer_is_gone_in_the_next(model: SlowFastForConditionalGeneration) -> None:
    recorded, options = RecordedSteps(), GenerationOptions(NUM_TOKENS)
    inputs: Inputs = ([[9, 10]], [None])
    expected = written(model, inputs, options, recorded)
    with torch.inference_mode():
        for buffer in recorded._buffers.values():
            buffer.fill_(torch.nan)
    assert written(model, inputs, options, recorded) == expected


def test_the_buffers_are_as_large_as_planned(qa: VideoQA, encoded: EncodedVideo) -> None:
    qa.ask(encoded, "What moves?", GenerationOptions(NUM_TOKENS, static_decode=StaticDecode.ON))
    recorded = qa.checkpoint.recorded_steps
    (step,) = (each._step for each in recorded._recorded.values())
    assert step.bias is not None
    kept = [*recorded._buffers.values(), step._rotary, step.bias]
    config = qa.checkpoint.model.config
    run = RunSize(len(encoded.indices), "float32", "cpu", max_new_tokens=NUM_TOKENS, static_decode=True)
    estimate = estimate_memory(architecture_of(config), fast_tokens_of(config), run)
    assert estimate.static_buffers_bytes == sum(tensor.nbytes for tensor in kept)


@pytest.mark.cuda
def test_a_recorded_step_writes_the_same_tokens(qa: VideoQA, encoded: EncodedVideo) -> None:
    model = VideoQA.load(str(qa.checkpoint.location.folder), device="cuda", dtype="float32").checkpoint.model
    inputs, options, recorded = inputs_of(encoded), GenerationOptions(NUM_TOKENS), RecordedSteps()
    for _ in range(2):  # recorded, then replayed from the first token on
        assert written(model, inputs, options, recorded) == written(model, inputs, options)


def test_two_answers_at_once_do_not_write_into_each_other(qa: VideoQA, encoded: EncodedVideo) -> None:
    """All recorded steps share their buffers; streams of one model may be read in turns."""
    options = GenerationOptions(max_new_tokens=8, static_decode=StaticDecode.ON)
    questions = ["What moves?", "Which colour has the bar that moves?"]
    alone = [qa.ask(encoded, question, options).text for question in questions]
    streams = [qa.stream(encoded, question, options) for question in questions]
    for _ in itertools.zip_longest(*streams):
        pass
    assert [stream.answer.text for stream in streams] == alone
    assert [stream.answer.settings.static_decode for stream in streams] == [True, False]
    assert alone[0] != alone[1]
