"""Sequences in one row without padding against the same in a padded batch."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from prefsweep.data.views import IGNORED
from prefsweep.models import padding_free
from prefsweep.models.attention import attention
from prefsweep.models.heads import RewardModel
from prefsweep.models.learned_head import replace_fused_head
from prefsweep.models.padding_free import flat_mask, flatten, is_flat
from test_any_model import SIZE
from test_shared_prefix import SHAPES, build, gradients

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 0, 0, 0, 0], [15, 0, 16, 17, 18, 0, 0]])
MASK = torch.tensor([[1] * 7, [1] * 3 + [0] * 4, [1] * 5 + [0] * 2])
LABELS = IDS.masked_fill(MASK == 0, IGNORED).index_fill(1, torch.tensor([0, 1]), IGNORED)


def test_cells_and_positions_are_those_of_the_real_tokens() -> None:
    flat = flatten(IDS, MASK)
    assert flat.ids.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 16, 17, 18]]
    assert flat.positions.tolist() == [[*range(7), *range(3), *range(5)]]
    assert flat.lengths == [7, 3, 5]
    assert torch.equal(flat.ids[0, flat.cells][MASK == 1], IDS[MASK == 1])


@pytest.mark.parametrize("kind", sorted(set(SHAPES) - {"gemma2", "granite", "cohere", "cohere2"}))  # with TRL's head
def test_log_probabilities_and_gradients_are_those_of_a_padded_batch(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(kind, "sdpa")
    add_fused_lm_head(model)
    replace_fused_head(model)

    def log_probs(call: float) -> torch.Tensor:
        monkeypatch.setattr(padding_free, "CALL", call)
        output = model(input_ids=IDS, attention_mask=MASK, labels=LABELS, fused_lm_head=True)
        result: torch.Tensor = output.log_probs
        return result

    original, rows = padding_free.flat_mask, list[list[int]]()
    monkeypatch.setattr(padding_free, "flat_mask", lambda *args: rows.append(args[0]) or original(*args))
    padded = log_probs(float("inf"))
    assert not rows
    flat = log_probs(0)
    assert set(map(tuple, rows)) == {(7, 3, 5)}
    torch.testing.assert_close(flat, padded, atol=1e-5, rtol=1e-5)
    expected = gradients(model, padded)
    for name, gradient in gradients(model, flat).items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], atol=1e-5 * max(scale, 1), rtol=1e-4, msg=name)


def test_a_reward_is_that_of_a_padded_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RewardModel(build("gpt2", "sdpa").base_model)
    torch.nn.init.normal_(model.head.weight)
    original, rows, rewards = padding_free.flat_mask, list[list[int]](), []
    monkeypatch.setattr(padding_free, "flat_mask", lambda *args: rows.append(args[0]) or original(*args))
    for call in (float("inf"), 0):
        monkeypatch.setattr(padding_free, "CALL", call)
        rewards.append(model(IDS, MASK))
        assert bool(rows) == (call == 0)
    torch.testing.assert_close(*rewards, atol=1e-5, rtol=1e-5)


def test_a_row_is_flat_where_padding_costs_more_than_calls() -> None:
    model: Any = build("gpt2", "sdpa")
    model.config.hidden_size = 1024  # one cell a sequence costs a call
    assert is_flat(model, 103, [50, 50]) and not is_flat(model, 102, [50, 50])
    assert not is_flat(build("gpt2", "eager"), 10**6, [50, 50])


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_a_model_that_places_tokens_by_their_column_keeps_rows(kind: str) -> None:
    shape = SIZE | {"hidden_size": 16} | ({"n_layer": 2, "n_head": 2} if kind == "bloom" else {"num_hidden_layers": 2})
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
    assert not is_flat(model, 10**9, [50, 50])


def test_an_attention_that_does_not_know_the_mask_fails() -> None:
    q, k, v = (torch.randn(1, 2, 8, 4) for _ in range(3))
    mask = flat_mask([5, 3], [None, None])
    module: Any = torch.nn.Module()
    attended, _ = attention(module, q, k, v, mask)
    parts = (slice(5), slice(5, 8))
    apart = [attention(module, q[:, :, part], k[:, :, part], v[:, :, part], None)[0] for part in parts]
    torch.testing.assert_close(attended, torch.cat(apart, dim=1))
    with pytest.raises(RuntimeError):
        torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
