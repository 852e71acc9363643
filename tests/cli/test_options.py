"""Options: that they name what the library knows, and which of flag, variable and config file wins."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from sfvqa.checkpoints.placement import AttentionKernel, DtypeName
from sfvqa.cli import answer_options, frame_options, model, options
from sfvqa.cli.app import build_app, settings_of_commands
from sfvqa.errors import ExitCode
from sfvqa.inference.engine import GenerationOptions
from sfvqa.model import SlowAttention
from sfvqa.video import ReaderName, ReadOptions, SamplingOptions, SamplingStrategy
from sfvqa.video.captions import CaptionFormat
from tests.cli.conftest import RunCli
from tests.cli.fake import ScriptedVideoQA
from tests.readme import README

app = build_app()


@pytest.mark.parametrize(
    ("written_out", "enum"),
    [
        (frame_options.Reader, ReaderName),
        (model.Attention, AttentionKernel),
        (model.Dtype, DtypeName),
        (answer_options.SlowAttentionName, SlowAttention),
        (options.CaptionFormatName, CaptionFormat),
    ],
)
def test_names_written_out_are_the_library_s(written_out: object, enum: type[str]) -> None:
    """They are written out so that help imports no torch; they must not drift apart."""
    assert list(get_args(written_out)) == [str(member) for member in enum]  # type: ignore[attr-defined]


def test_no_bracket_in_help_is_taken_for_markup() -> None:
    """`(needs sfvqa[ray])` was shown as `(needs sfvqa)`: what stands in brackets is a style to rich, unless escaped."""
    from rich.text import Text

    texts = [text for command in _commands(typer.main.get_command(app)) for text in _help_of(command)]
    assert len(texts) > 150
    styles = {str(span.style) for text in texts for span in Text.from_markup(text).spans}
    assert styles <= {"bold"}
    shown = CliRunner().invoke(app, ["batch", "--help"]).output
    assert "(needs sfvqa[ray])" in shown


def _commands(command: Any) -> list[Any]:
    return [command, *(found for child in getattr(command, "commands", {}).values() for found in _commands(child))]


def _help_of(command: Any) -> list[str]:
    own = [command.help, command.epilog, command.short_help]
    options = [(parameter.help, getattr(parameter, "rich_help_panel", None)) for parameter in command.params]
    return [text for text in (*own, *(text for both in options for text in both)) if text]


@pytest.mark.parametrize("command", ["ask", "batch", "chat", "frames"])
def test_reading_by_default_is_the_library_s(command: str) -> None:
    """The commands write the same defaults out."""
    defaults = {parameter.name: parameter.default for parameter in _parameters(command)}
    library = ReadOptions()
    assert (defaults["reader"], defaults["read_threads"]) == (library.reader.value, library.num_threads)
    assert defaults["read_timeout"] == library.timeout_seconds


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_the_commands_choose_frames_alike(command: str) -> None:
    """What `frames` shows must be what a model sees: the same options, the same help."""

    def options_of(command: str) -> dict[str, object]:
        parameters = [parameter for parameter in _parameters(command) if parameter.envvar]
        return {parameter.name: (parameter.opts, parameter.help, parameter.default) for parameter in parameters}

    asked, shown = options_of(command), options_of("frames")
    assert {"sampling", "timestamps", "crop", "reader", "read_timeout"} < shown.keys()
    assert shown.items() <= asked.items()


def test_defaults_are_the_library_s() -> None:
    """The help shows them, so they are written out as well."""
    defaults = {parameter.name: parameter.default for parameter in _parameters("ask")}
    library = GenerationOptions()
    in_chat = {parameter.name: parameter.default for parameter in _parameters("chat")}
    for name in ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed", "static_decode"):
        assert defaults[name] == in_chat[name] == getattr(library, name)
    assert defaults["slow_attention"] == library.slow_attention.value


def test_every_option_with_a_variable_can_be_configured() -> None:
    """The variable is SFVQA_ and the option's name, and the config file knows the same options."""
    known = settings_of_commands()
    fewer_options = {"caption", "frames", "mcp", "profile", "transcribe"}
    assert known.keys() == {"ask", "batch", "chat", "find", "serve", *fewer_options}
    for command, names in known.items():
        variables = {parameter.name: parameter.envvar for parameter in _parameters(command) if parameter.envvar}
        assert variables == {name: f"SFVQA_{name.upper()}" for name in names}
    assert {"frames", "seed", "device", "no_cache", "batch_size"} < set(known["ask"])
    assert not {"choices", "random_weights", "dry_run", "json"} & set(known["ask"])


