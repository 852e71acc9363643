"""What the README shows works: the client's program and the curl commands, against a server on another port."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import ROOT
from tests.serve.serving import PATIENCE_SECONDS, SHAPES, Served

README = ROOT / "sfvqa" / "serve" / "README.md"


def blocks(kind: str) -> list[str]:
    """The blocks of that kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_program_with_openai_s_client(served: Served) -> None:
    program = blocks("python")[0].replace("http://127.0.0.1:8484", served.url)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    answer, seconds = done.stdout.splitlines()
    assert answer == "The screen flashes green."
    assert float(seconds) > 0


@pytest.mark.slow
def test_the_program_with_the_sdk_s_client_of_mcp() -> None:
    pytest.importorskip("mcp")
    program = blocks("python")[1].replace('"sfvqa", args=["mcp"', f'{sys.executable!r}, args=["-m", "sfvqa", "mcp"')
    program = "import os\n" + program.replace("command=", "env=dict(os.environ), command=")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    assert done.stdout == blocks("text")[0]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's")
def test_the_curl_commands(served: Served) -> None:
    (commands,) = blocks("bash")
    commands = commands.replace("http://127.0.0.1:8484", served.url).replace("/FOLDER", str(SHAPES.parent))
    done = subprocess.run(["sh", "-ec", commands], capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    assert SHAPES.as_uri() in done.stdout
    pieces = re.findall(r'"delta": {"content": "(.*?)"}', done.stdout)
    assert "The screen flashes green." in "".join(pieces)
    assert done.stdout.rstrip().endswith("data: [DONE]")


def test_its_limits_are_the_program_s() -> None:
    """Figures in the README that the code has, too."""
    from sfvqa.serve import openai
    from sfvqa.serve.connection import MOST_CONNECTIONS
    from sfvqa.serve.sources import LARGEST_DATA_BYTES
    from sfvqa.serve.waiting_room import ServiceOptions

    text = Path(README).read_text(encoding="utf-8")
    options = ServiceOptions()
    assert f"| requests under way or waiting, beyond which 429 | {options.most_requests} |" in text
    most = (openai._MOST_MESSAGES, openai._MOST_PARTS, openai._MOST_CHOICES)
    assert f"| {most[0]}, {most[1]}, {most[2]}, 16 for each position of the model |" in text
    assert f"| connections | {MOST_CONNECTIONS};" in text
    assert f"up to {LARGEST_DATA_BYTES >> 20} MB" in text
