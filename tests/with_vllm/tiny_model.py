"""Make a Mistral model of random weights, small enough for a test: `python tests/with_vllm/tiny_model.py FOLDER`.

It writes nonsense, but through the real architecture and with a real Mistral tokenizer, which mistral-common brings.
"""

import shutil
import sys
from pathlib import Path

TOKENIZER = "mistral_instruct_tokenizer_240323.model.v3"
VOCABULARY = 32_768  # of this tokenizer


def make(folder: Path) -> Path:
    "Write configuration, weights (about 9 MB) and tokenizer into a folder, the same at every call."
    import mistral_common
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=8_192,
        bos_token_id=1,
        eos_token_id=2,
        sliding_window=None,
        dtype=torch.bfloat16,
    )
    MistralForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    shutil.copy(Path(mistral_common.__file__).parent / "data" / TOKENIZER, folder / "tokenizer.model.v3")
    return folder


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
