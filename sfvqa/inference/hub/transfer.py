"""One file from a hub onto the disk, by plain HTTP, going on from the bytes that are there already.

huggingface_hub 2.4 throws away what it has of a file when it is interrupted, with and without xet; this does not.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from sfvqa.inference.hub.cache import bytes_on_disk

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""How long to wait after each failure in a row before trying again; any byte that comes starts the row anew."""

_CHUNK_BYTES = 1 << 18


def transfer(url: str, headers: dict[str, str], target: Path, size_bytes: int) -> Iterator[int]:
    """Bring `target` to `size_bytes`, yielding its size as it grows; what is there is asked for no second time.

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
        failures = 0 if reached > before else failures + 1
        if failures > len(RETRY_SECONDS):
            raise failure
        time.sleep(RETRY_SECONDS[max(failures - 1, 0)])


def _request(url: str, headers: dict[str, str], target: Path, start: int, size_bytes: int) -> Iterator[int]:
    """Ask once for the bytes from `start` on and append what comes; a server that sends all of them starts anew."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # public, but not marked so

    asked = headers | {"accept-encoding": "identity"} | ({"range": f"bytes={start}-"} if start else {})
    with contextlib.ExitStack() as stack:
        # The client follows redirects to the storage, and leaves the token behind when the host is another.
        response = stack.enter_context(
            get_session().stream("GET", url, headers=asked, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        )
        hf_raise_for_status(response)
        goes_on = response.status_code == 206
        done = start if goes_on else 0
        file = stack.enter_context(target.open("ab" if goes_on else "wb"))
        for chunk in response.iter_bytes(_CHUNK_BYTES):
            kept = chunk[: size_bytes - done]
            file.write(kept)
            done += len(kept)
            yield done
            if len(kept) < len(chunk):
                return  # more than was stated: the hash will tell
