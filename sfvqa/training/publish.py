"""`python -m sfvqa.training.publish`: upload a checkpoint or an adapter to the Hugging Face hub, with a model card.

The card states base, data, licence, settings and validation: what the run that the folder lies in has recorded, and
those before it. A README.md that is in the folder already is the card.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from sfvqa.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TRAINING_FILE, Adapter, is_adapter
from sfvqa.checkpoints.download import WANTED
from sfvqa.checkpoints.known import read_trained_with, trained_with_adapter
from sfvqa.checkpoints.load import check_checkpoint
from sfvqa.checkpoints.plan import architecture_of
from sfvqa.errors import ExitCode, UploadError, UsageError
from sfvqa.model import read_config
from sfvqa.model.config import read_json
from sfvqa.registry import ModelSpec
from sfvqa.training.command import run
from sfvqa.training.origin import Origin, Run
from sfvqa.training.validation import figures_table

CARD = "README.md"
_UPLOADED = [*WANTED, CARD, "LICENSE*"]  # no state of a run, and no path of this machine
_UPLOADED_OF_ADAPTER = [ADAPTER_WEIGHTS, TRAINING_FILE, CARD, "LICENSE*"]  # its config names its base
_BLANK_CARD = "# Model Card for Model ID"  # as PEFT leaves it
_FOLDERS = re.compile(r"^.*[/\\](?=.)", re.MULTILINE)  # of a path a line; a folder's name may have spaces


def model_card(
    folder: Path, repo_id: str, *, licence: str | None = None, base: str | None = None, data: str | None = None
) -> str:
    """The card of a checkpoint or an adapter in its repository; what is given goes before what is recorded.

    Raises UsageError for a base or licence that nothing names, CheckpointError.
    """
    origin, adapter = Origin.of(folder), Adapter.of(folder) if is_adapter(folder) else None
    spec = origin.first if isinstance(origin.first, ModelSpec) else None
    base = base or _base(folder, origin, adapter)
    licence = licence or (spec.license if spec else None)
    if licence is None:
        raise UsageError(f"Nothing says what licence {base} has.", "Give that of the checkpoint with --licence.")
    head = ModelCardData(
        license=licence.lower().replace(" ", "-"),
        base_model=base if "/" in base else None,
        library_name="peft" if adapter else None,
        pipeline_tag="video-text-to-text",
        tags=["sfvqa", "slow-fast", *(["lora"] if adapter else [])],
    )
    name = repo_id.rpartition("/")[2]
    paper = "[Shi et al. 2025](https://arxiv.org/abs/2504.01328)"
    tower = f", with the vision tower of {_shown(origin.vision)}" if origin.vision else ""
    of_base = f" The base is under {spec.license}." if spec and spec.license != licence else ""
    if adapter is not None:
        trained = trained_with_adapter(adapter)
        what = f"A LoRA adapter for {base}, a slow-fast video language model ({paper})."
        use = f"--model {_model_to_ask(base, origin)} --adapter ./{name}"
    else:
        trained, size = read_trained_with(folder), architecture_of(read_config(folder)).num_parameters
        what, use = (
            f"A slow-fast video language model ({paper}) of {size / 1e6:,.1f} million parameters.",
            f"--model ./{name}",
        )
    return f"""---
{head.to_yaml()}
---

# {name}

{what}

- **Base**: {base}{tower}
- **Data**: {data or _data(origin.runs)}
- **Licence**: {licence}.{of_base}
- **Frames**: {trained.num_frames or "not recorded"}, chosen by {trained.strategy} sampling, crop {trained.crop}.
{_validation(origin.runs)}{_training(origin.runs)}
## Use

