"""Pairs in one forward against each sequence alone: log-probabilities, gradients, and TRL's own trainer."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.dpo_trainer import DataCollatorForPreference

from prefsweep.data.views import IGNORED
from prefsweep.models import padding_free, shared_prefix
from prefsweep.models.loading import without_dropout
from prefsweep.models.padding_free import ATTENTION, EXACT
from prefsweep.models.shared_prefix import first_fit, pack, pair_head
from prefsweep.stages.trainers import PairTrainer
from test_any_model import ARCHITECTURES, GROUPED, SIZE, SMALL

WINDOWED = GROUPED | {"sliding_window": 4}
HALF_SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": True}
SHAPES: dict[str, dict[str, Any]] = ARCHITECTURES | {
    "qwen2": ARCHITECTURES["qwen2"] | HALF_SLIDING | {"sliding_window": 4},
    "qwen3": WINDOWED | HALF_SLIDING,
    "gemma2": ARCHITECTURES["gemma2"] | {"sliding_window": 4},
    "gemma3_text": ARCHITECTURES["gemma3_text"] | {"sliding_window": 4, "layer_types": HALF_SLIDING["layer_types"]},
    "mistral": WINDOWED,
    "gemma": GROUPED,
    "cohere2": SMALL | {"num_key_value_heads": 1, "sliding_window": 4, "layer_types": HALF_SLIDING["layer_types"]},
    "olmo2": GROUPED,
    "phi3": SMALL | {"num_key_value_heads": 1, "sliding_window": 4},
    "smollm3": WINDOWED | HALF_SLIDING,
}
PAIRS = [  # of which several fit in one row
    {"prompt_ids": [5, 6, 7, 8, 9, 10], "chosen_ids": [3, 4, 20, 21, 22, 23, 2], "rejected_ids": [11, 12, 2]},
    {"prompt_ids": [8, 9], "chosen_ids": [5, 2], "rejected_ids": [5, 6, 7, 2]},  # alike at first
    {"prompt_ids": [13], "chosen_ids": [14, 2], "rejected_ids": [14, 2]},  # alike
    {"prompt_ids": [15, 16, 17, 18], "chosen_ids": [19], "rejected_ids": [19, 24, 25]},  # one begins the other
    {"prompt_ids": [26, 27, 0, 0], "chosen_ids": [0, 2], "rejected_ids": [28]},  # the pad is a token too
]


def build(kind: str, implementation: str | None = None) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPES[kind])
    without_dropout(config)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
    for weight in model.parameters():  # far enough from 0 that a token too many or a wrong position shows
        torch.nn.init.normal_(weight, std=0.3)
    return model


def batch_of(pairs: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = DataCollatorForPreference(pad_token_id=0)(pairs)
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
    return batch | {"labels": labels}


def together(model: Any, pairs: list[dict[str, list[int]]]) -> torch.Tensor:
    """Log-probabilities [2P, L - 1] of all pairs in one forward, as a trainer of TRL asks for them."""
    with pair_head(model):
        log_probs: torch.Tensor = model(**batch_of(pairs), fused_lm_head=True).log_probs
    return log_probs


def alone(model: Any, pairs: list[dict[str, list[int]]]) -> torch.Tensor:
    """The same by the model's plain forward of one sequence at a time, without padding."""
    sequences = [(pair["prompt_ids"], pair[side]) for side in ("chosen_ids", "rejected_ids") for pair in pairs]
    width = max(len(prompt + completion) for prompt, completion in sequences)
    rows = []
    for prompt, completion in sequences:
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].float()
        log_probs = logits.log_softmax(-1)[range(len(completion)), completion]
        rows.append(torch.nn.functional.pad(log_probs, (len(prompt) - 1, width - len(prompt + completion))))
    return torch.stack(rows)


