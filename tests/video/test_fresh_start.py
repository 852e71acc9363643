"""Whether a key frame of H.264 starts afresh, by the first bytes of its slices (ITU-T H.264, 7.3.1 and 7.3.3)."""

import av
import pytest

from sfvqa.video.readers.fresh_start import FreshStarts
from sfvqa.video.readers.video_track import open_container

from .conftest import WriteVideo
from .videos import Recipe, constant_rate

HEADERS = [b"\x09\x10", b"\x67\x64\x00\x0b", b"\x68\xeb", b"\x06\x06\x01\xc4"]
SLICES = {
    "IDR": (b"\x65\x88\x84", True),
    "I in the one way": (b"\x41\x88\x84", False),
    "I in the other": (b"\x61\xb3\x84", False),
    "P in the one way": (b"\x41\x9a\x24", False),
    "P in the other": (b"\x21\xe1\x24", False),
    "noise in which nothing refers to it": (b"\x01\x88\x84", True),
    "noise in which a bit is set that never is": (b"\xc1\x88\x84", True),
    "noise in which it is no first slice": (b"\x41\x40\x84", True),
    "a byte": (b"\x41", True),
    "nothing": (b"", True),
}


@pytest.mark.parametrize("name", ["fresh.mp4", "fresh.ts"])
@pytest.mark.parametrize("kind", SLICES)
def test_only_a_picture_that_plainly_is_another_does_not(video: WriteVideo, name: str, kind: str) -> None:
    """Noise in one key frame must not make the decoder lenient with the whole file."""
    unit, starts_afresh = SLICES[kind]
    units = [*HEADERS, *([unit] if unit else [])]
    prefixes = [len(each).to_bytes(4) if name.endswith("mp4") else b"\0\0\0\1" for each in units]
    data = b"".join(prefix + each for prefix, each in zip(prefixes, units, strict=True))
    with open_container(video(name, Recipe(constant_rate(3)))) as container:
        assert FreshStarts(container.streams.video[0]).is_one(av.Packet(data)) == starts_afresh  # type: ignore[arg-type]


def test_of_other_codecs_every_key_frame_does(video: WriteVideo) -> None:
    with open_container(video("fresh.avi", Recipe(constant_rate(3), "mpeg4"))) as container:
        assert FreshStarts(container.streams.video[0]).is_one(av.Packet(b"\0\0\1\x41\x88"))  # type: ignore[arg-type]
