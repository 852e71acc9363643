"""The whole experiment at its smallest: it trains, scores, stops and goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfvqa.errors import ExitCode, SfvqaError
from sfvqa.lab.comparison.run import Experiment, main, result_path
from sfvqa.lab.training_loop import TrainingLoop
from tests.lab.comparison.smallest import FAST_ONLY, SLOW_FAST, SMALLEST


def test_a_cell_s_result_says_what_was_trained_and_found(shared: Experiment) -> None:
    result = shared.run(FAST_ONLY)
    assert result["cell"] == "main-fast-only-32-seed0"
    assert len(result["losses"]) == 4
    assert result["settings"]["timeline"] == {"duration_seconds": 4.0, "num_moments": 32}
    asked = [question for item in shared.testing.items for question in item.questions]
    assert sum(family["total"] for family in result["families"].values()) == len(asked)
    for family in result["families"].values():
        assert family["right"] == family["outcomes"].count("1") <= family["total"] == len(family["outcomes"])
    before = result_path(shared.folder, FAST_ONLY).stat().st_mtime_ns
    assert shared.run(FAST_ONLY) == result
    assert result_path(shared.folder, FAST_ONLY).stat().st_mtime_ns == before


def test_an_interrupted_cell_goes_on_bit_by_bit(shared: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shared.run(SLOW_FAST)
    weights = torch.load(shared.folder / "cells" / f"{SLOW_FAST.name}.pt", weights_only=True)
    result_path(shared.folder, SLOW_FAST).unlink()
    (shared.folder / "cells" / f"{SLOW_FAST.name}.pt").unlink()
    save = TrainingLoop._save

    def save_and_stop(loop: TrainingLoop) -> None:
        save(loop)
        if loop.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        shared.run(SLOW_FAST)
    assert not result_path(shared.folder, SLOW_FAST).exists()
    steps: list[int] = []

    def save_and_note(loop: TrainingLoop) -> None:
        save(loop)
        steps.append(loop.step)

    monkeypatch.setattr(TrainingLoop, "_save", save_and_note)
    resumed = Experiment(SMALLEST, shared.folder).run(SLOW_FAST)
    assert steps == [3, 4]
    assert resumed["losses"] == whole["losses"]
    assert resumed["families"] == whole["families"]
    again = torch.load(shared.folder / "cells" / f"{SLOW_FAST.name}.pt", weights_only=True)
    assert again["losses"] == weights["losses"]
    for name, value in weights["modules"]["model"].items():
        assert torch.equal(value, again["modules"]["model"][name]), name


def test_a_folder_of_other_settings_is_refused(shared: Experiment) -> None:
    with pytest.raises(SfvqaError, match="other settings"):
        Experiment(replace(SMALLEST, num_steps=5), shared.folder)


def test_a_run_keeps_its_tokenizer(shared: Experiment, tmp_path: Path) -> None:
    """What is trained knows words by numbers that another version of the library might give to others."""
    learned = shared.tokenizer.get_vocab()
    kept = json.loads((shared.folder / "tokenizer.json").read_text())
    kept["model"]["vocab"] |= {"a": learned["b"], "b": learned["a"]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(kept))
    other = Experiment(SMALLEST, tmp_path)
    assert other.tokenizer.get_vocab() == learned | {"a": learned["b"], "b": learned["a"]}
    assert Experiment(SMALLEST, shared.folder).tokenizer.get_vocab() == learned
    assert shared.tokenizer.chat_template == other.tokenizer.chat_template is not None


def test_the_command_lists_what_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--run", str(tmp_path), "--list", "--only", "main-*-seed0", "--num-frames", "32"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "main-slow-fast-32-seed0 not run"
    assert len(lines) == 7
    assert not list(tmp_path.iterdir())  # a look at the plan must not settle what is run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nothing*"], "No cell is named"),
        (["--scale", "nan"], "scale is nan"),
        (["--threads", "0"], "threads is 0"),
        (["--device", "abacus"], "There is no device 'abacus'"),
        (["--num-frames", "24"], "multiple of 16"),
        (["--num-frames", "16"], "multiple of 16, above it"),
        (["--num-frames", "256"], "up to 128"),
        (["--num-layers", "0"], "num_layers is 0"),
        (["--num-seeds", "0"], "num_seeds is 0"),
        (["--width", "97"], "multiple of 8"),
        (["--quality", "52"], "from 0 to 51"),
        (["--base-steps", "1100"], "Leave some"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_compared_is_refused_before_anything_is_made(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """24 frames made "fast only" a name for all tokens; others were a traceback once they trained."""
    with pytest.raises(SystemExit) as ended:
        main(["--run", str(tmp_path / "run"), "--list", *arguments])
    assert ended.value.code == ExitCode.USAGE
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
