"""The typed architectures of models with random weights; their keys are those of transformers' configs."""

from dataclasses import dataclass
from typing import Any

from prefsweep.config.field import config_field


@dataclass
class Architecture:
    """What every architecture has: `model_type`, transformers' name for its kind."""

    model_type: str = config_field()


@dataclass
class GPT2Architecture(Architecture):
    n_embd: int = config_field(at_least=1)
    n_layer: int = config_field(at_least=1)
    n_head: int = config_field(at_least=1)
    n_positions: int = config_field(at_least=8)
    vocab_size: int = config_field(at_least=259)


@dataclass
class OPTArchitecture(Architecture):
    hidden_size: int = config_field(at_least=1)
    word_embed_proj_dim: int = config_field(at_least=1)
    do_layer_norm_before: bool = config_field()
    ffn_dim: int = config_field(at_least=1)
    num_hidden_layers: int = config_field(at_least=1)
    num_attention_heads: int = config_field(at_least=1)
    max_position_embeddings: int = config_field(at_least=8)
    vocab_size: int = config_field(at_least=260)


@dataclass
class DecoderArchitecture(Architecture):
    """The keys that Llama, Qwen3, Gemma 3 and GPT-NeoX share; the last has as many keys as heads."""

    hidden_size: int = config_field(at_least=1)
    intermediate_size: int = config_field(at_least=1)
    num_hidden_layers: int = config_field(at_least=1)
    num_attention_heads: int = config_field(at_least=1)
    num_key_value_heads: int = config_field(at_least=1)
    max_position_embeddings: int = config_field(at_least=8)
    vocab_size: int = config_field(at_least=260)


@dataclass
class EncoderArchitecture(Architecture):
    """A bidirectional model whose vocabulary is bytes. `labels` names its outputs in order; a backbone has none."""

    labels: list[str] = config_field()
    max_position_embeddings: int = config_field(at_least=8)
    initializer_range: float = config_field(above=0)


@dataclass
class BERTArchitecture(EncoderArchitecture):
    hidden_size: int = config_field(at_least=1)
    intermediate_size: int = config_field(at_least=1)
    num_hidden_layers: int = config_field(at_least=1)
    num_attention_heads: int = config_field(at_least=1)


@dataclass
class DistilBERTArchitecture(EncoderArchitecture):
    dim: int = config_field(at_least=1)
    hidden_dim: int = config_field(at_least=1)
    n_layers: int = config_field(at_least=1)
    n_heads: int = config_field(at_least=1)


@dataclass
class DeBERTaArchitecture(BERTArchitecture):
    relative_attention: bool = config_field()
    pos_att_type: list[str] = config_field(choices=("p2c", "c2p"))
    position_buckets: int = config_field(at_least=1)
    share_att_key: bool = config_field()
    norm_rel_ebd: str = config_field(choices=("layer_norm", "none"))
    position_biased_input: bool = config_field()


def positions(architecture: Any) -> int:
    """Return the number of tokens in the longest sequence that a model of this architecture can read."""
    longest: int = getattr(architecture, "n_positions", None) or architecture.max_position_embeddings
    return longest


# The schema of each `model_type`.
ARCHITECTURES: dict[str, type[Architecture]] = {
    "gpt2": GPT2Architecture,
    "opt": OPTArchitecture,
    **dict.fromkeys(("llama", "qwen3", "gemma3_text", "gpt_neox"), DecoderArchitecture),
    "bert": BERTArchitecture,
    "roberta": BERTArchitecture,
    "distilbert": DistilBERTArchitecture,
    "deberta-v2": DeBERTaArchitecture,
}
