"""Which version of its weights a checkpoint is: the commit it was downloaded at, or a hash of what is bundled."""

import hashlib

from sfvqa.inference.locate import WEIGHTS, CheckpointLocation


def revision_of(location: CheckpointLocation) -> str | None:
    """The commit, or a hash of the bundled weights, which change with the package; None for a folder."""
    if location.revision is not None or location.spec is None or not location.spec.is_bundled:
        return location.revision
    return hashlib.sha256((location.folder / WEIGHTS).read_bytes()).hexdigest()[:12]
