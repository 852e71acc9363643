"""The small checkpoint of the tests of inference, for those of what finds and loads it."""

from tests.inference.conftest import (  # noqa: F401 - fixtures
    checkpoint,
    checkpoint_folder,
    encoded,
    qa,
    reference_folder,
    short_video_path,
    video_path,
)
