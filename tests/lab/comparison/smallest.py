"""The smallest settings that still train, and two cells of them."""

from sfvqa.lab.comparison.cells import MAIN, Cell, Settings, main_variants
from sfvqa.lab.comparison.scenes import Timeline

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
