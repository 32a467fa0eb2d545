"""The training stages on real trainers: the numbers of the loss, its split, resume, guards, choice of a checkpoint."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import hub_layout
from killing import die_at
from prefsweep.config.stages import DPO_LOSSES
from prefsweep.data.datasets.synthetic import preferences
from prefsweep.data.sources import load
from prefsweep.data.views import completion_rows, encode_prompts, pair_rows
from prefsweep.errors import DivergedError, UserError
from prefsweep.models import memory_budget
from prefsweep.models.decoding import sample
from prefsweep.models.loading import load_policy
from prefsweep.models.logprobs import completion_batch, completion_logprobs
from prefsweep.pipeline.cost import Cost
from prefsweep.pipeline.stage import Context
from prefsweep.stages import callbacks, dpo, micro_batches, reference_logps, sft, trainers, training
from prefsweep.stages.losses import kto_loss, preference_loss
from prefsweep.stages.micro_batches import parts_by_length
from prefsweep.stages.training import checkpoints
from workplace import Workplace

SHORT = ("batch_size=8", "max_steps=6", "warmup_steps=0", "max_length=96", "learning_rate=1e-3")


@pytest.fixture
def config(composed: Callable[..., Any], model_folders: dict[str, Path]) -> Callable[..., Any]:
    def make(stage: str, *words: str, model: str = "gpt2") -> Any:
        short = [f"stages.{name}.{word}" for name in ("sft", "dpo") for word in SHORT]
        overrides = [f"stages.{stage}.{word}" for word in words]
        return composed("model=gpt2", f"model.path={model_folders[model]}", *short, *overrides)

    return make


def run_sft(config: Any, folder: Path, context: Context) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return sft.run(config.stages.sft, model=config.model, dataset=config.dataset, folder=folder, context=context)


def run_dpo(config: Any, folder: Path, context: Context, logps: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    stage = config.stages.dpo
    return dpo.run(stage, model=config.model, dataset=config.dataset, folder=folder, context=context, reference=logps)


def run_reference(config: Any, folder: Path, context: Context) -> Path:
    folder.mkdir(exist_ok=True)
    stage = config.stages.reference_logps
    reference_logps.run(stage, model=config.model, dataset=config.dataset, folder=folder, context=context)
    return folder


@pytest.fixture
def logps(config: Any, new_context: Any, tmp_path: Path) -> Path:
    return run_reference(config("dpo"), tmp_path / "reference", new_context("reference"))


# ------------------------------------------------------------------------------------------------ the numbers


PAIRS = {
    "prompt_ids": [[5, 6, 7], [8, 9], [10, 11, 12, 13]],
    "chosen_ids": [[20, 21, 0], [22, 0], [23, 24, 25, 26, 0]],
    "rejected_ids": [[30, 0], [31, 32, 33, 0], [34, 0]],
}


def pair_trainer(folder: Path, output: Path, tokenizer: Any, **settings: Any) -> Any:
    """A DPO trainer whose reference is a made-up number a pair."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    columns = {"ref_chosen_logps": [-9.0, -12.0, -40.0], "ref_rejected_logps": [-11.0, -9.5, -17.0]}
    args = trl.DPOConfig(
        output_dir=str(output),
        precompute_ref_log_probs=True,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        **settings,
    )
    rows = Dataset.from_dict({**PAIRS, **columns})
    trainer = trainers.PairTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    trainer.micro_batch, trainer.cost = 8, Cost()
    return trainer


def batch_of(trainer: Any) -> Any:
    return trainer._prepare_inputs(trainer.data_collator(trainer.train_dataset.to_list()))


