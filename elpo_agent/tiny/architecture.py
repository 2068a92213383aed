"""The tiny model's shape: a Qwen3 decoder small enough to train on a laptop's CPU."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM


def new_model(
    tokenizer: PreTrainedTokenizerFast, *, layers: int = 4, width: int = 128, seed: int = 0
) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3 model for `tokenizer`: `layers` blocks of `width` (a multiple of 32), two
    query heads per key/value head, tied embeddings, float32. The global torch generator is left as it was."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=max(1, width // 64),
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.05,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)
