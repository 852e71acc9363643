"""Processes that train together: recipes, what an engine cannot do, and that the result is that of one process."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from sfvqa.checkpoints.memory import gigabytes
from sfvqa.checkpoints.plan import config_of
from sfvqa.errors import UsageError
from sfvqa.inference import VideoQA
from sfvqa.inference.engine import GenerationOptions
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.registry import find_model
from sfvqa.training.annotations import Example
from sfvqa.training.convert import add_slow_path
from sfvqa.training.engines import Engine, check_engine
from sfvqa.training.finetune import main
from sfvqa.training.learning import choose_learned, keep_frozen_in
from sfvqa.training.memory import training_bytes
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.recipes.__main__ import RECIPES
from sfvqa.training.run_folder import check_settings
from tests.model.families.published import save_whole
from tests.training import flash_videos
from tests.training.flash_videos import QUESTION, write_flash_video, write_flash_videos
from tests.training.test_finetuning import HERE, load, losses, make_converted

REPOSITORY = Path(__file__).parents[2]
NAMED = {
    Engine.DDP: DistributedType.MULTI_GPU,
    Engine.FSDP: DistributedType.FSDP,
    Engine.ZERO3: DistributedType.DEEPSPEED,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "llama", hidden_size=32, intermediate_size=48)


# --- recipes, and what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", Engine)
def test_a_recipe_is_a_config_of_accelerate(engine: Engine) -> None:
    """By its own class, which refuses keys that it does not know."""
    recipe = ClusterConfig.from_yaml_file(str(RECIPES[engine]))
    assert recipe.distributed_type is NAMED[engine]
    assert recipe.mixed_precision is None, "--precision says that"
    fsdp, deepspeed = recipe.fsdp_config or {}, recipe.deepspeed_config or {}
    assert fsdp.get("fsdp_version") == (2 if engine is Engine.FSDP else None)
    assert deepspeed.get("zero_stage") == (3 if engine is Engine.ZERO3 else None)


def test_recipes_are_named_as_engines_are_and_their_paths_are_printed() -> None:
    assert set(RECIPES) == set(Engine)
    command = [sys.executable, "-m", "sfvqa.training.recipes", "fsdp"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert Path(printed.strip()) == RECIPES["fsdp"]


def test_the_engine_is_the_one_that_accelerate_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Engine.launched() is Engine.DDP
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert Engine.launched() is Engine.ZERO3
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert Engine.launched() is Engine.FSDP


VIDEO, TEXT = Example("a", Path("a.mp4"), (("Q", "A"),)), Example("b", None, (("Q", "A"),))
LORA_4BIT = {"lora_rank": 4, "quantization": "4bit"}


@pytest.mark.parametrize(
    ("engines", "options", "examples", "complaint"),
    [
        ([Engine.FSDP, Engine.ZERO3], {"validation": "0.1"}, [VIDEO], "Validation answers questions with the whole"),
        ([Engine.ZERO3], LORA_4BIT, [VIDEO], "Weights in 4 bits cannot be divided"),
        (
            [Engine.FSDP, Engine.ZERO3],
            {"optimizer": "adamw_bnb_8bit"},
            [VIDEO],
            "adamw_bnb_8bit cannot be used with",
        ),
        ([Engine.FSDP, Engine.ZERO3], {"optimizer": "adamw_torch_8bit"}, [VIDEO], "adamw_torch_8bit cannot be used"),
        ([Engine.FSDP, Engine.ZERO3], {}, [VIDEO, TEXT], "Some rows have no video"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_before_anything_is_loaded(
    engines: list[Engine],
    options: dict[str, Any],
    examples: list[Example],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())  # as if deepspeed were installed
    for engine in Engine:
        if engine not in engines:
            check_engine(engine, FineTuning(**options), examples)
            continue
        with pytest.raises(UsageError, match=complaint) as refused:
            check_engine(engine, FineTuning(**options), examples)
        assert refused.value.remedy


@pytest.mark.parametrize(
    ("engine", "variable", "form"),
    [(Engine.FSDP, "FSDP_VERSION", "1"), (Engine.ZERO3, "ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")],
)
def test_a_recipe_that_was_changed_to_another_form_is_refused(
    engine: Engine, variable: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeRO-2 counted as ZeRO-3 and ended in an AttributeError once everything was loaded."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    monkeypatch.setenv(variable, form)
    with pytest.raises(UsageError, match=f"{variable} is {form}"):
        check_engine(engine, FineTuning(), [VIDEO])


def test_stage_1_leaves_rows_without_a_video_out_and_so_may_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    check_engine(Engine.FSDP, FineTuning(stage=Stage.BRIDGE), [VIDEO, TEXT])
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(UsageError, match="not installed"):
        check_engine(Engine.ZERO3, FineTuning(), [VIDEO])


def test_a_run_goes_on_only_with_its_own_engine_and_number_of_processes(tmp_path: Path) -> None:
    """States of shares are of no use to others, and with more processes a step is another; earlier runs noted none."""
    now = {"engine": "fsdp", "num_processes": "2"}
    check_settings(tmp_path, now, now)
    check_settings(tmp_path, {}, now)
    with pytest.raises(UsageError, match=r"has engine 'fsdp' \(now 'ddp'\), num_processes '2' \(now '1'\)"):
        check_settings(tmp_path, now, {"engine": "ddp", "num_processes": "1"})


@pytest.mark.parametrize(
    ("engine", "stage", "expected"),
    [
        (Engine.FSDP, Stage.BRIDGE, "3.7 GB"),
        (Engine.FSDP, Stage.ALL, "17 GB"),
        (Engine.ZERO3, Stage.BRIDGE, "4.1 GB"),
        (Engine.ZERO3, Stage.ALL, "24.8 GB"),
    ],
)
def test_the_readme_says_what_a_process_holds_of_the_published_model(
    engine: Engine, stage: Stage, expected: str
) -> None:
    with torch.device("meta"):
        published = SlowFastForConditionalGeneration(config_of(find_model("slowfast-7b-64f")))
    choose_learned(published, stage)
    keep_frozen_in(published, torch.bfloat16)
    assert gigabytes(training_bytes(published, FineTuning().optimizer, engine, 8)).replace(".0 GB", " GB") == expected
    readme = (REPOSITORY / "sfvqa" / "training" / "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if line.startswith(f"| `{engine}`, of 8"))
    assert row.split(" | ")[stage].rstrip(" |") == expected


# --- two processes on the CPU ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 8 and of 20 frames: the tower is run on 8 at a time, for some rows once and for others twice."""
    annotations, _ = write_flash_videos(tmp_path_factory.mktemp("clips") / "v", 8, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash_videos, "NUM_FRAMES", 10)
        for number in range(0, 8, 2):
            write_flash_video(annotations.with_name(f"{number}.mp4"), "red", np.random.default_rng(number))
    return annotations


