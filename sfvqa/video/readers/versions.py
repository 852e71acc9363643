"""Which libraries read videos here, and the FFmpeg inside each; imports them, and raises what that raises."""

import re

_LIBRARIES = ("libavcodec", "libavformat")


def pyav_version() -> dict[str, str]:
    """Of PyAV and its FFmpeg."""
    import av
    from av import _core

    libraries = [f"{name} {'.'.join(map(str, _core.library_meta[name]['version']))}" for name in _LIBRARIES]
    return {"version": av.__version__, "ffmpeg": ", ".join(libraries)}


def opencv_version() -> dict[str, str]:
    """Of OpenCV and its FFmpeg, by what OpenCV says of its build."""
    import cv2

    build = cv2.getBuildInformation()
    libraries = []
    for name in _LIBRARIES:
        short = name.removeprefix("lib")
        found = re.search(rf"^\s*{short}:\s+\w+ \(([\d.]+)\)", build, re.MULTILINE)
        libraries += [f"{name} {found[1]}"] if found else []
    return {"version": cv2.__version__, "ffmpeg": ", ".join(libraries) or "none"}


def pillow_version() -> dict[str, str]:
    """Of Pillow, which reads pictures and animations."""
    import PIL

    return {"version": PIL.__version__}
