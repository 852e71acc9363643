"""`sfvqa report`: what it prints and writes, and what it refuses."""

import csv
import json
import os
from itertools import zip_longest
from pathlib import Path

import pytest

import sfvqa
from sfvqa.batch.item import Item
from sfvqa.batch.record import to_line
from sfvqa.errors import ExitCode
from sfvqa.evaluation.matching import Rule
from tests.batch.report.records import failed, item, ok, write
from tests.cli.conftest import RunCli, RunOnTerminal
from tests.readme import ROOT, commands
from tests.windows import needs_links, needs_pipes

SHAPES = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Two right, one wrong, one failed; one answered only at the second try; a torn line at the end."""
    items = [item(f"{name}\x1b[31m.mp4", answer="left", group="motion") for name in "abcde"]
    lines = [failed(items[4]), ok(items[0], "Left."), ok(items[1], "left"), ok(items[2], "up"), failed(items[3])]
    path = write(tmp_path / "out.jsonl", [*lines, ok(items[4], "left", warnings=("It ends early.",))])
    with path.open("ab") as stream:
        stream.write(to_line(ok())[:40])
    return path


def test_the_page_of_a_terminal_tells_everything(records: Path, run_cli: RunCli) -> None:
    outcome = run_cli("report", str(records))
    assert outcome.exit_code == 0
    for text in (
        "5 items about 5 videos: 4 answered, 1 failed",
        "encode   2.00 s    36%",
        "1 × UnreadableVideoError, such as d\\x1b[31m.mp4",
        "Convert it.",
        "--retry-errors",
        "1 × It ends early.",
        "60.0 % (23.1–88.2)",  # Wilson of 3 of 5
        "75.0 % (30.1–95.4)",
        "motion",
        "tiny 0123456789ab: cpu, float32, none, 4 items",
    ):
        assert text in outcome.stdout
    assert "\x1b" not in outcome.stdout
    assert "Skipped 1 torn or damaged line" in outcome.stderr


def test_a_long_list_ends_and_says_so(tmp_path: Path, run_cli: RunCli) -> None:
    """One group an item would push everything else off the screen."""
    grouped = [ok(item(f"{number}.mp4", answer="left", group=f"g{number:02}"), "left") for number in range(20)]
    shown = run_cli("report", str(write(tmp_path / "out.jsonl", grouped))).stdout
    assert "and 8 groups more; --json has all" in shown
    assert "g11" in shown
    assert "g12" not in shown


def test_on_a_terminal_it_has_colours_and_no_escape_of_a_name(records: Path, run_on_terminal: RunOnTerminal) -> None:
    exit_code, text = run_on_terminal("report", str(records))
    assert exit_code == 0
    assert "\x1b[" in text
    assert "d\\x1b[31m.mp4" in text


def test_json_has_the_same_figures(records: Path, run_cli: RunCli) -> None:
    outcome = run_cli("report", str(records), "--json", "--quiet")
    document = json.loads(outcome.stdout)
    assert outcome.stderr.count("Warning: ") == len(outcome.stderr.splitlines()) == 1  # of the torn line
    assert (document["schema_version"], document["items"], document["ok"], document["failed"]) == (1, 5, 4, 1)
    assert document["score"]["errors_count_as_wrong"]["accuracy"] == 0.6
    assert document["score"]["errors_left_out"]["interval_95"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert document["groups"]["motion"]["right"] == 3
    assert document["errors"][0]["kind"] == "UnreadableVideoError"
    assert document["stages"]["encode"] == {"sum_seconds": 2.0, "median_seconds": 0.5}
    assert len(document["notices"]) == 1


def test_wrong_answers_are_listed_and_the_rule_is_stated(tmp_path: Path, run_cli: RunCli) -> None:
    digit = "The digit 3 is shown."
    labelled = [ok(item(f"{name}.mp4", answer=answer), digit) for name, answer in (("a", "3"), ("b", "\x1b4"))]
    records, page = str(write(tmp_path / "out.jsonl", labelled)), tmp_path / "out.html"
    outcome = run_cli("report", records, "--html", str(page), "--thumbnails", "0")
    listed = f"b.mp4: Which way?\n    expected “\\x1b4”, answered “{digit}”"
    assert listed in outcome.stdout
    assert "a.mp4" not in outcome.stdout.split("Wrong answers")[1]
    rule, exact = Rule.PHRASE.statement, Rule.EXACT.statement
    for text in (outcome.stdout, page.read_text(encoding="utf-8"), run_cli("report", "--help").stdout):
        assert rule[:60] in " ".join(text.split())
    assert "1 wrong answer" in page.read_text(encoding="utf-8")
    strict = json.loads(run_cli("report", records, "--exact", "--json").stdout)
    assert strict["matching"] == {"rule": "exact", "statement": exact}
    assert [(item["video"], item["expected"], item["answer"]) for item in strict["wrong"]] == [
        ("a.mp4", "3", digit),
        ("b.mp4", "\x1b4", digit),
    ]
    table = tmp_path / "out.csv"
    run_cli("report", records, "--exact", "--csv", str(table))
    with table.open(encoding="utf-8", newline="") as stream:
        assert [row["verdict"] for row in csv.DictReader(stream)] == ["wrong", "wrong"]


def test_against_another_run(records: Path, tmp_path: Path, run_cli: RunCli) -> None:
    other = {"num_frames": 8}
    older = [ok(item(f"{name}\x1b[31m.mp4", answer="left", group="motion"), "up", settings=other) for name in "abcd"]
    old = write(tmp_path / "old.jsonl", older)
    outcome = run_cli("report", str(records), "--against", str(old))
    assert outcome.stdout.splitlines()[0].startswith("out.jsonl is 50.0 points better than old.jsonl: 2 of 4 questions")
    shown = " ".join(outcome.stdout.split())
    for text in (
        "2 for the better and 0 for the worse; p = 0.500: this could be chance.",
        "errors count as wrong errors left out questions 4 3",
        "motion 4 50.0 % 0.0 % +50.0 (",
        "agree on 33.3 % (6.1–79.2) of the questions that both answered",
        "Left out: 1 only in out.jsonl.",
        "num_frames 4 8",
        "+ a\\x1b[31m.mp4: Which way? expected “left” out.jsonl “Left.” old.jsonl “up”",
        "≠ d\\x1b[31m.mp4: Which way? expected “left” out.jsonl UnreadableVideoError old.jsonl “up”",
    ):
        assert text in shown
    assert "\x1b" not in outcome.stdout
    assert "Skipped 1 torn or damaged line" in outcome.stderr
    comparison = json.loads(run_cli("report", str(records), "--against", str(old), "--json").stdout)["comparison"]
    assert {name: comparison[name] for name in ("both", "only_new", "only_old", "neither", "only_in_new")} == {
        "both": 0, "only_new": 2, "only_old": 0, "neither": 2, "only_in_new": 1,
    }  # fmt: skip
    assert (comparison["p_value"], comparison["errors_left_out"]["items"]) == (0.5, 3)
    assert comparison["headline"] in shown
    assert [change["outcome"] for change in comparison["changes"]] == ["better", "better", "both wrong"]
    assert (comparison["changes"][2]["new_answer"], comparison["changes"][2]["old_answer"]) == (None, "up")


@pytest.mark.slow
def test_the_transcript_of_a_comparison_is_what_it_prints(
    tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all questions about the bundled videos but the descriptions, at 8 and at 32 frames; times are left out."""
    (tmp_path / "sfvqa").symlink_to(ROOT / "sfvqa")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    with Path("my-questions.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["video", "question", "answer"])
        for video in json.loads((SHAPES.parent / "demo.json").read_text(encoding="utf-8"))["videos"]:
            for asked in video["questions"]:
                if asked["question"] != "Describe the video.":
                    table.writerow([f"sfvqa/assets/demo/{video['file']}", asked["question"], asked["answer"]])
    readme = commands(ROOT / "sfvqa" / "batch" / "README.md")
    (end,) = (place for place, command in enumerate(readme) if "--against" in command.words)
    for command in readme[end - 2 : end + 1]:
        outcome = run_cli(*command.words[1:])
        assert outcome.exit_code == 0
        for printed, shown in zip_longest(outcome.stdout.splitlines(), command.output.splitlines()):
            assert printed.rstrip() == shown or shown.startswith("  Time per video, ")


def test_runs_without_true_answers_are_compared_too(tmp_path: Path, run_cli: RunCli) -> None:
    parts = [item("a.mp4", start_seconds=30.0 * place, end_seconds=30.0 * place + 30) for place in range(2)]
    new = write(tmp_path / "new.jsonl", [ok(of, "A dog.") for of in parts])
    old = write(tmp_path / "old.jsonl", [ok(parts[0], "A dog"), ok(parts[1], "A cat.")])
    shown = run_cli("report", str(new), "--against", str(old)).stdout
    assert "agree on 1 of 2 questions that both answered, on 1 of them word for word." in shown
    assert "≠ a.mp4 0:30–1:00: Which way?" in shown
    assert "Right answers" not in shown
    assert "McNemar" not in shown


def test_table_and_page_are_written(tmp_path: Path, run_cli: RunCli) -> None:
    of = Item(SHAPES, "shapes.mp4", "Which way?")
    records = write(tmp_path / "out.jsonl", [ok(of), failed(item("b.mp4"))])
    table, page = tmp_path / "out.csv", tmp_path / "out.html"
    outcome = run_cli("report", str(records), "--csv", str(table), "--html", str(page), "--thumbnails", "2")
    assert outcome.exit_code == 0
    with table.open(encoding="utf-8", newline="") as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == ["ok", "error"]
    assert page.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 2
    assert "Wrote 2 rows to" in outcome.stderr
    assert "Wrote a page about 2 videos" in outcome.stderr
    assert "could not be read" not in outcome.stderr  # of what failed there are no frames to show
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.html", "out.jsonl"]


def test_videos_that_moved_are_found_in_their_folder(tmp_path: Path, run_cli: RunCli) -> None:
    records, page = write(tmp_path / "out.jsonl", [ok()]), tmp_path / "out.html"
    outcome = run_cli("report", str(records), "--html", str(page))
    assert "The page lacks pictures of 1 video, and says why." in outcome.stderr
    outcome = run_cli("report", str(records), "--html", str(page), "--videos", str(SHAPES.parent))
    assert "could not be read" not in outcome.stderr
    assert "data:image/jpeg" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["absent.jsonl"], ExitCode.USAGE),
        (["out.jsonl", "--against", "absent.jsonl"], ExitCode.USAGE),
        (["out.jsonl", "--against", "./out.jsonl"], ExitCode.USAGE),
        (["out.jsonl", "--csv", "out.jsonl"], ExitCode.USAGE),
        (["out.jsonl", "--html", "no/such/folder.html"], ExitCode.USAGE),
        (["out.jsonl", "--csv", "same", "--html", "same"], ExitCode.USAGE),
        (["out.jsonl", "--html", "a.html", "--videos", "no/folder"], ExitCode.USAGE),
        (["out.jsonl", "--html", "a.html", "--thumbnails", "-1"], ExitCode.USAGE),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    arguments: list[str], exit_code: int, records: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(records.parent)
    before = records.read_bytes()
    outcome = run_cli("report", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (exit_code, "")
    assert outcome.stderr
    assert records.read_bytes() == before
    assert [path.name for path in records.parent.iterdir()] == ["out.jsonl"]


@needs_links
def test_a_link_that_leads_in_a_circle_is_no_surprise(records: Path, tmp_path: Path, run_cli: RunCli) -> None:
    """It leads to no file that is written through it, so the table takes its place."""
    table = tmp_path / "circle.csv"
    table.symlink_to("circle.csv")
    assert run_cli("report", str(records), "--csv", str(table)).exit_code == 0
    assert len(table.read_text(encoding="utf-8").splitlines()) == 6


@needs_pipes
def test_a_device_stays_what_it_is(records: Path, tmp_path: Path, run_cli: RunCli) -> None:
    """A file that is written whole takes the place of what was there, and of /dev/null that would be the end."""
    device = tmp_path / "device"
    os.mkfifo(device)
    for flag in ("--csv", "--html"):
        outcome = run_cli("report", str(records), flag, str(device))
        assert outcome.exit_code == 2
        assert "is a pipe or a device" in outcome.stderr
    assert device.is_fifo()
