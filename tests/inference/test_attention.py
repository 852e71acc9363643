"""What computes attention is refused in a sentence when it is not there, cannot compute there, or is broken."""

import sys
from pathlib import Path

import pytest
import torch

from sfvqa.errors import UsageError
from sfvqa.inference.attention import resolve_attention

FLASH = ("flash_attention_2", torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ImportError('undefined symbol: _ZN3c10')", r"cannot be loaded: undefined symbol: _ZN3c10\. Install"),
        ("raise OSError('libcudart.so.11.0')", r"cannot be loaded: libcudart"),
        ("", "no version of it that it can use"),
    ],
)
def test_a_broken_flash_attn_is_a_sentence(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would end in an ImportError of its own, or leave the package's to be seen."""
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    with pytest.raises(UsageError, match=said):
        resolve_attention(*FLASH)


def test_flash_attn_that_is_absent_or_unknown_names_what_to_do() -> None:
    with pytest.raises(UsageError, match="sdpa"):
        resolve_attention("flash", torch.device("cpu"), torch.float32)
