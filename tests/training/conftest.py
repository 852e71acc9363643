"""What tests of training share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """Each run has all garbage collected, which takes as long as the run where a million objects are looked at.

    A loader of a run that failed is garbage: it waits for processes that it can no longer tell to end.
    """
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
        yield
    gc.unfreeze()
