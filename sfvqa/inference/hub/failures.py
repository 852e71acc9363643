"""What a hub, the network or the disk refuses → a DownloadError: a sentence on what it was, and one on what to do."""

import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sfvqa.errors import DownloadError
from sfvqa.inference.hub.disk import ANOTHER_PLACE, WRITABLE_PLACE, cache_folder
from sfvqa.registry import ModelSpec

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

GO_ON = "The same command goes on where this one stopped."
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def hub_failures(spec: ModelSpec, revision: str | None) -> Iterator[None]:
    """Raise DownloadError for whatever fails in the block while it asks a hub for `revision` of a model."""
    import httpx2

    try:
        yield
    except httpx2.InvalidURL as error:
        raise not_a_hub() from error
    except (OSError, httpx2.HTTPError) as error:  # what huggingface_hub raises is an OSError too
        raise _explain(error, spec, revision) from error


def hub_host() -> str:
    """The name of the hub that is asked, as messages have it."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2] or constants.ENDPOINT


def _explain(error: BaseException, spec: ModelSpec, revision: str | None) -> DownloadError:
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, OfflineModeIsEnabled

    causes = list(_causes(error))
    for cause in causes:  # huggingface_hub wraps the failure that tells most in one that tells less
        if isinstance(cause, HfHubHTTPError):
            return _explain_status(cause, spec, revision)
        if isinstance(cause, OfflineModeIsEnabled):
            return DownloadError("HF_HUB_OFFLINE is set, so that no hub is asked.", "Unset it to download.")
        if isinstance(cause, FileMetadataError):
            return not_a_hub()
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return DownloadError(f"The disk of {cache_folder()} is full.", f"{ANOTHER_PLACE} {GO_ON}")
        if isinstance(cause, OSError) and cause.errno and cause.filename:  # a file's, not the network's
            return DownloadError(f"{cause.filename} cannot be written: {cause.strerror}.", WRITABLE_PLACE)
    return _explain_network(causes)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explain_status(error: "HfHubHTTPError", spec: ModelSpec, revision: str | None) -> DownloadError:
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RemoteEntryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    repo, host, status = spec.repo_id, hub_host(), error.response.status_code
    page = f"{urlsplit(constants.ENDPOINT).scheme}://{host}/{repo}"
    log_in = "set HF_TOKEN, or type `hf auth login`"
    if isinstance(error, GatedRepoError):
        return DownloadError(
            f"{repo} is given only to those who accepted its licence ({status}).",
            f"Accept it at {page}, then {log_in}, and pull again.",
        )
    if isinstance(error, DisabledRepoError):
        return DownloadError(f"{host} has disabled {repo} ({status}).", f"See {page}.")
    if isinstance(error, RemoteEntryNotFoundError):
        return DownloadError(f"A file of {repo} is not on {host} any more ({status}).", "Pull with --update.")
    if isinstance(error, NoRevision):
        return DownloadError(
            f"{repo} has no revision {revision} any more, or never had ({status}).",
            f"`sfvqa models pull {spec.name} --update` takes the newest; a revision in {spec.source} is yours to mend.",
        )
    if status == 401 and get_token():
        return DownloadError(
            f"{host} refuses the token for {repo} ({status}).", f"Check the token: {log_in}; and the name in {page}."
        )
    if status == 401:
        return DownloadError(
            f"{repo} is private, or there is no such repository on {host} ({status}, and there is no token).",
            f"To prove who you are, {log_in}; else correct `repo_id` of {spec.name} in {spec.source}.",
        )
    if status == 403:
        return DownloadError(
            f"{host} forbids reading {repo} ({status}).",
            f"See {page} for what it asks, and give the token in HF_TOKEN the right to read it.",
        )
    if status == 404:
        return DownloadError(
            f"There is no repository {repo} on {host} ({status}).",
            f"Correct `repo_id` of {spec.name} in {spec.source}, or HF_ENDPOINT; a private one needs HF_TOKEN.",
        )
    if status == 429:
        return DownloadError(f"{host} takes no more requests from here for now ({status}).", _when(error))
    if status >= 500:
        return DownloadError(f"{host} is out of order ({status}).", f"Try again later. {GO_ON}")
    return DownloadError(f"{host} refuses {repo} ({status}).", f"See {page}. {GO_ON}")


def _when(error: "HfHubHTTPError") -> str:
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # public, but not marked so

    limits = parse_ratelimit_headers(error.response.headers)
    after = error.response.headers.get("Retry-After", "")
    seconds = str(limits.reset_in_seconds) if limits is not None else after
    when = f"in {seconds} seconds" if seconds.isdigit() else "in some minutes"
    return f"Try again {when}; with HF_TOKEN set the limit is higher. {GO_ON}"


def _explain_network(causes: list[BaseException]) -> DownloadError:
    import httpx2

    host, check = hub_host(), "Check the network, and HF_ENDPOINT and HTTPS_PROXY if they are set."
    kinds: list[tuple[type[BaseException], str]] = [
        (socket.gaierror, f"The name {host} cannot be looked up."),
        (ssl.SSLError, f"No safe connection to {host} can be made: its certificate or TLS is refused."),
        (httpx2.ProxyError, "The proxy refuses the connection."),
        (ConnectionRefusedError, f"Nothing answers at {host}: the connection was refused."),
        (httpx2.TimeoutException, f"{host} does not answer in time."),
        (httpx2.ConnectError, f"No connection to {host} can be made."),
        (httpx2.TransportError, f"The connection to {host} broke off."),
    ]
    for kind, sentence in kinds:
        if any(isinstance(cause, kind) for cause in causes):
            return DownloadError(sentence, f"{check} {GO_ON}")
    return DownloadError(f"The download failed: {causes[0]}.", GO_ON)


def not_a_hub() -> DownloadError:
    """The error that something answers which is no hub."""
    return DownloadError(
        f"{hub_host()} does not answer as a Hugging Face hub does.",
        "Check HF_ENDPOINT if it is set, and that nothing between, as a log-in page of a network, answers instead.",
    )
