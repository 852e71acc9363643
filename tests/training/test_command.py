"""How the commands of training end: one line, the exit code, and nothing half written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sfvqa.training import convert, merge
from sfvqa.training.command import run
from tests.checkpoints.adapters import DECODER, save_adapter
from tests.model.decoders import DECODERS
from tests.training.plain_decoder import save_plain_decoder


def press(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["write_shards", "check_checkpoint"])
def test_ctrl_c_leaves_nothing_of_a_conversion(
    when: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the folder nor the one in which it is made."""
    monkeypatch.setattr(convert, when, press)
    decoder, out = save_plain_decoder(tmp_path / "plain", DECODERS["llama"]), tmp_path / "out" / "slow-fast"
    capsys.readouterr()
    assert convert.main([str(decoder), "--vision", "random", "--hybrid-layers", "0", "--out", str(out)]) == 130
    assert capsys.readouterr() == ("", f"Stopped: {out} was not written.\n")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("when", ["write_shards", "check_checkpoint"])
def test_ctrl_c_leaves_nothing_of_a_merge(
    when: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, when, press)
    adapter, out = save_adapter(tmp_path / "adapter", DECODER), tmp_path / "out" / "merged"
    assert merge.main(["tiny", "--adapter", str(adapter), "--out", str(out)]) == 130
    assert capsys.readouterr() == ("", f"Stopped: {out} was not written.\n")
    assert list(out.parent.iterdir()) == []


def test_ctrl_c_stays_ctrl_c_where_a_library_makes_another_error_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """As safetensors does: “could not determine the shape of object type”."""

    def read() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None
        return 0

    assert run(read, stopped="Stopped.") == 130
    assert capsys.readouterr() == ("", "Stopped.\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_merge_names_its_folder_as_a_shell_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, out = save_adapter(tmp_path / "adapter", DECODER), tmp_path / "my folder"
    assert merge.main(["tiny", "--adapter", str(adapter), "--out", str(out)]) == 0
    assert f"--model '{out}'`" in capsys.readouterr().out


@pytest.mark.parametrize("num_lines", [1, 100_000])
def test_a_reader_who_leaves_is_told_nothing(num_lines: int) -> None:
    """As `head` does: Python complained on stderr."""
    command = f"lambda: print('a line\\n' * {num_lines}) or 0"
    program = f"import sys; from sfvqa.training.command import run; sys.exit(run({command}, stopped=''))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        ended = subprocess.run(
            [sys.executable, "-c", program], stdout=gone, stderr=subprocess.PIPE, text=True, check=False, timeout=120
        )
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_pipe_of_a_library_that_breaks_is_an_error_like_any() -> None:
    """A run that lost what it wrote its figures to ended without a word."""

    def log() -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(BrokenPipeError):
        run(log, stopped="")