def sequence_logps(model: Any, prompts: list[list[int]], completions: list[list[int]]) -> torch.Tensor:
    """Summed log-probabilities by the project's own forward, which pads on the left where TRL pads on the right."""
    with torch.no_grad():
        return completion_logprobs(model, completion_batch(prompts, completions, 1, model.device))


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_the_dpo_loss_is_the_papers_formula(
    name: str, micro_batch: int, model_folders: dict[str, Path], tmp_path: Path, tokenizer: Any
) -> None:
    trainer = pair_trainer(model_folders[name], tmp_path, tokenizer, beta=0.3)
    trainer.micro_batch = micro_batch
    model = trainer.model.eval()
    with torch.no_grad():
        parts = trainer.micro_batches(batch_of(trainer))
        loss = sum(float(trainer.compute_loss(model, part)) * weight for part, weight in parts)
    expected = preference_loss(
        sequence_logps(model, PAIRS["prompt_ids"], PAIRS["chosen_ids"]),
        sequence_logps(model, PAIRS["prompt_ids"], PAIRS["rejected_ids"]),
        torch.tensor([-9.0, -12.0, -40.0]),
        torch.tensor([-11.0, -9.5, -17.0]),
        beta=0.3,
    )
    assert loss == pytest.approx(float(expected.mean()), abs=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 64])
def test_parts_hold_rows_of_like_length_and_no_more_than_the_longest_rows_would(micro_batch: int) -> None:
    lengths = torch.tensor([3, 50, 4, 48, 5, 7, 49, 3, 6, 20])
    attention = (torch.arange(50) < lengths[:, None]).long()
    parts = parts_by_length(attention, micro_batch * 50)
    assert sorted(row for part in parts for row in part) == list(range(10))
    assert all(len(part) * int(lengths[part].max()) <= micro_batch * 50 for part in parts)
    assert all(part == sorted(part) for part in parts)
    assert all(lengths[a].max() <= lengths[b].min() for a, b in pairwise(parts))


