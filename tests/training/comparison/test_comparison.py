"""The whole experiment at its smallest: it trains, scores, stops and goes on, and its variants differ in one thing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from sfvqa.errors import SfvqaError
from sfvqa.model import IMAGE_TOKEN_ID, Gating, SlowAttentionScope
from sfvqa.profiling.flop_counter import count_on_model
from sfvqa.training.benchmark.items import TESTING, TRAINING, draw_item
from sfvqa.training.benchmark.questions import BenchmarkFamily, told_of
from sfvqa.training.benchmark.scenes import PLATE_COLOURS, Mover, Sign, Span, Timeline
from sfvqa.training.comparison.cells import MAIN, Cell, Settings, Tokens, Variant, main_variants, plan, small_variants
from sfvqa.training.comparison.course import Course
from sfvqa.training.comparison.experiment import Experiment, result_path
from sfvqa.training.comparison.lessons import (
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
from sfvqa.training.comparison.motion import motion_targets
from sfvqa.training.comparison.network import build, deepened, prompt_flops
from sfvqa.training.comparison.sights import GLYPHS, sights_of
from sfvqa.training.comparison.videos import EncodedVideos
from sfvqa.training.conversations import RowBuilder
from sfvqa.training.experiment import main
from sfvqa.training.motion_heads import DIRECTIONS, SHAPES, UNKNOWN
from sfvqa.training.scenes import Colour, Direction, Shape

SMALLEST = Settings(
    width=16,
    num_layers=2,
    vision_dims=(8, 16),
    image_size=32,
    timeline=Timeline(4.0, 32),
    vocab_size=300,
    see_steps=2,
    see_scenes=1,
    still_steps=1,
    few_steps=1,
    base_steps=3,
    num_training_videos=3,
    num_test_videos=3,
    num_steps=4,
    rows_per_step=3,
    rows_at_once=2,
    save_every=1,
    num_seeds=1,
    num_frames=32,
)
SLOW_FAST, FAST_ONLY = (Cell(MAIN, variant, 0, 4) for variant in main_variants(32, 32)[:2])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    experiment = Experiment(SMALLEST, tmp_path_factory.mktemp("experiment"))
    _ = experiment.training, experiment.testing
    return experiment


@pytest.fixture(scope="module")
def tokenizer(shared: Experiment) -> PreTrainedTokenizerFast:
    return shared.tokenizer


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
    save = Course._save

    def save_and_stop(course: Course) -> None:
        save(course)
        if course.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Course, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        shared.run(SLOW_FAST)
    assert not result_path(shared.folder, SLOW_FAST).exists()
    steps: list[int] = []

    def save_and_note(course: Course) -> None:
        save(course)
        steps.append(course.step)

    monkeypatch.setattr(Course, "_save", save_and_note)
    resumed = Experiment(SMALLEST, shared.folder).run(SLOW_FAST)
    assert steps == [3, 4]
    assert resumed["losses"] == whole["losses"]
    assert resumed["families"] == whole["families"]
    again = torch.load(shared.folder / "cells" / f"{SLOW_FAST.name}.pt", weights_only=True)
    assert again["losses"] == weights["losses"]
    for name, value in weights["modules"]["model"].items():
        assert torch.equal(value, again["modules"]["model"][name]), name


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


def test_variants_share_the_first_values_of_what_they_have_in_common(tokenizer: PreTrainedTokenizerFast) -> None:
    slow_fast = build(SMALLEST, SLOW_FAST.variant, tokenizer, 3).state_dict()
    for variant in (FAST_ONLY.variant, Variant("other", 16, gating=Gating.NONE, slow_from_decoder=False)):
        other = build(SMALLEST, variant, tokenizer, 3).state_dict()
        for name, value in other.items():
            if "slow_attention" not in name:
                assert torch.equal(value, slow_fast[name]), name
    different = build(SMALLEST, SLOW_FAST.variant, tokenizer, 4).state_dict()
    assert not torch.equal(different["lm_head.weight"], slow_fast["lm_head.weight"])


def test_a_cell_starts_from_the_shared_plain_decoder(shared: Experiment) -> None:
    """As in the paper: what is compared is how frames are looked at, not how a language is learned from nothing."""
    base = shared.base
    model = build(SMALLEST, SLOW_FAST.variant, shared.tokenizer, 5, learned=base)
    for name, value in model.state_dict().items():
        if "slow_attention" not in name:
            assert torch.equal(value, base[name]), name
    attention: Any = model.language_model.get_submodule("layers.0.self_attn")
    assert attention.slow_attention.kv_proj.weight[: attention.head_dim].equal(
        base["language_model.layers.0.self_attn.k_proj.weight"][: attention.head_dim]
    )


def test_a_deep_cell_starts_with_the_logits_of_the_shared_decoder(shared: Experiment) -> None:
    """Else spacings of hybrid layers would be compared in decoders that cannot answer yet."""
    plain = Variant("plain", 32, Tokens.ALL)
    shallow = build(SMALLEST, plain, shared.tokenizer, 0, learned=shared.base)
    deep = build(SMALLEST, replace(plain, deep=True), shared.tokenizer, 7, learned=shared.base)
    assert deep.config.decoder_config.num_hidden_layers == 2 * SMALLEST.num_layers
    assert set(deepened(shared.base)) == set(deep.state_dict())
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.allclose(deep(ids).logits, shallow(ids).logits, atol=1e-5)


def test_slow_keys_and_values_start_as_the_decoder_s_own(tokenizer: PreTrainedTokenizerFast) -> None:
    """Interleaved head by head: read in another layout, keys would be scrambled with values."""
    states = torch.randn(1, 5, SMALLEST.width)
    for from_decoder in (True, False):
        model = build(SMALLEST, replace(SLOW_FAST.variant, slow_from_decoder=from_decoder), tokenizer, 0)
        attention: Any = model.language_model.get_submodule("layers.0.self_attn")
        keys, values = attention.slow_attention.project(states)
        for found, projection in ((keys, attention.k_proj), (values, attention.v_proj)):
            own = projection(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            assert torch.allclose(found, own, atol=1e-6) == from_decoder


@pytest.mark.parametrize(
    ("variant", "num_fast", "hybrid_layers"),
    [
        (Variant("a", 32), 16 * 4, [0]),
        (Variant("a", 32, hybrid_every=1), 16 * 4, [0, 1]),
        (Variant("stride", 32, num_fast_frames=4), 4 * 4, [0]),
        (Variant("deep", 32, deep=True), 16 * 4, [0, 2]),
        (Variant("all look", 32, scope=SlowAttentionScope.ALL), 16 * 4, [0]),
        (Variant("b", 32, Tokens.FAST_ONLY), 16 * 4, []),
        (Variant("c", 32, Tokens.ALL), 32 * 4, []),
        (Variant("d", 16, Tokens.ALL), 16 * 4, []),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_variant_is_its_config(
    variant: Variant, num_fast: int, hybrid_layers: list[int], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(SMALLEST, variant, tokenizer, 0)
    tokens = model.split(torch.randn(variant.num_frames, 2, 2, SMALLEST.width))
    assert len(tokens.fast) == num_fast
    assert model.config.hybrid_layers == hybrid_layers
    prompt = [1, *[IMAGE_TOKEN_ID] * num_fast, *range(2, 20)]
    model.eval()  # type: ignore[no-untyped-call]
    counted = count_on_model(model, variant.num_frames, prompt, tokens).prefill
    assert prompt_flops(model.config, variant.num_frames, len(prompt) - num_fast) == pytest.approx(counted, rel=1e-6)


def test_the_plan_names_every_cell_once_and_changes_one_thing_at_a_time() -> None:
    settings = Settings()
    cells = plan(settings)
    assert len({cell.name for cell in cells}) == len(cells) == 7 * 3 + 13
    base, *others = small_variants(settings)
    for variant in others:
        changed = {name for name in vars(base) if name != "name" and getattr(base, name) != getattr(variant, name)}
        assert len(changed - {"deep", "hybrid_every"} if variant.deep else changed) == (0 if variant.deep else 1), (
            variant
        )
    assert [variant.hybrid_every for variant in others if variant.deep] == [1, 2, 4, 8]
    assert [variant.num_frames for variant in main_variants(64, 128)] == [64, 64, 64, 16, 16, 32, 128]
    assert len(plan(replace(settings, num_layers=2))) == len(cells) - 1
    assert settings.scaled(0.001).num_steps == 2


def test_a_folder_of_other_settings_is_refused(shared: Experiment) -> None:
    with pytest.raises(SfvqaError, match="other settings"):
        Experiment(replace(SMALLEST, num_steps=5), shared.folder)


def test_tokens_are_asked_for_what_the_frame_shows() -> None:
    item = next(item for item in (draw_item(TESTING, 0, n) for n in range(50)) if item.scene.bursts_of(Sign.LETTER))
    (burst,) = item.scene.bursts_of(Sign.LETTER)
    plate = burst.plates[1]
    middle, elsewhere = (plate.span.start + plate.span.end) / 2, (burst.span.end + 5.0) % 10
    aims = sights_of([item.scene], np.array([[middle, elsewhere]]), grid=4)
    letter, colour = GLYPHS.index(plate.text) + 1, PLATE_COLOURS.index(plate.colour) + 1
    for name, kind in (("glyph", letter), ("plate", colour)):
        shares = aims.tokens[name]
        assert shares.sum(-1) == pytest.approx(1.0)
        assert float(shares[0, :, kind].sum()) == pytest.approx(1.0)
        assert float(shares[1, :, kind].sum()) == 0.0
        cell = int(shares[0, :, kind].argmax())
        assert abs((cell % 4 + 0.5) / 4 - burst.centre[0]) < 0.2
        assert abs((cell // 4 + 0.5) / 4 - burst.centre[1]) < 0.2
        covered = np.flatnonzero(aims.cells[name][0].numpy() == kind)
        assert len(covered) > 0
        assert np.abs((covered % 8 + 0.5) / 8 - burst.centre[0]).max() < 1.5 * burst.radius
        assert not aims.cells[name][1].any()


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


def test_every_frame_says_at_which_end_a_shape_is_with_the_camera_counted() -> None:
    scene = draw_item(TESTING, 0, 0).scene
    rising = Mover(Shape.STAR, Colour.RED, 0.1, Direction.UP, (0.5, 0.8), (0.5, 0.2), 2.0, Span(4.0, 6.0))
    still = replace(scene.camera, reach=(0.0, 0.0))
    times = np.array([[1.0, 3.0, 5.0, 8.0]])
    aims = sights_of([replace(scene, movers=(rising,), camera=still)], times, grid=4)
    assert aims.frames["star_row"].tolist() == [0, 3, 2, 1]
    assert aims.frames["star_column"].tolist() == [0, 2, 2, 2]
    assert not aims.frames["circle_row"].any()
    swaying = replace(still, reach=(0.1, 0.0), period=4.0, phase=0.0)  # a quarter of it shifts by all its reach
    aims = sights_of([replace(scene, movers=(rising,), camera=swaying)], times, grid=4)
    assert aims.frames["star_column"].tolist() == [0, 1, 3, 2]


def test_the_second_teacher_asks_for_a_direction_only_once_it_shows() -> None:
    scene = draw_item(TESTING, 0, 0).scene
    rising = Mover(Shape.STAR, Colour.RED, 0.1, Direction.UP, (0.625, 0.875), (0.625, 0.125), 2.0, Span(4.0, 6.0))
    resting = Mover(Shape.HEART, Colour.BLUE, 0.1, Direction.LEFT, (0.375, 0.375), (0.125, 0.375), 0.0, Span(9.0, 9.9))
    still = replace(scene.camera, reach=(0.0, 0.0))
    moments = np.array([0, 38, 64, 100])  # the star is not there, rests, is half way, has arrived
    targets = motion_targets(replace(scene, movers=(rising, resting), camera=still), moments, grid=4)
    star, heart = SHAPES.index(Shape.STAR), SHAPES.index(Shape.HEART)
    directions, ranks = targets.directions.unflatten(0, (4, 16)), targets.ranks.unflatten(0, (4, 16))
    assert (ranks[0, :, star] == UNKNOWN).all()
    assert ranks[1, 14, star] == 1
    assert ranks[0, 5, heart] == 0
    assert (directions[:2, :, star] == UNKNOWN).all()
    assert directions[3, 2, star] == DIRECTIONS.index(Direction.UP)
    assert directions[3, 14, star] == UNKNOWN  # it has left that token
    assert (directions[..., heart] == UNKNOWN).all()


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
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    """24 frames made "fast only" a name for all tokens; others were a traceback once they trained."""
    with pytest.raises(SystemExit, match=said):
        main(["--run", str(tmp_path / "run"), "--list", *arguments])
    assert not (tmp_path / "run").exists()


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


def test_encoded_videos_are_found_by_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by number, tokens of other scenes would be taken for these once the code draws others."""
    before = EncodedVideos(tmp_path, TRAINING, 3, SMALLEST)._path(0)
    assert EncodedVideos(tmp_path, TRAINING, 3, SMALLEST)._path(0) == before
    assert EncodedVideos(tmp_path, TRAINING, 3, replace(SMALLEST, timeline=Timeline(5.0, 32)))._path(0) != before
    monkeypatch.setattr("sfvqa.training.benchmark.items.BENCHMARK", 7)
    assert EncodedVideos(tmp_path, TRAINING, 3, SMALLEST)._path(0) != before


def test_warm_up_gates_can_start_from_zero_as_in_the_paper(shared: Experiment) -> None:
    """Then a cell starts with the very logits of the shared decoder, and else it does not."""
    (zero,) = (variant for variant in small_variants(SMALLEST) if variant.first_gate == 0)
    logits = []
    for variant in (zero, SLOW_FAST.variant, FAST_ONLY.variant):
        model = build(SMALLEST, variant, shared.tokenizer, 0, learned=shared.base)
        model.train(False)
        tokens = model.split(torch.randn(32, 2, 2, SMALLEST.width, generator=torch.Generator().manual_seed(0)))
        prompt = torch.tensor([[1, *[IMAGE_TOKEN_ID] * len(tokens.fast), *range(2, 20)]])
        with torch.no_grad():
            logits.append(model(prompt, visual_tokens=[tokens]).logits)
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[1], logits[2])
