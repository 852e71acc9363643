"""What runs on CUDA only, at full size on devices that are not there: every path, and what it asks of the device.

The tensors are fake: nothing is computed, and no test here says that an answer is right or how long it takes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from llguidance import LLMatcher
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from sfvqa.inference.answer import Answer
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.schema import JsonSchema
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.fake_cuda.device import FakeCuda, why_not
from sfvqa.lab.fake_cuda.watch import CudaError, Seen
from sfvqa.model import RecordedSteps, SlowAttention, SlowFastForConditionalGeneration
from sfvqa.model.decode_step import StaticDecode
from sfvqa.model.hybrid_layer import GatedSlowAttention, LookingPositions
from sfvqa.video.sampling import SamplingOptions
from tests.inference.fake_reader import FakeReader

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

NUM_TOKENS = 3  # of the prefill, of a first step, and of one that is recorded where steps are
OPTIONS = GenerationOptions(max_new_tokens=NUM_TOKENS, static_decode=StaticDecode.OFF)


@dataclass(frozen=True)
class Setting:
    """How the model lies on the devices; several of `gigabytes` hold it only together."""

    model: str = "slowfast-7b-64f"
    quantization: str = "none"
    attention: str = "sdpa"
    num_devices: int = 1
    gigabytes: int = 140
    device: str = "auto"

    def __str__(self) -> str:
        where = "" if self.device == "auto" else f" {self.device}"
        return f"{self.model} {self.quantization} {self.attention} {self.num_devices}{where}"


ON_THREE = Setting(num_devices=3, gigabytes=9)


@dataclass(frozen=True, eq=False)
class Ready:
    """A model on devices, and two videos of different lengths that it has seen."""

    cuda: FakeCuda
    qa: VideoQA
    one: EncodedVideo
    other: EncodedVideo


@cache
def ready_in(setting: Setting) -> Ready:
    cuda = FakeCuda(setting.num_devices, setting.gigabytes * 10**9)
    with cuda:
        qa = VideoQA.load(
            setting.model,
            random_weights=True,
            quantization=setting.quantization,
            attention=setting.attention,
            device=setting.device,
        )
        names = ", ".join(f"cuda:{index}" for index in range(setting.num_devices))
        assert qa.checkpoint.device_names == (names if setting.device == "auto" else setting.device)
        return Ready(cuda, qa, seen(qa, 16), seen(qa, 8))


def seen(qa: VideoQA, num_frames: int) -> EncodedVideo:
    return qa.encode(FakeReader(num_frames), SamplingOptions(num_frames=num_frames))


@contextmanager
def on_cuda(setting: Setting | None = None) -> Iterator[Ready]:
    ready = ready_in(setting or Setting())
    with ready.cuda:
        yield ready


# --- every path -----------------------------------------------------------------------------------------------------


def one_question(ready: Ready, options: GenerationOptions = OPTIONS) -> None:
    whole(ready.qa.ask(ready.one, "What is shown?", options))


def whole(*answers: Answer) -> None:
    """Every token was written, and recorded if asked for: the one that is always the likeliest ends no answer."""
    assert [answer.tokens.new for answer in answers] == [NUM_TOKENS] * len(answers)
    assert not [warning for answer in answers for warning in answer.warnings if "recorded" in warning]


def ragged_batch(ready: Ready, options: GenerationOptions = OPTIONS) -> None:
    questions = [(ready.one, "What?"), (ready.other, "What now, please?"), (None, "Hm?")]
    whole(*ready.qa.answer_batch(questions, options))


def shared_prefix(ready: Ready) -> None:
    """Two videos, three questions: prefilled in parts, stacked, and put in order."""
    questions = [(ready.one, "What?"), (ready.other, "Or?"), (ready.one, "What now, please?")]
    answers = ready.qa.answer_batch(questions, OPTIONS)
    whole(*answers)
    assert answers[2].tokens.reused > 0


def one_after_the_other(ready: Ready) -> None:
    for place, stream in enumerate(ready.qa.stream_all(ready.one, ["What?", "And who?"], OPTIONS)):
        list(stream)
        assert (stream.answer.tokens.reused > 0) == (place > 0)


def second_turn(ready: Ready) -> None:
    chat = ready.qa.chat(ready.one, OPTIONS)
    whole(chat.ask("What?"), second := chat.ask("And then?"))
    assert second.tokens.reused > 0


def choices(ready: Ready) -> None:
    answer = ready.qa.ask(ready.one, "Which?", GenerationOptions(), choices=["a red circle", "a blue one"])
    assert len(answer.choices) == 2


def evidence(ready: Ready) -> None:
    answer = ready.qa.ask(ready.one, "What?", replace(OPTIONS, evidence=True))
    whole(answer)


def sampling(ready: Ready) -> None:
    one_question(ready, replace(OPTIONS, temperature=0.7, top_p=0.9))


def repetition_penalty(ready: Ready) -> None:
    ragged_batch(ready, replace(OPTIONS, repetition_penalty=1.2))


def slow_attention_at_prefill_only(ready: Ready) -> None:
    one_question(ready, replace(OPTIONS, slow_attention=SlowAttention.PREFILL))


def recorded(ready: Ready) -> None:
    one_question(ready, replace(OPTIONS, static_decode=StaticDecode.ON))


def recorded_ragged_batch(ready: Ready) -> None:
    ragged_batch(ready, replace(OPTIONS, static_decode=StaticDecode.ON))


Path = Callable[[Ready], None]
EVERYWHERE: list[Path] = [
    *(one_question, ragged_batch, shared_prefix, one_after_the_other, second_turn, choices, sampling),
    repetition_penalty,
]
WITH_SLOW: list[Path] = [evidence, slow_attention_at_prefill_only]
RECORDED: list[Path] = [recorded, recorded_ragged_batch]

EVERYTHING: dict[Setting, list[Path]] = {
    Setting(): EVERYWHERE + WITH_SLOW + RECORDED,
    Setting(quantization="4bit"): EVERYWHERE + WITH_SLOW + RECORDED,
    Setting(quantization="8bit"): EVERYWHERE + WITH_SLOW,
    Setting(attention="eager"): EVERYWHERE + WITH_SLOW,
    Setting(attention="flash_attention_2"): EVERYWHERE + WITH_SLOW + RECORDED,
    Setting(num_devices=2, gigabytes=14): EVERYWHERE + WITH_SLOW,
    ON_THREE: EVERYWHERE + WITH_SLOW,
    Setting(quantization="4bit", num_devices=2, gigabytes=6): EVERYWHERE + WITH_SLOW,
    Setting("smolvlm2-256m", num_devices=2, device="cuda:1"): RECORDED,
    Setting("llava-onevision-7b"): EVERYWHERE + RECORDED,
    Setting("llava-onevision-0.5b"): EVERYWHERE + RECORDED,
    Setting("smolvlm2-2.2b"): EVERYWHERE + RECORDED,
    Setting("smolvlm2-256m"): EVERYWHERE + RECORDED,
}
ALWAYS: dict[Setting, list[Path]] = {
    Setting(): EVERYTHING[Setting()],
    Setting(quantization="4bit"): [recorded],
    Setting(quantization="8bit"): [shared_prefix],
    Setting(attention="eager"): [one_question],
    Setting(attention="flash_attention_2"): [shared_prefix, recorded],
    ON_THREE: [sampling],
    Setting("smolvlm2-256m", num_devices=2, device="cuda:1"): [recorded],
    Setting("llava-onevision-7b"): [recorded_ragged_batch],
    Setting("smolvlm2-2.2b"): [recorded_ragged_batch],
}
"""What the default suite runs: all paths once, and once what is particular to a setting."""


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        pytest.param(
            setting,
            path,
            id=f"{path.__name__}, {setting}",
            marks=[] if path in ALWAYS.get(setting, []) else [pytest.mark.slow],
        )
        for setting, paths in EVERYTHING.items()
        for path in paths
    ],
)
def test_a_path_mixes_no_devices_and_no_dtypes(setting: Setting, path: Path) -> None:
    """Nor does it wait or bring numbers while a step is recorded: the device would raise, and so do the fake ones."""
    with on_cuda(setting) as ready:
        path(ready)


# --- how much is asked of the device --------------------------------------------------------------------------------


def seen_of_a_token(setting: Setting, options: GenerationOptions, asked: list[tuple[int | None, str]]) -> Seen:
    """What the fourth token takes: those before it set things up, and it is not the last."""
    with on_cuda(setting) as ready:
        videos = [ready.one, ready.other]
        questions = [Asked(None if video is None else videos[video], text) for video, text in asked]
        steps = AnswerRun(ready.qa.checkpoint, questions, replace(options, max_new_tokens=6)).steps()
        for _ in range(3):
            next(steps)
        with ready.cuda.seeing() as seen_now:
            next(steps)
    return seen_now


ALONE: list[tuple[int | None, str]] = [(0, "What?")]
RAGGED: list[tuple[int | None, str]] = [(0, "What?"), (1, "What now, please?"), (None, "Hm?")]
RECORDED_STEP = replace(OPTIONS, static_decode=StaticDecode.ON)


@pytest.mark.parametrize(
    ("setting", "options", "asked", "most"),
    [
        pytest.param(Setting(), OPTIONS, ALONE, 650, id="step"),
        pytest.param(Setting(), OPTIONS, RAGGED, 650, id="step of a batch"),
        pytest.param(Setting(), RECORDED_STEP, ALONE, 8, id="recorded"),
        pytest.param(Setting(), RECORDED_STEP, RAGGED, 8, id="recorded, of a batch"),
        pytest.param(Setting(quantization="4bit"), OPTIONS, ALONE, 650, id="step in 4 bits"),
        pytest.param(Setting(attention="flash_attention_2"), OPTIONS, RAGGED, 650, id="flash attention"),
        pytest.param(Setting(attention="flash_attention_2"), RECORDED_STEP, ALONE, 8, id="flash attention, recorded"),
        pytest.param(ON_THREE, OPTIONS, RAGGED, 650, id="three devices"),
    ],
)
def test_a_token_takes_few_launches(
    setting: Setting, options: GenerationOptions, asked: list[tuple[int | None, str]], most: int
) -> None:
    """Of the 7B; a recorded step is one launch, beside those around it."""
    seen_now = seen_of_a_token(setting, options, asked)
    assert 0 < seen_now.launches.total() <= most
    assert not seen_now.recorded, "a step is recorded once"


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        pytest.param(OPTIONS, ALONE, id="greedy"),
        pytest.param(OPTIONS, RAGGED, id="greedy, a batch"),
        pytest.param(RECORDED_STEP, ALONE, id="recorded"),
        pytest.param(replace(RECORDED_STEP, repetition_penalty=1.2), RAGGED, id="recorded, penalty, a batch"),
        pytest.param(replace(OPTIONS, temperature=0.7, top_p=0.9), RAGGED, id="sampling, a batch"),
        pytest.param(replace(OPTIONS, evidence=True), RAGGED, id="evidence, a batch"),
    ],
)
def test_a_token_waits_once_for_the_device(options: GenerationOptions, asked: list[tuple[int | None, str]]) -> None:
    seen_now = seen_of_a_token(Setting(), options, asked)
    assert seen_now.waits.total() <= 1, seen_now.waits
    assert not seen_now.brought


def test_8_bits_are_waited_for_twice_in_each_layer() -> None:
    """Why a step of them is not recorded, and `auto` takes 4 bits: bitsandbytes looks for columns that stand out."""
    assert seen_of_a_token(Setting(quantization="8bit"), OPTIONS, ALONE).waits.total() == 2 * 7 * 28 + 1


ANY_TEXT = r"start: /(.|\n)*/"  # what is likeliest here is no JSON


@pytest.mark.parametrize("options", [OPTIONS, replace(RECORDED_STEP, temperature=0.7)], ids=["greedy", "recorded"])
def test_a_schema_makes_no_more_waits(options: GenerationOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may come next is brought to the device, from pinned memory, while that is at the step before."""
    monkeypatch.setattr("sfvqa.inference.schema._grammar", lambda _: LLMatcher.grammar_from_lark(ANY_TEXT))
    by_schema = replace(options, schema=JsonSchema.any_object())
    seen_now = seen_of_a_token(Setting(), by_schema, RAGGED)
    assert seen_now.waits.total() <= 1, seen_now.waits
    assert seen_now.brought.total() <= 1, seen_now.brought


