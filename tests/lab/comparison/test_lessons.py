"""What rows ask: only what their frames show, of all families, and of every variant the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from sfvqa.lab.comparison.cells import Tokens, Variant, build
from sfvqa.lab.comparison.items import TRAINING, draw_item
from sfvqa.lab.comparison.lessons import (
    FEW_FRAMES,
    RARE_SHARE,
    Lessons,
    Shown,
    all_families,
    answered_by,
    few_moments,
    many_questions,
    one_moment,
)
from sfvqa.lab.comparison.questions import BenchmarkFamily, told_of
from sfvqa.lab.comparison.run import Experiment
from sfvqa.lab.comparison.scenes import Timeline
from sfvqa.lab.comparison.videos import EncodedVideos
from sfvqa.lab.rows import RowBuilder
from tests.lab.comparison.smallest import FAST_ONLY, SLOW_FAST, SMALLEST


def test_cells_of_a_seed_are_asked_the_same(shared: Experiment) -> None:
    """Else a difference between variants could be one between their lessons."""
    rows = RowBuilder(shared.tokenizer)
    drawn = []
    for variant in (SLOW_FAST.variant, Variant("all", 16, Tokens.ALL)):
        model = build(SMALLEST, variant, shared.tokenizer, 0)
        samples = Lessons(model, rows, SMALLEST, variant.num_frames, seed=0).draw(5, shared.training)
        drawn.append([[label for label in sample.row.labels if label >= 0] for sample in samples])
    assert drawn[0] == drawn[1]
    assert any(drawn[0])


@pytest.mark.parametrize("shown", [Shown.ONE, Shown.FEW])
def test_few_frames_are_asked_only_what_they_show(shown: Shown) -> None:
    """Else the base would learn to guess before it learned to read."""
    rng = np.random.default_rng(0)
    asked: set[str] = set()
    for number in range(60):
        scene = draw_item(TRAINING, 0, number).scene
        questions = many_questions(rng, scene)
        moments = one_moment(rng, scene, questions) if shown is Shown.ONE else few_moments(rng, scene)
        assert len(moments) == (1 if shown is Shown.ONE else FEW_FRAMES)
        times = scene.timeline.seconds[moments]
        plates = [plate for burst in scene.bursts for plate in burst.plates if plate.span.holds(times).any()]
        if shown is Shown.FEW and scene.bursts:
            assert any(set(burst.plates) <= set(plates) for burst in scene.bursts)
        for question in answered_by(moments, scene, questions):
            asked.add(question.family)
            if question.family in ("digit", "letter", "gap", "digit_at"):
                assert any(question.answer.endswith(told_of(p.colour, p)) and p.colour in question.text for p in plates)
    assert (
        {"digit", "letter", "gap", "digit_at", "color"}
        <= asked
        <= {"digit", "letter", "gap", "digit_at", "color", "flash"}
    )


def test_a_row_asks_about_several_plates_and_gives_no_answer_away() -> None:
    """One plate a row left the base guessing among four: it learned to read all of them, and not which was meant."""
    rng = np.random.default_rng(0)
    most = 0
    for number in range(20):
        questions = many_questions(rng, draw_item(TRAINING, 0, number).scene)
        pairs = [(question.family, question.answer) for question in questions]
        assert len(set(pairs)) == len(pairs)
        most = max(most, sum(question.family == "digit" for question in questions))
    assert most == 4


def test_no_family_is_asked_twice_before_all_are_asked_once() -> None:
    """Else what can be asked in one way only, as how often the border lights up, is hardly asked at all."""
    rng = np.random.default_rng(0)
    for number in range(20):
        questions = many_questions(rng, draw_item(TRAINING, 0, number).scene)
        families = {question.family for question in questions}
        chosen = all_families(rng, questions, len(families) + 1)
        assert {question.family for question in chosen} == families
        assert len(chosen) == min(len(questions), len(families) + 1)
        fewer = all_families(rng, questions, len(families) - 1)
        assert len({question.family for question in fewer}) == len(fewer) == len(families) - 1


def test_videos_of_the_rarest_family_come_more_often(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    settings = replace(SMALLEST, timeline=Timeline(), num_training_videos=60, rows_per_step=40)
    videos = EncodedVideos(tmp_path, TRAINING, 60, settings)
    rare = videos.with_family(BenchmarkFamily.DIGIT_AT)
    assert rare == [n for n, item in enumerate(videos.items) if any(q.family == "digit_at" for q in item.questions)]
    assert 5 < len(rare) < 30
    lessons = Lessons(build(settings, FAST_ONLY.variant, tokenizer, 0), RowBuilder(tokenizer), settings, 32, seed=0)
    rng = np.random.default_rng(0)
    drawn = [number for _ in range(20) for number in lessons._numbers(rng, videos)]
    share = len(rare) / 60
    assert np.isin(drawn, rare).mean() == pytest.approx(RARE_SHARE + (1 - RARE_SHARE) * share, abs=0.06)


def test_stills_and_telling_frames_are_what_the_base_learns_from(shared: Experiment) -> None:
    rows = RowBuilder(shared.tokenizer)
    model = build(SMALLEST, Variant("base", 16, Tokens.ALL), shared.tokenizer, 0)
    for shown, num_frames in ((Shown.ONE, 1), (Shown.FEW, FEW_FRAMES), (Shown.TELLING, 16)):
        samples = Lessons(model, rows, SMALLEST, num_frames, seed=0, shown=shown).draw(0, shared.training)
        assert {len(sample.visual_tokens.fast) for sample in samples if sample.visual_tokens} == {4 * num_frames}