@pytest.mark.parametrize("overhead", [0, 10, 60, 10**6])
def test_no_other_split_into_parts_costs_less(overhead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every way to cut the sorted rows."""
    monkeypatch.setitem(micro_batches.PART_TOKENS, "cpu", overhead)
    lengths, micro_batch = torch.tensor([3, 50, 4, 48, 5, 7, 20, 3, 6]), 3
    attention, ordered = (torch.arange(50) < lengths[:, None]).long(), sorted(lengths.tolist())

    def cost(sizes: list[list[int]]) -> float:
        fits = all(len(part) * max(part) <= micro_batch * 50 for part in sizes)
        return sum(len(part) * max(part) + overhead for part in sizes) if fits else float("inf")

    splits = []
    for cuts in product((False, True), repeat=8):
        edges = [0, *(number for number, cut in enumerate(cuts, 1) if cut), 9]
        splits.append([ordered[first:last] for first, last in pairwise(edges)])
    assert cost([lengths[part].tolist() for part in parts_by_length(attention, micro_batch * 50)]) == min(
        map(cost, splits)
    )


@pytest.mark.parametrize("label_smoothing", [0.1, 0.4])
def test_a_smoothed_dpo_loss_is_conservative_dpo(
    label_smoothing: float, config: Any, model_folders: dict[str, Path], tmp_path: Path, tokenizer: Any
) -> None:
    stage = config("dpo", f"label_smoothing={label_smoothing}", "beta=0.3").stages.dpo
    trainer = pair_trainer(model_folders["gpt2"], tmp_path, tokenizer, **dpo.losses(stage))
    trainer.label_smoothing = dpo.smoothing(stage)
    model = trainer.model.eval()
    with torch.no_grad():
        loss = float(trainer.compute_loss(model, batch_of(trainer)))
    expected = preference_loss(
        sequence_logps(model, PAIRS["prompt_ids"], PAIRS["chosen_ids"]),
        sequence_logps(model, PAIRS["prompt_ids"], PAIRS["rejected_ids"]),
        torch.tensor([-9.0, -12.0, -40.0]),
        torch.tensor([-11.0, -9.5, -17.0]),
        0.3,
        label_smoothing,
    )
    assert loss == pytest.approx(float(expected.mean()), abs=1e-5)


def test_smoothing_changes_what_is_learned(config: Any, new_context: Any, tmp_path: Path, logps: Path) -> None:
    for name in ("0.0", "0.3"):
        made = config("dpo", "max_steps=2", f"label_smoothing={name}", "learning_rate=1e-2")
        run_dpo(made, tmp_path / name, new_context(name), logps)
    smooth, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("0.3", "0.0"))
    assert any(not torch.equal(smooth[key], plain[key]) for key in plain)


def test_every_combination_of_losses_runs_or_is_refused(
    config: Any, model_folders: dict[str, Path], tmp_path: Path, tokenizer: Any
) -> None:
    """Loss × weighting × divergence × smoothing × LD-DPO: a forward and a backward pass, or a line before the plan."""
    made = config("dpo")
    trainer = pair_trainer(model_folders["gpt2"], tmp_path, tokenizer, beta=0.3)
    batch = batch_of(trainer)
    for side in ("chosen", "rejected"):  # a reference near the policy, as in training
        logps = sequence_logps(trainer.model, PAIRS["prompt_ids"], PAIRS[f"{side}_ids"])
        batch[f"ref_{side}_logps"] = logps + torch.tensor([0.3, -0.2, 0.1])
    divergences = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
    counts = {"ran": 0, "refused": 0}
    for loss, weighted, divergence, smoothing, ld_alpha in product(
        DPO_LOSSES, (False, True), divergences, (0.0, 0.2), (None, 0.5)
    ):
        settings = {"use_weighting": weighted, "f_divergence": divergence, "ld_alpha": ld_alpha}
        stage = replace(made.stages.dpo, loss=[loss], label_smoothing=smoothing, **settings)
        try:
            stage.check("stages.dpo", made)
        except UserError:
            counts["refused"] += 1
            continue
        arguments = dpo.losses(stage)
        trainer.loss_types, trainer.loss_weights = arguments["loss_type"], [1.0]
        trainer.use_weighting, trainer.ld_alpha = weighted, ld_alpha
        trainer.f_divergence_type, trainer.label_smoothing = divergence, dpo.smoothing(stage)
        trainer.model.zero_grad()
        value = trainer.compute_loss(trainer.model, batch)
        value.backward()
        assert torch.isfinite(value), stage
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in trainer.model.parameters())
        counts["ran"] += 1
    assert counts == {"ran": 156, "refused": 324}  # most of these for a smoothing that the loss does not read


@pytest.mark.parametrize("kl_is_positive", [True, False])
def test_the_kto_loss_is_the_papers_formula(
    kl_is_positive: bool, model_folders: dict[str, Path], tmp_path: Path, tokenizer: Any
) -> None:
    """TRL's trainer with the reference in memory; a negative estimate of KL counts as 0."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(model_folders["gpt2"], dtype=torch.float32) for _ in "ab")
    with torch.no_grad():
        (reference if kl_is_positive else policy).transformer.h[0].mlp.c_fc.weight.mul_(1.2)
    args = trl.KTOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        desirable_weight=1.5,
        undesirable_weight=0.5,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
    )
    texts = [(" It was", " witty.", True), (" The plot", " dull and slow.", False), (" He", " sang well, twice.", True)]
    rows = Dataset.from_list([dict(zip(("prompt", "completion", "label"), text, strict=True)) for text in texts])
    trainer = trl.KTOTrainer(policy, reference, args, train_dataset=rows, processing_class=tokenizer)
    batch = trainer._prepare_inputs(trainer.data_collator(trainer.train_dataset.to_list()))
    with torch.no_grad():
        loss = float(trainer.compute_loss(policy.eval(), batch))
    prompts = [tokenizer(prompt)["input_ids"] for prompt, *_ in texts]
    completions = [[*tokenizer(completion)["input_ids"], tokenizer.eos_token_id] for _, completion, _ in texts]
    shifted = [completions[-1], *completions[:-1]]
    kl = (sequence_logps(policy, prompts, shifted) - sequence_logps(reference, prompts, shifted)).mean()
    own = sequence_logps(policy, prompts, completions), sequence_logps(reference, prompts, completions)
    expected = kto_loss(*own, torch.tensor([True, False, True]), kl, 0.3, 1.5, 0.5)
    assert loss == pytest.approx(float(expected.mean()), abs=1e-5)
    assert (kl > 0) == kl_is_positive


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_reference_log_probabilities_equal_an_independent_computation(
    name: str, config: Any, new_context: Any, tmp_path: Path, tokenizer: Any
) -> None:
    from prefsweep.data.sources import load
    from prefsweep.data.views import pair_rows

    made = config("dpo", model=name)
    folder = run_reference(made, tmp_path / "reference", new_context())
    rows, _ = pair_rows(load(made.dataset, "train"), tokenizer, 96)
    model = AutoModelForCausalLM.from_pretrained(made.model.path, dtype=torch.float32).eval()
    stored = reference_logps.read_reference(folder, "train")
    with torch.no_grad():
        for side, column in enumerate(("chosen_ids", "rejected_ids")):
            batch = completion_batch(list(rows["prompt_ids"]), list(rows[column]), 1, model.device)
            assert stored[side].tolist() == pytest.approx(completion_logprobs(model, batch).tolist(), abs=2e-4)


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_the_first_dpo_loss_is_ln_2(name: str, config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config("dpo", "max_steps=1", model=name)
    logps = run_reference(made, tmp_path / "reference", new_context("reference"))
    context = new_context(log_every=1)
    run_dpo(made, tmp_path / "dpo", context, logps)
    first = next(context.history.rows())
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert first["margin"] == pytest.approx(0.0, abs=1e-4)


def test_it_is_near_ln_2_in_bf16_too_wherever_it_runs(config: Any, new_context: Any, tmp_path: Path) -> None:
    """bf16 keeps 8 bits: the policy's and the reference's sums differ by their paddings, and no more."""
    made = config("dpo", "max_steps=1", "precision=bf16")
    logps = run_reference(made, tmp_path / "reference", new_context("reference", device="auto"))
    context = new_context(log_every=1, device="auto")
    run_dpo(made, tmp_path / "dpo", context, logps)
    assert next(context.history.rows())["loss"] == pytest.approx(np.log(2), abs=0.02)


@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_every_loss_of_trl_trains(loss: str, config: Any, new_context: Any, tmp_path: Path, logps: Path) -> None:
    words = ["label_smoothing=0.01"] if loss in ("exo_pair", "robust") else []
    made = config("dpo", f"loss=[{loss}]", "max_steps=2", *words)
    metrics = run_dpo(made, tmp_path / "dpo", new_context(micro_batch=8), logps)
    assert np.isfinite(metrics["validation/loss"])


def test_a_batch_of_coupled_pairs_is_not_split_to_fit_in_memory(
    config: Any, new_context: Any, tmp_path: Path, logps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "CPU_TOKENS", 1)
    made, losses = config("dpo", "loss=[aot]", "max_steps=2"), {}
    for rows in (made.stages.dpo.batch_size, "auto"):
        context = new_context(str(rows), micro_batch=rows, log_every=1)
        run_dpo(made, tmp_path / str(rows), context, logps)
        losses[rows] = [row["loss"] for row in context.history.rows() if "loss" in row]
    assert losses["auto"] == losses[made.stages.dpo.batch_size]


# -------------------------------------------------------------------------------------------- the split of a batch


def gradients(trainer: Any, inputs: Any, part: int) -> dict[str, Any]:
    trainer.micro_batch = part
    trainer.model.zero_grad()
    loss = trainer.training_step(trainer.model, dict(inputs))
    return {"loss": loss} | {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}


@pytest.fixture(params=["sft", "dpo"])
def small_trainer(
    request: Any, config: Any, new_context: Any, tmp_path: Path, tokenizer: Any, model_folders: dict[str, Path]
) -> Any:
    """A trainer over a few rows of unequal lengths."""
    if request.param == "dpo":
        trainer = pair_trainer(model_folders["gpt2"], tmp_path, tokenizer, beta=0.3)
        trainer.eval_dataset = trainer.train_dataset
        return trainer
    rows, _ = completion_rows(preferences(8, seed=1, coherence=0.7, noise=0.0), tokenizer, 96, True)
    made = config("sft")
    model = load_policy(made.model, None)
    by_split = {"train": rows, "validation": rows}
    return trainers.TokenTrainer.build(made.stages.sft, model, tokenizer, by_split, new_context())


def test_validation_is_the_same_to_six_digits_at_any_size_of_batch(small_trainer: Any) -> None:
    """In double precision, so that nothing but the weights of the means could differ."""
    small_trainer.model.double()
    validations = []
    for size in (1, 2, 8):
        small_trainer.args.per_device_eval_batch_size = size
        validations.append(small_trainer.evaluate())
    assert len(validations[0]) > 2
    assert validations[1] == pytest.approx(validations[0], rel=1e-6) == validations[2]


def test_the_split_of_a_batch_changes_nothing(small_trainer: Any) -> None:
    """Rows of unequal lengths at once and one or two at a time: equal but for the order in which floats are added."""
    inputs = batch_of(small_trainer)
    whole = gradients(small_trainer, inputs, 8)
    for part in (1, 2):
        parts = gradients(small_trainer, inputs, part)
        for name, expected in whole.items():
            assert torch.allclose(parts[name], expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max())), name


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_metrics_do_not_depend_on_what_fits_in_memory(
    stage: str, config: Any, new_context: Any, tmp_path: Path, logps: Path
) -> None:
    """Of validation and of training, at three sizes of batch, of which the last one is never full."""
    made, histories = config(stage, "max_steps=2", "learning_rate=1e-2"), []
    for size in (1, 3, 5):
        context = new_context(str(size), forward_batch=size, micro_batch=size, log_every=1)
        run = run_dpo(made, tmp_path / str(size), context, logps) if stage == "dpo" else None
        run_sft(made, tmp_path / str(size), context) if run is None else None
        histories.append([{k: v for k, v in row.items() if "cost/" not in k} for row in context.history.rows()])
    assert len(histories[0]) == 4 and any("validation/loss" in row for row in histories[0])
    if stage == "dpo":
        (last,) = (row for row in histories[0] if "validation/margin" in row)
        nats = last["validation/margin"] / made.stages.dpo.beta
        assert last["validation/margin_nats"] == pytest.approx(nats)
    for history in histories[1:]:
        for row, expected in zip(history, histories[0], strict=True):
            # at the first step the policy is the reference, and which side is ahead is rounding
            known = expected.keys() - ({"accuracy"} if row["step"] == 1 else set())
            assert row.keys() == expected.keys()
            assert {name: row[name] for name in known} == pytest.approx(
                {name: expected[name] for name in known}, rel=1e-4, abs=1e-5
            )