@pytest.mark.parametrize(
    ("model", "most"), [("slowfast-7b-64f", 40), ("llava-onevision-7b", 45), ("smolvlm2-2.2b", 50)]
)
def test_a_frame_takes_few_launches_in_the_vision_tower(model: str, most: int) -> None:
    """Eight frames go through at a time."""
    with on_cuda(Setting(model)) as ready, ready.cuda.seeing() as seen_now:
        seen(ready.qa, 16)
    assert 0 < seen_now.launches.total() <= 16 * most


@pytest.mark.parametrize("model", ["slowfast-7b-64f", "llava-onevision-7b", "smolvlm2-2.2b"])
def test_more_chunks_of_frames_make_no_more_waits(model: str) -> None:
    """It waited after each, and for each copy of pixels; SmolVLM2's tower also looked at a mask for each."""
    waits = []
    with on_cuda(Setting(model)) as ready:
        for num_frames in (16, 32):
            with ready.cuda.seeing() as seen_now:
                seen(ready.qa, num_frames)
            waits.append((seen_now.waits.total(), seen_now.brought.total()))
    assert waits[0] == waits[1]


# --- planted mistakes -----------------------------------------------------------------------------------------------

_gate = GatedSlowAttention.gate
_embed = SlowFastForConditionalGeneration.embed
_of = LookingPositions.of


