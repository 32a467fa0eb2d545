"""The reward model: a scalar for every text, its last token's hidden state through one linear map."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from prefsweep.data.truncation import Ids
from prefsweep.models.loading import load_fp32
from prefsweep.models.padding_free import flatten, is_flat

HEAD = "head.safetensors"
REWARD = "reward.json"  # beside it: template and length that it was trained with, and its metrics


def pad_right(rows: list[Ids], pad: int | None) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask [B, L], padded on the right. The mask is by length: `pad` may be any token."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad or 0] * (longest - len(row)) for row in rows])
    attention = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, attention


def last_states(hidden: Tensor, attention: Tensor) -> Tensor:
    """Return the state [B, H] of the last real token of each text, from hidden states [B, L, H].

    It is found by the mask: finding it by the pad token's id would skip an EOS that is also the pad.
    """
    last = (attention * torch.arange(attention.shape[1], device=attention.device)).argmax(-1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


class RewardModel(nn.Module):
    """A transformer with a scalar head: input_ids, attention_mask [B, L] → reward [B] in fp32.

    The head starts at zero: every reward is 0, the first loss ln 2, and the initial model depends on no seed.
    """

    def __init__(self, backbone: PreTrainedModel):
        super().__init__()
        if getattr(backbone, "pooler", None) is not None:  # BERT's own, which is not read
            backbone.pooler = None
        if hasattr(backbone.config, "use_cache"):  # which only generation reads
            backbone.config.use_cache = False
        self.backbone = backbone
        self.head = nn.Linear(hidden_width(backbone), 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if is_flat(self.backbone, input_ids.numel(), attention_mask.sum(-1).tolist()):
            flat = flatten(input_ids, attention_mask)
            (hidden,) = self.backbone(**flat.inputs(self.backbone)).last_hidden_state
            states = hidden[flat.cells.amax(-1)]
        else:
            hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            states = last_states(hidden, attention_mask)
        return self.rewards(states)

    def rewards(self, states: Tensor) -> Tensor:
        """Return the rewards [B] of the states [B, H] of each text's last token."""
        rewards: Tensor = self.head(states).squeeze(-1).float()
        return rewards

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        self.backbone.gradient_checkpointing_enable(**options)

    def save_pretrained(self, folder: Path) -> None:
        self.backbone.save_pretrained(folder)
        save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, Path(folder) / HEAD)

    @classmethod
    def load(cls, folder: Path) -> "RewardModel":
        model = cls(load_fp32(AutoModel, str(folder), {}))
        model.head.load_state_dict(load_file(folder / HEAD))
        return model


@torch.no_grad()
def hidden_width(trunk: PreTrainedModel) -> int:
    """Return the width of the hidden state itself: opt-350m's is 512 where its config says 1024."""
    token = torch.ones(1, 1, dtype=torch.long, device=trunk.device)
    return int(trunk(input_ids=token, attention_mask=token).last_hidden_state.shape[-1])