def test_the_warm_up_is_a_share_of_the_steps_or_their_number(config: Any) -> None:
    runtime, output = config("sft").runtime, Path("out")

    def steps(word: str, rows: int = 800) -> int:
        made = config("sft", "max_steps=null", f"warmup_steps={word}").stages.sft
        return int(training.arguments(made, runtime, rows, output, False)["warmup_steps"])

    assert [steps(word) for word in ("0", "0.1", "0.015", "1", "12")] == [0, 10, 2, 1, 12]  # of 100 steps
    with pytest.raises(UserError, match=r"^stages\.sft\.warmup_steps=12: the stage has 12 steps, .* as in stages"):
        steps("12", rows=96)


def test_rmsprop_is_the_dpo_papers(config: Any, new_context: Any, tmp_path: Path, logps: Path) -> None:
    """One step is the gradient over the root of its own mean square: alpha = .99, no momentum, no bias correction."""
    made = config("dpo", "optimizer=rmsprop", "schedule=constant_with_warmup", "max_steps=1", "max_grad_norm=1e9")
    run_dpo(made, tmp_path / "dpo", new_context("dpo"), logps)
    before = load_policy(made.model, None).state_dict()
    after = load_policy(made.model, tmp_path / "dpo").state_dict()
    step = torch.cat([(after[name] - before[name]).flatten() for name in before if "c_attn" in name])
    # g / √(.01 g²) is ± 10, whatever the gradient's size, but where that is lost in epsilon
    assert step.abs().max() <= 10.001 * made.stages.dpo.learning_rate
    assert step.abs().median() > 9.9 * made.stages.dpo.learning_rate


