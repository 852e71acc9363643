"""`sfvqa batch`: records in the file, nothing on stdout, what happens on stderr, and an exit code that tells."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.batch.journal import Journal
from sfvqa.batch.record import read_records
from sfvqa.batch.tally import Tally
from sfvqa.cli.batch import running
from sfvqa.cli.screen import Notices
from sfvqa.errors import OutOfMemoryError
from tests.batch.answerer import FakeAnswerer
from tests.cli.conftest import Outcome, RunCli, RunOnTerminal
from tests.inference.conftest import write_video

TINY = Path(sfvqa.__file__).parent / "assets" / "tiny"
RunBatchCli = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """one.mp4, two.mp4 and within/three.mp4."""
    (tmp_path / "videos" / "within").mkdir(parents=True)
    for number, name in enumerate(("one", "two", "within/three")):
        write_video(tmp_path / "videos" / f"{name}.mp4", num_frames=10, colour=(80 * number, 80, 160))
    return tmp_path / "videos"


@pytest.fixture
def answerer(monkeypatch: pytest.MonkeyPatch) -> FakeAnswerer:
    """A fake in place of every model."""
    fake = FakeAnswerer()
    monkeypatch.setattr("sfvqa.cli.model.load", lambda *_: fake)
    return fake


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def batch(run_cli: RunCli, folder: Path, out: Path, answerer: FakeAnswerer) -> RunBatchCli:
    """Run a batch about the folder with two questions and the bundled model, by the fake, and what is added."""
    assert answerer.seen == []

    def run(*args: str, source: str | None = None, questions: tuple[str, ...] = ("What moves?", "Where?")) -> Outcome:
        asked = [word for question in questions for word in ("--question", question)]
        return run_cli("batch", source or str(folder), *asked, "-o", str(out), "--model", "tiny", *args)

    return run


def records_in(path: Path) -> list[dict[str, Any]]:
    return list(read_records(path))


def test_every_question_about_every_video_has_its_record(batch: RunBatchCli, out: Path) -> None:
    done = batch()
    assert (done.exit_code, done.stdout) == (0, "")
    assert {(record["video"], record["question"]) for record in records_in(out)} == {
        (name, question)
        for name in ("one.mp4", "two.mp4", "within/three.mp4")
        for question in ("What moves?", "Where?")
    }
    assert "6 of 6 items answered." in done.stderr
    assert f"Records: {out}" in done.stderr


@pytest.mark.parametrize("flags", [(), ("--choices", "A,B")])
def test_records_hold_the_evidence_that_is_asked_for(batch: RunBatchCli, out: Path, flags: tuple[str, ...]) -> None:
    batch("--evidence", *flags, questions=("Where?",))
    for record in records_in(out):
        assert len(record["evidence"]) == record["frames"]["count"]
    batch(*flags, "--overwrite", questions=("Where?",))
    assert all(record["evidence"] is None for record in records_in(out))


def test_quiet_says_nothing(batch: RunBatchCli, out: Path) -> None:
    assert batch("-q") == Outcome(0, "", "")
    assert len(records_in(out)) == 6


def test_json_is_one_summary_on_stdout(batch: RunBatchCli, folder: Path) -> None:
    (folder / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42 no more")
    done = batch("--json", "-q")
    summary = json.loads(done.stdout)
    assert (done.exit_code, done.stderr, done.stdout.count("\n")) == (6, "", 1)
    assert (summary["items"], summary["answered"], summary["failed"], summary["left"]) == (8, 6, 2, 0)
    assert (summary["status"], summary["errors"]) == ("failures", {"UnreadableVideoError": 2})


def test_failures_are_named_and_counted(batch: RunBatchCli, folder: Path) -> None:
    (folder / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42 no more")
    done = batch()
    assert done.exit_code == 6
    assert "Failed: bad.mp4: Where? “" in done.stderr
    assert "Failed: 2 × UnreadableVideoError" in done.stderr


def test_the_same_command_goes_on(batch: RunBatchCli, answerer: FakeAnswerer, folder: Path, out: Path) -> None:
    """Failures of the first run count in the second, unless they are asked again."""
    bad = folder / "bad.mp4"
    bad.write_bytes(b"\0\0\0\x18ftypmp42 no more")
    assert batch().exit_code == 6
    write_video(folder / "new.mp4", num_frames=4, colour=(1, 1, 1))
    answerer.seen.clear()
    done = batch()
    assert done.exit_code == 6
    assert answerer.seen == ["new.mp4"]
    assert "2 of 10 items answered, 6 answered before, 2 failed before." in done.stderr
    assert "--retry-errors" in done.stderr
    bad.write_bytes((folder / "one.mp4").read_bytes())
    assert batch("--retry-errors").exit_code == 0
    assert len(records_in(out)) == 12


def test_no_model_is_loaded_when_all_is_done(batch: RunBatchCli, monkeypatch: pytest.MonkeyPatch) -> None:
    batch()
    monkeypatch.setattr("sfvqa.cli.model.load", _never)
    done = batch("--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["answered_before"] == 6


def test_a_checkpoint_folder_is_the_same_however_it_is_written(
    run_cli: RunCli, folder: Path, out: Path, answerer: FakeAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path was hashed beside its weights, and from another folder everything was asked anew."""
    shutil.copytree(TINY, folder.parent / "mine")
    monkeypatch.chdir(folder.parent)
    asked = ("batch", str(folder), "--question", "What moves?", "-o", str(out), "--json", "--model")
    assert json.loads(run_cli(*asked, "./mine").stdout)["answered"] == 3
    monkeypatch.chdir(folder)
    for written in ("../mine", str(folder.parent / "mine")):
        assert json.loads(run_cli(*asked, written).stdout)["answered_before"] == 3
    assert len(answerer.seen) == 3


