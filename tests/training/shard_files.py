"""Shards as other programs write them, of rows in LLaVA's form whose videos lie in a folder."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets


def write_members(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar archive of these files."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def members_of(rows: Sequence[dict[str, Any]], videos: Path) -> list[tuple[str, bytes]]:
    """`key.mp4` and `key.json` of each row, whose key is the stem of its video, else its id."""
    members = []
    for row in rows:
        video = row.get("video")
        key = str(row["id"]) if video is None else Path(video).stem
        if video is not None:
            members.append((f"{key}{Path(video).suffix}", (videos / video).read_bytes()))
        members.append((f"{key}.json", json.dumps(row).encode()))
    return members


def write_tar(path: Path, rows: Sequence[dict[str, Any]], videos: Path) -> Path:
    """A webdataset shard."""
    return write_members(path, members_of(rows, videos))


def dataset_of(rows: Sequence[dict[str, Any]], videos: Path) -> Any:
    """A dataset whose column `video` holds the files."""

    def with_bytes(row: dict[str, Any]) -> dict[str, Any]:
        video = row.get("video")
        data = None if video is None else {"bytes": (videos / video).read_bytes(), "path": video}
        return row | {"video": data}

    made = datasets.Dataset.from_list([with_bytes(row) for row in rows])
    return made.cast_column("video", datasets.Video(decode=False))
