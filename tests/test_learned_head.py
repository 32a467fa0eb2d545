"""The head at learned tokens against TRL's own fused head, and against the definition."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from prefsweep.data.views import IGNORED
from prefsweep.models import learned_head
from prefsweep.models.direct_gradients import use_direct_gradients

FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
IDS = torch.tensor([[5, 6, 7, 8, 9, 0], [10, 11, 12, 0, 1, 1], [13, 14, 15, 16, 17, 18]])
LABELS = torch.tensor([[IGNORED, 6, 7, 8, 9, 0], [IGNORED] * 2 + [12, 0] + [IGNORED] * 2, [IGNORED] * 6])


def with_trls_head(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # no dropout
    add_fused_lm_head(model, outputs=FIELDS)
    return model


def fused_forward(model: Any, precision: str = "fp32") -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        return model(input_ids=IDS, attention_mask=(IDS != 1).long(), labels=LABELS, fused_lm_head=True)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters()}


@pytest.mark.parametrize("piece", [learned_head.PIECE, 1], ids=["whole", "token by token"])
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_every_field_and_every_gradient_is_that_of_trls_head(
    name: str, piece: int, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_head, "PIECE", piece)
    model = with_trls_head(model_folders[name])
    theirs = fused_forward(model)
    their_gradients = gradients(model, theirs.log_probs.pow(2).mean())
    learned_head.replace_fused_head(model)
    use_direct_gradients(model)
    ours = fused_forward(model)
    for field in (*FIELDS, "loss", "label_mask"):
        torch.testing.assert_close(getattr(ours, field), getattr(theirs, field), atol=1e-6, rtol=1e-6)
    for parameter, gradient in gradients(model, ours.log_probs.pow(2).mean()).items():
        torch.testing.assert_close(gradient, their_gradients[parameter], atol=1e-5, rtol=1e-5, msg=parameter)


def test_bf16_agrees_within_its_own_precision(model_folders: dict[str, Path]) -> None:
    model = with_trls_head(model_folders["gpt2"])
    theirs = fused_forward(model, "bf16")
    learned_head.replace_fused_head(model)
    assert fused_forward(model, "bf16").loss.item() == pytest.approx(theirs.loss.item(), rel=2**-8)


def test_without_the_word_the_forward_is_the_models_own(model_folders: dict[str, Path]) -> None:
    model = with_trls_head(model_folders["gpt2"])
    before = model(IDS).logits
    learned_head.replace_fused_head(model)
    assert torch.equal(model(IDS).logits, before)
    assert model(IDS, labels=IDS).loss.item() > 0


def test_a_batch_with_nothing_to_learn_is_a_zero_that_can_be_differentiated(model_folders: dict[str, Path]) -> None:
    model = with_trls_head(model_folders["gpt2"])
    learned_head.replace_fused_head(model)
    loss = model(input_ids=IDS, labels=torch.full_like(IDS, IGNORED), fused_lm_head=True).loss
    loss.backward()
    assert loss.item() == 0
    assert float(model.transformer.wte.weight.grad.norm()) == 0


def test_the_trainers_use_it(model_folders: dict[str, Path], tmp_path: Path, tokenizer: Any) -> None:
    """The loss of TRL's SFTTrainer as it comes, at the same rows, is the loss of ours, and ours is on this head."""
    import trl
    from datasets import Dataset

    from prefsweep.stages.trainers import TokenTrainer

    rows = Dataset.from_dict({"input_ids": [[5, 6, 7, 0], [8, 9, 0]], "labels": [[IGNORED, 6, 7, 0], [8, 9, 0]]})
    words = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": None}

    def loss(kind: Any) -> tuple[float, Any]:
        model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"], dtype=torch.float32)
        options = trl.SFTConfig(output_dir=str(tmp_path), dataset_kwargs={"skip_prepare_dataset": True}, **words)
        trainer = kind(model=model, args=options, train_dataset=rows, processing_class=tokenizer)
        batch = trainer._prepare_inputs(trainer.data_collator(rows.to_list()))
        return trainer.compute_loss(trainer.model, batch).item(), trainer.model.forward

    (theirs, _), (ours, forward) = loss(trl.SFTTrainer), loss(TokenTrainer)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert forward.__code__.co_filename == learned_head.__file__


def test_its_gradient_is_that_of_the_log_softmax_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """At probabilities near 1 too, and over several blocks."""
    monkeypatch.setattr(learned_head, "BLOCK", 200)
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 100, dtype=torch.double), torch.tensor([3, 0, 7, 99, 9])
    logits[1, 0] = logits[4, 9] = 10.0
    weight, plain = torch.tensor([1.0, -2.0, 0.5, 3.0, 1e3], dtype=torch.double), logits.clone().requires_grad_()
    expected = plain.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    (expected * weight).sum().backward()
    ours = logits.float().requires_grad_()
    log_probs = learned_head.TokenStatistics.apply(ours * 1, targets)[0]
    (log_probs * weight.float()).sum().backward()
    torch.testing.assert_close(log_probs.double(), expected.detach(), rtol=1e-6, atol=1e-6)
    assert plain.grad is not None and ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), plain.grad, rtol=1e-3, atol=1e-7)


def test_of_equal_logits_the_first_is_the_top_one() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0]]).repeat(3, 1)
    assert learned_head.block_statistics(logits, torch.arange(3), overwrite=False)[-1].tolist() == [True, False, False]
