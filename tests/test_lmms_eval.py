"""The model that lmms-eval finds: its requests become questions, and answers come back one by one, in order.

lmms-eval cannot be installed beside the rest (it asks for an older PyAV): what is needed of it stands in for it here,
as in 0.7.3. `python -m sfvqa.lab.harness` runs the real one.
"""

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from sfvqa import GenerationOptions, SlowAttention
from sfvqa.errors import UsageError
from tests.readme import commands

TOP = Path(__file__).parent.parent
DEMO = TOP / "sfvqa" / "assets" / "demo"
SHAPES, FLASH = str(DEMO / "shapes.mp4"), str(DEMO / "flash.mp4")
GREEDY = {"max_new_tokens": 32, "temperature": 0, "do_sample": False, "num_beams": 1, "top_p": 1.0}


@dataclass
class Instance:
    """A request, of whose fields only the arguments are looked at."""

    args: tuple[Any, ...]


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class GenerationResult:
    text: Any
    token_counts: TokenCounts | None = None


@dataclass
class ModelManifest:
    model_id: str
    simple_class_path: str


class Lmms:
    """The class that models of lmms-eval derive from."""

    def __init__(self) -> None:
        self._rank, self._world_size, self.task_dict = 0, 1, dict[str, Any]()

    @property
    def rank(self) -> int:
        return self._rank


@pytest.fixture(scope="module")
def adapter() -> Iterator[Any]:
    """sfvqa.lmms_eval, imported beside the stand-in."""
    contents: dict[str, dict[str, Any]] = {
        "lmms_eval.api.instance": {
            "Instance": Instance,
            "GenerationResult": GenerationResult,
            "TokenCounts": TokenCounts,
        },
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    names = {*contents, "lmms_eval", "lmms_eval.api", "lmms_eval.models"}
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            module = ModuleType(name)
            vars(module).update(contents.get(name, {}))
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "sfvqa.lmms_eval", raising=False)
        import sfvqa.lmms_eval

        yield sfvqa.lmms_eval
        del sys.modules["sfvqa.lmms_eval"]


@pytest.fixture
def model(adapter: Any) -> Any:
    """A model that looks at the rows of one task."""
    found = adapter.SlowFastModel("tiny", batch_size=2)
    found.task_dict["task"] = {
        "test": [SHAPES, FLASH, "missing.mp4", Image.new("RGB", (64, 64), "red"), [SHAPES, FLASH]]
    }
    return found


def visuals(row: Any) -> list[Any]:
    return row if isinstance(row, list) else [row]


def request(row: int, question: str, settings: Any = None) -> Instance:
    """What a task asks about one of its rows: `settings` are its generation_kwargs, or a continuation."""
    return Instance((question, GREEDY if settings is None else settings, visuals, row, "task", "test"))


def test_the_entry_point_names_the_model(adapter: Any) -> None:
    named = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    assert named == {"sfvqa": "sfvqa.lmms_eval:manifest"}
    assert adapter.manifest() == ModelManifest("sfvqa", "sfvqa.lmms_eval.SlowFastModel")


def test_answers_are_those_of_ask_and_come_as_they_are_written(model: Any) -> None:
    """lmms-eval's cache takes each from what is returned: an answer that came before the run was killed is not lost."""
    asked = [request(0, "Which digit is shown?"), request(0, "What colour does the screen flash?")]
    answers = model.generate_until([*asked, request(2, "What is this?"), request(1, "Which way does the heart move?")])
    first = next(answers)
    assert first.text == "The digit 7 is shown."
    assert first.token_counts.input_tokens > first.token_counts.output_tokens > 0
    assert model._last[0] == SHAPES, "the next video was seen before the first answers were given away"
    assert [answer.text for answer in answers] == ["The screen flashes green.", "", "The heart moves down."]


