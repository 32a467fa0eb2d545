"""The head at learned tokens against TRL's own fused head, and against the definition."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from prefsweep.data.views import IGNORED
from prefsweep.models import learned_head

FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
IDS = torch.tensor([[5, 6, 7, 8, 9, 0], [10, 11, 12, 0, 1, 1], [13, 14, 15, 16, 17, 18]])
LABELS = torch.tensor([[IGNORED, 6, 7, 8, 9, 0], [IGNORED] * 2 + [12, 0] + [IGNORED] * 2, [IGNORED] * 6])


def with_trls_head(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # no dropout
    add_fused_lm_head(model, outputs=FIELDS)
    return model


def asked(model: Any, precision: str = "fp32") -> Any:
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
    theirs = asked(model)
    their_gradients = gradients(model, theirs.log_probs.pow(2).mean())
    learned_head.replace_fused_head(model)
    ours = asked(model)
    for field in (*FIELDS, "loss", "label_mask"):
        torch.testing.assert_close(getattr(ours, field), getattr(theirs, field), atol=1e-6, rtol=1e-6)
    for parameter, gradient in gradients(model, ours.log_probs.pow(2).mean()).items():
        torch.testing.assert_close(gradient, their_gradients[parameter], atol=1e-5, rtol=1e-5, msg=parameter)


def test_bf16_agrees_within_its_own_precision(model_folders: dict[str, Path]) -> None:
    model = with_trls_head(model_folders["gpt2"])
    theirs = asked(model, "bf16")
    learned_head.replace_fused_head(model)
    assert asked(model, "bf16").loss.item() == pytest.approx(theirs.loss.item(), rel=2**-8)


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
