"""The on-policy stages: a killed run, what is left of a finished one, a guard's trip, critics of their own."""

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ppo_toy import with_shared_settings
from prefsweep.config.stages import GRPOConfig, PPOConfig, RLOOConfig
from prefsweep.errors import UserError
from prefsweep.jobs.console import StagePrinter
from prefsweep.jobs.job import prepare
from prefsweep.jobs.run import RunFile, diverged
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Context
from prefsweep.ppo import update
from prefsweep.ppo.trainer import Task, Trainer
from prefsweep.report.runs import read_runs
from prefsweep.report.table import table
from prefsweep.stages import callbacks, grpo, on_policy, on_policy_loop, ppo, rloo
from recorded import write_run

SMALL = (
    *("iterations=5", "batch_size=8", "minibatch_size=4", "epochs=2", "normalisation_samples=8", "learning_rate=1e-3"),
    *("max_length=96", "response_tokens=[4,16]", "validation_prompts=4"),
)
# name → its stage, its config, and the settings that it does not share with ppo
ALGORITHMS: dict[str, Any] = {
    "ppo": (ppo, PPOConfig, {}),
    "rloo": (rloo, RLOOConfig, {"group_size": 4}),
    "grpo": (grpo, GRPOConfig, {"group_size": 2}),
}
MODELS = {"gpt2": "gpt2", "opt": "opt-350m"}


class Vowels:
    """A reward that is somewhere else than the start."""

    def score(self, prompts: list[str], completions: list[str], ended: Any = None) -> dict[str, list[float]]:
        scores = [sum(letter in "aeiou" for letter in completion) / (1 + len(completion)) for completion in completions]
        return {"score": scores, "truncated": [float(index % 4 == 0) for index in range(len(completions))]}


