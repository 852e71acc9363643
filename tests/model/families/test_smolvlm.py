"""SmolVLM2 chooses its frames, and says when they are shown, as transformers does."""

from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor
from transformers.video_utils import VideoMetadata

from sfvqa.model.families.smolvlm import lay_out
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy, Timeline, choose_frames

USUAL_RATES = [0.1, 1.0, 5.0, 12.5, 24_000 / 1001, 25.0, 30_000 / 1001, 60.0]
RATES = st.one_of(st.sampled_from(USUAL_RATES), st.floats(0.05, 120))
NUMBERS = st.one_of(st.integers(1, 5), st.integers(1, 2000))
PER_FRAME = 4


@settings(deadline=None)
@given(num_frames=NUMBERS, fps=RATES, wanted=st.sampled_from([1, 2, 8, 64]))
@example(num_frames=66 * 25, fps=25.0, wanted=64)
@example(num_frames=66 * 25 + 1, fps=25.0, wanted=64)
def test_the_frames_are_transformers_choice(num_frames: int, fps: float, wanted: int) -> None:
    """One frame, a part of a second, hours at a frame every ten seconds, and the border at which both ends go."""
    metadata = VideoMetadata(total_num_frames=num_frames, fps=fps, duration=num_frames / fps)
    own: Any = SimpleNamespace(num_frames=wanted, fps=1)
    expected = SmolVLMVideoProcessor.sample_frames(own, metadata)
    timeline = Timeline([place / fps for place in range(num_frames)], fps=fps)
    options = SamplingOptions(wanted, SamplingStrategy.SMOLVLM)
    assert choose_frames(timeline, options).indices == tuple(map(int, expected))


@settings(deadline=None)
@given(
    timestamps_seconds=st.lists(st.floats(0, 40_000), min_size=1, max_size=130).map(sorted),
    behind_seconds=st.floats(0, 90_000),
)
def test_times_are_written_as_transformers_writes_them(timestamps_seconds: list[float], behind_seconds: float) -> None:
    """Minutes beyond the 99th, and lengths of more than a day."""
    duration = timestamps_seconds[-1] + behind_seconds
    own: Any = SimpleNamespace(
        image_seq_len=PER_FRAME,
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    metadata = SimpleNamespace(fps=1.0, timestamps=timestamps_seconds, duration=duration)
    pixels = torch.zeros(1, len(timestamps_seconds))
    expected = SmolVLMProcessor.replace_video_token(own, {"pixel_values": pixels, "video_metadata": [metadata]}, 0)
    layout = lay_out(PER_FRAME * len(timestamps_seconds), timestamps_seconds, duration)
    assert "".join("<image>" * part if isinstance(part, int) else part for part in layout) == expected