def gate_in_float32(module: GatedSlowAttention, own: Tensor) -> Tensor:
    return torch.tanh(module.gate_proj(own.float()))  # type: ignore[misc]


def gate_that_is_looked_at(module: GatedSlowAttention, own: Tensor) -> Tensor:
    return _gate(module, own) * float(module.warm_up_gate)


def gate_times_a_number(module: GatedSlowAttention, own: Tensor) -> Tensor:
    return _gate(module, own) * torch.tensor(2.0, device=own.device).to(own.dtype)


def ids_left_behind(model: SlowFastForConditionalGeneration, input_ids: Tensor, *rest: Any) -> Tensor:
    return _embed(model, input_ids.cpu(), *rest)


def mask_made_on_the_processor(scope: str, *, has_video: Tensor, **rest: Any) -> LookingPositions | None:
    return _of(scope, has_video=has_video.cpu(), **rest)


def positions_left_behind(positions: LookingPositions, _device: torch.device) -> LookingPositions:
    return positions


@pytest.mark.parametrize(
    ("target", "mistake", "num_devices", "path", "complaint"),
    [
        (GatedSlowAttention, ("gate", gate_in_float32), 1, one_question, "linear of torch.bfloat16"),
        (GatedSlowAttention, ("gate", gate_that_is_looked_at), 1, recorded, "recorded step waits"),
        (GatedSlowAttention, ("gate", gate_times_a_number), 1, recorded, "recorded step brings numbers"),
        (SlowFastForConditionalGeneration, ("embed", ids_left_behind), 1, one_question, "same device"),
        (LookingPositions, ("of", mask_made_on_the_processor), 1, one_question, "same device"),
        (LookingPositions, ("on", positions_left_behind), 3, one_question, "same device"),
    ],
    ids=lambda value: value[1].__name__ if isinstance(value, tuple) else None,
)
def test_a_planted_mistake_is_noticed(
    target: Any,
    mistake: tuple[str, Callable[..., Any]],
    num_devices: int,
    path: Path,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these would fail on CUDA, and passes everywhere else."""
    with on_cuda(Setting() if num_devices == 1 else ON_THREE) as ready:
        unrecorded = replace(ready.qa.checkpoint, recorded_steps=RecordedSteps())
        monkeypatch.setattr(target, *mistake)
        with pytest.raises((CudaError, FakeTensorDeviceMismatchError), match=complaint):
            path(replace(ready, qa=VideoQA(unrecorded)))


def test_an_answer_that_cannot_be_recorded_is_written_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for the recording, and nothing has run when it fails."""

    @contextmanager
    def fails(*_: object, **__: object) -> Iterator[None]:
        yield
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with…")

    with on_cuda(Setting("smolvlm2-256m")) as ready:
        monkeypatch.setattr(torch.cuda, "graph", fails)
        checkpoint = replace(ready.qa.checkpoint, recorded_steps=RecordedSteps())
        options = replace(OPTIONS, static_decode=StaticDecode.AUTO)
        answers = [VideoQA(checkpoint).ask(ready.one, question, options) for question in ("What?", "And now?")]
    assert [answer.tokens.new for answer in answers] == [NUM_TOKENS] * 2
    for answer in answers:
        assert any("not permitted when stream is capturing." in warning for warning in answer.warnings)


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", False), ("bfloat16", True)])
def test_float32_is_no_tf32(tf32_allowed: tuple[Any, ...], dtype: str, allowed: bool) -> None:
    """cuDNN rounds the vision tower's products to 10 bits unless it is told not to."""
    with FakeCuda():
        VideoQA.load("smolvlm2-256m", random_weights=True, device="cuda", dtype=dtype)
    assert [backend.allow_tf32 for backend in tf32_allowed] == [allowed] * 2


def test_on_the_cpu_tf32_is_not_ours_to_forbid(tf32_allowed: tuple[Any, ...]) -> None:
    VideoQA.load("tiny", device="cpu", dtype="float32")
    assert all(backend.allow_tf32 for backend in tf32_allowed)


@pytest.fixture
def tf32_allowed() -> Iterator[tuple[Any, ...]]:
    """The modules of torch that say so, for this process."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield backends
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed
