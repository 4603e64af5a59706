"""A folder that Dynamo takes for a model: a tokenizer of made-up words, since its mock engine draws token ids.

Run with the Python of Dynamo's environment: dynamo_model.py FOLDER"""

import json
import os
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WORDS = 32_000


def main(folder):
    """Writes it."""
    os.makedirs(folder, exist_ok=True)
    vocabulary = {f"w{number}": number for number in range(WORDS)}
    for token in ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]:
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    ends = {"bos_token_id": vocabulary["<s>"], "eos_token_id": vocabulary["</s>"]}
    model = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(vocabulary)}
    model |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model |= {"num_key_value_heads": 4, "max_position_embeddings": 4096, "torch_dtype": "float16"}
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    words |= {"model_max_length": 4096, "chat_template": "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"}
    files = {"config.json": {**model, **ends}, "tokenizer_config.json": words, "generation_config.json": ends}
    for name, content in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file)


if __name__ == "__main__":
    main(sys.argv[1])
