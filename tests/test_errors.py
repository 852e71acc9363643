"""Errors: what the command line shows names flags, what Python shows names parameters. And what they hold is freed."""

import gc
import inspect
import re
import typing
import weakref

import pytest

from sfvqa import errors
from sfvqa.cli.exits import report
from sfvqa.errors import OutOfMemoryError, SfvqaError, UsageError, let_go


@pytest.mark.parametrize(
    ("flags", "parameters"),
    [
        ("Use --quant 4bit or 8bit.", "Use quantization='4bit' or 8bit."),
        ("--quant 8bit --frames 48 should fit.", "quantization='8bit' num_frames=48 should fit."),
        ("Use fewer frames (--frames), or allow more with --read-timeout.",
         "Use fewer frames (num_frames), or allow more with timeout_seconds."),
        ("Leave out --static-decode on.", "Leave out static_decode='on'."),
        ("Look at all of it with `--crop pad`.", "Look at all of it with `crop='pad'`."),
        ("Type `sfvqa models pull x --force`.", "Type `sfvqa models pull x --force`."),
        ("Give one with --question.", "Give one with --question."),
    ],
)  # fmt: skip
def test_python_is_told_of_parameters(flags: str, parameters: str) -> None:
    """Somebody who calls the library has no flags to set."""
    error = UsageError("It failed.", flags)
    assert str(error) == f"It failed. {parameters}"
    assert error.with_flags == f"It failed. {flags}"


def test_the_command_line_is_told_of_flags(capsys: pytest.CaptureFixture[str]) -> None:
    report(UsageError("It failed.", "Use --quant 4bit."), as_json=False)
    report(UsageError("It failed.", "Use --quant 4bit."), as_json=True)
    said = capsys.readouterr()
    assert said.err == "Error: It failed.\nUse --quant 4bit.\n"
    assert "Use --quant 4bit." in said.out


def test_parameters_are_the_library_s() -> None:
    """A name that nothing takes any more would be worse than a flag."""
    from sfvqa import FindOptions, GenerationOptions, SamplingOptions, VideoQA
    from sfvqa.checkpoints.quantize import quantize
    from sfvqa.inference.question import PromptOptions
    from sfvqa.training.finetune import fine_tune
    from sfvqa.training.options import FineTuning
    from sfvqa.video.readers import ReadOptions

    takers: list[typing.Any] = [VideoQA.load, VideoQA.encode, VideoQA.chat, quantize, fine_tune]
    takers += [FindOptions, GenerationOptions, SamplingOptions, PromptOptions, FineTuning, ReadOptions]
    known = {name for taker in takers for name in inspect.signature(taker).parameters}
    assert {name.partition("=")[0] for name in errors._PARAMETERS.values()} <= known


def test_a_subclass_says_it_alike() -> None:
    assert re.fullmatch(r"Memory ran out\. num_frames", str(OutOfMemoryError("Memory ran out.", "--frames")))
    assert str(SfvqaError("It failed.")) == "It failed."


def test_what_an_error_holds_is_freed_though_it_is_part_of_a_cycle() -> None:
    held = list[weakref.ref[SfvqaError]]()

    def fail() -> None:
        tensor = SfvqaError("stands for what is large")
        held.append(weakref.ref(tensor))
        error = ValueError("It failed.")  # which holds this frame, which holds it
        raise error

    def replace() -> None:
        try:
            fail()
        except ValueError as cause:
            raise OutOfMemoryError("Memory ran out.") from cause

    gc.disable()
    try:
        try:
            replace()
        except OutOfMemoryError as error:
            assert held[0]() is not None
            let_go(error)
            assert held[0]() is None
    finally:
        gc.enable()


def test_errors_that_are_each_other_s_cause_are_let_go_once() -> None:
    """Python breaks such circles of contexts alone, and this went round without end."""
    held = list[weakref.ref[SfvqaError]]()

    def fail() -> None:
        tensor = SfvqaError("stands for what is large")
        held.append(weakref.ref(tensor))
        raise ValueError("It failed.")

    errors: list[ValueError] = []
    for _ in range(2):
        try:
            fail()
        except ValueError as error:
            errors.append(error)
    first, second = errors
    first.__context__, second.__cause__ = second, first
    assert None not in [each() for each in held]
    let_go(first)
    assert [each() for each in held] == [None, None]
