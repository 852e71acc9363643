"""Plain decoder folders with random weights, as transformers saves them, and the bundled model's tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from sfvqa.checkpoints.find import locate


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny").folder, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def save_plain_decoder(folder: Path, fields: dict[str, Any], *, wide: bool = True, **saving: Any) -> Path:
    """Save one whose weights are `wide` enough for differences to show, its norms and biases too."""
    tokenizer = tiny_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    config = CONFIG_MAPPING[fields["model_type"]](**fields | {"vocab_size": len(tokenizer)} | ends)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters() if wide else ():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder, **saving)
    tokenizer.save_pretrained(folder)
    return folder