@pytest.fixture
def stage(
    composed: Callable[..., Any], model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(on_policy, "load_scorer", lambda *rest: Vowels())

    def run(folder: str, context: Any, *words: str, algorithm: str = "ppo", **inputs: Any) -> dict[str, Any]:
        overrides = [f"stages.ppo.{word}" for word in (*SMALL, *words)]
        made = composed("model=gpt2", f"model.path={model_folders['gpt2']}", *overrides)
        artifact = tmp_path / folder
        artifact.mkdir(exist_ok=True)
        stage, kind, changes = ALGORITHMS[algorithm]
        result: dict[str, Any] = stage.run(
            made.stages.ppo if stage is ppo else with_shared_settings(kind, made.stages.ppo, **changes),
            model=made.model,
            dataset=made.dataset,
            reward=made.judge,
            folder=artifact,
            context=context,
            **inputs,
        )
        return result

    return run


@pytest.mark.parametrize(("algorithm", "lora"), [("ppo", False), ("ppo", True), ("rloo", True), ("grpo", False)])
def test_a_killed_run_ends_as_an_undisturbed_one(
    algorithm: str, lora: bool, stage: Callable[..., dict[str, Any]], new_context: Any, tmp_path: Path
) -> None:
    """Killed inside iteration 5, with the state of 4 saved, everything that has a state in use."""
    words = (
        "adaptive_kl_target=1",
        "adaptive_kl_horizon=100",
        "score_normalisation=running",
        "evaluate_every=2",
        "checkpoint=best",
        "save_every=3",
        f"lora={str(lora).lower()}",
    )

    def work(name: str) -> tuple[dict[str, Any], Any]:
        context = new_context(name, log_every=2, resume_checkpoint_every=8)
        return stage(f"{name}-artifact", context, *words, "iterations=7", algorithm=algorithm), context

    def die() -> None:
        iterate = Trainer.iterate

        def killed(self: Trainer) -> Any:
            if self.iteration == 4:
                self.updater.update = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            return iterate(self)

        Trainer.iterate = killed  # type: ignore[method-assign]
        work("killed")

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in sorted((tmp_path / "killed/checkpoints").glob("checkpoint-*"))] == ["checkpoint-4"]
    resumed, resumed_context = work("killed")
    undisturbed, context = work("undisturbed")
    assert resumed == undisturbed
    assert list(resumed_context.history.rows()) == list(context.history.rows())
    assert resumed_context.cost.counts == context.cost.counts
    best = max(
        (row for row in context.history.rows() if "validation/score" in row), key=lambda r: r["validation/score"]
    )
    assert undisturbed["step"] == best["step"]
    names = ["adapters/00/adapter_model.safetensors" if lora else "model.safetensors"]
    names += ["value_head.safetensors"] if algorithm == "ppo" else []
    assert (tmp_path / "killed-artifact/value_head.safetensors").exists() == (algorithm == "ppo")
    for name in (f"{folder}{name}" for folder in ("", "steps/3/", "steps/6/") for name in names):
        ours, theirs = (load_file(tmp_path / f"{run}-artifact" / name) for run in ("killed", "undisturbed"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    for name in ("rollouts.jsonl", "validation.jsonl"):
        ours, theirs = ((tmp_path / f"{run}-artifact" / name).read_text() for run in ("killed", "undisturbed"))
        assert ours == theirs


def documented() -> set[str]:
    """The metrics of which the page says what they should look like."""
    page = (Path(__file__).parents[1] / "docs/ppo.md").read_text()
    section = re.search(r"^## What is logged\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    assert section
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section[1].splitlines() if line.startswith("| `")]
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


def test_what_is_left_can_be_read(stage: Callable[..., dict[str, Any]], new_context: Any, tmp_path: Path) -> None:
    blank, logged = new_context(log_every=2), list[dict[str, Any]]()
    context = Context(blank.runtime, blank.checkpoints, History(blank.history.path, logged.append))
    metrics = stage("done", context, "evaluate_every=3")
    assert metrics["iterations"] == 5
    assert metrics["episodes"] == 40
    rows = list(context.history.rows())
    expected = {
        *("score/mean", "score/std", "score/median", "score/truncated", "kl", "entropy", "kl_coef", "approx_kl"),
        *("ratio/first", "updates"),
        *("clip_fraction/policy", "clip_fraction/value", "explained_variance", "loss/policy", "loss/value"),
        *("response/length", "response/ended", "learning_rate", "grad_norm", "value/mean", "return/mean", "step"),
    }
    assert expected == set(rows[0])
    assert {name for row in rows for name in row} - {"step"} == documented()
    assert rows[0]["score/truncated"] == 0.25
    assert metrics["prompts_truncated"] == 0
    assert [row["step"] for row in rows if "validation/score" in row] == [3, 5]
    tables = {name: (tmp_path / f"done/{name}.jsonl").read_text().splitlines() for name in ("rollouts", "validation")}
    assert {json.loads(line)["step"] for line in tables["rollouts"]} == {1, 2, 4}
    assert [row["step"] for row in logged if row.get("episodes_per_second", 0) > 0] == [1, 2, 3, 4, 5]
    assert [row for news in logged for row in news.get("rollouts", [])] == [
        json.loads(line) for line in tables["rollouts"]
    ]
    assert len(tables["validation"]) == 2 * 4
    assert set(json.loads(tables["validation"][0])) == {"step", "prompt", "completion", "ended", "score"}
    head = load_file(tmp_path / "done/value_head.safetensors")
    assert head["weight"].shape == (1, 32)
    assert (head["weight"] != 0).any()


def test_the_bar_says_how_fast_it_goes_and_whether_it_learns(
    stage: Callable[..., dict[str, Any]], new_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, bar, context = StringIO(), on_policy_loop.tqdm, new_context()
    monkeypatch.setattr(on_policy_loop, "tqdm", lambda **options: bar(**options | {"disable": False, "file": shown}))
    stage("done", context, "iterations=2")
    row = next(context.history.rows())
    postfix = f"score {row['score/mean']:.3f}, KL {row['kl']:.2f}"
    assert re.search(rf"ppo: +50%.* [1-9]\d* episodes/s, {re.escape(postfix)}", shown.getvalue())


def test_a_guards_trip_is_a_result(
    stage: Callable[..., dict[str, Any]], new_context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is the state after iteration 2, also where a state before it was the best so far."""
    stage("undisturbed", new_context("undisturbed"), "save_every=1")
    loss, rate = update.policy_loss, update.Updater.set_learning_rate
    seen: list[int] = []

    def noted(updater: update.Updater, iteration: int) -> None:
        seen.append(iteration + 1)
        rate(updater, iteration)

    def sabotaged(*tensors: Any) -> Any:
        losses = loss(*tensors)
        return losses | {"loss/policy": losses["loss/policy"] * float("nan")} if seen[-1] == 3 else losses

    monkeypatch.setattr(update.Updater, "set_learning_rate", noted)
    monkeypatch.setattr(update, "policy_loss", sabotaged)
    monkeypatch.setattr(callbacks.Checkpoints, "value", lambda choice, row: -row["step"])
    for folder, words in (("tripped", ()), ("of the best", ("checkpoint=best", "evaluate_every=1"))):
        metrics = stage(folder, new_context(folder), *words)
        assert metrics["diverged"].startswith("ppo: a loss was not finite at iteration 3")
        assert metrics["iterations"] == 2
        saved, alive = (load_file(tmp_path / path / "model.safetensors") for path in (folder, "undisturbed/steps/2"))
        assert all(torch.equal(weight, alive[name]) for name, weight in saved.items())
    assert seen == [1, 2, 3, 1, 2, 3]
    assert diverged({"ppo": {"metrics": metrics}, "evaluate": {"metrics": {"judge/mean": 0.1}}}) == metrics["diverged"]
    assert diverged({"evaluate": {"metrics": {"judge/mean": 0.1}}}) is None


def test_a_kl_target_that_was_never_near_is_a_warning(
    stage: Callable[..., dict[str, Any]], new_context: Any, composed: Any, tmp_path: Path, capsys: Any
) -> None:
    """In the stage's record, on the terminal, in run.json, and in the caption of the table."""

    def train(target: float) -> tuple[dict[str, Any], list[float]]:
        context = new_context(f"at {target}")
        words = (f"adaptive_kl_target={target}", "adaptive_kl_horizon=1e9")  # so slow that all targets are one course
        metrics = stage("trained", context, *words)
        return metrics, [row["kl"] for row in context.history.rows() if "kl" in row]

    metrics, kls = train(50.0)
    assert metrics["warning"].startswith("ppo: KL was never within 20% of adaptive_kl_target=50 (nearest ")
    assert f"(nearest {max(kls):.3g})" in metrics["warning"]
    assert "warning" in train(max(kls) / 0.79)[0]
    assert "warning" not in train(max(kls) / 0.81)[0]
    assert "warning" not in stage("fixed", new_context("fixed"))

    job = prepare([], composed("method=ppo", f"runtime.outputs={tmp_path / 'outputs'}"))
    trained, record = job.plan.stages[-1], {"metrics": metrics, "cost": {"seconds": 1.0}}
    file = RunFile(job, tmp_path / "run")
    for listener in (file, StagePrinter()):
        listener.built(trained, tmp_path, record)
    file.write("finished")
    assert metrics["warning"] in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "run/run.json").read_text())["warnings"] == [metrics["warning"]]
    write_run(tmp_path / "sweep", "ppo", 1, {"judge/mean": 0.5}, warnings=[metrics["warning"]])
    write_run(tmp_path / "sweep", "ppo", 2, {"judge/mean": 0.6})
    assert f"Warning: {metrics['warning']}." in table(read_runs([tmp_path / "sweep"])).caption


def loaded(made: Any, reward_model: Path, tokenizer: Any) -> tuple[Task, Any]:
    """Return the task of a config, and the trunk of its critic where that has one of its own."""
    sections = (made.stages.ppo, made.model, None, tokenizer)
    task = on_policy.make_task(*sections, Vowels().score, [], torch.device("cpu"))
    return task, ppo.make_critic(made.stages.ppo, task.policy, made.model, None, reward_model).trunk


@pytest.mark.parametrize("critic", ["shared", "separate", "reward"])
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_dropout_is_off_in_policy_reference_and_critic(
    name: str, critic: str, composed: Callable[..., Any], model_folders: dict[str, Path], tokenizer: Any, tmp_path: Path
) -> None:
    """Of a model that was published with it; in training mode, in which the policy and its critic are."""
    folder = tmp_path / name
    shutil.copytree(model_folders[name], folder)
    wet = {"resid_pdrop": 0.5, "attn_pdrop": 0.5, "embd_pdrop": 0.5, "dropout": 0.5, "attention_dropout": 0.5}
    model_config = json.loads((folder / "config.json").read_text())
    assert set(model_config) & set(wet)
    (folder / "config.json").write_text(
        json.dumps(model_config | {key: rate for key, rate in wet.items() if key in model_config})
    )
    made = composed(
        f"model={MODELS[name]}", f"model.path={folder}", "stages.ppo.max_length=96", f"stages.ppo.critic={critic}"
    )
    task, critic_trunk = loaded(made, folder, tokenizer)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    for model in (task.policy, task.reference, *([critic_trunk] if critic_trunk is not None else [])):
        trunk = model.base_model.train()
        with torch.no_grad():
            first, again = (trunk(ids).last_hidden_state for _ in range(2))
        assert torch.equal(first, again)


@pytest.mark.parametrize("critic", ["separate", "reward"])
def test_a_critic_begins_as_the_policy_or_as_the_reward_model(
    critic: str, composed: Callable[..., Any], model_folders: dict[str, Path], tokenizer: Any, tmp_path: Path
) -> None:
    reward = tmp_path / "reward"
    shutil.copytree(model_folders["gpt2"], reward)
    weights = {name: weight + 0.125 for name, weight in load_file(reward / "model.safetensors").items()}
    save_file(weights, reward / "model.safetensors", {"format": "pt"})
    made = composed(
        "model=gpt2", f"model.path={model_folders['gpt2']}", "stages.ppo.max_length=96", f"stages.ppo.critic={critic}"
    )
    task, trunk = loaded(made, reward, tokenizer)
    assert trunk is not None
    moved = trunk.wte.weight - task.policy.get_input_embeddings().weight
    assert torch.allclose(moved, torch.full_like(moved, 0.125 if critic == "reward" else 0.0), atol=1e-6)


@pytest.mark.parametrize("critic", ["separate", "reward"])
def test_a_critic_may_have_a_trunk_of_its_own(
    critic: str,
    stage: Callable[..., dict[str, Any]],
    new_context: Any,
    tmp_path: Path,
    model_folders: dict[str, Path],
) -> None:
    context = new_context()
    stage("done", context, f"critic={critic}", "iterations=1", reward_model=model_folders["gpt2"])
    assert next(context.history.rows())["ratio/first"] == 1
    before, after = (
        load_file(path / "model.safetensors") for path in (model_folders["gpt2"], tmp_path / "done/critic")
    )
    assert any(not torch.equal(after[name], before[f"transformer.{name}"]) for name in after)


def test_a_reward_model_with_other_words_is_no_critic(
    stage: Callable[..., dict[str, Any]], new_context: Any, model_folders: dict[str, Path]
) -> None:
    for inputs in ({}, {"reward_model": model_folders["opt"]}):
        with pytest.raises(UserError, match="set it to shared or separate"):
            stage("refused", new_context(), "critic=reward", **inputs)
