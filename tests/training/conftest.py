"""What tests of training share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _loaders_end_soon() -> Iterator[None]:
    """One of a run that failed waits for processes that it can no longer tell to end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
        yield
