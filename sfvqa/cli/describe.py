"""A video, the frames chosen from it, what the crop leaves of them, and what comes with an answer, in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.checkpoints.find import ModelSettings
    from sfvqa.inference.answer import Answer
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.registry import ModelSpec
    from sfvqa.video import CropMode, SamplingOptions, VideoInfo


_SHOWN_MOMENTS, _BAR_CELLS = 5, 24
_WORTH_SAYING = 0.03  # the share of a picture from which on its loss is said where it is not asked for


def describe_video(info: "VideoInfo") -> str:
    """`0:05 long, 288×288, h264, 24 fps`."""
    from sfvqa.video.sampling import format_time

    facts = [f"{format_time(info.duration_seconds)} long", f"{info.width}×{info.height}", info.codec]
    if info.fps:
        facts.append(f"{info.fps:.4g} fps")
    return ", ".join(facts)


def describe_frames(times: Sequence[float], sampling: "SamplingOptions") -> str:
    """`32 frames from 0:00 to 0:04.958 (uniform)`; with `fps` the rate stands in the brackets too."""
    from sfvqa.video.sampling import format_time

    span = (
        f"from {format_time(times[0])} to {format_time(times[-1])}" if len(times) > 1 else f"at {format_time(times[0])}"
    )
    how = sampling.strategy.value if sampling.fps is None else f"{sampling.fps:g} {sampling.strategy.value}"
    return f"{plural(len(times), 'frame')} {span} ({how})"


def describe_briefly(encoded: "EncodedVideo", spec: "ModelSpec | None", settings: "ModelSettings") -> str:
    """`clip.mp4 · 32 frames, 0:00–0:04.958 · tiny (synthetic videos only)`: what is looked at, and who looks."""
    from sfvqa.cli.demo import is_bundled
    from sfvqa.video.sampling import format_time

    times, path = encoded.timestamps_seconds, encoded.video.path
    span = "–".join(format_time(time) for time in (times[0], times[-1])[: len(times)])
    video = f"{path.name} (bundled)" if is_bundled(path) else path.name
    bits = settings.quantization
    model = f"{settings.name}" if bits in ("none", "auto") else f"{settings.name} in {bits}"
    if spec is not None and spec.is_bundled and not is_bundled(path):
        model += " (synthetic videos only)"
    return f"{video} · {plural(len(times), 'frame')}, {span} · {model}"


def describe_encoded(encoded: "EncodedVideo", sampling: "SamplingOptions") -> str:
    """How long the video is, which frames were looked at, what they became and, where it is much, what was cut off."""
    info = encoded.video
    fast, slow = encoded.visual_tokens.fast.shape[0], encoded.visual_tokens.slow.shape[0]
    parts = [
        f"{info.path.name}: {describe_video(info)}",
        f"{describe_frames(encoded.timestamps_seconds, sampling)}, "
        f"{plural(fast, 'fast token')} and {plural(slow, 'slow token')}",
    ]
    if encoded.crop.lost_share(info.width, info.height) >= _WORTH_SAYING:
        parts.append(describe_crop(encoded.crop, info))
    return "; ".join(parts)


def describe_choices(answer: "Answer") -> list[str]:
    """` 93.1 %  left`, a line a choice, the likeliest first; none for an answer that was written."""
    ranked = sorted(answer.choices, key=lambda choice: -choice.probability)
    return [f"{100 * choice.probability:5.1f} %  {choice.text}" for choice in ranked]


def describe_evidence(answer: "Answer") -> list[str]:
    """` 19.3 %  ████████  0:02.083`, a line a moment that stands out, strongest first, under a line that explains."""
    from sfvqa.inference.answer import standing_out
    from sfvqa.video.sampling import format_time

    if not answer.evidence:
        return []
    shown, even = standing_out(answer.evidence, _SHOWN_MOMENTS), 1 / len(answer.evidence)
    lines = [f"Evidence: where its slow attention went, a hint and no proof; spread evenly, {_percent(even)} a frame."]
    for frame in shown:
        bar = "█" * max(1, round(_BAR_CELLS * frame.weight / shown[0].weight))
        lines.append(f"{_percent(frame.weight):>7}  {bar:<{_BAR_CELLS}}  {format_time(frame.timestamp_seconds)}")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def describe_subtitles(answer: "Answer") -> list[str]:
    """`Subtitles: 12 lines of talk.srt, 240 tokens; 3 lines were cut`; nothing where there are none."""
    used = answer.subtitles
    if used is None or not used.lines:
        return []
    cut = f"; {plural(used.cut, 'line')} cut" if used.cut else ""
    return [f"Subtitles: {plural(used.lines, 'line')} of {used.source}, {plural(used.tokens, 'token')}{cut}"]


def describe_crop(crop: "CropMode", info: "VideoInfo") -> str:
    """`the centre crop cuts off 44 % of the picture`."""
    if crop == "pad":
        return "padded to a square, nothing is cut off"
    if crop == "squash":
        return "squashed to a square, nothing is cut off"
    lost = crop.lost_share(info.width, info.height)
    if not lost:
        return "the centre crop cuts off nothing"
    percent = f"{lost:.0%}".replace("%", " %") if lost >= 0.01 else "less than 1 %"
    return f"the centre crop cuts off {percent} of the picture"