def test_who_learns_from_short_answers_stops(config: Any, new_context: Any, tmp_path: Path, tokenizer: Any) -> None:
    """Although a quarter of the completions are too long: they were cut, and teach no end."""
    from prefsweep.config.compose import compose, composing

    pairs = tmp_path / "pairs.jsonl"
    completions = (" It was witty.", " It was dull and bland and boring and tedious from start to finish, my friend.")
    rows = [{"prompt": f"Scene {n} was", "chosen": completions[n % 4 == 0], "rejected": " bad."} for n in range(80)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = config("sft", "learning_rate=1e-2", "max_steps=100", "max_length=24")
    local = ("dataset=local", f"dataset.path={pairs}", "dataset.validation=8", "dataset.test=8")
    with composing():
        made.dataset = compose([*local]).dataset
    run_sft(made, tmp_path / "sft", new_context())
    model = load_policy(made.model, tmp_path / "sft")
    prompts = encode_prompts(["Scene 3 was", "Scene 41 was"], tokenizer)
    uniform = torch.rand(2, 40, generator=torch.Generator().manual_seed(1))
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    drawn = sample(model, prompts, uniform, eos, pad, 0.0)
    assert all(completion[-1] == eos and len(completion) < 30 for completion in drawn)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_what_a_training_reads_is_counted(
    stage: str, config: Any, new_context: Any, tmp_path: Path, logps: Path, tokenizer: Any
) -> None:
    """Two epochs of 48 rows, counted by hand from the rows themselves: every token twice, every label once."""
    made, context = config(stage, "max_steps=null", "epochs=2"), new_context("counted", micro_batch=3)
    if stage == "sft":
        run_sft(made, tmp_path / "out", context)
        rows, _ = completion_rows(load(made.dataset, "train"), tokenizer, made.stages.sft.max_length, True)
        tokens = sum(map(len, rows["input_ids"]))
    else:
        run_dpo(made, tmp_path / "out", context, logps)
        rows, _ = pair_rows(load(made.dataset, "train"), tokenizer, made.stages.dpo.max_length)
        tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    model = load_policy(made.model, None)
    looked_up = model.transformer.wpe.weight.numel()
    size = sum(each.numel() for each in model.parameters()) - looked_up
    assert context.cost.counts == {
        "labels": 48,
        "tokens_generated": 0,
        "tokens_trained": 2 * tokens,
        "episodes": 0,
        "flops": 6 * size * 2 * tokens,
    }
    last = [row for row in context.history.rows() if "validation/loss" in row][-1]
    assert {name: last[f"cost/{name}"] for name in context.cost.counts} == context.cost.counts
    assert last["epoch"] == 2 and last["step"] == 12


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_what_became_of_its_rows_is_in_its_record(stage: str, tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    small = [*hub_layout.words("hh-rlhf", hub_layout.write_dataset("hh-rlhf", tmp_path / "data")), "model=gpt2"]
    done = workplace.command(*small, f"method={stage}", "debug=smoke", "runtime=cpu", "tracking=off", "jobs=1")
    assert done.returncode == 0, done.stderr
    (built,) = workplace.stages(stage)
    metrics = json.loads((built / "record.json").read_text())["metrics"]
    counts = {name.removeprefix("data/train/"): metrics[name] for name in metrics if name.startswith("data/train/")}
    lost = {reason.replace(" ", "_"): count for reason, count in hub_layout.TRAPS["hh-rlhf"].items()}
    assert counts == {"read": 53, "kept": 40, "in_validation": 8, **lost}


# ----------------------------------------------------------------------------------------------- resume, guards


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_killed_training_ends_as_an_undisturbed_one(
    stage: str, config: Any, new_context: Any, tmp_path: Path, logps: Path
) -> None:
    made = config(stage, "evaluate_every=2", "checkpoint=best", "save_every=3")

    def work(name: str) -> tuple[dict[str, Any], Context]:
        context = new_context(name, log_every=1, resume_checkpoint_every=2)
        folder = tmp_path / f"{name}-artifact"
        metrics = run_sft(made, folder, context) if stage == "sft" else run_dpo(made, folder, context, logps)
        return metrics, context

    assert die_at(5, lambda: work("killed")) == -signal.SIGKILL
    killed = new_context("killed")
    assert [checkpoint.name for checkpoint in checkpoints(killed.checkpoints)] == ["checkpoint-4"]
    resumed, resumed_context = work("killed")
    undisturbed, context = work("undisturbed")
    assert resumed == undisturbed
    assert list(resumed_context.history.rows()) == list(context.history.rows())
    assert resumed_context.cost.counts == context.cost.counts
    completions = [(tmp_path / f"{name}-artifact/validation.jsonl").read_text() for name in ("killed", "undisturbed")]
    assert completions[0] == completions[1] and completions[0].count("\n") == 3 * 16
    assert context.cost.counts["labels"] == 6 * 8
    assert sorted(state.name for state in (tmp_path / "killed-artifact/steps").iterdir()) == ["3", "6"]
    for folder in (".", "steps/3", "steps/6"):
        ours, theirs = (weights(tmp_path / f"{name}-artifact" / folder) for name in ("killed", "undisturbed"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_state_that_was_kept_is_a_model_like_any_other(config: Any, new_context: Any, tmp_path: Path) -> None:
    """The one of the last step is the result; the one of step 2 is what a training of two steps ends with."""
    long, short = (
        config("sft", "schedule=constant_with_warmup", "save_every=2", f"max_steps={steps}") for steps in (4, 2)
    )
    run_sft(long, tmp_path / "long", new_context("long"))
    run_sft(short, tmp_path / "short", new_context("short"))
    for state, result in (("steps/4", "long"), ("steps/2", "short")):
        ours, theirs = weights(tmp_path / "long" / state), weights(tmp_path / result)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), state
    again = config("sft", "max_steps=1")
    again.model.path = str(tmp_path / "long/steps/2")
    run_sft(again, tmp_path / "again", new_context("again"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state_before_it(
    config: Any, new_context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainers.TokenTrainer.compute_loss

    def sabotaged(self: Any, *args: Any, **rest: Any) -> Any:
        loss = original(self, *args, **rest)
        return loss * float("nan") if self.state.global_step == 3 else loss

    monkeypatch.setattr(trainers.TokenTrainer, "compute_loss", sabotaged)
    context = new_context()
    with pytest.raises(DivergedError, match=r"sft: the loss was nan at step 4; .*Lower stages.sft.learning_rate"):
        run_sft(config("sft"), tmp_path / "sft", context)
    (checkpoint,) = checkpoints(context.checkpoints)
    assert checkpoint.name == "checkpoint-3"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(checkpoint / "model.safetensors").values())
    assert not list((tmp_path / "sft").iterdir())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    config: Any, new_context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(self: Any, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        if state.global_step == 2:
            list(model.parameters())[-1].register_hook(lambda gradient: gradient * float("inf"))

    monkeypatch.setattr(callbacks.Progress, "on_step_end", poison)
    context = new_context()
    with pytest.raises(DivergedError, match="gradient norm"):
        run_sft(config("sft"), tmp_path / "sft", context)
    (checkpoint,) = checkpoints(context.checkpoints)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(checkpoint / "model.safetensors").values())


# --------------------------------------------------------------------------------------- the choice of a checkpoint


def test_the_best_checkpoint_is_kept(config: Any, new_context: Any, tmp_path: Path) -> None:
    """A rate far too high: the last state is not the best."""
    speed = ("schedule=constant_with_warmup", "learning_rate=0.3", "max_steps=8", "epochs=2")
    words = (*speed, "evaluate_every=1", "validation_prompts=0")
    metrics, contexts = {}, {}
    for which in ("best", "last"):
        contexts[which] = new_context(which)
        metrics[which] = run_sft(config("sft", *words, f"checkpoint={which}"), tmp_path / which, contexts[which])
    rows = [row for row in contexts["best"].history.rows() if "validation/loss" in row]
    best = min(rows, key=lambda row: row["validation/loss"])
    assert metrics["best"]["step"] == best["step"]
    assert metrics["best"]["validation/loss"] == best["validation/loss"]
    assert metrics["best"]["steps"] == metrics["last"]["steps"] == 8 > best["step"]
    assert metrics["last"]["validation/loss"] > best["validation/loss"]
    ours, theirs = (load_file(tmp_path / which / "model.safetensors") for which in ("best", "last"))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_seed_moves_the_order_of_the_data_and_nothing_else(config: Any, new_context: Any, tmp_path: Path) -> None:
    losses = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        context = new_context(name, log_every=1)
        run_sft(config("sft", f"seed={seed}"), tmp_path / name, context)
        losses.append([row["loss"] for row in context.history.rows() if "loss" in row])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
