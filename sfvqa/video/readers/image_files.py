"""Pictures as videos: a still is a video of one frame, a folder of them one frame a second; animations elsewhere."""

from collections.abc import Generator, Sequence
from pathlib import Path

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.pixels import Pixels
from sfvqa.video.readers.image_folder import names_of, other_pictures_in, pictures_in
from sfvqa.video.readers.interface import ReaderName, VideoReader
from sfvqa.video.readers.picture_file import Picture, kind_of, read_picture

SECONDS_A_PICTURE = 1.0
"""How long each picture of a folder is shown; nothing in a folder says it."""

_HEIF_SUFFIXES = (".avif", ".heic", ".heif", ".hif")


def open_pictures(path: Path) -> VideoReader | None:
    """Open a folder of images, an animation or a still by what it holds; None if it is none of them.

    Raises UnreadableVideoError if it is one and no frame of it can be read.
    """
    if path.is_dir():
        return PictureReader(path, pictures_in(path), other_pictures_in(path))
    kind = kind_of(path)
    if kind is None:
        return None
    if not kind.is_animated:
        return PictureReader(path, [path])
    if kind.format in ("webp", "avif"):
        from sfvqa.video.readers.animated_picture import AnimatedPictureReader

        return AnimatedPictureReader(path, kind.format)
    from sfvqa.video.readers.animation import AnimationReader

    return AnimationReader(path, kind.format)


class PictureReader(VideoReader):
    """Reads pictures with Pillow, each when it is asked for; memory holds one.

    One picture is a frame at 0 s that lasts 0 s, at a rate of 0 (unknown). Of a folder each picture lasts
    SECONDS_A_PICTURE. `info` has the size, codec and rotation of the first that can be read.
    """

    name = ReaderName.PILLOW

    def __init__(self, path: Path, pictures: Sequence[Path], left_out: Sequence[Path] = ()) -> None:
        """`pictures` are the frames in order; raises UnreadableVideoError if none of them can be read.

        left_out: pictures of the folder in formats that are not read.
        """
        self._pictures = list(pictures)
        first = _first_readable(path, self._pictures)
        is_folder = path not in self._pictures
        step = SECONDS_A_PICTURE if is_folder else 0.0
        height, width = first.pixels.shape[:2]
        info = VideoInfo(
            path=path,
            num_frames=len(self._pictures),
            fps=1 / step if is_folder else 0.0,
            duration_seconds=step * len(self._pictures),
            width=width,
            height=height,
            codec=first.format,
            rotation=first.rotation,
        )
        warnings = []
        if is_folder:
            warnings.append(
                "Pictures in a folder carry no times: they are taken in the order of their names, one a second."
            )
        if left_out:
            is_one = len(left_out) == 1
            what = "1 picture in a format that is" if is_one else f"{len(left_out)} pictures in formats that are"
            warnings.append(f"The folder has {what} not read, left out: {names_of(left_out)}.")
        if first.has_more_pages and not is_folder:
            warnings.append("The picture has more than one page: only the first is read.")
        places = range(len(self._pictures))
        super().__init__(info, tuple(step * place for place in places), tuple(places), warnings)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        for index in indices:
            try:
                picture = _read(self._pictures[index])
            except UnreadableVideoError:
                yield index, f"“{self._pictures[index].name}” cannot be read"
            else:
                yield index, fit(picture.pixels)

    def close(self) -> None:
        """Nothing stays open between pictures."""


def _read(file: Path) -> Picture:
    """The picture as it is when the file is read alone: with PyAV those of HEIF's kinds that Pillow does not know."""
    try:
        return read_picture(file)
    except UnreadableVideoError:
        if file.suffix.lower() not in _HEIF_SUFFIXES:
            raise
        from sfvqa.video.readers.pyav import PyAVReader

        try:
            with PyAVReader(file, num_threads=1) as opened:
                (frame,) = opened.read([0])
        except (UnreadableVideoError, ValueError):  # ValueError: it has no frame
            pass
        else:
            return Picture(frame.pixels, "heif", opened.info.rotation, has_more_pages=False)
        raise


def _first_readable(path: Path, pictures: Sequence[Path]) -> Picture:
    reason: UnreadableVideoError | None = None
    for picture in pictures:
        try:
            return _read(picture)
        except UnreadableVideoError as error:
            reason = reason or error
    if reason is not None and len(pictures) == 1:
        raise reason
    raise UnreadableVideoError(
        f"“{path}” holds no image that can be read ({len(pictures)} were tried).", "Give a folder with whole pictures."
    ) from reason
