"""One GET to a hub, with a bound on every wait: for a name, for headers, for the bytes behind them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

ANSWER_SECONDS = 60.0
"""The longest until the headers of an answer are there, redirects and all, unless a single read may take longer."""
PACE_SECONDS, PACE_BYTES = 60.0, 1 << 18
"""So many bytes come in so many seconds, or the connection is given up: 4 kB/s."""


@contextlib.contextmanager
def answer_of(url: str, headers: dict[str, str], read_seconds: float) -> Iterator["httpx2.Response"]:
    """The answer to a GET, whose body is still to be read; httpx2's errors or huggingface_hub's where there is none.

    The client follows redirects to the storage, and leaves the token behind when the host is another. `read_seconds`
    may pass without a byte.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # public, but not marked so

    session = get_session()
    asked = session.build_request("GET", url, headers=headers | {"accept-encoding": "identity"}, timeout=read_seconds)
    response = within(max(ANSWER_SECONDS, read_seconds), lambda: session.send(asked, stream=True))
    with contextlib.closing(response):
        if response.is_error:  # what it is stands in status and headers: of the body nothing is wanted
            response.close()
        hf_raise_for_status(response)
        yield response


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` returns; httpx2.ReadTimeout when that takes longer.

    The look-up of a name has no time-out of its own, and headers that drip in stay within that of each read.
    """
    import httpx2

    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="asking a hub").start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        raise httpx2.ReadTimeout(f"no answer in {seconds:g} seconds") from error


def paced(response: "httpx2.Response") -> Iterator[bytes]:
    """The body as it comes; httpx2.ReadTimeout when it comes slower than `PACE_BYTES` in `PACE_SECONDS`."""
    import httpx2

    num_bytes, since = 0, time.monotonic()
    for piece in response.iter_bytes():
        yield piece
        num_bytes += len(piece)
        if num_bytes >= PACE_BYTES:
            num_bytes, since = 0, time.monotonic()
        elif time.monotonic() - since > PACE_SECONDS:
            raise httpx2.ReadTimeout(f"{num_bytes} bytes in {PACE_SECONDS:g} seconds")
