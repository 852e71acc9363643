"""`sfvqa profile` end to end on tiny, and what it refuses before anything is measured."""

import json
import re
from pathlib import Path

import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.profile import parse_frame_counts
from sfvqa.cli.profile_figures import operations_text, print_profile, profile_page, seconds_text, times_text
from sfvqa.profiling.compare import compare, read_profile
from tests.cli.conftest import RunCli
from tests.profiling.made import ALL_BASELINES, made_point, made_profile

VIDEO = load_demo_videos()[0].path
QUICK = ("--model", "tiny", "--device", "cpu", "--repeat", "1", "--warmup", "0", "--new-tokens", "2")


def test_one_object_with_the_shape_that_is_documented(run_cli: RunCli) -> None:
    run = run_cli("profile", VIDEO, *QUICK, "--frames", "16,8", "--json", "-q")
    assert (run.exit_code, run.stderr) == (0, "")
    profile = json.loads(run.stdout)
    assert {"schema_version", "model", "device", "settings", "points", "baselines"} <= profile.keys()
    assert profile["schema_version"] == 1
    assert profile["baselines"] is None
    assert [point["num_frames"] for point in profile["points"]] == [8, 16]
    point = profile["points"][1]
    assert (point["num_fast_tokens"], point["num_slow_tokens"]) == (64, 256)
    for name in ("open", "read", "preprocess", "vision_tower", "projector", "slow_keys_values", "prefill", "ttft"):
        assert point[f"{name}_seconds"] > 0
    assert point["tokens_per_second"] == pytest.approx(1 / point["decode_seconds_per_token"])
    assert point["peak_device_bytes"] is None
    assert point["flops"] == point["flops_counted"]
    assert profile["settings"]["video"] == VIDEO


