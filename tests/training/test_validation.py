"""A run that is validated: what is held out, what is measured, which state is the result, when it stops."""

import io
import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn import functional
from transformers import TrainerState

import sfvqa
from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.errors import UsageError
from sfvqa.inference import VideoQA
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.prompt import layout_of
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.training import validation
from sfvqa.training.annotations import Example, read_annotations
from sfvqa.training.finetune import fine_tune, main
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.progress import ProgressLine
from sfvqa.training.rows import IGNORED, DialogueWriter, VideoDataset, collate
from sfvqa.training.trainer import VideoTrainer
from sfvqa.training.validation import Figures, check_apart, hold_out, read_figures
from sfvqa.video.readers import ReadOptions
from tests.training.flash_videos import NUM_FRAMES, write_flash_videos
from tests.training.test_finetuning import load, losses, make_converted

NO_CACHE = VideoCache(Path("unused"), 0)
HERE = ReadOptions(isolated=False, num_threads=1)
SHORT = FineTuning(num_frames=NUM_FRAMES, batch_size=2, num_steps=6, log_every=1, save_every=2, device="cpu")
VALIDATED = replace(SHORT, validation="0.4", learning_rate=1e-2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "llama", hidden_size=32, intermediate_size=48)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    annotations, entries = write_flash_videos(tmp_path_factory.mktemp("videos") / "v", 8, seed=0)
    more = [{"from": "human", "value": "And when?"}, {"from": "gpt", "value": "Early."}]
    for entry in entries[::2]:
        entry["conversations"] += more
    annotations.write_text(json.dumps(entries))
    return annotations


def measured(run: Path) -> list[dict[str, float]]:
    states = sorted(run.glob("checkpoint-*/trainer_state.json"), key=lambda path: len(path.read_text()))
    return [entry for entry in json.loads(states[-1].read_text())["log_history"] if "eval_loss" in entry]


def test_a_stopped_run_that_is_validated_goes_on_bit_for_bit(model: Path, videos: Path, tmp_path: Path) -> None:
    def run(folder: Path, *, resume: bool = False) -> Path:
        return fine_tune(model, videos, videos.parent, folder, VALIDATED, resume=resume)

    run(tmp_path / "stopped")
    shutil.copytree(tmp_path / "stopped", tmp_path / "whole")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint")
    for state in sorted((tmp_path / "stopped").glob("checkpoint-*"))[1:]:
        shutil.rmtree(state)
    resumed = run(tmp_path / "stopped", resume=True)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert measured(tmp_path / "stopped") == measured(tmp_path / "whole")
    assert read_figures(tmp_path / "stopped") == read_figures(tmp_path / "whole")
    ours, same = load(resumed).state_dict(), load(tmp_path / "whole" / "checkpoint").state_dict()
    assert all(torch.equal(ours[name], same[name]) for name in ours)


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_measuring_changes_nothing_that_is_learned(
    model: Path, videos: Path, tmp_path: Path, precision: str, num_workers: int
) -> None:
    """Reading ahead drew from torch's random state."""
    entries = json.loads(videos.read_text())
    for name, part in (("learned", entries[:5]), ("held-out", entries[5:])):
        (videos.parent / f"{name}.json").write_text(json.dumps(part))
    chosen = replace(SHORT, precision=precision, num_workers=num_workers, learning_rate=1e-2)
    annotations = videos.parent / "learned.json"
    fine_tune(model, annotations, videos.parent, tmp_path / "without", chosen)
    held_out = replace(chosen, validation=str(videos.parent / "held-out.json"), against_base="tiny")
    fine_tune(model, annotations, videos.parent, tmp_path / "with", held_out)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    states = [
        torch.load(tmp_path / name / "checkpoint-6" / "rng_state.pth", weights_only=False)
        for name in ("with", "without")
    ]
    assert torch.equal(states[0]["cpu"], states[1]["cpu"])
    assert states[0]["python"] == states[1]["python"]
    assert [entry["step"] for entry in measured(tmp_path / "with")] == [2, 4, 6]


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(replace(VALIDATED, stage=Stage.BRIDGE), marks=pytest.mark.slow, id="stage 1"),
        pytest.param(replace(VALIDATED, lora_rank=2), id="LoRA"),
    ],
)
def test_a_run_whose_frozen_weights_are_in_16_bits_is_validated(
    model: Path, videos: Path, tmp_path: Path, chosen: FineTuning
) -> None:
    """Under autocast keys were float32 and the embeddings, by which a step went, bfloat16."""
    fine_tune(model, videos, videos.parent, tmp_path / "run", replace(chosen, precision="bfloat16"))
    assert read_figures(tmp_path / "run").keys() == {"untrained", "trained"}


