"""Options of a run: what is no value, and what has no effect, is refused before anything is read."""

import argparse
import math
from pathlib import Path
from typing import Any

import pytest

from sfvqa.errors import UsageError
from sfvqa.training import convert, finetune, merge, publish
from sfvqa.training.finetune import main
from sfvqa.training.options import FineTuning, Stage


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_frames": 0}, "num_frames is 0"),  # not: as the checkpoint was trained
        ({"num_workers": -1}, "num_workers is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"warmup_share": 1.5}, "warmup_share is 1.5"),  # Trainer would warm up for 1.5 steps
        ({"warmup_share": -0.1}, "warmup_share is -0.1"),
        ({"warmup_share": math.nan}, "warmup_share is nan"),
        ({"weight_decay": math.nan}, "weight_decay is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"max_gradient_norm": math.inf}, "max_gradient_norm is inf"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"slow_learning_rate": 0.0}, "slow_learning_rate is 0.0"),
        ({"num_epochs": math.inf}, "num_epochs is inf"),
        ({"num_epochs": 0.0}, "num_epochs is 0.0"),
        ({"precision": "int8"}, "no precision 'int8'"),
        ({"device": "tpu"}, "auto or cpu, not 'tpu'"),
        ({"optimizer": "adamw_bnb"}, "no optimizer 'adamw_bnb'. Use one such as adamw_bnb_8bit"),
        ({"lora_rank": 4, "lora_dropout": 1.0}, "lora_dropout is 1.0. It must be at least 0 and below 1"),
        ({"validation": "0"}, "share for validation is 0"),
        ({"validation": "1.5"}, "share for validation is 1.5"),
        ({"validation": "nan"}, "share for validation is nan"),
        ({"patience": 0, "validation": "0.1"}, "patience is 0"),
        ({"best_by": "beauty"}, "no figure 'beauty'"),
        ({"log": "paper"}, "Nothing is logged to 'paper'"),
    ],
)
def test_what_is_no_value_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        FineTuning(**{"device": "cpu"} | options)
    assert complaint in raised.value.with_flags


STAGE_1 = {"stage": Stage.BRIDGE}
LORA = {"lora_rank": 4}


@pytest.mark.parametrize(
    ("setting", "option", "remedy"),
    [
        ({"num_steps": 5}, {"num_epochs": 2.0}, "one of the two"),
        (STAGE_1, {"freeze_vision": True}, "--stage 2"),
        (STAGE_1, {"tower_learning_rate": 1e-4}, "--stage 2"),
        (STAGE_1, {"decoder_learning_rate": 1e-4}, "--stage 2"),
        (STAGE_1, {"lora_rank": 4}, "--stage 2"),
        (STAGE_1, {"lora_tower": True}, "--stage 2"),
        ({}, {"lora_alpha": 8}, "--lora-rank 16"),
        ({}, {"lora_dropout": 0.1}, "--lora-rank 16"),
        ({}, {"lora_tower": True}, "--lora-rank 16"),
        ({}, {"quantization": "4bit"}, "--lora-rank 16"),
        (LORA | {"lora_tower": True}, {"freeze_vision": True}, "one of the two"),
        (LORA, {"tower_learning_rate": 1e-4}, "Leave it out"),
        ({"freeze_vision": True}, {"tower_learning_rate": 1e-4}, "Leave it out"),
        ({}, {"best_by": "exact"}, "--validation"),
        ({}, {"patience": 2}, "--validation"),
        ({}, {"against_base": "tiny"}, "--validation"),
        ({}, {"cache": Path("kept")}, "--freeze-vision"),
        (LORA | {"lora_tower": True}, {"cache_gigabytes": 1.0}, "--freeze-vision"),
        (STAGE_1 | {"cache_gigabytes": 0.0}, {"cache": Path("kept")}, "one of the two"),
    ],
)
def test_an_option_without_effect_is_refused(setting: dict[str, Any], option: dict[str, Any], remedy: str) -> None:
    """They were taken without a word, and the run was not what its command line said."""
    FineTuning(**{"device": "cpu"} | setting)
    with pytest.raises(UsageError) as raised:
        FineTuning(**{"device": "cpu"} | setting | option)
    assert raised.value.message.startswith(f"{next(iter(option))} has no effect: ")
    assert remedy in raised.value.remedy


@pytest.mark.parametrize(
    "options",
    [
        {"tower_learning_rate": 1e-4, "decoder_learning_rate": 1e-4, "cache_gigabytes": 10.0},
        LORA | {"lora_tower": True, "tower_learning_rate": 1e-4, "quantization": "4bit"},
        LORA | {"cache": Path("kept"), "decoder_learning_rate": 1e-4},
        {"freeze_vision": True, "cache_gigabytes": 0.0},
        LORA | {"freeze_vision": True},  # it says what is so, and a remedy may add LoRA to it
        STAGE_1 | {"cache": Path("kept"), "cache_gigabytes": 1.0, "bridge_learning_rate": 1e-4},
        {"validation": "0.1", "best_by": "exact", "patience": 1, "against_base": "tiny"},
    ],
)
def test_an_option_with_effect_is_taken(options: dict[str, Any]) -> None:
    FineTuning(**{"device": "cpu"} | options)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--json"], "--json has no effect without --check"),
        (["--check", "--dry-run"], "not allowed with argument --check"),
        (["--check", "--resume"], "not allowed with argument --check"),
        (["--dry-run", "--resume"], "not allowed with argument --dry-run"),
    ],
)
def test_the_command_does_one_thing(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["a.json", "--videos", ".", "--model", "tiny", "--output", "run", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_float16_on_a_cpu_is_refused() -> None:
    """Trainer computes in float32 there, and says nothing."""
    with pytest.raises(UsageError, match=r"A CPU cannot train in float16\. Use bfloat16\."):
        FineTuning(device="cpu", precision="float16")


def test_a_logger_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        UsageError, match=r"needs the package trackio, which is not installed\. Install it \(`pip install"
    ):
        FineTuning(device="cpu", log="trackio")


@pytest.mark.parametrize("command", [finetune, convert, merge, publish], ids=lambda module: module.__name__)
def test_every_option_says_what_it_is(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six options of finetune had no help, and others only said of what they were."""
    parsers: list[argparse.ArgumentParser] = []
    monkeypatch.setattr(argparse.ArgumentParser, "print_help", lambda parser, *_: parsers.append(parser))
    with pytest.raises(SystemExit):
        command.parse_arguments(["--help"])
    for action in parsers[0]._actions:
        said = action.help or ""
        assert len(said.split()) > 2, action.dest
        assert not said.startswith("of "), action.dest
    assert "usage: python -m sfvqa.training." in parsers[0].format_help()
