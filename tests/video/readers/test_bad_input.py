"""What is no video: one clear sentence and what to do, exit code 3, nothing on stderr, nothing opened but the file."""

import os
from pathlib import Path

import numpy as np
import pytest

from sfvqa.errors import UnreadableVideoError, VideoError, VideoNotFoundError
from sfvqa.video import ReaderName

from ..conftest import WriteVideo
from ..here import read_here
from ..videos import Recipe, constant_rate, write_sound

EVERY_READER = pytest.mark.parametrize("reader", list(ReaderName), ids=str)


def assert_refused(
    path: str | Path, reader: ReaderName, capfd: pytest.CaptureFixture[str], sentence: str
) -> VideoError:
    with pytest.raises(VideoError, match=sentence) as raised:
        read_here(path, reader=reader)
    error = raised.value
    assert error.exit_code == 3
    assert error.remedy.endswith(".")
    assert "\n" not in str(error)
    assert capfd.readouterr() == ("", ""), "the libraries talk on the terminal"
    return error


@EVERY_READER
@pytest.mark.parametrize("name", ["missing.mp4", "no/such/folder.mp4", "null\0byte.mp4", "n" * 300 + ".mp4", ""])
def test_a_missing_file(tmp_path: Path, reader: ReaderName, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = os.path.join(str(tmp_path / "here"), name)  # noqa: PTH118  (a Path would drop the empty name)
    assert isinstance(assert_refused(path, reader, capfd, "There is no file"), VideoNotFoundError)


@EVERY_READER
def test_a_folder(tmp_path: Path, reader: ReaderName, capfd: pytest.CaptureFixture[str]) -> None:
    assert_refused(tmp_path, reader, capfd, "is a folder and holds no images")


@EVERY_READER
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.mp4", b"", "zero bytes"),
        ("text.mp4", b"Dear reader,\n" * 400, "cannot read|cannot be read"),
        ("noise.mp4", np.random.default_rng(3).bytes(20000), "cannot read|cannot be read|No frame|no frame"),
        ("zeros.mp4", bytes(20000), "cannot read|cannot be read"),
    ],
)
def test_what_is_no_video(
    tmp_path: Path, reader: ReaderName, name: str, content: bytes, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert_refused(path, reader, capfd, sentence)


@EVERY_READER
def test_sound_only(tmp_path: Path, reader: ReaderName, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_sound(tmp_path / "sound.mp4")
    is_for_pictures = reader is ReaderName.PILLOW
    sentence = "cannot be read as a picture" if is_for_pictures else "has sound but no moving"
    assert_refused(path, reader, capfd, sentence)


@EVERY_READER
def test_a_video_without_its_index(
    video: WriteVideo, tmp_path: Path, reader: ReaderName, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cut off where the index stands at the end: what a crashed recorder leaves."""
    whole = video("index_last.mp4", Recipe(constant_rate(60))).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    assert_refused(path, reader, capfd, "cannot read|cannot be read")


@EVERY_READER
@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.mp4", "https://example.org/a.mp4", "rtsp://camera/1", "file:///tmp/a.mp4"]
)
def test_an_address(reader: ReaderName, address: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert_refused(address, reader, capfd, "only local files")
    assert_refused(Path(address), reader, capfd, "only local files")  # a Path has folded the two slashes into one


@EVERY_READER
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_nobody_writes_to_is_refused_at_once(
    tmp_path: Path, reader: ReaderName, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    assert_refused(path, reader, capfd, "pipe or device")


@EVERY_READER
@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path, reader: ReaderName, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "private.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    assert_refused(path, reader, capfd, "may not be read")


def test_the_environment_is_left_as_it_was(video: WriteVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV takes its settings from the environment only."""
    import cv2  # noqa: F401  (importing it sets a variable of its own)

    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "mine")
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    before = dict(os.environ)
    read_here(video("secret.mp4", Recipe(constant_rate(5))), reader=ReaderName.OPENCV)
    assert dict(os.environ) == before


def test_auto_falls_back_to_opencv_and_says_so(video: WriteVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path, _num_threads: int | None) -> None:
        raise UnreadableVideoError(f"{file} is beyond PyAV.", "None.")

    path = video("secret.mp4", Recipe(constant_rate(5)))
    assert read_here(path).reader == "pyav"
    monkeypatch.setattr("sfvqa.video.readers.pyav.PyAVReader", fail)
    clip = read_here(path)
    assert clip.reader == "opencv"
    assert any("PyAV could not read this file" in warning for warning in clip.warnings)
    with pytest.raises(UnreadableVideoError, match="beyond PyAV"):
        read_here(path, reader=ReaderName.PYAV)