OTHER_ANSWERS = """
--frames 4|--fps 2|--crop pad|--reader opencv|--max-new-tokens 9|--temperature 0.5|--seed 3|--top-p 0.9
--repetition-penalty 1.1|--slow-attention prefill|--choices A,B|--system Brief.|--template {question}!
--static-decode on|--subtitles auto|--subtitles auto --subtitle-tokens 7|--dtype bfloat16|--start 0:00.2|--end 0:00.8
--attention eager|--random-weights|--frames auto|--sampling keyframes|--evidence|--top-k 5|--stop red
"""
SAME_ANSWERS = """
--batch-size 1|--readers 1|--frames-ahead 8|--item-timeout 60|--no-cache|--max-failures 9|--read-threads 1
--read-timeout 60|--device cpu
"""


def test_a_setting_that_can_change_an_answer_asks_anew_and_no_other_does(batch: RunBatchCli) -> None:
    batch()
    left = {
        flags: json.loads(batch(*flags.split(), "--dry-run", "--json", "-q").stdout)["left"]
        for flags in "|".join((OTHER_ANSWERS + SAME_ANSWERS).split("\n")).split("|")
        if flags
    }
    assert {flags for flags, count in left.items() if count == 0} == {
        flags for flags in SAME_ANSWERS.replace("\n", "|").split("|") if flags
    }
    assert set(left.values()) == {0, 6}


def test_overwrite_begins_anew(batch: RunBatchCli, out: Path) -> None:
    batch()
    assert batch("--overwrite").exit_code == 0
    assert len(records_in(out)) == 6
    assert len(records_in(out.with_name("out.jsonl.old"))) == 6


def test_shards_share_the_videos(batch: RunBatchCli, out: Path, answerer: FakeAnswerer) -> None:
    """No video is seen twice, and no item is left out."""
    for number in (1, 2, 3):
        assert batch("--shard", f"{number}/3").exit_code == 0
    assert len(records_in(out)) == 6
    assert sorted(answerer.seen) == ["one.mp4", "three.mp4", "two.mp4"]


