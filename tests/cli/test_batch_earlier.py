"""A file of records that an earlier version wrote is resumed: items keep their ids, and nothing is asked again."""

import json
import shutil
from pathlib import Path

import pytest

from sfvqa.batch.record import read_records
from tests.batch.answerer import FakeAnswerer
from tests.cli.conftest import RunCli

EARLIER = Path(__file__).with_name("answers_earlier.jsonl")
"""What `sfvqa batch manifest.csv --question "What moves?" --model tiny --device cpu --frames 4` wrote at c863cb7."""
MANIFEST = """video,question,id,start,end,choices,answer,group
grey.y4m,,,,,,,
grey.y4m,Which one?,7,0:00.1,0.5,"left,right",left,direction
broken.mp4,,,,,,,
"""


def write_videos(folder: Path) -> None:
    """The same bytes whatever wrote them: ids hold a hash of the file."""
    frames = b"".join(b"FRAME\n" + bytes([16 * number] * 16 * 16 + [128] * 128) for number in range(16))
    (folder / "grey.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F25:1 Ip A1:1 C420jpeg\n" + frames)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42 no more")
    (folder / "manifest.csv").write_text(MANIFEST, encoding="utf-8")


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of then, whatever `tiny` is now."""
    then = next(read_records(EARLIER))["requested"]["weights"]
    monkeypatch.setattr("sfvqa.checkpoints.find.identify_model", lambda *_, **__: then)


@pytest.mark.usefixtures("weights")
def test_records_of_an_earlier_version_are_resumed(
    tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_videos(tmp_path)
    out = tmp_path / "answers.jsonl"
    shutil.copy(EARLIER, out)
    fake = FakeAnswerer()
    monkeypatch.setattr("sfvqa.cli.model.load", lambda *_: fake)
    command = [
        *("batch", str(tmp_path / "manifest.csv"), "--question", "What moves?", "-o", str(out), "--json", "-q"),
        *("--model", "tiny", "--device", "cpu", "--frames", "4"),
    ]
    outcome = run_cli(*command)
    summary = json.loads(outcome.stdout)
    assert (outcome.exit_code, summary["answered_before"], summary["failed_before"], summary["left"]) == (6, 2, 1, 0)
    assert (out.read_bytes(), fake.seen) == (EARLIER.read_bytes(), [])
    more = json.loads(run_cli(*command, "--question", "What else?").stdout)
    assert (more["answered"], more["failed"], more["answered_before"], more["failed_before"]) == (1, 1, 2, 1)
    earlier, added = list(read_records(EARLIER)), list(read_records(out))[3:]
    assert {record["question"] for record in added} == {"What else?"}
    assert {
        record["status"]: record.keys() - {"fields", "fields_expected", "window", "log_probabilities"}
        for record in added
    } == {record["status"]: record.keys() for record in earlier}


@pytest.mark.usefixtures("weights")
def test_records_of_an_earlier_version_are_reported_and_merged(tmp_path: Path, run_cli: RunCli) -> None:
    document = json.loads(run_cli("report", str(EARLIER), "--json", "-q").stdout)
    assert (document["items"], document["ok"], document["failed"], document["videos"]) == (3, 2, 1, 2)
    assert run_cli("merge", str(tmp_path / "all.jsonl"), str(EARLIER), "-q").exit_code == 0
    assert (tmp_path / "all.jsonl").read_bytes() == EARLIER.read_bytes()