@pytest.mark.parametrize("command", ["ask", "batch", "caption", "chat", "find", "frames", "profile"])
def test_help_shows_the_everyday_options_and_help_all_every_one(command: str) -> None:
    """Nobody finds anything among fifty."""

    def shown(flag: str) -> set[str]:
        output = CliRunner().invoke(app, [command, flag], env={"COLUMNS": "200"}).output
        return set(re.findall(r"^│ \*? *(--[a-z-]+)", output, re.MULTILINE))

    everyday, every = shown("--help"), shown("--help-all")
    assert 5 < len(everyday) <= 25
    assert everyday < every
    assert every == {parameter.opts[0] for parameter in _parameters(command) if parameter.opts[0][0] == "-"} | {
        "--help"
    }


def test_the_shell_completes_every_option() -> None:
    group: Any = typer.main.get_command(app)
    context = group.commands["ask"].make_context("ask", ["VIDEO"])
    found = [item.value for item in group.commands["ask"].shell_complete(context, "--read-")]
    assert sorted(found) == ["--read-threads", "--read-timeout"]


def test_flag_before_variable_before_file(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is taken where the one before it says nothing."""
    model.script = [["A."]] * 3
    config = tmp_path / "config.toml"
    config.write_text('frames = 5\nmax-new-tokens = 9\nseed = 2\nstart = "0:01"\n', encoding="utf-8")
    monkeypatch.setenv("SFVQA_CONFIG", str(config))
    monkeypatch.setenv("SFVQA_FRAMES", "6")
    monkeypatch.setenv("SFVQA_SEED", "3")
    assert run_cli("ask", str(video), "Q?", "--frames", "7").exit_code == 0
    assert run_cli("ask", str(video), "Q?").exit_code == 0
    monkeypatch.delenv("SFVQA_FRAMES")
    assert run_cli("ask", str(video), "Q?").exit_code == 0
    assert [sampling.num_frames for sampling in model.sampled] == [7, 6, 5]
    assert model.sampled[0].start_seconds == 1.0
    assert (model.asked[0][1].seed, model.asked[0][1].max_new_tokens) == (3, 9)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--sampling uniform --fps 2", "--fps goes with --sampling fps, not with --sampling uniform"),
        ("--sampling scene --timestamps 1", "--timestamps goes with --sampling timestamps"),
        ("--fps 2 --timestamps 1", "two ways"),
        ("--timestamps 1 --frames 8", "--frames how many"),
        ("--sampling fps", "requires a rate"),
        ("--sampling timestamps", "requires times"),
        ("--timestamps 1,,2", "is not a time"),
        ("--timestamps 9 --end 5", "outside the range"),
        ("--start 5 --end 3", "not after its start"),
        ("--fps 0", "not above 0"),
        ("--fps nan", "not a finite number"),
        ("--frames 0", "--frames"),
        ("--sampling no-such", "no-such"),
        ("--crop left", "left"),
        ("--read-threads 0", "--read-threads"),
        ("--read-timeout 0", "not above 0"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "chat", "frames"])
def test_contradictions_are_usage_errors_before_anything_is_loaded(
    command: str, flags: str, says: str, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, video: Path
) -> None:
    """Neither a model nor the video has been opened by then."""
    monkeypatch.setattr("sfvqa.cli.model.load", _never)
    monkeypatch.setattr("sfvqa.video.reading.read_clip_progressively", _never)
    run = run_cli(command, str(video), *(["Q?"] if command == "ask" else []), *flags.split())
    assert run.exit_code == 2
    assert says in " ".join(run.stderr.split())


@pytest.mark.parametrize(
    ("variables", "flags", "chosen"),
    [
        ({"SFVQA_SAMPLING": "uniform"}, "--fps 2", SamplingOptions(32, SamplingStrategy.FPS, fps=2.0)),
        (
            {"SFVQA_FPS": "2", "SFVQA_FRAMES": "9"},
            "--timestamps 1,0:02",
            SamplingOptions(32, SamplingStrategy.TIMESTAMPS, timestamps_seconds=(1.0, 2.0)),
        ),
        ({"SFVQA_TIMESTAMPS": "1"}, "--frames 9", SamplingOptions(9)),
        ({"SFVQA_TIMESTAMPS": "1"}, "--sampling keyframes", SamplingOptions(32, SamplingStrategy.KEYFRAMES)),
        ({"SFVQA_FPS": "2"}, "--sampling fps", SamplingOptions(32, SamplingStrategy.FPS, fps=2.0)),
        ({"SFVQA_FPS": "2"}, "--frames 9", SamplingOptions(9, SamplingStrategy.FPS, fps=2.0)),
    ],
)
def test_a_flag_overrules_the_variables_that_contradict_it(
    variables: dict[str, str],
    flags: str,
    chosen: SamplingOptions,
    run_cli: RunCli,
    video: Path,
    model: ScriptedVideoQA,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was set for good must not make what is typed now a contradiction."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_cli("ask", str(video), "Q?", *flags.split()).exit_code == 0
    assert model.sampled == [chosen]


def test_variables_that_contradict_each_other_are_a_usage_error(
    run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is the stronger one."""
    monkeypatch.setenv("SFVQA_FPS", "2")
    monkeypatch.setenv("SFVQA_TIMESTAMPS", "1")
    assert run_cli("ask", str(video), "Q?").exit_code == 2


def _never(*_args: object, **_options: object) -> None:
    raise AssertionError("too late for a usage error")


@pytest.mark.parametrize(
    ("text", "says"),
    [("frame = 5", "Did you mean `frames`?"), ("frames = ", "cannot be read"), ("frames = [5]", "frames")],
)
@pytest.mark.usefixtures("model")
def test_a_config_file_with_a_mistake_is_refused(
    text: str, says: str, run_cli: RunCli, video: Path, tmp_path: Path
) -> None:
    """A misspelt key must not be ignored, but help must come all the same."""
    (tmp_path / "absent.toml").write_text(text, encoding="utf-8")
    run = run_cli("ask", str(video), "Q?")
    assert run.exit_code == 2
    assert says in run.stderr
    assert run_cli("ask", "--help").exit_code == 0


@pytest.mark.parametrize(
    "line", ["frames = 0", 'frames = "many"', 'dtype = "int8"', 'start = "1:75"', "fps = 0", 'device = "toaster"']
)
@pytest.mark.usefixtures("model")
def test_a_bad_value_in_the_config_file_is_blamed_on_the_file(
    line: str, run_cli: RunCli, video: Path, tmp_path: Path
) -> None:
    """The message named the flag, which nobody had typed."""
    path = tmp_path / "absent.toml"
    path.write_text(line, encoding="utf-8")
    run = run_cli("ask", str(video), "Q?")
    assert run.exit_code == 2
    name = line.partition(" ")[0]
    assert run.stderr.startswith(f"Error: Invalid value for `{name}` in {path}: ")
    assert f"--{name}" not in run.stderr


@pytest.mark.parametrize("command", [["demo"], ["models", "list"], ["models", "list", "--json"], ["--version"]])
def test_a_broken_config_file_stops_only_what_uses_it(command: list[str], run_cli: RunCli, tmp_path: Path) -> None:
    """`sfvqa demo` takes nothing from it."""
    (tmp_path / "absent.toml").write_text("frames = ", encoding="utf-8")
    assert run_cli(*command).exit_code == 0


@pytest.mark.usefixtures("model")
def test_a_question_that_looks_like_help_is_no_reason_to_skip_the_config_file(
    run_cli: RunCli, video: Path, tmp_path: Path
) -> None:
    """Behind `--` everything is a question."""
    (tmp_path / "absent.toml").write_text("frames = ", encoding="utf-8")
    assert run_cli("ask", str(video), "--", "--help").exit_code == 2


@pytest.mark.usefixtures("model")
def test_a_bad_variable_is_named(run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who set a variable long ago must be told where the value comes from."""
    monkeypatch.setenv("SFVQA_FRAMES", "many")
    run = run_cli("ask", str(video), "Q?")
    assert run.exit_code == 2
    assert "SFVQA_FRAMES" in run.stderr
    assert "--frames" not in run.stderr


@pytest.mark.parametrize(
    "arguments",
    [["-h"], ["--help"], ["ask", "-h"], ["frames", "-h"], ["profile", "-h"], ["demo", "-h"], ["models", "list", "-h"]],
)
def test_help_begins_with_examples(arguments: list[str]) -> None:
    """`-h` works everywhere; what to type comes before what there is."""
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0
    assert 0 < run.stdout.index("Examples") < run.stdout.index("Options")


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["frames", "-h"], ["profile", "-h"]])
def test_help_documents_the_exit_codes(arguments: list[str]) -> None:
    """Scripts are written from the help."""
    codes = CliRunner().invoke(app, arguments).stdout.split("Exit codes")[1]
    readme = README.read_text(encoding="utf-8").split("## Exit codes")[1]
    for code in (0, *ExitCode):
        assert f" {int(code)}  " in codes
        assert f"| {int(code)} |" in readme


def test_a_command_imports_no_other() -> None:
    """Each takes a while to build, which every question would wait for."""
    program = (
        "import sys; from sfvqa.cli.app import build_app; build_app('ask'); sys.exit('sfvqa.cli.chat' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [(), ("-h",), ("-h", "ask")])
def test_the_help_names_every_command(run_cli: RunCli, arguments: tuple[str, ...]) -> None:
    """Also where a command stands behind it, whose module alone is imported else."""
    said = run_cli(*arguments).stdout
    assert all(f" {name} " in said for name in ("ask", "doctor", "models", "cache"))


def _parameters(command: str) -> list[Any]:  # of typer's classes, which have no public names
    group: Any = typer.main.get_command(app)
    return list(group.commands[command].params)