@pytest.fixture(scope="module")
def video_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that brings a trained projector, and looks at a token behind the video."""
    folder = tmp_path_factory.mktemp("video-model")
    save_whole("llava_onevision", folder / "base")
    add_slow_path(folder / "base", folder / "it", num_fast_frames=4, num_slow_frames=16)
    return folder / "it"


FORMS = {
    "stage 1": ["--stage", "1"],
    "stage 1 of a video model": ["--stage", "1"],
    "stage 2": [],
    "LoRA": ["--lora-rank", "4"],
    "frozen in bfloat16": ["--freeze-vision", "--precision", "bfloat16"],
}


def launch(recipe: Engine, arguments: list[str]) -> str:
    """Train in two processes; what they print."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += ["--config_file", str(RECIPES[recipe]), "--main_process_port", "0"]
    done = subprocess.run(
        [*command, "-m", "tests.training.counting_process", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "form"),
    [
        (Engine.DDP, "LoRA"),
        (Engine.FSDP, "stage 1"),
        (Engine.FSDP, "stage 2"),
        (Engine.FSDP, "LoRA"),
        (Engine.FSDP, "frozen in bfloat16"),
        (Engine.ZERO3, "stage 1 of a video model"),
        (Engine.ZERO3, "stage 2"),
        (Engine.ZERO3, "LoRA"),
    ],
)
def test_two_processes_learn_what_one_does_and_go_on_where_they_stopped(
    engine: Engine, form: str, model: Path, video_model: Path, clips: Path, tmp_path: Path
) -> None:
    """Half a step's rows each; the result is one folder, which needs no engine."""
    if engine is Engine.ZERO3:
        pytest.importorskip("deepspeed")
    model = video_model if "video model" in form else model
    arguments = [str(clips), "--videos", str(clips.parent), "--model", str(model), "--num-frames", "16"]
    arguments += ["--num-steps", "4", "--save-every", "2", "--log-every", "1", "--device", "cpu", *FORMS[form]]
    arguments += ["--learning-rate", "1e-3"]
    said = launch(engine, [*arguments, "--output", str(tmp_path / "two")])
    assert said.count("ask it with") == 1
    assert (counted := re.search(r"held (\d+) of (\d+) bytes", said))
    assert int(counted[1]) == pytest.approx(int(counted[2]), rel=1e-3 if engine is Engine.ZERO3 else 0)  # it pads
    assert main([*arguments, "--output", str(tmp_path / "one"), "--batch-size", "2"]) == 0
    tolerance, of_weights = (2e-3, 1e-2) if "bfloat16" in form else (1e-5, 5e-4)
    two, one = torch.tensor(losses(tmp_path / "two")), torch.tensor(losses(tmp_path / "one"))
    torch.testing.assert_close(two, one, rtol=tolerance, atol=tolerance)
    result = "adapter/adapter_model.safetensors" if form == "LoRA" else "checkpoint/model.safetensors"
    ours, same = (load_file(tmp_path / name / result) for name in ("two", "one"))
    assert ours.keys() == same.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, same[name], rtol=0, atol=of_weights, msg=name)
    if "frozen" in form:  # and, for the run, rounded
        before = load(model).state_dict()
        assert all(torch.equal(ours[name], before[name]) for name in ours if name.startswith("vision_tower."))

    shutil.copytree(tmp_path / "two", stopped := tmp_path / "stopped")
    for name in ("checkpoint", "adapter", "checkpoint-4"):
        shutil.rmtree(stopped / name, ignore_errors=True)
    launch(engine, [*arguments, "--output", str(stopped), "--resume"])
    assert losses(stopped) == losses(tmp_path / "two")
    assert all(torch.equal(tensor, ours[name]) for name, tensor in load_file(stopped / result).items())

    if form != "LoRA":
        qa = VideoQA.load(tmp_path / "two" / "checkpoint", device="cpu")
        assert qa.ask(
            qa.encode(clips.parent / "0.mp4", reading=HERE), QUESTION, GenerationOptions(max_new_tokens=2)
        ).text