def test_a_page_and_every_file(run_cli: RunCli, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(run_cli("profile", VIDEO, *QUICK, "--frames", "8", "--json").stdout, encoding="utf-8")
    files = {name: str(tmp_path / name) for name in ("t.csv", "p.svg", "trace.json")}
    run = run_cli(
        "profile", VIDEO, *QUICK, "--frames", "8", "--baselines", "--compare", str(old),
        "--csv", files["t.csv"], "--plot", files["p.svg"], "--trace", files["trace.json"],
    )  # fmt: skip
    assert run.exit_code == 0, run.stderr
    for words in ("vision tower", "each further token", "all tokens in self-attention", "13 cannot be judged"):
        assert words in " ".join(run.stdout.split())
    assert "Each was measured once" in run.stdout
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").count("\n") == 5
    assert "first token" in (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]


def test_a_trace_that_cannot_be_written_costs_nothing_that_was_measured(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was written first: a full disk, and everything was to be measured again."""
    monkeypatch.setattr("sfvqa.profiling.measuring.write_trace", _stop)
    table = tmp_path / "t.csv"
    flags = ("--frames", "8", "--csv", str(table), "--trace", str(tmp_path / "trace.json"))
    run = run_cli("profile", VIDEO, *QUICK, *flags)
    assert run.exit_code == 1
    assert "first token (TTFT)" in run.stdout
    assert table.exists()
    assert not (tmp_path / "trace.json").exists()


def test_static_decoding_is_measured_and_said(run_cli: RunCli) -> None:
    flags = (*QUICK[:-1], "4", "--frames", "8", "--static-decode", "on")
    assert "static decoding" in run_cli("profile", VIDEO, *flags).stdout
    assert json.loads(run_cli("profile", VIDEO, *flags, "--json").stdout)["settings"]["static_decode"] is True


def test_more_frames_than_there_are_are_refused_and_by_default_left_out(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo has 120: none of them is shown twice to make up 128."""
    run = run_cli("profile", VIDEO, *QUICK, "--frames", "16,128")
    assert run.exit_code == 2
    assert "The video has 120 frames, fewer than the 128 to be measured." in run.stderr
    monkeypatch.setattr("sfvqa.profiling.sweep.sweep", lambda *arguments: _stop(*arguments[2:]))
    run = run_cli("profile", VIDEO, *QUICK)
    assert run.exit_code == 1
    assert "The video has 120 frames; measuring 8, 16, 32, 64, 96." in run.stderr
    assert "SweepOptions(frame_counts=(8, 16, 32" in " ".join(run.stderr.split())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--frames", "8,x"), "--frames"),
        (("--frames", "0"), "--frames"),
        (("--repeat", "0"), "--repeat"),
        (("--new-tokens", "1"), "--new-tokens"),
        (("--question", " "), "question"),
        (("--plot", "picture.bmp"), "names a picture format"),
        (("--csv", "same", "--trace", "same"), "name the same file"),
        (("--csv", "absent/t.csv"), "There is no folder"),
        (("--compare", "absent.json"), "cannot be read"),
        (("--csv", VIDEO), "is also an input file"),
        (("--model", "bench-llava-0.5b", "--random-weights", "--baselines", "--frames", "2"), "has no slow tokens"),
        (("--static-decode", "on", "--baselines"), "--baselines decode step by step"),
        (("--static-decode", "on", "--attention", "eager"), "by sdpa, not by eager"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    flags: tuple[str, ...], says: str, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.cli.model.load", _stop)
    run = run_cli("profile", VIDEO, *QUICK, *flags)
    assert run.exit_code == 2
    assert says in run.stderr


def test_the_7b_goes_the_same_way_and_is_refused_where_it_does_not_fit(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.checkpoints.plan.free_memory_bytes", lambda _: 8_000_000_000)
    flags = ("--model", "slowfast-7b", "--random-weights", "--device", "cpu", "--frames", "8", "--dtype", "bfloat16")
    run = run_cli("profile", VIDEO, *flags, "--json")
    assert run.exit_code == 5
    assert "are free" in json.loads(run.stdout)["error"]["message"]
    monkeypatch.setattr("sfvqa.checkpoints.plan.free_memory_bytes", lambda _: 80_000_000_000)
    monkeypatch.setattr("sfvqa.cli.model.load", _stop)
    run = run_cli("profile", VIDEO, *flags)
    assert run.exit_code == 1
    assert "ModelSettings(name='slowfast-7b" in run.stderr


def test_the_config_files_frames_are_not_the_profiles(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`frames` is how many `ask` looks at; the model it names is taken."""
    (tmp_path / "absent.toml").write_text('frames = 5\nmodel = "tiny"\ncrop = "pad"\n', encoding="utf-8")
    monkeypatch.setattr("sfvqa.profiling.sweep.sweep", lambda *arguments: _stop(*arguments[2:]))
    run = run_cli("profile", VIDEO, "--frames", "8,16")
    said = " ".join(run.stderr.split())
    assert "frame_counts=(8, 16)" in said
    assert "CropMode.PAD" in said


def test_a_profile_of_other_numbers_of_frames_is_refused_before_anything_is_loaded(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(made_profile(made_point(64)).to_dict()), encoding="utf-8")
    monkeypatch.setattr("sfvqa.cli.model.load", _stop)
    run = run_cli("profile", VIDEO, *QUICK, "--frames", "8", "--compare", str(path))
    assert run.exit_code == 2
    assert "there is nothing to compare" in " ".join(run.stderr.split())


def test_a_change_is_shown_with_what_it_was(tmp_path: Path) -> None:
    old, new = made_profile(made_point(64)), made_profile(made_point(64, seconds=1.5))
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old.to_dict()), encoding="utf-8")
    said = _plain(profile_page(new, compare(read_profile(path), new)))
    assert "64 frames, prefill: 1.00 s before, 1.50 s now (+50%)" in said
    assert "at the same time" not in said


def test_ratios_stand_under_their_number_of_frames() -> None:
    said = _plain(profile_page(made_profile(baselines=ALL_BASELINES)))
    assert "all tokens in self-attention: prefill 1.00× 4.0× 8.0×" in said
    assert "16 frames, self-attention only: prefill 0.90× 0.90× 0.90×" in said
    assert "peak device memory" not in said
    assert "░ open and read" in said


def test_in_a_file_every_table_stays_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_profile(made_profile(*(made_point(count, apart=0.5) for count in (8, 16, 32, 64, 96, 128))))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert next(line for line in printed.splitlines() if "each further" in line).count("1.00 s ±25%") == 6


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_terminal_is_never_overrun(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """The default's six numbers of frames are wider than 80 columns, and the terminal broke every line of the page."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    points = [made_point(count, apart=0.5) for count in (8, 16, 32, 64, 96, 128)]
    print_profile(made_profile(*points, baselines=ALL_BASELINES))
    printed = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, printed.splitlines())) <= columns
    assert "…" not in printed
    assert sum(line.count("1.00 s ±25%") for line in printed.splitlines() if "each further" in line) == 6
    assert all(f"{sign} " in printed for sign in "░▒█▓#+")
    names = [line.split()[1:] for line in printed.splitlines() if line.startswith("  frames ")]
    assert [name for row in names for name in row][:6] == ["8", "16", "32", "64", "96", "128"]


def test_figures_have_three_digits() -> None:
    assert [seconds_text(seconds) for seconds in (0.00012, 0.9999, 59.96, 1234.0)] == [
        "0.12 ms", "1.00 s", "60.0 s", "1,234 s",
    ]  # fmt: skip
    assert (operations_text(1.86e13), operations_text(12.0)) == ("18.6 TFLOP", "12 FLOP")
    assert (times_text(1.018), times_text(8.71)) == ("1.02×", "8.7×")
    assert parse_frame_counts(" 64, 8,8") == (8, 64)


def _plain(page: object) -> str:
    from rich.console import Console

    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(page)
    return " ".join(capture.get().split())


def _stop(*arguments: object, **_: object) -> None:
    raise RuntimeError(str(arguments))
