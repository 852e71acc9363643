"""`python -m sfvqa.training.publish`: upload a checkpoint folder to the Hugging Face hub, with a model card.

The card states base, data, licence and settings: what the run that the folder lies in has recorded, and those before
it. A README.md that is in the folder already is the card.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from sfvqa.checkpoints.download import WANTED
from sfvqa.checkpoints.find import find
from sfvqa.checkpoints.known import read_trained_with
from sfvqa.checkpoints.load import check_checkpoint
from sfvqa.checkpoints.plan import architecture_of
from sfvqa.errors import ModelError, SfvqaError, UploadError, UsageError
from sfvqa.model import read_config
from sfvqa.model.config import read_json
from sfvqa.registry import ModelSpec
from sfvqa.training.run_folder import SETTINGS_FILE

CARD = "README.md"
_UPLOADED = [*WANTED, CARD, "LICENSE*"]  # no state of a run, and no path of this machine
_FOLDERS = re.compile(r"^.*[/\\](?=.)", re.MULTILINE)  # of a path a line; a folder's name may have spaces


@dataclass(frozen=True)
class Origin:
    """What a checkpoint comes from: the model that training began with, and the settings of each run, oldest first."""

    base: ModelSpec | Path
    runs: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, folder: Path) -> "Origin":
        """Read it from the runs that the folder, and what each began with, lie in. Raises CheckpointError."""
        base: ModelSpec | Path = folder
        runs: list[Mapping[str, Any]] = []
        while isinstance(base, Path) and (settings := base.absolute().parent / SETTINGS_FILE).is_file():
            runs.insert(0, read_json(settings))
            name = str(runs[0].get("model"))
            base = Path(name)
            with suppress(ModelError):  # it may have gone since
                base = find(name)
        return cls(base, tuple(runs))


def model_card(
    folder: Path, repo_id: str, *, licence: str | None = None, base: str | None = None, data: str | None = None
) -> str:
    """The card of a checkpoint in its repository; what is given goes before what is recorded.

    Raises UsageError for a base or licence that nothing names, CheckpointError.
    """
    origin, config = Origin.of(folder), read_config(folder)
    spec = None if isinstance(origin.base, Path) else origin.base
    if base is None:
        if not origin.runs:
            raise UsageError(f"Nothing beside {folder} says which model it was made from.", "Name it with --base.")
        base = origin.base.name if isinstance(origin.base, Path) else origin.base.repo_id or origin.base.name
    licence = licence or (spec.license if spec else None)
    if licence is None:
        raise UsageError(f"Nothing says what licence {base} has.", "Give that of the checkpoint with --licence.")
    head = ModelCardData(
        license=licence.lower().replace(" ", "-"),
        base_model=base if "/" in base else None,
        pipeline_tag="video-text-to-text",
        tags=["sfvqa", "slow-fast"],
    )
    name, trained = repo_id.rpartition("/")[2], read_trained_with(folder)
    paper = "[Shi et al. 2025](https://arxiv.org/abs/2504.01328)"
    of_base = f" The base is under {spec.license}." if spec and spec.license != licence else ""
    return f"""---
{head.to_yaml()}
---

# {name}

A slow-fast video language model ({paper}) of {architecture_of(config).num_parameters / 1e6:,.1f} million parameters.

- **Base**: {base}
- **Data**: {data or _data(origin.runs)}
- **Licence**: {licence}.{of_base}
- **Frames**: {trained.sampling.num_frames}, chosen by {trained.strategy} sampling, crop {trained.crop}.
{_training(origin.runs)}
## Use

```sh
hf download {repo_id} --local-dir {name}
sfvqa ask my-video.mp4 "What happens?" --model ./{name}
```
"""


def _data(runs: tuple[Mapping[str, Any], ...]) -> str:
    """The annotation files of the runs, each once."""
    named = [f"{_shown(run.get('annotations'))} (SHA-256 {run.get('annotations_sha256')})" for run in runs]
    return ", ".join(dict.fromkeys(named)) or "not recorded"


def _training(runs: tuple[Mapping[str, Any], ...]) -> str:
    """A table of the settings, a column a run; no folder of this machine is in it."""
    if not runs:
        return ""
    names = list(dict.fromkeys(name for run in runs for name in run))
    head = ["setting", *(f"run {number}" for number in range(1, len(runs) + 1))]
    rows = [head, ["---"] * len(head), *([name, *(_shown(run.get(name)) for run in runs)] for name in names)]
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
    """Upload a checkpoint folder, its card with it, as `USER/NAME`; the address of the repository.

    The card is written into the folder, unless it has one. Raises UsageError and CheckpointError before anything is
    sent, UploadError for what the hub refuses.
    """
    folder = Path(folder)
    check_checkpoint(folder)
    if not (folder / CARD).exists():
        card = model_card(folder, repo_id, licence=licence, base=base, data=data)
        try:
            (folder / CARD).write_text(card, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{folder / CARD} cannot be written: {error.strerror}.", "Copy the folder.") from error
    try:
        hub = HfApi()
        address = str(hub.create_repo(repo_id, private=private, exist_ok=True))
        hub.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=_UPLOADED)
    except Exception as error:  # huggingface_hub raises some of its own, and what its libraries raise
        raise _refused(repo_id, error) from error
    return address


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
    add("folder", type=Path, help="a checkpoint folder, as sfvqa.training.finetune writes")
    add("repository", help="USER/NAME on the hub; made if it is not there")
    add("--licence", "--license", help="licence of the checkpoint, such as Apache-2.0 (default: that of its base)")
    add("--base", help="the model it was made from, if nothing records it, or by another name")
    add("--data", help="a sentence on what it learned from, in place of the annotations' name")
    add("--public", action="store_true", help="let everybody see it (default: only you)")
    add("--card", action="store_true", help="print the model card, and upload nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Upload, and print the address; or print the card alone."""
    asked = parse_arguments(arguments)
    stated = {"licence": asked.licence, "base": asked.base, "data": asked.data}
    try:
        if asked.card:
            print(model_card(asked.folder, asked.repository, **stated))
        else:
            print(push_to_hub(asked.folder, asked.repository, **stated, private=not asked.public))
    except SfvqaError as error:
        print(error.with_flags, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