def test_a_dry_run_counts_and_writes_nothing(
    batch: RunBatchCli, out: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    batch()
    before = out.read_bytes()
    write_video(folder / "new.mp4", num_frames=4, colour=(1, 1, 1))
    monkeypatch.setattr("sfvqa.cli.model.load", _never)
    done = batch("--dry-run")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:3] == [
        "items   8 items about 4 videos", "done    6 answered, 0 failed", "left    2"
    ]  # fmt: skip
    counts = json.loads(batch("--dry-run", "--json", "--overwrite").stdout)
    assert (counts["items"], counts["answered"], counts["left"]) == (8, 0, 8)
    assert out.read_bytes() == before


def test_questions_come_from_a_file_too(batch: RunBatchCli, tmp_path: Path, out: Path) -> None:
    (tmp_path / "questions.txt").write_text("Who?\n\nWhen?\n", encoding="utf-8")
    assert batch("--questions", str(tmp_path / "questions.txt"), questions=("Where?",)).exit_code == 0
    assert {record["question"] for record in records_in(out)} == {"Where?", "Who?", "When?"}


def test_a_manifest_says_what_is_asked_of_which(batch: RunBatchCli, folder: Path, out: Path) -> None:
    manifest = folder / "manifest.csv"
    manifest.write_text(
        "id,video,question,start,end,choices,answer\n"
        'first,one.mp4,Left or right?,0:00,0:00.5,"left,right",left\nsecond,within/three.mp4,Why?,,,,\n',
        encoding="utf-8",
    )
    assert batch(source=str(manifest), questions=()).exit_code == 0
    by_id = {record["id"]: record for record in records_in(out)}
    assert by_id["first"]["requested"]["choices"] == ["left", "right"]
    assert by_id["first"]["frames"]["timestamps_seconds"][-1] <= 0.5
    assert by_id["first"]["answer_expected"] == "left"
    assert by_id["second"]["frames"]["count"] == 10


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--overwrite --retry-errors", "Leave out --retry-errors"),
        ("--batch-size 0", "--batch-size"),
        ("--batch-size many", "or auto"),
        ("--item-timeout 0", "not above 0"),
        ("--frames-ahead 7", "--frames-ahead"),
        ("--shard 4/3", "no shard “4/3”"),
        ("--shard half", "is no shard"),
        ("--max-failures 0", "--max-failures"),
        ("--subtitles file.srt", "--subtitles"),
        ("--subtitle-tokens 9", "--subtitle-tokens needs --subtitles"),
        ("--choices A,B --temperature 1", "--temperature"),
        ("--frames 0", "--frames"),
    ],
)
def test_contradictions_are_usage_errors(batch: RunBatchCli, out: Path, flags: str, says: str) -> None:
    done = batch(*flags.split())
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())
    assert not out.exists()


def test_nothing_to_ask_is_a_usage_error(batch: RunBatchCli, tmp_path: Path) -> None:
    assert batch(questions=()).exit_code == 2
    assert batch(questions=("",)).exit_code == 2
    assert batch(source=str(tmp_path / "absent")).exit_code == 2


