"""The kto stage: its loss, the split of a batch, what it learns, resume, and what it counts."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from killing import die_at
from prefsweep.data.sources import load
from prefsweep.data.views import unpaired_rows
from prefsweep.models.logprobs import completion_batch, completion_logprobs
from prefsweep.pipeline.stage import Context
from prefsweep.stages import kto
from prefsweep.stages.losses import kto_loss
from prefsweep.stages.training import checkpoints
from workplace import Workplace

SHORT = ("batch_size=8", "max_steps=6", "warmup_steps=0", "max_length=96", "learning_rate=1e-3")


@pytest.fixture
def config(composed: Callable[..., Any], model_folders: dict[str, Path]) -> Callable[..., Any]:
    def make(*words: str, model: str = "gpt2") -> Any:
        overrides = [f"stages.kto.{word}" for word in (*SHORT, *words)]
        return composed("model=gpt2", f"model.path={model_folders[model]}", *overrides)

    return make


def run(config: Any, folder: Path, context: Context) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return kto.run(config.stages.kto, model=config.model, dataset=config.dataset, folder=folder, context=context)


# ------------------------------------------------------------------------------------------------------- the numbers

ROWS: dict[str, list[Any]] = {
    "prompt_ids": [[5, 6, 7], [8, 9], [10, 11, 12, 13], [14]],
    "completion_ids": [[20, 21, 0], [22, 0], [23, 24, 25, 26, 0], [31, 0]],
    "label": [True, False, False, True],
}
ORDER = np.array([2, 0, 3, 1])
REFERENCE, MISMATCHED_REFERENCE = [-9.0, -12.0, -40.0, -11.0], [-14.0, -9.5, -50.0, -21.0]


def unpaired_trainer(config: Any, tokenizer: Any, context: Context) -> Any:
    """A trainer over four rows whose reference is a made-up number a sequence."""
    rows = kto.with_mismatched(Dataset.from_dict(ROWS), ORDER, batch_size=4)
    for column, values in zip(kto.REFERENCE_COLUMNS, (REFERENCE, MISMATCHED_REFERENCE), strict=True):
        rows = rows.add_column(column, values)
    rows = rows.select(ORDER)
    model = AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
    return kto.unpaired_trainer(config.stages.kto, model, tokenizer, {"train": rows, "validation": rows}, context)


def sequence_logps(model: Any, completions: list[list[int]]) -> torch.Tensor:
    with torch.no_grad():
        return completion_logprobs(model, completion_batch(ROWS["prompt_ids"], completions, 1, model.device))


def batch_of(trainer: Any) -> Any:
    return trainer._prepare_inputs(trainer.data_collator(trainer.train_dataset.to_list()))


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_the_loss_is_the_papers_formula_over_the_whole_batch(
    name: str, config: Any, new_context: Any, tokenizer: Any
) -> None:
    """In order the rows are 2, 0, 3, 1: row 2 is mismatched with the completion of 1, 0 with 2, 3 with 0, 1 with 3."""
    trainer = unpaired_trainer(config("beta=0.3", "desirable_weight=1.5", model=name), tokenizer, new_context())
    model = trainer.model.eval()
    completions = ROWS["completion_ids"]
    mismatched = sequence_logps(model, [completions[row] for row in (2, 3, 1, 0)])
    kl = (mismatched - torch.tensor(MISMATCHED_REFERENCE)).mean()
    own = sequence_logps(model, completions), torch.tensor(REFERENCE)
    expected = float(kto_loss(*own, torch.tensor(ROWS["label"]), kl, 0.3, desirable_weight=1.5).mean())
    with torch.no_grad():
        assert float(trainer.compute_loss(model, batch_of(trainer))) == pytest.approx(expected, abs=1e-5)
        for micro_batch in (1, 3, 4):
            trainer.micro_batch = micro_batch
            parts = trainer.micro_batches(batch_of(trainer))
            loss = sum(float(trainer.compute_loss(model, part)) * weight for part, weight in parts)
            assert loss == pytest.approx(expected, abs=1e-5), micro_batch


def test_the_split_of_a_batch_changes_nothing(config: Any, new_context: Any, tokenizer: Any) -> None:
    trainer = unpaired_trainer(config("beta=0.3"), tokenizer, new_context())

    def gradients(micro_batch: int) -> dict[str, torch.Tensor]:
        trainer.micro_batch = micro_batch
        trainer.model.zero_grad()
        trainer.training_step(trainer.model, batch_of(trainer))
        return {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}

    whole = gradients(4)
    for micro_batch in (1, 3):
        for name, gradient in gradients(micro_batch).items():
            scale = float(whole[name].abs().max())
            assert torch.allclose(gradient, whole[name], rtol=1e-4, atol=1e-6 * scale), name


def test_weights_cast_once_a_step_learn_what_those_cast_anew_for_each_part_do(
    config: Any, new_context: Any, tokenizer: Any
) -> None:
    """In bf16, with z_0 from forwards without a gradient before the first part."""
    trainer = unpaired_trainer(config("beta=0.3", "precision=bf16"), tokenizer, new_context())
    assert all(hasattr(layer, "attends_in_fp32") for layer in trainer.model.modules())
    trainer.accelerator.prepare_model(trainer.model)
    trainer.micro_batch = 1
    trainer.training_step(trainer.model, batch_of(trainer))
    once = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    for part, weight in trainer.micro_batches(batch_of(trainer)):
        (trainer.compute_loss(trainer.model, part) * weight).backward()
    for name, weight in trainer.model.named_parameters():
        assert float(once[name].abs().max()) > 0, name
        assert torch.equal(weight.grad, once[name]), name


def test_the_metrics_do_not_depend_on_what_fits_in_memory(config: Any, new_context: Any, tokenizer: Any) -> None:
    """In double precision, so that nothing but the weights of the means could differ."""
    trainer = unpaired_trainer(config("beta=0.3"), tokenizer, new_context())
    trainer.model.double()
    validations, steps = [], []
    for micro_batch in (4, 1, 3):
        trainer.micro_batch = micro_batch
        validations.append(trainer.evaluate())
        trainer._metrics["train"].clear()
        trainer.training_step(trainer.model, batch_of(trainer))
        steps.append({name: mean for name, [mean] in trainer._metrics["train"].items()})
    assert {"rewards/margins", "rewards/margins_nats", "entropy", "logits/rejected"} <= steps[0].keys()
    for metrics in (validations, steps):
        assert metrics[1] == pytest.approx(metrics[0], rel=1e-6) == metrics[2]


@pytest.mark.parametrize("lora", [False, True])
def test_at_first_the_policy_is_its_reference(lora: bool, config: Any, new_context: Any, tmp_path: Path) -> None:
    """Rewards and KL are 0, so every completion loses λ/2."""
    context = new_context(log_every=1)
    run(config("max_steps=1", f"lora={lora}", "desirable_weight=1.5"), tmp_path / "kto", context)
    first = next(context.history.rows())
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)
    assert first["margin"] == pytest.approx(0.0, abs=1e-4)
    assert 0.5 <= first["loss"] <= 0.75


# --------------------------------------------------------------------------------------------------------- training


def test_it_learns_the_worlds_preferences(config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config("max_steps=40", "epochs=10", "batch_size=16", "evaluate_every=20", "beta=0.5", "learning_rate=5e-4")
    context = new_context(micro_batch=16, forward_batch=64)
    run(made, tmp_path / "kto", context)
    rows = [row for row in context.history.rows() if "loss" in row]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.05
    assert rows[-1]["margin"] > rows[0]["margin"] + 0.5
    assert all(np.isfinite(row["validation/margin"]) for row in context.history.rows() if "validation/loss" in row)


def test_a_killed_training_ends_as_an_undisturbed_one(config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config("evaluate_every=2", "checkpoint=best", "save_every=3", "best_by=margin")

    def work(name: str) -> tuple[dict[str, Any], Context]:
        context = new_context(name, log_every=1, resume_checkpoint_every=2)
        return run(made, tmp_path / f"{name}-artifact", context), context

    assert die_at(5, lambda: work("killed")) == -signal.SIGKILL
    assert [path.name for path in checkpoints(new_context("killed").checkpoints)] == ["checkpoint-4"]
    resumed, resumed_context = work("killed")
    undisturbed, context = work("undisturbed")
    assert resumed == undisturbed
    assert list(resumed_context.history.rows()) == list(context.history.rows())
    assert resumed_context.cost.counts == context.cost.counts
    for file in ("model.safetensors", "steps/3/model.safetensors"):
        ours, theirs = (load_file(tmp_path / f"{name}-artifact" / file) for name in ("killed", "undisturbed"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), file
    texts = [(tmp_path / f"{name}-artifact/validation.jsonl").read_text() for name in ("killed", "undisturbed")]
    assert texts[0] == texts[1] and texts[0].count("\n") == 3 * 16


def test_tokens_and_labels_are_counted(config: Any, new_context: Any, tmp_path: Path, tokenizer: Any) -> None:
    """Two epochs of 96 rows: every token twice, and a pair of rows is one label, once."""
    made, context = config("max_steps=null", "epochs=2"), new_context(micro_batch=3)
    run(made, tmp_path / "kto", context)
    rows, _ = unpaired_rows(load(made.dataset, "train"), tokenizer, made.stages.kto.max_length)
    tokens = sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows)
    assert context.cost.counts["labels"] == 48
    assert context.cost.counts["tokens_trained"] == 2 * tokens
    model = AutoModelForCausalLM.from_pretrained(made.model.path)
    size = sum(each.numel() for each in model.parameters()) - model.transformer.wpe.weight.numel()
    forwards = context.cost.counts["flops"] / (2 * size) - 3 * 2 * tokens  # tokens of forwards without gradients
    assert 3.5 * tokens < forwards < 5 * tokens  # both sequences by the reference, and two epochs of the mismatched


def test_the_validation_does_not_depend_on_the_memory(config: Any, new_context: Any, tmp_path: Path) -> None:
    metrics = [
        run(config("max_steps=2"), tmp_path / str(size), new_context(str(size), forward_batch=size, micro_batch=8))
        for size in (2, 64)
    ]
    for name, value in metrics[0].items():
        assert metrics[1][name] == pytest.approx(value, abs=1e-4), name


def test_it_is_a_method(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    assert workplace.run("method=kto", "tracking=off").returncode == 0
    metrics = workplace.single()["metrics"]
    assert {"judge/win_rate", "kl/base", "preference/accuracy"} <= metrics.keys()
    assert len(workplace.stages("kto")) == 1 and not workplace.stages("reference_logps")
