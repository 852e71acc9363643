"""What tests of the comparison share: an experiment of the smallest size."""

import pytest
from transformers import PreTrainedTokenizerFast

from sfvqa.lab.comparison.run import Experiment
from tests.lab.comparison.smallest import SMALLEST


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    experiment = Experiment(SMALLEST, tmp_path_factory.mktemp("experiment"))
    _ = experiment.training, experiment.testing
    return experiment


@pytest.fixture(scope="package")
def tokenizer(shared: Experiment) -> PreTrainedTokenizerFast:
    return shared.tokenizer
