"""`--adapter`, wherever a model is named."""

import json
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import ModelSettings, locate
from sfvqa.cli.demo import load_demo_videos
from sfvqa.serve.status import asked_for_as_dict, model_files
from tests.checkpoints.adapters import DECODER, save_adapter
from tests.cli.conftest import RunCli
from tests.serve.test_status import served

VIDEO = load_demo_videos()[0].path
ON_CPU = ("--device", "cpu", "--no-cache", "--frames", "4", "--max-new-tokens", "4")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "run" / "adapter", DECODER, scale=5.0)


def test_ask_answers_with_it(run_cli: RunCli, adapter: Path) -> None:
    question = ("ask", VIDEO, "Which digit is shown?", "--model", "tiny", *ON_CPU, "--json")
    plain, changed = run_cli(*question), run_cli(*question, "--adapter", adapter)
    assert plain.exit_code == changed.exit_code == 0
    one, other = json.loads(plain.stdout), json.loads(changed.stdout)
    assert one["answer"] != other["answer"]
    assert other["model"] == "tiny with run/adapter"


def test_a_batch_with_it_is_another_batch(run_cli: RunCli, adapter: Path, tmp_path: Path) -> None:
    """Its records have other ids: none is taken for done."""
    ids = set()
    for number, more in enumerate(((), ("--adapter", adapter))):
        out = tmp_path / f"{number}.jsonl"
        batch = ("batch", VIDEO, "--question", "Which digit is shown?", "--model", "tiny", *ON_CPU, "-o", out)
        assert run_cli(*batch, *more).exit_code == 0
        ids |= {record["item_id"] for record in map(json.loads, out.read_text().splitlines()) if "item_id" in record}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--adapter", "{adapter}"), "--model tiny --adapter"),
        (("--model", "{adapter}"), "--model tiny --adapter"),
        (("--model", "tiny", "--adapter", "{adapter}/no"), "There is no folder"),
    ],
)
def test_what_is_wrong_is_said_with_the_command(
    run_cli: RunCli, adapter: Path, arguments: tuple[str, ...], said: str
) -> None:
    run = run_cli("ask", VIDEO, "Q?", *(part.format(adapter=adapter) for part in arguments))
    assert run.exit_code in (2, 4)
    assert said in " ".join(run.stderr.split())


def test_a_server_answers_only_who_asks_for_the_same_adapter_as_it_is(adapter: Path) -> None:
    plain, changed = ModelSettings("tiny"), ModelSettings("tiny", adapter=str(adapter))
    folder = locate("tiny").folder.resolve()
    own = served(
        asked_for=json.loads(json.dumps(asked_for_as_dict("tiny", changed))), files=model_files(folder, str(adapter))
    )
    limit = own.cache_bytes
    assert limit is not None
    assert own.is_the_same("tiny", changed, limit)
    assert not own.is_the_same("tiny", plain, limit)
    assert not served().is_the_same("tiny", changed, limit)
    (adapter / "adapter_config.json").touch()
    assert not own.is_the_same("tiny", changed, limit)
