"""The recipe at a hundredth of its size: it runs, learns, resumes exactly, and writes a folder that loads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sfvqa.inference.prompt import build_prompt, question_turn
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.training.conversations import HARD, IGNORED, ODD, STILLS, VIDEOS, RowBuilder
from sfvqa.training.questions import Family, Question
from sfvqa.training.recipe import Recipe, Trainer, save_checkpoint
from sfvqa.training.tokenizer import train_tokenizer
from sfvqa.training.video_pool import PoolOptions
from tests.training.some_pictures import some_other_videos

OTHERS = some_other_videos()
SMALL = Recipe(
    seed=3,
    num_steps=(4, 3, 3, 2),
    scenes_per_step=1,
    stills=replace(STILLS, rows_per_step=4),
    videos=replace(VIDEOS, rows_per_step=4),
    hard=replace(HARD, rows_per_step=4),
    hard_after=2,
    odd=replace(ODD, rows_per_step=4),
    rows_at_once=2,
    log_every=2,
    exam_every=100,
    exam_questions=2,
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


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    stage: int, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Both the stage that sees and the pool of videos must go on as if nothing had happened."""
    steps = (3 if stage == 0 else 1, 1, 3 if stage == 2 else 1, 3 if stage == 3 else 1)
    recipe = replace(SMALL, num_steps=steps, save_every=2)
    whole = Trainer(recipe, tokenizer, tmp_path / "whole", OTHERS)
    whole.run()
    stopped = Trainer(recipe, tokenizer, tmp_path / "stopped", OTHERS)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    original = stopped.save

    def save_then_stop() -> None:
        original()
        if stopped.stage == stage and stopped.step == 2:
            stop(None)

    stopped.save = save_then_stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = Trainer(recipe, tokenizer, tmp_path / "stopped", OTHERS)
    resumed.resume()
    assert (resumed.stage, resumed.step) == (stage, 2)
    resumed.run()
    for name, value in weights(resumed).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=0, atol=0, msg=name)


def test_a_state_of_another_seed_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tokenizer, tmp_path, OTHERS)
    trainer.save()
    with pytest.raises(ValueError, match="seed"):
        Trainer(replace(SMALL, seed=4), tokenizer, tmp_path, OTHERS).resume()


def test_repeating_a_step_lowers_its_loss(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tokenizer, tmp_path, OTHERS)
    trainer.stage = 1
    trainer.optimizers = trainer._make_optimizers()
    take_step, _ = trainer._answering()
    losses = []
    for step in range(12):
        trainer.step = 20 + step
        trainer._set_learning_rate(0.2)
        for optimizer in trainer.optimizers:
            optimizer.zero_grad()
        losses.append(take_step(0)["loss"])
        for optimizer in trainer.optimizers:
            optimizer.step()
    assert losses[-1] < 0.7 * losses[0], losses


def test_first_turn_of_a_row_is_the_prompt_of_inference(tokenizer: PreTrainedTokenizerFast) -> None:
    question = Question(Family.COLOUR, "What colour is the circle?", "The circle is red.", ("red",))
    row = RowBuilder(tokenizer).build([question, question], num_fast_tokens=3)
    prompt = build_prompt(tokenizer, [question_turn(question.text, shows_video=True)]).expand(3)
    assert row.ids[: len(prompt)] == prompt
    assert all(label == IGNORED for label in row.labels[: len(prompt)])
    learned = [label for label in row.labels if label != IGNORED]
    answer = [*tokenizer(question.answer)["input_ids"], tokenizer.eos_token_id]
    assert learned == answer * 2
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.ids, strict=True))
