"""Cells are named once, and differ in one thing."""

from dataclasses import replace

from sfvqa.lab.comparison.cells import Settings, main_variants, plan, small_variants


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