def test_the_loss_is_measured_of_as_many_rows_at_a_time_as_are_learned_from(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All questions about as many videos went through the model at once, which took many times the memory."""
    sizes: list[int] = []

    def watched(rows: list[Any]) -> Any:
        sizes.append(len(rows))
        return collate(rows)

    def as_of_many_turns(rows: VideoDataset, example: Example) -> Any:
        made, looked = own(rows, example)
        return made * 3, looked

    own = VideoDataset.conversation
    monkeypatch.setattr(VideoDataset, "conversation", as_of_many_turns)
    monkeypatch.setattr("sfvqa.training.validation.collate", watched)
    fine_tune(model, videos, videos.parent, tmp_path / "run", replace(VALIDATED, num_steps=2))
    assert max(sizes) == VALIDATED.batch_size


class Scripted:
    """Makes runs measure these losses: the first is the untrained model's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
        self._losses = list(losses)
        monkeypatch.setattr(VideoTrainer, "measure", self)

    def __call__(self, *_: Any) -> Figures:
        return Figures(self._losses.pop(0), 0, 0, 4)


def test_the_best_state_is_the_result(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, 5.0, 3.0, 1.0, 2.0)
    result = fine_tune(model, videos, videos.parent, tmp_path / "run", VALIDATED)
    best, last = (load(tmp_path / "run" / f"checkpoint-{step}").state_dict() for step in (4, 6))
    ours = load(result).state_dict()
    assert all(torch.equal(ours[name], best[name]) for name in ours)
    assert not all(torch.equal(ours[name], last[name]) for name in ours)
    figures = read_figures(tmp_path / "run")
    assert [(name, each.loss, each.step) for name, each in figures.items()] == [
        ("untrained", 5, None),
        ("trained", 1, 4),
    ]


def test_a_run_stops_when_none_gets_better_also_if_it_was_stopped_before(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainer begins to count anew unless told otherwise."""
    chosen = replace(VALIDATED, patience=2, save_every=1, num_kept=9)
    Scripted(monkeypatch, 5.0, 1.0, 2.0, 3.0)
    fine_tune(model, videos, videos.parent, tmp_path / "run", chosen)
    assert [entry["step"] for entry in measured(tmp_path / "run")] == [1, 2, 3]
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    Scripted(monkeypatch, 3.0)
    fine_tune(model, videos, videos.parent, tmp_path / "run", chosen, resume=True)
    assert [entry["step"] for entry in measured(tmp_path / "run")] == [1, 2, 3]
    assert read_figures(tmp_path / "run")["trained"].step == 1


def test_a_run_that_patience_ended_learns_no_more_when_only_its_result_is_missing(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainer forgets that it was to stop."""
    chosen = replace(VALIDATED, patience=1, save_every=1)
    Scripted(monkeypatch, 5.0, 1.0, 2.0)
    result = fine_tune(model, videos, videos.parent, tmp_path / "run", chosen)
    expected, figures = load(result).state_dict(), read_figures(tmp_path / "run")
    shutil.rmtree(result)
    Scripted(monkeypatch, 0.5)  # what a step more would be said to reach
    again = load(fine_tune(model, videos, videos.parent, tmp_path / "run", chosen, resume=True)).state_dict()
    assert [entry["step"] for entry in measured(tmp_path / "run")] == [1, 2]
    assert read_figures(tmp_path / "run") == figures
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def conversation(video: str | None, *said: str) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(said)]
    return {"id": said[0], "conversations": turns} | ({} if video is None else {"video": video})


def test_what_is_measured_is_what_ask_answers_and_the_loss_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tiny` knows this video; of five answers three are its own, word for word, and one says the same."""
    asked = list[Asked]()

    class Watched(AnswerRun):
        def __init__(self, checkpoint: LoadedCheckpoint, questions: Sequence[Asked], *given: Any, **named: Any) -> None:
            asked.extend(questions)
            super().__init__(checkpoint, questions, *given, **named)

    monkeypatch.setattr(validation, "AnswerRun", Watched)
    demo = Path(sfvqa.__file__).parent / "assets" / "demo"
    held_out = [
        conversation(
            "shapes.mp4",
            "Which digit is shown?",
            "The digit 7 is shown.",
            "What colour does the screen flash?",
            "Green",
        ),
        conversation("shapes.mp4", "What colour does the screen flash?", "The screen flashes green."),
        conversation("shapes.mp4", "Which way does the circle move?", "The circle moves right."),
        conversation("shapes.mp4", "Which way does the circle move?", "The circle moves left."),
    ]
    (tmp_path / "held-out.json").write_text(json.dumps(held_out))
    (tmp_path / "learned.json").write_text(json.dumps([conversation("flash.mp4", "What flashes?", "The screen.")]))
    chosen = FineTuning(
        num_steps=1, batch_size=3, learning_rate=1e-9, device="cpu", validation=str(tmp_path / "held-out.json")
    )
    fine_tune("tiny", tmp_path / "learned.json", demo, tmp_path / "run", chosen)
    found = read_figures(tmp_path / "run")["untrained"]
    assert (found.exact, found.relaxed, found.answers) == (3, 4, 5)
    histories = [one.history for one in asked[: found.answers] if one.history]
    assert histories == [(("Which digit is shown?", "The digit 7 is shown."),)]
    qa = VideoQA.load("tiny", device="cpu")
    video = qa.encode(demo / "shapes.mp4", reading=HERE)
    writer = DialogueWriter(qa.checkpoint.tokenizer, qa.checkpoint.end_token_ids)
    config = qa.checkpoint.model.config
    total, count = 0.0, 0
    for example in read_annotations(tmp_path / "held-out.json", demo):
        layout = layout_of(
            len(video.visual_tokens.fast), video.timestamps_seconds, video.video.duration_seconds, config
        )
        for row in writer.rows(example, layout):
            with torch.inference_mode():
                logits = qa.checkpoint.model(torch.tensor([row.ids]), visual_tokens=[video.visual_tokens]).logits[0]
            labels = torch.tensor(row.labels)[1:]
            total += float(functional.cross_entropy(logits[:-1], labels, reduction="sum", ignore_index=IGNORED))
            count += int((labels != IGNORED).sum())
    assert found.loss == pytest.approx(total / count, rel=1e-4)


def examples_of(folder: Path, contents: list[str]) -> list[Example]:
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.mp4").write_bytes(b"\0" + content.encode())
    return [Example(str(number), folder / f"{number}.mp4", (("?", "!"),)) for number in range(len(contents))]


def test_videos_are_held_out_by_their_content_and_the_seed(tmp_path: Path) -> None:
    contents = [str(number // 2) for number in range(40)]  # every video twice
    held = [one.held_out for one in hold_out(examples_of(tmp_path / "a", contents), 0.3, seed=0, videos=NO_CACHE)]
    assert held[::2] == held[1::2]
    assert sum(held[::2]) == 6
    assert [
        one.held_out for one in hold_out(examples_of(tmp_path / "b", contents), 0.3, seed=0, videos=NO_CACHE)
    ] == held
    assert [
        one.held_out for one in hold_out(examples_of(tmp_path / "b", contents), 0.3, seed=1, videos=NO_CACHE)
    ] != held
    for share, expected in ((0.001, 1), (0.999, 19)):
        assert (
            sum(one.held_out for one in hold_out(examples_of(tmp_path / "a", contents), share, seed=0, videos=NO_CACHE))
            == 2 * expected
        )
    with pytest.raises(UsageError, match="about one video"):
        hold_out(examples_of(tmp_path / "c", ["same", "same"]), 0.5, seed=0, videos=NO_CACHE)


def test_a_video_that_is_learned_from_is_not_validated_on(tmp_path: Path) -> None:
    learned, copied = examples_of(tmp_path / "v", ["one", "one"])
    with pytest.raises(UsageError, match=r"1 video of the validation file would be learned from too, first .*1\.mp4"):
        check_apart([learned, replace(copied, held_out=True)], NO_CACHE)


def test_the_command_ends_with_a_table(
    model: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--output", str(tmp_path / "run")]
    arguments += ["--num-steps", "2", "--num-frames", "4", "--device", "cpu", "--validation", "0.25"]
    with caplog.at_level(logging.INFO):
        assert main([*arguments, "--against-base", "tiny", "--log-every", "1"]) == 0
    table = capsys.readouterr().out.splitlines()[:4]
    assert [line.split("  ")[0] for line in table] == ["validation", "base tiny", "untrained", "trained, step 2"]
    assert re.search(r"Validation on [234] questions about 2 videos, which are not learned from", caplog.text)
    assert re.search(r"step 1 of 2: loss \d\.\d+, learning rate 0, \d+:\d\d left", caplog.text)
    assert re.search(r"Validation at step 2: loss \d\.\d+, 0\.0 % exact, 0\.0 % relaxed", caplog.text)


def test_figures_go_to_tensorboard(model: Path, videos: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    chosen = replace(VALIDATED, log="tensorboard", num_steps=2)
    fine_tune(model, videos, videos.parent, tmp_path / "run", chosen)
    (folder,) = (tmp_path / "run" / "runs").iterdir()
    found = events.EventAccumulator(str(folder)).Reload()
    assert {"train/loss", "eval/loss", "eval/exact", "eval/relaxed"} <= set(found.Tags()["scalars"])


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    shown = io.StringIO()
    line = ProgressLine(Console(file=shown, force_terminal=True, width=80))
    state = TrainerState(global_step=0, max_steps=8)
    line.on_train_begin(None, state, None)
    state.global_step = 4
    line.on_log(None, state, None, logs={"loss": 1.25, "learning_rate": 1e-4})
    line.on_train_end(None, state, None)
    assert "step 4 of 8: loss 1.25, learning rate 0.0001, 0:00 left" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[2K")
