"""The READMEs tell the truth: their commands are run where that takes seconds, and parsed where it does not."""

import contextlib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

from sfvqa.cli.app import build_app
from sfvqa.registry import SamplingName, load_registry
from sfvqa.training.finetune import options_of, parse_arguments
from sfvqa.training.recipes.__main__ import RECIPES
from tests.readme import LAB, READMES, ROOT, Command, commands

ALL = [command for readme in READMES for command in commands(readme)]
SFVQA = [command for command in ALL if command.words[0] == "sfvqa"]
MODULES = [command for command in ALL if command.line.startswith("python -m sfvqa.")]
LAUNCHED = [command for command in ALL if command.line.startswith("accelerate launch ")]
NEEDS_MORE = ("slowfast-7b", "smolvlm2-", "whisper-", "my-")
"""Words of commands that need weights or files nobody has here: these are parsed, not run."""


def can_run(command: Command) -> bool:
    return not any(word in command.line for word in NEEDS_MORE)


def by_line(command: Command) -> str:
    return command.line


def test_the_first_two_commands_are_the_ones_that_ci_runs() -> None:
    first, second = commands()[:2]
    assert ".venv/bin/sfvqa ask sfvqa/assets/demo/" in first.line
    assert "'.[test]' && .venv/bin/python -m pytest" in second.line


def test_every_command_is_one_of_the_kinds_tested_here() -> None:
    tested = [*commands()[:2], *SFVQA, *MODULES, *LAUNCHED]
    needing_no_test = (
        *("python -m pytest", ". .venv/bin/activate", "apt-get download", "pip download", "pip install lmms-eval"),
        *("llm ", "python -m lmms_eval"),  # parsed in test_llm.py and test_lmms_eval.py
        *("python3 -m venv", "git ", ".venv/bin/python -m pytest", ".venv/bin/ruff"),  # what contributors type
    )
    others = [command.line for command in ALL if command not in tested]
    assert all(line.startswith(needing_no_test) for line in others), others


def test_the_tests_that_contributors_are_told_to_run_exist() -> None:
    named = [word for command in ALL if " -m pytest" in command.line for word in command.words if "tests/" in word]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("command", LAUNCHED, ids=by_line)
def test_launched_trainings_parse(command: Command) -> None:
    launch, _, training = command.line.partition(" -m sfvqa.training.finetune ")
    recipe = re.search(r"--config_file \$\(python -m sfvqa\.training\.recipes (\w+)\)", launch)
    assert recipe
    assert recipe[1] in RECIPES
    assert options_of(vars(parse_arguments(training.split()))).num_steps is None


@pytest.mark.parametrize("command", SFVQA, ids=by_line)
def test_sfvqa_commands_parse(command: Command) -> None:
    click_command = typer.main.get_command(build_app())
    args = command.words[1:]
    while hasattr(click_command, "commands"):
        name = args.pop(0)
        if name.startswith("-"):
            return
        click_command = click_command.commands[name]
    assert click_command.make_context("sfvqa", args).command is click_command


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone, where commands may leave files."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "sfvqa").symlink_to(ROOT / "sfvqa")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=[pytest.mark.slow] if c.words[1] in ("profile", "caption") else [], id=c.line)
        for c in SFVQA
        if can_run(c)
    ],
)
def test_sfvqa_commands_run_and_print_what_the_transcript_shows(command: Command, clone: Path, tmp_path: Path) -> None:
    """Line by line, both ways: what is printed is shown, and what is shown is printed."""
    for other in SFVQA[: SFVQA.index(command)]:
        if any(file in command.words and not (clone / file).exists() for file in written_by(other)):
            run(other, clone, tmp_path)
    done = run(command, clone, tmp_path)
    printed = comparable_lines(done.stdout)
    assert done.returncode == 0, done.stdout
    assert printed
    if command.output:
        assert printed == comparable_lines(command.output)


def written_by(command: Command) -> list[str]:
    return [file for flag, file in zip(command.words, command.words[1:], strict=False) if flag == "-o"]


