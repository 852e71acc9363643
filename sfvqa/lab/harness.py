"""`python -m sfvqa.lab.harness`: are lmms-eval's scores of `sfvqa` those of `sfvqa report`?

Two tasks of lmms-eval are written about fresh videos of moving shapes: one compares choices by their likelihood, one
has answers written. Both are asked through lmms-eval and through `sfvqa batch`, with `tiny` and too few frames to be
always right, and the scores are set side by side. lmms-eval has to be there (see sfvqa/evaluation/README.md).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sfvqa.lab.tiny.evaluate import draw_questions
from sfvqa.lab.tiny.questions import Family
from sfvqa.lab.tiny.render import write_video

TASKS = {"sfvqa_choices": "acc", "sfvqa_open": "right"}
"""Their names, and that of the score of each."""

_FAMILIES = (Family.FLASH, Family.DIGIT, Family.DIRECTION, Family.COLOUR)
_CHOICES = 4

_TASK = """\
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
task: {name}
test_split: test
doc_to_visual: !function tasks.video
doc_to_text: question
"""
_OF_CHOICES = """\
output_type: multiple_choice
doc_to_target: right
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
_OPEN = """\
output_type: generate_until
doc_to_target: answer
process_results: !function tasks.judge
generation_kwargs: {max_new_tokens: 64, temperature: 0, do_sample: false}
metric_list:
  - {metric: right, aggregation: mean, higher_is_better: true}
"""
_FUNCTIONS = '''\
"""What the two tasks ask Python for."""

from sfvqa.evaluation.matching import is_match


def video(row):
    return [row["video"]]


def judge(row, answers):
    return {"right": float(is_match(answers[0], row["answer"], question=row["question"]))}
'''


def write_tasks(folder: Path, *, num_videos: int, seed: int) -> None:
    """Videos, a manifest for each task, and the tasks themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TASKS}
    for number, (scene, questions) in enumerate(draw_questions(seed, 100 * num_videos)):
        if number == num_videos:
            break
        path = folder / f"{number}.mp4"
        write_video(scene, path)
        for question in questions:
            row = {"video": str(path), "question": question.text}
            rows["sfvqa_open"].append({**row, "answer": question.answer})
            if question.family in _FAMILIES and question.other_values:
                wrong = [question.answer.replace(question.values[0], other) for other in question.other_values]
                choices = sorted({question.answer, *wrong[: _CHOICES - 1]})
                chosen = {"choices": choices, "right": choices.index(question.answer), "answer": question.answer}
                if len(choices) > 1:
                    rows["sfvqa_choices"].append({**row, **chosen})
    for name, body in (("sfvqa_choices", _OF_CHOICES), ("sfvqa_open", _OPEN)):
        manifest = folder / f"{name}.jsonl"
        manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows[name]))
        (folder / f"{name}.yaml").write_text(_TASK.format(rows=manifest, name=name) + body)
    (folder / "tasks.py").write_text(_FUNCTIONS)


def of_harness(folder: Path, *, num_frames: int, num_processes: int, batch_size: int) -> dict[str, float]:
    """The score of each task by lmms-eval, whose answers stay in the folder's cache."""
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(num_processes)]
    command = [
        sys.executable, *(launch if num_processes > 1 else []), "-m", "lmms_eval",
        "--model", "sfvqa", "--model_args", f"model=tiny,num_frames={num_frames}", "--batch_size", str(batch_size),
        "--tasks", ",".join(TASKS), "--include_path", str(folder), "--use_cache", str(folder / "cache"),
        "--output_path", str(folder / "scores"),
    ]  # fmt: skip
    _output_of(command)
    newest = max((folder / "scores").rglob("*_results.json"), key=lambda path: path.stat().st_mtime)
    results = json.loads(newest.read_text())["results"]
    return {name: float(results[name][f"{metric},none"]) for name, metric in TASKS.items()}


def of_report(folder: Path, *, num_frames: int) -> dict[str, float]:
    """The accuracy of each task's questions by `sfvqa batch` and `report`."""
    accuracies = {}
    for name in TASKS:
        records = folder / f"{name}-records.jsonl"
        sfvqa = [sys.executable, "-m", "sfvqa"]
        manifest = str(folder / f"{name}.jsonl")
        frames = ["--model", "tiny", "--frames", str(num_frames)]
        _output_of([*sfvqa, "batch", manifest, "-o", str(records), *frames, "-q"])
        told = json.loads(_output_of([*sfvqa, "report", str(records), "--json"]))
        accuracies[name] = float(told["score"]["errors_count_as_wrong"]["accuracy"])
    return accuracies


def _output_of(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.lab.harness", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/harness"), help="folder for everything")
    parser.add_argument("--videos", type=int, default=24, help="how many")
    parser.add_argument("--frames", type=int, default=6, help="of a video")
    parser.add_argument("--processes", type=int, default=1, help="of lmms-eval")
    parser.add_argument("--batch-size", type=int, default=8, help="questions that lmms-eval asks at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the videos")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tasks, have both answer, and print the scores."""
    given = parse_arguments(arguments)
    folder = given.output.resolve()
    if not (folder / "tasks.py").exists():
        write_tasks(folder, num_videos=given.videos, seed=given.seed)
    ours = of_report(folder, num_frames=given.frames)
    theirs = of_harness(folder, num_frames=given.frames, num_processes=given.processes, batch_size=given.batch_size)
    print("| task | questions | lmms-eval | sfvqa report |\n|---|---:|---:|---:|")
    for name in TASKS:
        count = len((folder / f"{name}.jsonl").read_text().splitlines())
        print(f"| {name} | {count} | {theirs[name]:.4f} | {ours[name]:.4f} |")


if __name__ == "__main__":
    main()