def test_a_question_that_cannot_be_answered_is_answered_by_nothing(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is missing, or two videos at once; the other of the batch is answered."""
    answers = model.generate_until([request(2, "What?"), request(4, "What?"), request(3, "What is this?")])
    assert [bool(answer.text) for answer in answers] == [False, False, True]
    assert ["missing.mp4" in caplog.text, "2 videos or images" in caplog.text] == [True, True]


def test_sound_is_answered_by_nothing(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As the tasks for models that hear have it."""
    model.task_dict["task"]["test"].append({"array": [0.0], "sampling_rate": 16_000})
    assert [answer.text for answer in model.generate_until([request(5, "What is said?")])] == [""]
    assert "something of type dict" in caplog.text


def test_each_repeat_of_a_question_is_drawn_anew(model: Any) -> None:
    """lmms-eval repeats a request to see how much answers vary: all had the same seed, and so the same answer."""
    drawn = {"max_new_tokens": 12, "temperature": 3.0, "do_sample": True}
    asked = [request(row, "Describe the video.", drawn) for row in (0, 0, 0, 1, 1)]
    texts = [answer.text for answer in model.generate_until(asked)]
    assert len(set(texts)) == 5
    assert [answer.text for answer in model.generate_until(asked)] == texts
    assert [answer.text for answer in model.generate_until(asked[3:])] == texts[3:]
    greedy = [request(0, "Which digit is shown?")] * 2
    assert [answer.text for answer in model.generate_until(greedy)] == ["The digit 7 is shown."] * 2


@pytest.mark.parametrize("row", [2, 4])
def test_choices_that_cannot_be_compared_are_an_error(model: Any, row: int) -> None:
    """Any losses would be a score: with all alike, lmms-eval takes the first choice, which is right now and then."""
    with pytest.raises(UsageError, match=f"task, row {row}: "):
        list(model.loglikelihood([request(row, "Which?", " One."), request(row, "Which?", " Two.")]))


def test_choices_without_a_video_are_refused(model: Any) -> None:
    """As acc_mutual_info asks for them beside the others."""
    with pytest.raises(UsageError, match="acc_mutual_info"):
        list(model.loglikelihood([request(0, "Which?", " One."), Instance(("", " One."))]))


def test_losses_are_the_smallest_for_what_would_be_answered(model: Any) -> None:
    """lmms-eval takes the smallest loss; what comes back must pass for a text that it does not cache."""
    wanted = [" The screen flashes blue.", " The screen flashes green.", " The screen flashes red."]
    found = [
        one.text for one in model.loglikelihood([request(0, "What colour does the screen flash?", w) for w in wanted])
    ]
    losses, would_be_written = zip(*found, strict=True)
    assert min(losses) == losses[1] < 0.1
    assert would_be_written == (False, True, False)
    assert not found[0].strip()


def test_one_continuation_alone_has_a_loss(model: Any) -> None:
    def of_row(_row: object) -> str:
        return "The digit 7 is shown."

    [found] = model.loglikelihood([request(0, "Which digit is shown?", of_row)])
    assert found.text[0] < 0.1
    assert found.text[1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (GREEDY, GenerationOptions(32, temperature=0.0)),
        ({"until": ["\n\n"], "do_sample": False, "temperature": 0.7}, GenerationOptions(stop=("\n\n",))),
        ({"temperature": 0, "top_p": 0, "do_sample": True}, GenerationOptions()),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9}, GenerationOptions(temperature=0.7, top_p=0.9)),
        ({"until": ["", "."], "temperature": None}, GenerationOptions(stop=(".",))),
        ({"max_new_tokens": 4, "until": ".", "image_aspect_ratio": "pad"}, GenerationOptions(4, stop=(".",))),
    ],
)
def test_settings_of_a_task(adapter: Any, settings: dict[str, Any], expected: GenerationOptions) -> None:
    assert adapter.options_of(settings, SlowAttention.ALWAYS) == expected


def test_beams_are_refused(adapter: Any) -> None:
    with pytest.raises(UsageError, match="4 beams"):
        adapter.options_of({"num_beams": 4}, SlowAttention.ALWAYS)


def test_the_commands_of_the_readme_set_what_can_be_set(adapter: Any) -> None:
    found = [one.words for one in commands(TOP / "sfvqa/evaluation/README.md") if "lmms_eval --" in one.line]
    assert found
    for words in found:
        settings = dict(part.split("=") for part in words[words.index("--model_args") + 1].split(","))
        assert settings.keys() <= signature(adapter.SlowFastModel).parameters.keys()
        adapter.SlowFastModel(**settings | {"model": "tiny"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_frames": 0}, "0 frames"),
        ({"num_frames": "many"}, "many frames"),
        ({"sampling": "often"}, "sampling is 'often'"),
        ({"crop": "round"}, "crop is 'round'"),
        ({"slow_attention": "never"}, "slow_attention is 'never'"),
        ({"batch_size": "auto"}, "batch_size is auto"),
    ],
)
def test_settings_that_cannot_be_are_refused(adapter: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        adapter.SlowFastModel("tiny", **given)
