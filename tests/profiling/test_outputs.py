"""What becomes of a profile: compared with an earlier one, as a table, as a picture."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.profiling import plot
from sfvqa.profiling.compare import check_comparable, compare, read_profile
from sfvqa.profiling.profile import Profile, layers_of, write_csv
from tests.profiling.made import ALL_BASELINES, NAMES, made_point, made_profile

FULL = made_profile(baselines=ALL_BASELINES)


def _old(profile: Profile, folder: Path) -> dict[str, object]:
    path = folder / "old.json"
    path.write_text(json.dumps(profile.to_dict(), allow_nan=False), encoding="utf-8")
    return read_profile(path)


def test_a_profile_beside_itself_changed_nowhere(tmp_path: Path) -> None:
    comparison = compare(_old(FULL, tmp_path), FULL)
    assert len(comparison.changes) == 3 * len(NAMES)
    assert comparison.beyond_noise == []
    assert comparison.differences == ()


@pytest.mark.parametrize(
    ("seconds", "apart", "is_change"),
    [(1.04, 0.001, False), (1.06, 0.001, True), (0.9, 0.02, True), (1.3, 0.6, False)],
)
def test_a_change_lies_beyond_the_noise_of_both(seconds: float, apart: float, is_change: bool, tmp_path: Path) -> None:
    """Ranges apart, and five percent between the medians: neither alone is enough."""
    old = made_profile(made_point(64, apart=apart))
    new = made_profile(made_point(64, seconds=seconds, apart=apart))
    changes = {change.name: change for change in compare(_old(old, tmp_path), new).changes}
    assert changes["prefill_seconds"].is_beyond_noise is is_change
    assert changes["prefill_seconds"].ratio == pytest.approx(seconds)
    assert changes["overlap_seconds"].is_beyond_noise is None  # there is none in either


def test_measured_once_a_change_cannot_be_told(tmp_path: Path) -> None:
    new = made_profile(made_point(64, seconds=3.0, num_repeats=1))
    assert {change.is_beyond_noise for change in compare(_old(FULL, tmp_path), new).changes} == {None}


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    new = replace(FULL, model={**FULL.model, "dtype": "bfloat16"}, device=replace(FULL.device, load_average=9.0))
    new = replace(new, settings={**new.settings, "video_info": {"num_frames": 3}})
    assert compare(_old(FULL, tmp_path), new).differences == (
        "model.dtype: float32 before, bfloat16 now",
        "the video: clip.mp4 before, clip.mp4 now",
    )


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema_version": 2, "points": []}', '{"schema_version": 1, "points": [{"spread": {"a": 1}}]}']
)
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        read_profile(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_profile(tmp_path / "absent.json")


@pytest.mark.parametrize("harm", [{"model": [1]}, {"settings": None}, {"points": [{"num_frames": "64"}]}])
def test_a_damaged_profile_is_refused_before_minutes_are_spent(harm: dict[str, Any], tmp_path: Path) -> None:
    """What `compare` stumbled over came to light only when everything had been measured, and was lost with it."""
    document = FULL.to_dict()
    if "points" in harm:
        harm = {
            "points": [{**point, **harm["points"][0]} for point in cast("list[dict[str, Any]]", document["points"])]
        }
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**document, **harm}), encoding="utf-8")
    with pytest.raises(UsageError, match="is damaged"):
        read_profile(path)


def test_profiles_without_a_number_of_frames_in_common_are_not_compared(tmp_path: Path) -> None:
    """Else “0 figures changed” was the answer."""
    old = _old(made_profile(made_point(16), made_point(64)), tmp_path)
    check_comparable(old, (32, 64))
    with pytest.raises(UsageError, match="covers 16, 64 frames, this 8, 32") as raised:
        check_comparable(old, (8, 32))
    assert raised.value.remedy == "Use --frames 16,64."
    with pytest.raises(UsageError, match="covers no frames"):
        check_comparable({**old, "points": []}, (8,))


def test_the_noisiest_figure_is_named_and_the_tiniest_left_out() -> None:
    point = made_point(64)
    jumping = replace(point.spreads["open_seconds"], median=1e-4, least=1e-6, most=1e-3)
    restless = replace(point.spreads["read_seconds"], least=0.5)
    profile = made_profile(replace(point, spreads={**point.spreads, "open_seconds": jumping, "read_seconds": restless}))
    noisiest = profile.noisiest()
    assert noisiest is not None
    assert noisiest[:2] == ("read_seconds", 64)
    assert noisiest[2] == pytest.approx(0.51)
    assert made_profile(made_point(64, num_repeats=1)).noisiest() is None


def test_layers_make_the_first_token_once() -> None:
    """The slow keys and values are a part of the prefill, not beside it."""
    layers = layers_of(made_point(64))
    assert sum(layer.seconds for layer in layers) == pytest.approx(made_point(64).median("ttft_seconds"))
    assert [layer.seconds for layer in layers[-2:]] == [0.25, 0.75]


def test_the_table_has_a_row_a_mode_and_number_of_frames() -> None:
    stream = io.StringIO()
    assert write_csv(FULL, stream) == 10
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [(row["mode"], row["num_frames"]) for row in rows[:4]] == [
        ("slow_fast", "16"), ("slow_fast", "64"), ("slow_fast", "128"), ("self_attention_only", "16"),
    ]  # fmt: skip
    assert (rows[0]["ttft_seconds"], rows[0]["peak_device_bytes"]) == ("6.0", "")
    assert float(rows[0]["ttft_seconds_least"]) == pytest.approx(5.94)
    assert (rows[3]["prefill_seconds"], rows[3]["ttft_seconds"]) == ("0.9", "")


def test_the_picture_says_what_it_shows() -> None:
    file = io.BytesIO()
    plot.draw(FULL, file, "svg")
    drawn = file.getvalue().decode()
    for words in (
        "bench-0.5b (float32, sdpa, random weights) on A processor, 2 threads",
        "each stage the median of 3 runs",
        "seconds to the first token",
        "vision tower",
        "slow keys and values",
        "frames (log scale)",
        "LLM prefill, 16 frames in self-attention only = 1× (log scale)",
        "all visual tokens in self-attention, operations",
        "slow-fast, measured time",
        "6 s",
    ):
        assert f">{words}<" in drawn or words in drawn


def test_no_bar_lies_under_the_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file whose opening takes most of the time all bars are as high, and names were written over the first."""
    from matplotlib.figure import Figure

    drawn = list[Figure]()
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot.draw(made_profile(*(made_point(count) for count in (8, 16, 32))), io.BytesIO(), "png")
    (figure,) = drawn
    figure.draw_without_rendering()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0
    assert legend.get_window_extent().y0 >= 0


@pytest.mark.parametrize("profile", [made_profile(), made_profile(made_point(8, num_repeats=1))])
def test_it_is_drawn_without_baselines_and_of_a_single_point(profile: Profile) -> None:
    file = io.BytesIO()
    plot.draw(profile, file, "png")
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1500


def test_a_single_run_has_no_whisker_and_the_baseline_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whisker of no length looked like a measurement without any spread, and 1× was no line to compare with."""
    from matplotlib.figure import Figure

    drawn = list[Figure]()
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot.draw(made_profile(made_point(8, num_repeats=1)), io.BytesIO(), "png")
    plot.draw(made_profile(made_point(8, num_repeats=3)), io.BytesIO(), "png")
    once, often = (figure.axes[0].get_legend_handles_labels()[1] for figure in drawn)
    assert "least and most" not in once
    assert "least and most" in often
    assert any("self-attention only" in label for label in drawn[0].axes[1].get_legend_handles_labels()[1])
    width = drawn[0].axes[0].get_xlim()
    assert width[1] - width[0] == 3


def test_without_matplotlib_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plot.check_matplotlib()
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    with pytest.raises(SfvqaError, match=r'pip install "sfvqa\[plot\]"'):
        plot.check_matplotlib()
