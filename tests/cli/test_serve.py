"""`sfvqa serve` but for serving: what contradicts itself, what it is planned for, which servers run, and their end."""

from pathlib import Path

import pytest

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.known import read_sizes
from sfvqa.checkpoints.plan import make_plan
from sfvqa.cli import serve
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import CacheOptions, Count, OutputOptions
from sfvqa.cli.serve import ServerOptions
from tests.cli.conftest import RunCli
from tests.fake_gpus import pretend_gpus


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "Add --api-key"),
        (["--host", "192.168.0.2"], "Add --api-key"),
        (["--api-key", " "], "The API key is empty"),
        (["--folder", "absent"], "is no folder"),
        (["--memory", "much"], "not a size"),
        (["--batch-size", "0"], "neither a whole number above 0 nor auto"),
        (["--status", "--stop"], "contradict each other"),
    ],
)
def test_what_contradicts_itself_is_refused(run_cli: RunCli, arguments: list[str], says: str) -> None:
    outcome = run_cli("serve", *arguments)
    assert outcome.exit_code == 2
    assert says in " ".join(outcome.stderr.split())


def test_an_open_host_with_a_key_is_one(tmp_path: Path) -> None:
    assert ServerOptions(host="0.0.0.0", api_key="secret", folder=[tmp_path]).host == "0.0.0.0"


def test_as_much_is_taken_on_as_was_planned() -> None:
    """Frames beyond the model's own take the place of other answers."""
    sizes, settings = read_sizes("tiny"), ModelSettings("tiny", device="cpu")
    _, planned = ServerOptions().plan(settings, sizes)
    service = ServerOptions().service(planned)
    assert (service.batch_size, service.most_frames, service.most_frames_together) == (16, 128, 16 * 32)
    few = ServerOptions(batch_size=Count(2), memory="2MB", readers=3, max_requests=5)
    service = few.service(few.plan(settings, sizes)[1])
    assert (service.batch_size, service.most_frames, service.most_frames_together) == (2, 64, 64)
    assert (service.kept_bytes, service.num_readers, service.most_requests) == (2_000_000, 3, 5)
    asked = ServerOptions(batch_size=Count(2), max_frames=200)
    service = asked.service(asked.plan(settings, sizes)[1])
    assert (service.most_frames, service.most_frames_together) == (200, 400)


@pytest.mark.parametrize("batch_size", [Count(None), Count(16)], ids=["auto", "16"])
def test_the_quantization_is_that_of_one_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch_size: Count
) -> None:
    """As `ask` chooses it, however many answers are written at a time; what they take more is said of them alone."""
    sizes, settings = read_sizes("slowfast-7b"), ModelSettings("slowfast-7b", random_weights=True)
    pretend_gpus(monkeypatch, 24e9)
    alone = make_plan(settings, sizes).settings.quantization
    assert make_plan(settings, sizes, batch_size=16, num_videos=16).settings.quantization != alone == "none"
    monkeypatch.setattr(serve, "load", lambda *_: None)
    model = ModelOptions(model="slowfast-7b", random_weights=True)
    _, served, planned = serve.load_to_serve(
        ServerOptions(batch_size=batch_size), model, CacheOptions(), OutputOptions()
    )
    assert served.quantization == alone
    assert planned.batch_size == (batch_size.number or planned.batch_size)
    assert not [sentence for kind, sentence in served.said_of_plan if kind == "warn"]
    assert ("needs about" in capsys.readouterr().err) is (batch_size.number == 16)
