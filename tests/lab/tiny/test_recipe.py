"""The recipe at a hundredth of its size: it runs, learns, resumes exactly, and writes a folder that loads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sfvqa.errors import UsageError
from sfvqa.inference.prompt import build_prompt, question_turn
from sfvqa.lab.rows import IGNORED, RowBuilder, RowTrainer
from sfvqa.lab.tiny.conversations import HARD, ODD, STILLS, VIDEOS
from sfvqa.lab.tiny.language_stage import LanguageStage, PoolOptions
from sfvqa.lab.tiny.network import train_tokenizer
from sfvqa.lab.tiny.questions import Family, Question
from sfvqa.lab.tiny.train import Recipe, Trainer, save_checkpoint
from sfvqa.lab.training_loop import TrainingLoop
from sfvqa.model import SlowFastForConditionalGeneration
from tests.lab.tiny.some_pictures import some_other_videos

OTHERS = some_other_videos()
SMALL = Recipe(
    seed=3,
    num_steps=(2, 1, 2, 1, 1),
    scenes_per_step=1,
    stills=replace(STILLS, rows_per_step=4),
    videos=replace(VIDEOS, rows_per_step=4),
    hard=replace(HARD, rows_per_step=4),
    hard_after=1,
    odd=replace(ODD, rows_per_step=4),
    rows_at_once=2,
    exam_every=100,
    exam_questions=2,
    exam_videos=6,
    save_every=100,
    still_pool=PoolOptions(window=8, fresh_per_step=2, first_window=4, stills=0.7, others=0.3),
    video_pool=PoolOptions(window=3, fresh_per_step=1, first_window=2, stills=0.2, others=0.3),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(num_scenes=40, vocab_size=400)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_whole_recipe_runs_and_the_checkpoint_loads(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tokenizer, tmp_path / "run", OTHERS)
    before = weights(trainer)
    trainer.run()
    after = weights(trainer)
    for part in ("vision_tower.", "projector.", "language_model.layers.0.self_attn.slow_attention.kv_proj"):
        changed = [name for name in after if name.startswith(part) and not torch.equal(before[name], after[name])]
        assert changed, f"{part} did not learn"
    save_checkpoint(trainer, tmp_path / "checkpoint")
    loaded = SlowFastForConditionalGeneration.from_pretrained(tmp_path / "checkpoint")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, after[name]), name
    again = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    assert again("What is 7 in 你好?")["input_ids"] == tokenizer("What is 7 in 你好?")["input_ids"]
    assert loaded.generation_config is not None
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the stage that sees and the pool of videos must go on as if nothing had happened."""
    recipe = replace(SMALL, num_steps=(3, 1, 3, 3, 3), save_every=2)
    whole = Trainer(recipe, tokenizer, tmp_path / "whole", OTHERS)
    whole.run()
    save = TrainingLoop._save

    def save_and_stop(loop: TrainingLoop) -> None:
        save(loop)
        if loop.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "_save", save_and_stop)
    for number in range(4):  # in each stage that is long enough
        with pytest.raises(KeyboardInterrupt):
            Trainer(recipe, tokenizer, tmp_path / "stopped", OTHERS).run(resume=number > 0)
    resumed = Trainer(recipe, tokenizer, tmp_path / "stopped", OTHERS)
    resumed.run(resume=True)
    for name, value in weights(resumed).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=0, atol=0, msg=name)
    written = Trainer(recipe, tokenizer, tmp_path / "stopped", OTHERS)
    written.load()
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(written).items())


def test_only_a_run_that_was_begun_with_its_seed_resumes(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    recipe = replace(SMALL, num_steps=(1, 0, 0, 0, 0))
    with pytest.raises(UsageError, match="no run to resume"):
        Trainer(recipe, tokenizer, tmp_path, OTHERS).run(resume=True)
    Trainer(recipe, tokenizer, tmp_path, OTHERS).run()
    with pytest.raises(UsageError, match="seed"):
        Trainer(replace(recipe, seed=4), tokenizer, tmp_path, OTHERS).load()
    Trainer(replace(recipe, seed=4), tokenizer, tmp_path, OTHERS).run()  # anew


def test_repeating_a_step_lowers_its_loss(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tokenizer, tmp_path, OTHERS)
    stage = LanguageStage(trainer.model, trainer.rows, SMALL.still_pool, (3, 1), OTHERS)
    samples = stage.draw(0, SMALL.stills)
    rows = RowTrainer(trainer.model, trainer.rows)
    read_outs = trainer.model.get_input_embeddings().parameters()
    loop = TrainingLoop({"model": trainer.model}, tmp_path / "a.pt", num_steps=14, rate=2e-2, outside=read_outs)
    loop.run(lambda _: {"loss": rows.accumulate(samples, 2)})
    assert loop.losses[-1] < 0.8 * loop.losses[0], loop.losses


def test_first_turn_of_a_row_is_the_prompt_of_inference(tokenizer: PreTrainedTokenizerFast) -> None:
    question = Question(Family.COLOUR, "What colour is the circle?", "The circle is red.", ("red",))
    row = RowBuilder(tokenizer).build([question, question], num_fast_tokens=3)
    prompt = build_prompt(tokenizer, [question_turn(question.text, shows_video=True)], layout=(3, "\n"))
    assert row.ids[: len(prompt)] == prompt
    assert all(label == IGNORED for label in row.labels[: len(prompt)])
    learned = [label for label in row.labels if label != IGNORED]
    answer = [*tokenizer(question.answer)["input_ids"], tokenizer.eos_token_id]
    assert learned == answer * 2
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.ids, strict=True))
