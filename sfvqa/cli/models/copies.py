"""The quantized copies kept of a model, as `models list` and `models info` show them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sfvqa.cli.text import readable_size

if TYPE_CHECKING:
    from sfvqa.registry import ModelSpec


def copy_facts(spec: "ModelSpec") -> list[dict[str, object]]:
    """An object a copy, best first."""
    from sfvqa.inference.quantized_copies import copies_of

    return [
        {
            "quantization": copy.provenance.quantization,
            "revision": copy.provenance.revision,
            "folder": str(copy.folder),
            "disk_bytes": copy.size_bytes,
        }
        for copy in reversed(copies_of(spec))
    ]


def copy_line(facts: Mapping[str, Any]) -> str:
    """One of them in words."""
    size = readable_size(facts["disk_bytes"])
    return f"Kept in {facts['quantization']}: {size} on disk in {facts['folder']}"