def gradients(model: Any, log_probs: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    weights = torch.linspace(-1, 2, log_probs.numel()).view_as(log_probs)  # of another size and sign for each token
    (weights * log_probs).sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_exact(model: Any, pairs: list[dict[str, list[int]]]) -> None:
    shared, expected = together(model, pairs), alone(model, pairs)
    torch.testing.assert_close(shared, expected, atol=1e-5, rtol=1e-5)
    by_hand = gradients(model, expected)
    for name, gradient in gradients(model, shared).items():
        scale = float(by_hand[name].abs().max())
        torch.testing.assert_close(gradient, by_hand[name], atol=1e-5 * max(scale, 1), rtol=1e-4, msg=name)


def test_every_architecture_that_shares_is_tested() -> None:
    assert set(SHAPES) == set(EXACT)


@pytest.mark.parametrize(
    ("kind", "implementation"),
    [(kind, way) for kind in SHAPES for way in ATTENTION if (kind, way) != ("gemma2", "sdpa")],
)
def test_one_forward_is_as_exact_as_one_for_each_sequence(kind: str, implementation: str) -> None:
    assert_exact(build(kind, implementation), PAIRS)


@pytest.mark.parametrize("kind", sorted(set(SHAPES) - {"gemma2"}))
def test_all_pairs_in_one_row_are_as_exact(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding_free, "CALL", 0)
    model, shapes = build(kind, "sdpa"), []
    original = padding_free.flat_mask
    monkeypatch.setattr(padding_free, "flat_mask", lambda *args: shapes.append(args[0]) or original(*args))
    assert_exact(model, PAIRS)
    assert set(map(tuple, shapes)) == {(17, 8, 4, 8, 8)}  # the cells of each pair


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_adapters_learn_the_same(kind: str) -> None:
    model = build(kind)
    targets = ["c_attn", "c_fc"] if kind == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    model.add_adapter(LoraConfig(r=2, target_modules=targets, fan_in_fan_out=kind == "gpt2"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    assert_exact(model, PAIRS)


@pytest.mark.parametrize("length", [3, 5, 8])
@pytest.mark.parametrize("side", ["start", "end"])
def test_sequences_that_were_cut_are_exact(length: int, side: str) -> None:
    """Also by the end, which leaves two completions of unequal length with different prompts."""
    pairs = []
    for pair in PAIRS:
        cut = {}
        for name in ("chosen_ids", "rejected_ids"):
            sequence = pair["prompt_ids"] + pair[name]
            cut[name] = sequence[:length] if side == "start" else sequence[-length:]
        pairs.append({"prompt_ids": [1], **cut})
    assert_exact(build("gpt2"), pairs)


def test_the_prompt_is_read_once() -> None:
    model = build("gpt2")
    shapes = []
    model.transformer.register_forward_pre_hook(
        lambda _, args, options: shapes.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    together(model, PAIRS)
    # the longest pair is 6 + 7 + 3 tokens, the last of the prompt twice; the others fill two more rows
    assert shapes == [(3, 17)]


def test_no_row_of_pairs_is_too_long_and_none_overlap() -> None:
    sizes = [3, 9, 4, 5, 1, 9]
    starts, rows = first_fit(sizes, 9)
    cells = [cell for start, size in zip(starts, sizes, strict=True) for cell in range(start, start + size)]
    assert len(set(cells)) == sum(sizes) and max(cells) < 9 * rows
    assert all(start // 9 == (start + size - 1) // 9 for start, size in zip(starts, sizes, strict=True))
    assert rows == 4


@pytest.mark.parametrize("broken", ["rejected sees chosen", "positions go on", "window by columns"])
def test_a_wrong_mask_or_position_would_show(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sees(packed: Any, window: int | None = None) -> torch.Tensor:
        columns = torch.arange(packed.ids.shape[1])
        distance = columns[:, None] - columns
        if broken == "window by columns":
            return original(packed) & (distance < (window or 99))
        return ((packed.pairs[:, :, None] == packed.pairs[:, None, :]) & (distance >= 0))[:, None]

    def shifted(*args: Any) -> Any:
        packed = pack(*args)
        packed.positions.copy_(torch.arange(packed.ids.shape[1]).expand_as(packed.ids))
        return packed

    original = shared_prefix.PackedPairs.sees
    if broken == "positions go on":
        monkeypatch.setattr(shared_prefix, "pack", shifted)
    else:
        monkeypatch.setattr(shared_prefix.PackedPairs, "sees", sees)
    with pytest.raises(AssertionError):
        assert_exact(build("gemma3_text"), PAIRS)


@pytest.mark.parametrize("kind", ["bloom", "gpt_neo", "mamba"])
def test_a_model_that_places_tokens_by_their_column_reads_them_apart(kind: str, caplog: Any) -> None:
    shape = {
        "bloom": SIZE | {"hidden_size": 16, "n_layer": 2, "n_head": 2},
        "gpt_neo": SIZE | {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["local"], 2]]},
        "mamba": SIZE | {"hidden_size": 16, "num_hidden_layers": 2},
    }[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()
    shared_prefix.warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(together(model, PAIRS), alone(model, PAIRS), atol=1e-5, rtol=1e-5)
    assert [record.getMessage().rpartition("exact for ")[2] for record in caplog.records] == [kind]


def test_a_head_for_pairs_leaves_the_model_as_it_was() -> None:
    model = build("gpt2")
    before = model(torch.tensor([[5, 6, 7]])).logits
    with pair_head(model):
        assert torch.equal(model(torch.tensor([[5, 6, 7]])).logits, before)
    assert model.forward.__func__ is type(model).forward


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": ["sigmoid"]},
        {"loss_type": ["ipo"], "ld_alpha": 0.5},
        {"loss_type": ["sigmoid", "apo_zero"], "use_weighting": True},
    ],
    ids=lambda settings: "+".join(settings["loss_type"]),
)
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_a_training_is_that_of_trls_own_trainer(
    kind: str, settings: dict[str, Any], tmp_path: Path, tokenizer: Any
) -> None:
    """Four steps over rows in one order: every loss, metric and weight, TRL unmodified on the one side."""

    def train(trainer_class: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        columns = {"ref_chosen_logps": -9.0, "ref_rejected_logps": -11.0}
        rows = Dataset.from_list([pair | columns for pair in PAIRS[:4]])
        args = trl.DPOConfig(
            output_dir=str(tmp_path / trainer_class.__name__),
            precompute_ref_log_probs=True,
            max_length=None,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            max_steps=4,
            per_device_train_batch_size=2,
            optim="sgd",  # Adam would step by the rounding error where a gradient is 0, as that of a key's bias
            learning_rate=1e-2,
            logging_steps=1,
            **settings,
        )
        trainer = trainer_class(model=build(kind), args=args, train_dataset=rows, processing_class=tokenizer)
        trainer.micro_batch, trainer.part_weights = 2, []
        trainer.train()
        times = ("runtime", "per_second", "total_flos", "num_tokens")
        logs = [
            {name: value for name, value in row.items() if not name.endswith(times)}
            for row in trainer.state.log_history
        ]
        return logs, dict(trainer.model.named_parameters())

    class Plain(trl.DPOTrainer):  # as it comes, but for the rows, which are tokenised already
        def _prepare_dataset(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
            return dataset

        def _precompute_ref_logps(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
            return dataset

    class Shared(Plain):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **options)
            shared_prefix.replace_fused_head(self.model)
            shared_prefix.share_prefixes(self.model)

    (plain_logs, plain_weights), (logs, weights) = train(Plain), train(Shared)
    for row, expected in zip(logs, plain_logs, strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, plain_weights[name], atol=1e-5, rtol=1e-5, msg=name)


def test_the_pair_trainer_shares(tmp_path: Path, tokenizer: Any) -> None:
    args = trl.DPOConfig(output_dir=str(tmp_path), precompute_ref_log_probs=True, bf16=False, use_cpu=True)
    columns = {"ref_chosen_logps": -9.0, "ref_rejected_logps": -11.0}
    rows = Dataset.from_list([pair | columns for pair in PAIRS])
    trainer = PairTrainer(model=build("gpt2"), args=args, train_dataset=rows, processing_class=tokenizer)
    assert trainer.model.forward.__code__.co_filename == shared_prefix.__file__
