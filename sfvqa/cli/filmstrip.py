"""`sfvqa ask --evidence-out`: a picture an answer, of the frames that were seen and how much it looked at each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.errors import UnreadableVideoError, UsageError

if TYPE_CHECKING:
    from sfvqa.cli.render import Notices
    from sfvqa.cli.video_file import VideoFile
    from sfvqa.inference.answer import Answer
    from sfvqa.inference.encoding import EncodedVideo
    from sfvqa.video.contact_sheet import Cell


def filmstrip_paths(out: Path | None, num_answers: int, *, keep: Path) -> list[Path]:
    """Where the pictures go, none without `out`: there, or of several answers numbered, `strip-1.png` and so on.

    UsageError or SfvqaError where one of them cannot be written or would take the place of `keep`.
    """
    from sfvqa.cli.picture_file import check_picture_path

    if out is None:
        return []
    if num_answers == 1:
        paths = [out]
    else:
        paths = [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, num_answers + 1)]
    for path in paths:
        check_picture_path(path, keep=keep)
    return paths


def draw_filmstrips(
    file: "VideoFile", encoded: "EncodedVideo", answers: "Sequence[Answer]", paths: Sequence[Path], notices: "Notices"
) -> None:
    """Read the frames again, small, and draw one picture an answer that looked at any. VideoError, SfvqaError."""
    from sfvqa.cli.describe import describe_video
    from sfvqa.cli.picture_file import write_picture
    from sfvqa.video.contact_sheet import draw_filmstrip

    if not paths:
        return
    with notices.waiting("Drawing what it looked at"):
        cells = _read_cells(file, encoded)
        is_cut = encoded.crop.lost_share(encoded.video.width, encoded.video.height) > 0
        facts = (
            f"{encoded.video.path.name}, {answers[0].model}; {describe_video(encoded.video)}; bars: each frame's share "
            f"of the answer's slow attention, a hint and no proof; spread evenly it would be {100 / len(cells):.1f} %"
            + ("; the crop cuts off what is dark" if is_cut else "")
        )
        for answer, path in zip(answers, paths, strict=True):
            if weights := [frame.weight for frame in answer.evidence or ()]:
                titles = (answer.question, f"Answer: {answer.text}")
                write_picture(draw_filmstrip(cells, weights, titles=titles, facts=facts, crop=encoded.crop), path)
                notices.note(f"What the answer looked at is drawn in {path}.")


def _read_cells(file: "VideoFile", encoded: "EncodedVideo") -> "list[Cell]":
    from sfvqa.video.contact_sheet import MAX_CELLS, Cell, fit_for_filmstrip
    from sfvqa.video.fitting import resize_to

    if len(encoded.indices) > MAX_CELLS:
        raise UsageError(f"A picture holds {MAX_CELLS:,} frames.", "Look at fewer (--frames), or use --json.")
    reader = file.reader
    if encoded.indices[-1] >= len(reader.timestamps_seconds):
        raise UnreadableVideoError(
            f"“{encoded.video.path}” has changed since it was looked at: frames of then are not there any more.",
            "Ask again.",
        )
    read = {
        frame.index: frame.pixels for frame in reader.read(encoded.indices, fit_for_filmstrip(len(encoded.indices)))
    }
    if not read:
        raise UnreadableVideoError(f"No frame of “{encoded.video.path}” can be read any more.", "Ask again.")
    height, width = next(iter(read.values())).shape[:2]
    of_one_size = {index: resize_to(pixels, width, height) for index, pixels in read.items()}
    return [
        Cell(index, seconds, of_one_size.get(index))
        for index, seconds in zip(encoded.indices, encoded.timestamps_seconds, strict=True)
    ]
