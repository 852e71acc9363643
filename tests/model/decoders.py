"""Small decoder configs of every family with hybrid layers, each with what sets the family apart."""

from typing import Any

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
WINDOW = {"sliding_window": 5}

DECODERS: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2", **SIZES},
    "qwen2 with windows": {
        "model_type": "qwen2",
        **SIZES,
        **WINDOW,
        "use_sliding_window": True,
        "max_window_layers": 1,
    },
    "llama": {"model_type": "llama", **SIZES},
    "llama with biases, wide heads, scaled RoPE": {
        "model_type": "llama",
        **SIZES,
        "attention_bias": True,
        "mlp_bias": False,
        "head_dim": 12,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen3": {"model_type": "qwen3", **SIZES, "head_dim": 16},
    "qwen3 with biases and windows": {
        "model_type": "qwen3",
        **SIZES,
        **WINDOW,
        "head_dim": 8,
        "attention_bias": True,
        "use_sliding_window": True,
        "max_window_layers": 1,
    },
    "mistral": {"model_type": "mistral", **SIZES, **WINDOW},
    "mistral without window": {"model_type": "mistral", **SIZES, "sliding_window": None, "head_dim": 16},
}
