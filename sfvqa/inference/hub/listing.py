"""What a hub says of a repository: the commit a revision means, and the files of a checkpoint with sizes and hashes."""

import json
import re
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import quote

import sfvqa
from sfvqa.errors import DownloadError
from sfvqa.inference.hub.asking import answer_of, paced
from sfvqa.inference.hub.failures import hub_failures, not_a_hub
from sfvqa.inference.hub.records import is_commit
from sfvqa.inference.locate import TOKENIZER_FILES
from sfvqa.registry import ModelSpec

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "*.safetensors",
)
"""The files of a checkpoint, at the top of its repository; nothing that could run code is among them."""

HASH_NAMES = {40: "git-sha1", 64: "sha256"}
"""What a hub states of a file's bytes, by the number of hexadecimal digits: of small files, of large ones."""

LISTING_SECONDS, LISTING_BYTES = 120.0, 32 << 20
"""What a listing may take: a repository of a hundred thousand files stays below."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; `stated_hash` is the sha256 of a large file, the git sha1 of a small one."""

    name: str
    size_bytes: int
    stated_hash: str


@dataclass(frozen=True)
class HubListing:
    """The files of a checkpoint at one commit, the smallest first: what is refused is refused early."""

    repo_id: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def total_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


def is_wanted(name: str) -> bool:
    """Whether a checkpoint needs a file of this name.

    >>> [is_wanted(name) for name in ("model-00001-of-00004.safetensors", "pytorch_model.bin", "modeling.py")]
    [True, False, False]
    """
    return "/" not in name and "\\" not in name and any(fnmatchcase(name, pattern) for pattern in WANTED)


def hub_headers() -> dict[str, str]:
    """Headers for every request: which program asks, and nothing else about this machine."""
    from huggingface_hub import __version__ as hub_version

    return {"user-agent": f"sfvqa/{sfvqa.__version__}; hf_hub/{hub_version}"}


def fetch_listing(spec: ModelSpec, revision: str | None) -> HubListing:
    """Ask the hub what `revision` (None: its main branch) is; DownloadError says what refused, and what to do."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.hf_api import ModelInfo
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not marked so

    assert spec.repo_id is not None
    try:
        validate_repo_id(spec.repo_id)
        with hub_failures(spec, revision):
            answer = _ask(spec.repo_id, revision)
        info = ModelInfo(**json.loads(answer))  # type: ignore[no-untyped-call]
        listing = _read(spec.repo_id, info)
    except HFValidationError as error:
        raise spec.invalid(f"has a `repo_id` that is none: {error}", "Write it as owner/name.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # JSON of another shape, or none
        raise not_a_hub() from error
    _check_is_checkpoint(listing)
    return listing


def _ask(repo_id: str, revision: str | None) -> bytes:
    """What the hub's API says of a repository, JSON that is not parsed yet; ValueError for more than that can be."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not marked so

    at = "" if revision is None else f"/revision/{quote(revision, safe='')}"
    url, said = f"{constants.ENDPOINT}/api/models/{repo_id}{at}?blobs=true", bytearray()
    ends = time.monotonic() + LISTING_SECONDS
    with answer_of(url, build_hf_headers(headers=hub_headers()), constants.HF_HUB_ETAG_TIMEOUT) as response:
        for piece in paced(response):
            said += piece
            if len(said) > LISTING_BYTES:
                raise ValueError(f"a listing of more than {LISTING_BYTES} bytes")
            if time.monotonic() > ends:
                raise httpx2.ReadTimeout(f"no whole listing in {LISTING_SECONDS:g} seconds")
    return bytes(said)


def _check_is_checkpoint(listing: HubListing) -> None:
    names = {file.name for file in listing.files}
    if not any(name.endswith(".safetensors") for name in names):
        raise DownloadError(
            f"{listing.repo_id} holds no weights as safetensors.",
            "Other weight files can run code when they are opened and are never fetched: choose another repository.",
        )
    if "config.json" not in names or not names & set(TOKENIZER_FILES):
        raise DownloadError(
            f"{listing.repo_id} lacks config.json or a tokenizer.", "It is no checkpoint: choose another repository."
        )


def _read(repo_id: str, info: "ModelInfo") -> HubListing:
    """ValueError for an answer that is none of a hub's: file names in the cache are made of these hashes."""
    if not is_commit(info.sha):
        raise ValueError(f"{info.sha!r} is no commit")
    files = []
    for sibling in info.siblings or []:
        if not is_wanted(sibling.rfilename):
            continue
        stated = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", stated or "") or not isinstance(sibling.size, int):
            raise ValueError(f"size and hash of {sibling.rfilename} are {sibling.size!r} and {stated!r}")
        files.append(HubFile(sibling.rfilename, sibling.size, str(stated)))
    return HubListing(repo_id, str(info.sha), tuple(sorted(files, key=lambda file: (file.size_bytes, file.name))))
