"""One file from a hub onto the disk, by plain HTTP, going on from the bytes that are there already.

huggingface_hub 2.4 throws away what it has of a file when it is interrupted, with and without xet; this does not.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from sfvqa.inference.hub.asking import PACE_BYTES, answer_of, paced
from sfvqa.inference.hub.cache import bytes_on_disk

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""How long to wait after each failure in a row before trying again; a try that brings `PACE_BYTES` is none."""


def transfer(url: str, headers: dict[str, str], target: Path, size_bytes: int) -> Iterator[int]:
    """Bring `target` to `size_bytes`, yielding its size as it grows; it never shrinks, so that there is an end to it.

    A broken connection or a server out of order is tried again for a while; then httpx2's or huggingface_hub's
    errors come through, as does OSError of the disk.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if bytes_on_disk(target) > size_bytes:
        target.unlink()
    target.touch()
    failures = 0
    while (before := bytes_on_disk(target)) < size_bytes:
        failure: Exception = httpx2.RemoteProtocolError("the server ended the answer early")
        try:
            yield from _request(url, headers, target, before, size_bytes)
        except httpx2.TransportError as error:
            failure = error
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
            failure = error
        reached = bytes_on_disk(target)
        if reached >= size_bytes:
            return
        failures = 0 if reached - before >= PACE_BYTES else failures + 1
        if failures > len(RETRY_SECONDS):
            raise failure
        time.sleep(RETRY_SECONDS[max(failures - 1, 0)])


def _request(url: str, headers: dict[str, str], target: Path, start: int, size_bytes: int) -> Iterator[int]:
    """Ask once for the bytes from `start` on and append what comes, without what is here of a server that sends all."""
    from huggingface_hub import constants

    asked = headers | ({"range": f"bytes={start}-"} if start else {})
    with answer_of(url, asked, constants.HF_HUB_DOWNLOAD_TIMEOUT) as response, target.open("ab") as file:
        num_here = 0 if response.status_code == 206 else start
        done = start
        for piece in paced(response):
            new = piece[num_here:]
            num_here = max(num_here - len(piece), 0)
            kept = new[: size_bytes - done]
            file.write(kept)
            done += len(kept)
            yield done
            if len(kept) < len(new):
                return  # more than was stated: the hash will tell