def test_a_file_that_cannot_be_written_ends_it_before_a_model_is_loaded(
    batch: RunBatchCli, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.cli.model.load", _never)
    out.mkdir()
    done = batch()
    assert done.exit_code == 1
    assert str(out) in done.stderr


def test_two_batches_do_not_write_to_one_file(batch: RunBatchCli, out: Path) -> None:
    with Journal(out):
        done = batch()
    assert done.exit_code == 1
    assert "Another process is writing" in done.stderr


def test_records_can_go_to_standard_output(run_cli: RunCli, folder: Path, answerer: FakeAnswerer) -> None:
    assert answerer.seen == []
    command = ("batch", str(folder), "--question", "?", "-o", "-", "--model", "tiny")
    done = run_cli(*command)
    assert done.exit_code == 0
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ok"] * 3
    assert run_cli(*command, "--json").exit_code == 2


def test_too_many_failures_end_it(batch: RunBatchCli, answerer: FakeAnswerer, out: Path) -> None:
    def fail(*_: object) -> None:
        raise OutOfMemoryError("Memory ran out.", "Use less.")

    answerer.on_answer = fail
    done = batch("--max-failures", "2", "--frames", "1")
    assert done.exit_code == 6
    assert "Stopped after 2 failures. Left: 4 items; rerun the command to resume." in done.stderr
    assert len(records_in(out)) == 2


def test_ctrl_c_says_how_to_go_on(batch: RunBatchCli, answerer: FakeAnswerer, out: Path) -> None:
    def interrupt(*_: object) -> None:
        if len(answerer.seen) == 2:
            raise KeyboardInterrupt

    answerer.on_answer = interrupt
    done = batch("--readers", "1")
    assert done.exit_code == 130
    assert "2 of 6 items answered, 4 left." in done.stderr
    assert "What is done is kept; rerun the command to resume." in done.stderr
    answerer.on_answer = lambda *_: None
    assert batch().exit_code == 0
    assert len(records_in(out)) == 6


def test_plain_lines_tell_how_far_it_is(
    batch: RunBatchCli, answerer: FakeAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SECONDS_BETWEEN_LINES", 0.05)
    answerer.on_answer = lambda *_: time.sleep(0.1)
    lines = [
        line for line in batch("--batch-size", "1", "-v").stderr.splitlines() if "bottleneck" in line and "left" in line
    ]
    assert 4 <= len(lines) <= 20
    assert all("\x1b" not in line for line in lines)


@pytest.mark.parametrize(("columns", "lines"), [(100, 30), (24, 8), (8, 3)])
def test_the_display_fits_its_terminal(
    run_on_terminal: RunOnTerminal, folder: Path, out: Path, answerer: FakeAnswerer, columns: int, lines: int
) -> None:
    """However narrow it is, nothing wraps; names and answers move no cursor."""
    os.environ.update(COLUMNS=str(columns), LINES=str(lines))
    answerer.on_answer = lambda *_: time.sleep(0.3)
    (folder / "one.mp4").rename(folder / "one\x1b[2J\n.mp4")
    command = ("batch", str(folder), "--question", "What moves?", "-o", str(out), "--model", "tiny")
    exit_code, sent = run_on_terminal(*command)
    assert exit_code == 0
    assert "\x1b[2J" not in sent
    shown = [line for line in _without_codes(sent).split("\n") if "━" in line or "…" in line]
    assert max(map(len, shown)) <= columns
    assert not any("━" in line and "item" in line for line in shown)
    if columns == 100:
        assert "bottleneck: " in sent
        assert "two.mp4: What moves? two.mp4: What moves? (10 frames)" in _without_codes(sent)


def test_defaults_come_from_the_configuration(batch: RunBatchCli, tmp_path: Path, out: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("frames = 3\nreaders = 1\nbatch-size = 2\n", encoding="utf-8")
    os.environ["SFVQA_CONFIG"] = str(config)
    assert batch().exit_code == 0
    assert {record["frames"]["count"] for record in records_in(out)} == {3}


def _without_codes(sent: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent).replace("\r", "\n")


def _never(*_: object) -> None:
    raise AssertionError("must not be called")


def test_kinds_of_errors_come_in_one_order_whichever_came_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Items finish in any order."""
    tally = Tally(4, errors=Counter({"VideoNotFoundError": 1, "ReadTimeoutError": 1, "UnreadableVideoError": 2}))
    running.show_summary(tally, "Records: out.jsonl", Notices(), json=False)
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Failed: ")]
    assert [line.split()[-1] for line in failed] == ["UnreadableVideoError", "ReadTimeoutError", "VideoNotFoundError"]
