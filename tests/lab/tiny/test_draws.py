"""What the recipe draws is pinned: the weights of the package were trained on these very scenes, questions and rows."""

import hashlib

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from sfvqa.lab.rows import RowBuilder
from sfvqa.lab.tiny.conversations import HARD, MISNAMED, ODD, STILLS, VIDEOS, Mixture
from sfvqa.lab.tiny.evaluate import draw_questions
from sfvqa.lab.tiny.language_stage import LanguageStage, PoolOptions
from sfvqa.lab.tiny.network import build_tiny, train_tokenizer
from sfvqa.lab.tiny.odd_questions import odd_text
from sfvqa.lab.tiny.questions import out_of_scope_text
from sfvqa.lab.tiny.vision_stage import dense_batch
from sfvqa.model import SlowFastForConditionalGeneration
from tests.lab.tiny.some_pictures import some_other_videos


def digest(*parts: object) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return whole.hexdigest()[:12]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(num_scenes=40, vocab_size=400)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> SlowFastForConditionalGeneration:
    return build_tiny(tokenizer, 0)


def test_the_first_stage_draws_the_same_targets() -> None:
    targets = dense_batch(np.random.default_rng([0, 0, 3]), 4, 32, 4, some_other_videos())[1]
    drawn = (targets.objects, targets.digits, targets.flashes, targets.cells, targets.others)
    assert digest(*(np.round(part.numpy(), 4) for part in drawn)) == "3b4a3cac02e9"


@pytest.mark.parametrize(
    ("mixture", "stills", "expected"),
    [
        (STILLS, 0.85, "2c31a06656ed"),
        (VIDEOS, 0.06, "02ada4a07270"),
        (HARD, 0.06, "315286a6870f"),
        (ODD, 0.06, "c079d6150103"),
        (MISNAMED, 0.06, "ba86370b363f"),
    ],
)
def test_the_other_stages_draw_the_same_rows(
    mixture: Mixture,
    stills: float,
    expected: str,
    model: SlowFastForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    pool = PoolOptions(window=5, fresh_per_step=2, first_window=4, stills=stills, others=0.15)
    stage = LanguageStage(model, RowBuilder(tokenizer), pool, (0, 2), some_other_videos())
    rows = [sample.row for step in range(2) for sample in stage.draw(step, mixture)]
    assert digest(*((row.ids, row.labels) for row in rows)) == expected


def test_questions_are_the_same() -> None:
    rng = np.random.default_rng(5)
    evaluated = list(draw_questions(12345, 60))
    odd = [odd_text(rng) for _ in range(60)]
    out_of_scope = [out_of_scope_text(rng, held_out=held_out) for held_out in (False, True) for _ in range(60)]
    assert digest(evaluated, odd, out_of_scope) == "952acae9287e"
