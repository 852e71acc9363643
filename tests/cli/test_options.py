"""Options: that they name what the library knows, and which of flag, variable and config file wins."""

from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from sfvqa.cli import options
from sfvqa.cli.app import app
from sfvqa.inference.checkpoint import AttentionKernel
from sfvqa.inference.device import DtypeName
from sfvqa.inference.generation import GenerationOptions
from sfvqa.model import SlowAttention
from sfvqa.video import ReaderName
from tests.cli.conftest import RunCli
from tests.cli.fake import ScriptedVideoQA


@pytest.mark.parametrize(
    ("written_out", "enum"),
    [
        (options.Reader, ReaderName),
        (options.Attention, AttentionKernel),
        (options.Dtype, DtypeName),
        (options.SlowAttentionName, SlowAttention),
    ],
)
def test_names_written_out_are_the_library_s(written_out: object, enum: type[str]) -> None:
    """They are written out so that help imports no torch; they must not drift apart."""
    assert list(get_args(written_out)) == [str(member) for member in enum]  # type: ignore[attr-defined]


def test_defaults_are_the_library_s() -> None:
    """The help shows them, so they are written out as well."""
    defaults = {parameter.name: parameter.default for parameter in _parameters("ask")}
    library = GenerationOptions()
    for name in ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed"):
        assert defaults[name] == getattr(library, name)
    assert defaults["slow_attention"] == library.slow_attention.value


def test_every_option_with_a_variable_can_be_configured() -> None:
    """The variable is SFVQA_ and the option's name, and the config file knows the same options."""
    variables = {parameter.name: parameter.envvar for parameter in _parameters("ask") if parameter.envvar}
    assert sorted(variables) == sorted(options.CONFIGURABLE)
    assert all(variable == f"SFVQA_{str(name).upper()}" for name, variable in variables.items())


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


@pytest.mark.usefixtures("model")
def test_a_bad_variable_is_named(run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who set a variable long ago must be told where the value comes from."""
    monkeypatch.setenv("SFVQA_FRAMES", "many")
    run = run_cli("ask", str(video), "Q?")
    assert run.exit_code == 2
    assert "SFVQA_FRAMES" in run.stderr


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["ask", "-h"], ["demo", "-h"], ["models", "list", "-h"]])
def test_help_begins_with_examples(arguments: list[str]) -> None:
    """`-h` works everywhere; what to type comes before what there is."""
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0
    assert 0 < run.stdout.index("Examples") < run.stdout.index("Options")


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"]])
def test_help_documents_the_exit_codes(arguments: list[str]) -> None:
    """Scripts are written from the help."""
    codes = CliRunner().invoke(app, arguments).stdout.split("Exit codes")[1]
    for code in ("0", "1", "2", "3", "4", "5", "6", "130"):
        assert f" {code}  " in codes


def _parameters(command: str) -> list[Any]:  # of typer's classes, which have no public names
    group: Any = typer.main.get_command(app)
    return list(group.commands[command].params)
