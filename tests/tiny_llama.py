"""A random Llama of two layers with its tokenizer and chat template, built here in seconds: 1 MB, no download.

`python -m tests.tiny_llama FOLDER` writes it. It says nonsense, deterministically at temperature 0, and never stops by
itself: an answer is as long as `max_tokens` allows.
"""

import json
import sys
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if not (continue_final_message and loop.last) %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
WORDS = """a conversation answers a message that came before and an order of a customer was sent to the house on monday
we have looked for it and found no reason why it should be late please tell us when it arrives or ask for another one"""


def tiny_llama(folder: Path, context: int = 8192, seed: int = 7) -> Path:
    """Write model and tokenizer into `folder` and return it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=TEMPLATE,
        model_max_length=context,
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        torch_dtype="bfloat16",
    )
    model = LlamaForCausalLM(config)
    unsaid = [number for token, number in tokenizer.get_vocab().items() if not is_said(token)]
    with torch.no_grad():  # dimension 0 is the same for every token and in every layer: a bias for the last layer
        model.model.embed_tokens.weight[:, 0] = 1
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        model.lm_head.weight[unsaid, 0] = -100
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def tiny_adapter(folder: Path, rank: int = 8, seed: int = 11) -> Path:
    """Write a LoRA adapter for the model above into `folder`, strong enough to change every answer, and return it."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    weights = {}
    for layer in range(2):
        place = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
        weights[f"{place}.lora_A.weight"] = torch.randn(rank, 128)
        weights[f"{place}.lora_B.weight"] = torch.randn(64, rank)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4 * rank, "target_modules": ["v_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def is_said(token: str) -> bool:
    """Whether the model may say it: words, no control characters, no bytes of half a character, no end."""
    return token not in SPECIAL and token.replace("Ġ", " ").isascii()


if __name__ == "__main__":
    print(tiny_llama(Path(sys.argv[1])))
