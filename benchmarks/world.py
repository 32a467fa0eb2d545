"""What the benchmarks run on: models of random weights in real shapes, rows of text in real lengths, from a seed.

Nothing is downloaded. Speed does not depend on what the weights are, nor on what the words mean: it depends on shapes,
on the vocabulary's size and on how long rows are. Lengths are log-normal, fitted to 600 rows of hh-rlhf (harmless-base)
and 500 of ultrafeedback_binarized in GPT-2's tokens; imdb's are a review's first few and a short continuation. Every
word here is one token of GPT-2's.

A folder with GPT-2's tokenizer (`vocab.json`, `merges.txt`) may be given. Without it a byte-level BPE is trained on the
rows: it has fewer tokens than the model, whose embedding and head keep GPT-2's 50,257.
"""

import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2"},  # transformers' defaults are GPT-2's, 124M parameters
    "opt-350m": {
        "model_type": "opt", "vocab_size": 50_272, "hidden_size": 1024, "word_embed_proj_dim": 512, "ffn_dim": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "do_layer_norm_before": False,
    },
    "small": {"model_type": "gpt2", "n_embd": 96, "n_layer": 3, "n_head": 3, "vocab_size": 2048, "n_positions": 512},
}  # fmt: skip
VOCABULARY = 50_272  # of the scorer: no model here draws a token beyond
DROPOUT = {"gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"), "opt": ("dropout", "attention_dropout")}

# Mean and deviation of the logarithm of the number of tokens, of a prompt and of a completion.
SHAPES = {
    "hh": ((4.31, 1.01), (3.4, 0.93)),
    "ultrafeedback": ((4.39, 1.37), (4.9, 1.5)),
    "imdb": ((1.4, 0.3), (2.6, 0.3)),
}
MAX_PROMPT, MAX_COMPLETION = 256, 240  # no row is longer than 512 tokens, so that nothing is cut on either side

WORDS = """
    the of and to in is you that it he was for on are as with his they at be this have from or one had by word but
    not what all were we when your can there use an each which she do how their if will up other about out many then
    them these so some her would make like him into time has look two more write go see number no way could people
    my than first water been call who oil its now find long down day did get come made may part over new sound take
    only little work know year live me back give most very after thing our just name good sentence man think say
    great where help through much before line right too mean old any same tell boy follow came want show also around
    form three small set put end does another well large must big even such because turn here
""".split()  # noqa: SIM905


def text(generator: random.Random, law: tuple[float, float], most: int) -> str:
    """Return words, each with a space before it; their number is drawn from the log-normal law."""
    count = min(max(1, round(math.exp(generator.gauss(*law)))), most)
    return "".join(f" {word}" for word in generator.choices(WORDS, k=count))


def pairs(shape: str, count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return rows of prompt, chosen and rejected; a number in each prompt makes it distinct."""
    generator, (prompt, completion) = random.Random(f"{shape} {seed}"), SHAPES[shape]
    return [
        {
            "prompt": f"{number}" + text(generator, prompt, MAX_PROMPT - 8),
            "chosen": text(generator, completion, MAX_COMPLETION),
            "rejected": text(generator, completion, MAX_COMPLETION),
        }
        for number in range(count)
    ]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_tokenizer(source: Path | None) -> Any:
    """Return GPT-2's tokenizer from a folder, or one trained on the words of the rows."""
    from transformers import GPT2TokenizerFast

    from prefsweep.models.tokenizers import train_tokenizer

    if source is None:
        return train_tokenizer([row["prompt"] + row["chosen"] for row in pairs("hh", 200)], 50_257, 1024)
    return GPT2TokenizerFast(str(source / "vocab.json"), str(source / "merges.txt"))


def make_model(name: str, tokenizer: Any, folder: Path) -> Path:
    """Write a causal language model of random weights with the tokenizer, in transformers' layout."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(MODELS[name])
    kind = settings.pop("model_type")
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids["pad_token_id"] = tokenizer.eos_token_id
    settings["vocab_size"] = max(settings.get("vocab_size", 0), len(tokenizer))
    if name == "gpt2":
        settings["vocab_size"] = 50_257
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings, **ids, **dict.fromkeys(DROPOUT[kind], 0.0))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_scorer(tokenizer: Any, folder: Path) -> Path:
    """Write a small classifier of random weights over the policy's own tokens: a reward that both sides can read."""
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(1)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=2, pad_token_id=pad, num_labels=1,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        id2label={0: "POSITIVE"}, label2id={"POSITIVE": 0}, initializer_range=0.3,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
