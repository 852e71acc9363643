"""Tables of an experiment: pooled over seeds, paired by question, and honest about what was not run."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sfvqa.errors import SfvqaError
from sfvqa.evaluation.scores import paired_difference_interval, wilson_interval
from sfvqa.lab.comparison.cells import MAIN, SMALL, Cell, Settings, plan
from sfvqa.lab.comparison.run import result_path
from sfvqa.lab.comparison.tables import Row, as_table, differences_table, draw, families_table, main, read_rows
from tests.readme import LAB, ROOT


def write_result(folder: Path, cell: Cell, outcomes: dict[str, str], test_set: str = "abc") -> dict[str, Any]:
    skills = {"flash": "time", "digit": "detail", "digit_at": "both", "color": "overview"}
    families = {
        name: {"skill": skills[name], "right": text.count("1"), "total": len(text), "chance": 0.25, "outcomes": text}
        for name, text in outcomes.items()
    }
    result = {
        "cell": cell.name,
        "seed": cell.seed,
        "test_set": test_set,
        "prefill_flops": 2.5e9,
        "training_seconds": 60,
        "scoring_seconds": 60,
        "machine": "abacus",
        "families": families,
    }
    path = result_path(folder, cell)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result))
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Slow-fast with two of three seeds, fast tokens only with one, nothing else."""
    settings = Settings()
    (tmp_path / "settings.json").write_text(json.dumps(asdict(settings)))
    first, second = (cell for cell in plan(settings) if cell.variant.name == "slow-fast-64" and cell.seed < 2)
    write_result(tmp_path, first, {"flash": "1111", "digit": "1100", "digit_at": "10", "color": "11"})
    write_result(tmp_path, second, {"flash": "1110", "digit": "1111", "digit_at": "11", "color": "11"})
    fast = next(cell for cell in plan(settings) if cell.variant.name == "fast-only-64" and cell.seed == 0)
    write_result(tmp_path, fast, {"flash": "0011", "digit": "0000", "digit_at": "01", "color": "11"})
    return tmp_path


def main_rows(folder: Path) -> list[Row]:
    return [row for row in read_rows(folder) if row.group == MAIN]


def test_seeds_are_pooled_and_missing_cells_say_so(folder: Path) -> None:
    table = as_table(main_rows(folder)).splitlines()
    slow_fast = next(line for line in table if line.startswith("| slow-fast-64 "))
    assert "| 87.5% ±" in slow_fast
    assert "| 75.0% ±" in slow_fast
    assert "2 of 3 (75.0%–91.7%)" in slow_fast
    assert "2.50 GFLOP" in slow_fast
    assert next(line for line in table if line.startswith("| all-64 ")).count("not run") == 5
    assert "| flash (time) | 25% | 88% | 50% |" in families_table(main_rows(folder))


def test_differences_are_paired_by_seed_and_question(folder: Path) -> None:
    """Seed 0 alone has both: 9 of 12 against 5 of 12, one of which only fast tokens got right."""
    interval = paired_difference_interval(4, 1, 5, 2)
    (line,) = [line for line in differences_table(main_rows(folder)).splitlines() if "fast-only" in line]
    name, time, detail, both, overview, total = line.strip("| ").split(" | ")
    assert name == "fast-only-64"
    assert total == f"-33.3 ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    assert [part.split(" (")[0] for part in (time, detail, both, overview)] == ["-50.0", "-50.0", "+0.0", "+0.0"]
    assert "all-64" not in differences_table(main_rows(folder))


def test_seeds_that_answer_the_same_questions_are_not_more_questions(folder: Path) -> None:
    """Twice the same answers once had an interval √2 narrower than once."""
    slow_fast = main_rows(folder)[0]
    first = slow_fast.results[0]
    alone, twice = (replace(slow_fast, results=(first,) * count) for count in (1, 2))
    assert alone.share().interval == wilson_interval(9, 12) == twice.share().interval
    assert as_table([alone]).split("±")[1] == as_table([twice]).split("±")[1]

    fast = main_rows(folder)[1]
    (result,) = fast.results
    second = result | {"seed": 1}
    slow_fast = replace(slow_fast, results=(first, first | {"seed": 1}))
    line = differences_table([slow_fast, fast]).splitlines()[-1]
    assert differences_table([slow_fast, replace(fast, results=(result, second))]).endswith(line)


def test_spacings_are_compared_with_their_like_in_as_many_layers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against half as many layers, a difference would be one of depth too."""
    wanted = ("as-it-is", "every-1-of-8", "every-2-of-8", "gating-none")
    for cell in plan(Settings()):
        if cell.variant.name in wanted:
            write_result(folder, cell, {"flash": "1111" if cell.variant.deep else "1100"})
    main(["--run", str(folder)])
    shallow, deep = capsys.readouterr().out.split("| less as-it-is, in points |")[1].split("| less every-2-of-8, in")
    assert "| gating-none | +0.0" in shallow
    assert "every" not in shallow
    assert "| every-1-of-8 | +0.0" in deep
    assert "gating" not in deep


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot_is_drawn(folder: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = folder / "plots" / f"plot.{suffix}"
    draw(read_rows(folder), path)
    assert path.stat().st_size > 5_000


def test_an_experiment_without_results_is_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "settings.json").write_text(json.dumps(asdict(Settings())))
    main(["--run", str(tmp_path), "--plot", str(tmp_path / "plot.png")])
    printed = capsys.readouterr().out
    assert printed.count("not run") == 20 * 5
    assert (tmp_path / "plot.png").exists()


def test_what_cannot_be_shown_is_refused(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SfvqaError, match=r"no picture.*png, \.svg"):
        draw(read_rows(folder), tmp_path / "plot.txt")
    with pytest.raises(SfvqaError, match="cannot be written"):
        draw(read_rows(folder), Path("/dev/null/plot.png"))
    with pytest.raises(SystemExit):
        main(["--run", str(tmp_path / "nothing")])
    write_result(folder, plan(Settings())[2], {"flash": "1"}, test_set="another")
    with pytest.raises(SfvqaError, match="2 test sets"):
        read_rows(folder)
    broken = result_path(folder, plan(Settings())[2])
    for text, said in (("{", "cannot be read"), ("[]", "cannot be read"), ("{}", "lacks families, machine")):
        broken.write_text(text)
        with pytest.raises(SfvqaError, match=said):
            read_rows(folder)
    for settings in ("", "[]", "{}", '{"timeline": {}, "vision_dims": [1], "colour": 3}'):
        (folder / "settings.json").write_text(settings)
        with pytest.raises(SfvqaError, match="damaged or of another version"):
            read_rows(folder)


def test_the_tables_of_the_readme_are_those_of_the_results_beside_it() -> None:
    rows = read_rows(ROOT / ".github" / "comparison")
    text = (LAB / "comparison" / "README.md").read_text(encoding="utf-8")
    for group in (MAIN, SMALL):
        assert as_table([row for row in rows if row.group == group]) in text
    main = [row for row in rows if row.group == MAIN]
    assert families_table(main) in text
    assert differences_table(main) in text
