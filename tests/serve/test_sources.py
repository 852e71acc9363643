"""Nothing is read that does not lie in the folders or was not sent, and what is sent has bounds."""

import base64
import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath
from urllib.parse import quote

import pytest
from PIL import Image

from sfvqa.errors import ServerBusyError, UsageError, VideoNotFoundError
from sfvqa.serve import sources
from sfvqa.serve.sources import Folders, Upload, Uploads
from tests.windows import as_on_windows, named_windows, needs_links, needs_names, needs_signals


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An open folder with a video in it, and one beside it that is not open."""
    opened, closed = tmp_path / "open", tmp_path / "open-not"
    for folder in (opened / "below", closed):
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(b"\0")
    (opened / "an odd näme 100%.mp4").write_bytes(b"\0")
    (opened / ".hidden.mp4").write_bytes(b"\0")
    (opened / "notes.txt").write_bytes(b"\0")
    return tmp_path


def test_a_video_in_a_folder_is_found(tree: Path) -> None:
    folders = Folders([tree / "open"])
    found = list(folders.videos())
    assert [path.name for path in found] == ["an odd näme 100%.mp4", "clip.mp4"]
    assert [folders.find(path.as_uri()) for path in found] == found
    assert folders.find(f"file://localhost{tree}/open/below/../below/clip.mp4") == found[1]


@needs_names
def test_a_name_that_is_no_utf8_is_found(tree: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tree / "open") + b"/\xff.mp4"))
    path.write_bytes(b"\0")
    assert Folders([tree / "open"]).find(path.as_uri()) == path


@needs_links
@pytest.mark.parametrize(
    "address",
    [
        "file://{tree}/open-not/clip.mp4",
        "file://{tree}/open/../open-not/clip.mp4",
        "file://{tree}/open/%2e%2e/open-not/clip.mp4",
        "file://{tree}/open/%252e%252e/open-not/clip.mp4",
        "file://{tree}/open/..%2fopen-not/clip.mp4",
        "file://{tree}/open/link.mp4",
        "file://{tree}/open/linked/clip.mp4",
        "file://{tree}/open/loop.mp4",
        "file://{tree}/open/album",
        "file://{tree}/open/below/clip.mp4%00.txt",
        "file://{tree}/open/below/clip.mp4?x",
        "file://{tree}/open/below/clip.mp4#x",
        "file://other.host{tree}/open/below/clip.mp4",
        "file:open/below/clip.mp4",
        "file:below/clip.mp4",
        "file://[/clip.mp4",
        "file://{tree}/open/absent.mp4",
        "file://{tree}",
        "file:///",
        "file:",
        "file:///proc/self/environ",
    ],
)
def test_no_name_leads_out_of_the_folders(tree: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all are refused in the same words, whether there is something or not."""
    monkeypatch.chdir(tree)
    opened = tree / "open"
    (opened / "link.mp4").symlink_to(tree / "open-not" / "clip.mp4")
    (opened / "linked").symlink_to(tree / "open-not")
    (opened / "loop.mp4").symlink_to(opened / "loop.mp4")
    (opened / "album").mkdir()
    Image.new("RGB", (8, 8)).save(tree / "open-not" / "picture.png")
    (opened / "album" / "picture.png").symlink_to(tree / "open-not" / "picture.png")
    with pytest.raises(VideoNotFoundError, match="is no video in the folders"):
        Folders([opened]).find(address.format(tree=quote(str(tree))))


def test_a_folder_of_pictures_is_a_video(tree: Path) -> None:
    Image.new("RGB", (8, 8)).save(tree / "open" / "below" / "picture.png")
    assert Folders([tree / "open"]).find((tree / "open" / "below").as_uri()) == tree / "open" / "below"


@needs_links
def test_what_would_be_refused_is_not_listed(tree: Path) -> None:
    (tree / "open" / "link.mp4").symlink_to(tree / "open-not" / "clip.mp4")
    folders = Folders([tree / "open"])
    assert [folders.find(path.as_uri()) for path in folders.videos()] == list(folders.videos())
    assert not any(path.name == "link.mp4" for path in folders.videos())