```sh
hf download {repo_id} --local-dir {name}
sfvqa ask my-video.mp4 "What happens?" {use}
```
"""


def _base(folder: Path, origin: Origin, adapter: Adapter | None) -> str:
    """What a card names as its base; UsageError where nothing does, or what is of no use to others."""
    made_of = origin.trained_on if adapter else origin.first
    if isinstance(made_of, ModelSpec):
        return made_of.repo_id or made_of.name
    if made_of == folder:
        raise UsageError(f"Nothing beside {folder} says which model it was made from.", "Name it with --base.")
    if adapter:
        raise UsageError(
            f"The adapter was trained on {made_of}, which nobody else has.",
            "Publish that too, and name it with --base USER/NAME.",
        )
    return made_of.name


def _model_to_ask(base: str, origin: Origin) -> str:
    """What `--model` takes for the base of an adapter: a name that `sfvqa models pull` knows, or a folder."""
    spec = origin.trained_on
    known = isinstance(spec, ModelSpec) and base in (spec.repo_id, spec.name)
    return spec.name if known and isinstance(spec, ModelSpec) else f"./{base.rpartition('/')[2]}"


def _data(runs: Sequence[Run]) -> str:
    """The annotation files of the runs, each once."""
    settings = [run.settings for run in runs]
    named = [f"{_shown(each.get('annotations'))} (SHA-256 {each.get('annotations_sha256')})" for each in settings]
    return ", ".join(dict.fromkeys(named)) or "not recorded"


def _validation(runs: Sequence[Run]) -> str:
    """What the last run measured, if it did."""
    if not runs or not runs[-1].figures:
        return ""
    named = {" ".join(map(_shown, name.split(" ", 1))): each for name, each in runs[-1].figures.items()}
    return f"\n## Validation\n\nOn what was held out of the last run's data:\n\n```\n{figures_table(named)}\n```\n"


def _training(runs: Sequence[Run]) -> str:
    """A table of the settings, a column a run; no folder of this machine is in it."""
    if not runs:
        return ""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    head = ["setting", *(f"run {number}" for number in range(1, len(runs) + 1))]
    rows = [head, ["---"] * len(head), *([name, *(_shown(run.settings.get(name)) for run in runs)] for name in names)]
    return "\n## Settings\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _shown(value: object) -> str:
    """A setting without the folders of its paths; of a list of files their number."""
    if isinstance(value, list):
        return str(len(value))
    return "" if value is None else ", ".join(_FOLDERS.sub("", str(value)).splitlines()).replace("|", "\\|")


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    licence: str | None = None,
    base: str | None = None,
    data: str | None = None,
    private: bool = True,
) -> str:
    """Upload a checkpoint or adapter folder, its card with it, as `USER/NAME`; the address of the repository.

    The card is written into the folder, unless it has one. Raises UsageError and CheckpointError before anything is
    sent, UploadError for what the hub refuses.
    """
    folder = Path(folder)
    if not is_adapter(folder):
        check_checkpoint(folder)
    if not (own := _own_card(folder)) or licence or base or data:
        card = model_card(folder, repo_id, licence=licence, base=base, data=data)
        if own and own != card:
            raise UsageError(f"{folder / CARD} is the card, and does not say what is given.", "Edit or remove it.")
        try:
            (folder / CARD).write_text(card, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{folder / CARD} cannot be written: {error.strerror}.", "Copy the folder.") from error
    files = _files(folder, base)
    try:
        hub = HfApi()
        address = str(hub.create_repo(repo_id, private=private, exist_ok=True))
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        hub.create_commit(repo_id, operations, commit_message="Upload by sfvqa")
    except Exception as error:  # huggingface_hub raises some of its own, and what its libraries raise
        raise _refused(repo_id, error) from error
    return address


def _own_card(folder: Path) -> str:
    """The card that a folder has, if any; PEFT leaves a blank form, which is none."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return "" if _BLANK_CARD in text else text


def _files(folder: Path, base: str | None) -> dict[str, Path | bytes]:
    """What is uploaded, by name; an adapter's config names its base as others know it."""
    patterns = _UPLOADED_OF_ADAPTER if is_adapter(folder) else _UPLOADED
    paths = sorted(path for path in folder.iterdir() if any(fnmatch(path.name, pattern) for pattern in patterns))
    files: dict[str, Path | bytes] = {path.name: path for path in paths}
    if is_adapter(folder):
        fields = read_json(folder / ADAPTER_CONFIG)
        fields["base_model_name_or_path"] = base or _base(folder, Origin.of(folder), Adapter.of(folder))
        files[ADAPTER_CONFIG] = (json.dumps(fields, indent=2) + "\n").encode()
    return files


def _refused(repo_id: str, error: Exception) -> UploadError:
    message = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    remedy = "Check the network, and HF_HUB_OFFLINE and HF_ENDPOINT if they are set, and upload again."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        message = f"the hub answers {status}: {(error.server_message or message).rstrip('.')}"
        if status in (401, 403, 404):
            remedy = "Run `hf auth login` with a token that may write there, or set HF_TOKEN."
    elif isinstance(error, ValueError):  # of a name that no repository can have
        remedy = "Name the repository as USER/NAME."
    return UploadError(f"{repo_id} was not uploaded: {message}.", remedy)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.publish", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="a checkpoint or adapter folder, as sfvqa.training.finetune writes")
    add("repository", help="USER/NAME on the hub; made if it is not there")
    add("--licence", "--license", help="licence of the checkpoint, such as Apache-2.0 (default: that of its base)")
    add("--base", help="the model it was made from, if nothing records it, or by another name")
    add("--data", help="a sentence on what it learned from, in place of the annotations' name")
    add_one = parser.add_mutually_exclusive_group().add_argument
    add_one("--public", action="store_true", help="let everybody see it (default: only you)")
    add_one("--card", action="store_true", help="print the model card, and upload nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Upload, and print the address; or print the card alone."""
    asked = parse_arguments(arguments)
    stated = {"licence": asked.licence, "base": asked.base, "data": asked.data}

    def publish() -> int:
        if asked.card:
            print(model_card(asked.folder, asked.repository, **stated))
        else:
            print(push_to_hub(asked.folder, asked.repository, **stated, private=not asked.public))
        return ExitCode.OK

    return run(publish, stopped="Stopped.")


if __name__ == "__main__":
    sys.exit(main())
