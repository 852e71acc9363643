"""What is true of every family."""

import pickle

import pytest

from sfvqa.model.families import FAMILY_NAMES, family_of, vision_type_of


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_a_family_can_be_sent_to_a_process_that_was_not_forked(name: str) -> None:
    """As those are that read videos while a model learns: on macOS and Windows, and on Linux from Python 3.14 on."""
    family = family_of(vision_type_of(name))
    assert pickle.loads(pickle.dumps(family)) == family