def run(command: Command, clone: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run it as a person sees it, on a terminal, but one that moves no cursor; what is typed comes from a pipe."""
    import pty  # not on Windows

    own = {name: value for name, value in os.environ.items() if not name.startswith("SFVQA_")}
    empty = {name: str(cache) for name in ("HF_HUB_CACHE", "SFVQA_CACHE_DIR")}
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sfvqa", *command.words[1:]],
        stdin=subprocess.PIPE,
        stdout=end,
        stderr=end,
        text=True,
        cwd=clone,
        env=own | empty | {"COLUMNS": "120", "TERM": "dumb", "SFVQA_CONFIG": os.devnull},
    ) as process:
        os.close(end)
        assert process.stdin is not None
        process.stdin.write("".join(f"{line}\n" for line in command.typed))
        process.stdin.close()
        printed = b""
        with contextlib.suppress(OSError):  # Linux says EIO once the other end is closed
            while piece := os.read(terminal, 65536):
                printed += piece
    os.close(terminal)
    return subprocess.CompletedProcess(process.args, process.returncode, printed.decode().replace("\r\n", "\n"))


_VARYING = re.compile(r"Timings: |First token |\s*load +read|\s*\d+\.\d+ s +-?\d+\.\d+ s|Ask something; /help")


def comparable_lines(text: str) -> list[str]:
    """The lines with something in them, without timings and what only a terminal gets; what was typed as it is echoed.

    >>> comparable_lines("The circle moves left.\\n\\n  load    read\\n0.17 s  0.20 s\\n")
    ['The circle moves left.']
    """
    lines = [line.removeprefix("> ") for line in text.splitlines() if line.strip()]
    return [line for line in lines if not _VARYING.match(line)]


def test_the_laboratory_is_tested_too() -> None:
    assert {command.readme.parent.parent for command in MODULES} >= {LAB}


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=[pytest.mark.lab] if LAB in c.readme.parents else [], id=c.line) for c in MODULES],
)
def test_module_commands_parse(command: Command) -> None:
    module = importlib.import_module(command.words[2])
    options = vars(module.parse_arguments(command.words[3:]))
    flags = [word.removeprefix("--").replace("-", "_") for word in command.words[3:] if word.startswith("--")]
    assert set(flags) <= options.keys()


def test_every_way_of_choosing_frames_is_told() -> None:
    """A new one worked everywhere and stood in no document, and no test said so; `smolvlm` never stood in one."""
    text = (ROOT / "sfvqa/video/README.md").read_text(encoding="utf-8")
    [told] = [line for line in text.splitlines() if line.startswith("- **Which frames**")]
    missing = set(get_args(SamplingName)) - set(re.findall(r"[\w-]+", told))
    assert not missing, f"name {missing} under “Which frames” in sfvqa/video/README.md"


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: str(readme.relative_to(ROOT)))
def test_what_is_linked_exists(readme: Path) -> None:
    """Pictures, files, folders, and headings of other READMEs."""
    for link in re.findall(r"\]\(([^)\s]+)\)", readme.read_text(encoding="utf-8")):
        if not link.startswith(("https:", "http:")):
            path, _, heading = link.partition("#")
            linked = readme.parent / path if path else readme
            assert linked.exists(), link
            assert not heading or heading in headings(linked), link


def headings(readme: Path) -> set[str]:
    """The headings of a README, as links name them."""
    found = re.findall(r"^#+ (.+)$", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_table_of_models_says_what_the_list_does() -> None:
    """Memory, download size and licence are those of models.toml and of the estimate."""
    from sfvqa.cli.models import _entry

    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for entry in map(_entry, load_registry()):
        family, _, size = entry["name"].rpartition("-")
        (row,) = [row for row in rows if f"`{entry['name']}`" in row or (f"`{family}-" in row and f"`-{size}`" in row)]
        said = entry["memory_bytes"].values() if entry["repo_id"] else [entry["memory_bytes"]["16bit"]]
        for size_bytes in (*said, *([entry["size_bytes"]] if entry["repo_id"] else [])):
            assert entry["bundled"] or f" {size_bytes / 1e9:.1f}" in row, entry["name"]
        assert entry["license"] in row or not entry["repo_id"]