def test_a_list_of_videos_has_an_end(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_LISTED", 1)
    assert len(list(Folders([tree / "open"]).videos())) == 1


def store(uploads: Uploads, content: bytes, name: str = "clip.mp4") -> Upload:
    with uploads.writing(name) as writing:
        writing.write(content)
    assert writing.upload is not None
    uploads.release(writing.upload)
    return writing.upload


def test_an_upload_is_kept_under_its_content(tmp_path: Path) -> None:
    with Uploads(100, 1000, tmp_path) as uploads:
        one, same, other = (store(uploads, content) for content in (b"a", b"a", b"b"))
        assert one is same
        assert one.id != other.id
        assert (one.path.read_bytes(), one.path.suffix) == (b"a", ".mp4")
        assert uploads.find(one.id) is one
        with pytest.raises(VideoNotFoundError):
            uploads.find("file-0")
    assert list(tmp_path.iterdir()) == []


def test_the_same_content_by_another_name_has_that_name(tmp_path: Path) -> None:
    with Uploads(100, 1000, tmp_path) as uploads:
        one, other = store(uploads, b"a", "one.mp4"), store(uploads, b"a", "other.gif")
        assert (other.name, other.path.suffix) == ("other.gif", ".gif")
        assert uploads.all() == [one, other]


@pytest.mark.parametrize("name", ["../../x.mp4", "a/b.mp4", "x.mp4\0", "x." + "a" * 300, "..", "", "x.m/p4"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with Uploads(100, 1000, tmp_path) as uploads:
        assert store(uploads, b"a", name).path.parent.parent == tmp_path


def test_what_is_too_large_is_refused_and_goes(tmp_path: Path) -> None:
    with Uploads(100, 1000, tmp_path) as uploads:
        with pytest.raises(UsageError, match="100 bytes"):
            store(uploads, b"a" * 101)
        assert uploads.all() == []
        assert [path.name for path in next(tmp_path.iterdir()).iterdir()] == ["lock"]


def test_where_room_is_short_the_least_recently_used_go(tmp_path: Path) -> None:
    with Uploads(100, 250, tmp_path) as uploads:
        first, second = store(uploads, b"1" * 100), store(uploads, b"2" * 100)
        uploads.find(first.id)
        third = store(uploads, b"3" * 100)
        assert uploads.all() == [first, third]
        assert not second.path.exists()
        assert uploads.num_bytes == 200


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    with Uploads(100, 250, tmp_path) as uploads:
        used = [uploads.use(store(uploads, bytes([number]) * 100).id) for number in range(2)]
        with pytest.raises(ServerBusyError, match="no room"):
            store(uploads, b"3" * 100)
        uploads.remove(used[0].id)
        assert used[0].path.exists()
        uploads.release(used[0])
        assert not used[0].path.exists()
        assert store(uploads, b"3" * 100) in uploads.all()


def test_what_is_removed_in_use_goes_though_it_was_sent_again(tmp_path: Path) -> None:
    with Uploads(100, 1000, tmp_path) as uploads:
        used = uploads.use(store(uploads, b"a").id)
        uploads.remove(used.id)
        again = store(uploads, b"a")
        uploads.release(used)
        assert (used.path.exists(), again.path.exists()) == (False, True)


def test_uploads_are_bounded_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_UPLOADS", 3)
    with Uploads(100, 1000, tmp_path) as uploads:
        kept = [store(uploads, bytes([number])) for number in range(5)]
        assert uploads.all() == kept[2:]


def test_a_data_address_is_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = base64.b64encode(b"video").decode()
    monkeypatch.setattr(sources, "LARGEST_DATA_BYTES", 5)
    with Uploads(100, 1000, tmp_path) as uploads:
        upload = uploads.add_data(f"data:video/webm;codecs=vp9;base64,{content}")
        assert (upload.name, upload.path.read_bytes(), upload.num_users) == ("video.webm", b"video", 1)
        assert uploads.add_data(f"data:video/webm;base64,{content}") is upload
        assert uploads.add_data(f"data:;base64,{content}").name == "video"
        for wrong in ("data:", "data:video/mp4", "data:video/mp4;base64", f"data:video/mp4;base64,{content}="):
            with pytest.raises(UsageError):
                uploads.add_data(wrong)
        with pytest.raises(UsageError, match="Upload it"):
            uploads.add_data(f"data:video/mp4;base64,{base64.b64encode(b'videos').decode()}")


def test_on_windows_an_upload_that_is_open_stays_as_long_as_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that reads it may be about to end; whoever forgets it must not fail for that."""
    as_on_windows(monkeypatch)
    with Uploads(2, 2, tmp_path) as uploads:
        upload = store(uploads, b"aa")
        with upload.path.open("rb"):
            other = store(uploads, b"bb")  # in its place
        used = uploads.use(other.id)
        uploads.remove(other.id)
        with used.path.open("rb"):
            uploads.release(used)
        assert (uploads.all(), upload.path.exists(), used.path.exists()) == ([], True, True)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_on_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock was still open while the folder was removed, which left the folder, without a lock, for ever."""
    as_on_windows(monkeypatch)
    left = tmp_path / "sfvqa-uploads-left"
    left.mkdir()
    (left / "lock").touch()
    with Uploads(1, 1, tmp_path):
        assert not left.exists()


class _OnWindows(type(Path())):  # type: ignore[misc]
    """A path that is to be resolved."""

    drive = r"\\server\share"

    def resolve(self, **_: bool) -> Path:
        raise AssertionError(f"{self} is called on")


def test_no_other_server_is_called_on_for_a_video(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows would tell it, whoever it is, the name and the hashed password of the user."""
    folders = Folders([tree / "open"])
    monkeypatch.setattr(sources, "_path_of", lambda _: _OnWindows("/server/share/clip.mp4"))
    with pytest.raises(VideoNotFoundError):
        folders.find("file:////server/share/clip.mp4")


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///C:/My%20Videos/a.mp4", r"C:\My Videos\a.mp4"),
        ("file://localhost/c:/a%C3%A9.mp4", "C:\\a\u00e9.mp4"),
        ("file:////server/share/a.mp4", r"\\server\share\a.mp4"),  # whose drive is none of the folders'
        ("file://server/share/a.mp4", None),
        ("file:///videos/a.mp4", None),
        ("file:a.mp4", None),
        ("C:/a.mp4", None),
    ],
)
def test_addresses_have_drives_on_windows(address: str, path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its browsers write them, and its paths give them."""
    named_windows(monkeypatch, sources)
    monkeypatch.setattr(sources, "Path", PureWindowsPath)
    monkeypatch.setattr(sources, "url2pathname", pytest.importorskip("nturl2path").url2pathname)
    found = sources._path_of(address)
    assert (found and str(found)) == path


@needs_signals
def test_what_a_killed_process_left_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from sfvqa.serve.sources import Uploads\n"
        "with Uploads(1, 1, Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    with Uploads(1, 1, tmp_path) as uploads:
        assert not left.exists()
        upload = store(uploads, b"a")
        with Uploads(1, 1, tmp_path):
            assert upload.path.exists()
