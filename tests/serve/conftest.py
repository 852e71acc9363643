"""A server of `tiny` for all tests of the session that leave it as it is, and the openai client to ask it."""

from collections.abc import Iterator

import openai
import pytest

from sfvqa.inference.video_qa import VideoQA
from tests.serve.serving import DEMO, PATIENCE_SECONDS, Served, serving


@pytest.fixture(scope="session")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.fixture(scope="session")
def served(tiny: VideoQA) -> Iterator[Served]:
    with serving(tiny, DEMO) as running:
        yield running


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    return client_of(served)


def client_of(served: Served, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_SECONDS)
