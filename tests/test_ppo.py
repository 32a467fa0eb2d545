"""The PPO trainer on real architectures: exact ratios, known optima, guards that are results, resume, two processes."""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from prefsweep.config import PPOConfig
from prefsweep.errors import UserError
from prefsweep.models.logprobs import Ids, answer_batch, answer_logits
from prefsweep.ppo import guards, trainer, update
from prefsweep.ppo.guards import TrippedError, check_rollouts
from prefsweep.ppo.loss import policy_loss
from prefsweep.ppo.policy import ActorCritic
from prefsweep.ppo.rollout import Rollouts, Words, clipped_query
from prefsweep.ppo.trainer import Task, Trainer
from prefsweep.run import diverged
from prefsweep.stages import ppo

EOS, PAD, VOCABULARY = 0, 1, 12


def tiny(name: str, vocabulary: int = VOCABULARY, seed: int = 0, width: int = 16) -> Any:
    """Random weights, large enough that tokens differ in probability; OPT narrower inside, like opt-350m."""
    torch.manual_seed(seed)
    special = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": None, "vocab_size": vocabulary}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    narrow = {"word_embed_proj_dim": 8, "do_layer_norm_before": False, "ffn_dim": 32, "dropout": 0.0, "init_std": 0.3}
    shape = (
        GPT2Config(n_embd=width, n_layer=1, n_head=2, n_positions=32, initializer_range=0.3, **off, **special)
        if name == "gpt2"
        else OPTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32, **narrow, **special
        )
    )
    return AutoModelForCausalLM.from_config(shape, dtype=torch.float32)


QUERIES: list[Ids] = [[2 + (3 * row + place) % 10 for place in range(1 + row % 6)] for row in range(40)]
WORDS = Words(EOS, PAD, lambda rows: [" ".join(map(str, row)) for row in rows])


def threes(prompts: list[str], answers: list[str]) -> list[float]:
    return [answer.split().count("3") - 0.1 * len(prompt) for prompt, answer in zip(prompts, answers, strict=True)]


def make_task(name: str = "gpt2", score: Any = threes, queries: list[Ids] = QUERIES, **changes: Any) -> Task:
    task = Task(tiny(name), tiny(name).eval(), None, WORDS, score, queries)
    return replace(task, **changes)


@pytest.fixture
def config(composed: Callable[..., Any]) -> Callable[..., PPOConfig]:
    stage = composed().stages.ppo
    assert isinstance(stage, PPOConfig)

    def make(**changes: Any) -> PPOConfig:
        short = {"batch_size": 24, "minibatch_size": 8, "iterations": 3, "normalisation_samples": 24}
        fast = {
            "learning_rate": 1e-2,
            "warmup_iterations": 0,
            "response_tokens": [8, 12],
            "max_length": 32,
            "epochs": 4,
        }
        return replace(stage, **{**short, **fast, **changes})

    return make


def make_trainer(config: PPOConfig, task: Task, micro_batch: int = 3) -> Trainer:
    from accelerate import Accelerator

    return Trainer(config, task, Accelerator(cpu=True), micro_batch, forward_batch=16)


def token_probabilities(task: Task, query: Ids) -> Tensor:
    with torch.no_grad():
        return task.policy.eval()(torch.tensor([query])).logits[0, -1].softmax(-1)


# --------------------------------------------------------------------------------------------------- the forward


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_log_probabilities_do_not_depend_on_batch_or_padding(name: str) -> None:
    model = ActorCritic(tiny(name), None, temperature=1.0)
    torch.nn.init.normal_(model.value_head.weight)
    answers = [[3, 4, 5, EOS], [6, EOS], [7, 8, 9, 10, 11, 2], [EOS]]
    queries = QUERIES[:4]
    with torch.no_grad():
        whole = model(answer_batch(queries, answers, PAD, torch.device("cpu")))
        for row, (query, answer) in enumerate(zip(queries, answers, strict=True)):
            alone = model(answer_batch([query], [answer], PAD, torch.device("cpu")))
            padded = model(answer_batch([query, [2] * 20], [answer, [2] * 6], PAD, torch.device("cpu")))
            for other, place in ((alone, 0), (padded, 0)):
                for field in ("logprobs", "values", "entropy"):
                    ours = getattr(whole, field)[row, -len(answer) :]
                    assert torch.allclose(ours, getattr(other, field)[place, -len(answer) :], atol=1e-5), field


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_log_probabilities_and_entropy_are_the_models_own_at_the_temperature(name: str) -> None:
    model = ActorCritic(tiny(name), None, temperature=0.7)
    batch = answer_batch(QUERIES[:3], [[3, 4, EOS], [5, EOS], [6]], PAD, torch.device("cpu"))
    with torch.no_grad():
        found, logs = model(batch), (answer_logits(model.policy, batch) / 0.7).log_softmax(-1)
    mask = batch.answer_mask
    expected = logs.gather(-1, batch.answers[..., None]).squeeze(-1)
    assert torch.allclose(found.logprobs[mask], expected[mask], atol=1e-5)
    assert torch.allclose(found.entropy[mask], -(logs.exp() * logs).sum(-1)[mask], atol=1e-5)
    assert (found.values == 0).all()  # a critic that knows nothing says so


# ------------------------------------------------------------------------------------------------------ the ratio


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_the_ratio_is_exactly_one_on_the_first_minibatch_and_not_on_the_second(
    name: str, precision: str, separate: bool, config: Callable[..., PPOConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries of unequal lengths, some answers with an EOS inside, each minibatch in three micro-batches."""
    changes: list[float] = []

    def watched(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Any:
        changes.append(float((new - old)[mask].abs().max().detach()))
        return policy_loss(new, old, advantages, mask, clip)

    monkeypatch.setattr(update, "policy_loss", watched)
    critic = tiny(name).base_model if separate else None
    made = make_trainer(config(precision=precision, max_approx_kl=None), make_task(name, critic=critic))
    metrics, rollouts = made.iterate()
    assert 0 < int(rollouts.ended.sum()) < 24
    assert changes[:3] == [0, 0, 0]
    assert all(change > 0 for change in changes[3:6])
    assert metrics["ratio/first"] == 1
    assert metrics["kl"] == 0  # at the beginning the policy is its reference
    assert metrics["updates"] == 12


# ----------------------------------------------------------------------------------------------------- known optima


def test_with_nothing_to_gain_the_policy_stays_where_it_is(config: Callable[..., PPOConfig]) -> None:
    task = make_task(score=lambda prompts, answers: [0.0] * len(answers))
    before = {name: weight.clone() for name, weight in task.policy.state_dict().items()}
    made = make_trainer(config(), task)
    for _ in range(3):
        assert made.iterate()[0]["kl"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in task.policy.state_dict().items())


def test_the_price_of_kl_pulls_a_policy_back_to_its_reference(config: Callable[..., PPOConfig]) -> None:
    nothing = {"score": lambda prompts, answers: [0.0] * len(answers)}
    task = make_task(**nothing)
    with torch.no_grad():
        for weight in task.policy.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    size = {"batch_size": 64, "minibatch_size": 32, "iterations": 30, "learning_rate": 3e-3}
    made = make_trainer(config(**size, score_normalisation="none", beta=1.0), task, micro_batch=64)
    found = [made.iterate()[0]["kl"] for _ in range(30)]
    assert found[0] > 0.5
    assert found[-1] < 0.15 * found[0]


BANDIT = {
    "response_tokens": [1, 1],
    "batch_size": 256,
    "minibatch_size": 128,
    "score_normalisation": "none",
    "whiten_advantages": False,
    "clip_value": None,
    "value_coefficient": 1.0,
    "max_grad_norm": 10.0,
    "min_entropy": 0.0,
    "max_approx_kl": None,
}


def test_without_a_price_the_better_of_two_tokens_is_all_that_is_said(config: Callable[..., PPOConfig]) -> None:
    policy = tiny("gpt2", vocabulary=2, width=4)
    one = make_task(
        score=lambda prompts, answers: [float(answer) for answer in answers],
        queries=[[1]],
        policy=policy,
        reference=tiny("gpt2", vocabulary=2, width=4).eval(),
    )
    made = make_trainer(config(**BANDIT, beta=0.0, iterations=40, learning_rate=3e-2), one, micro_batch=256)
    before = float(token_probabilities(one, [1])[1])
    for _ in range(40):
        made.iterate()
    assert before < 0.9
    assert float(token_probabilities(one, [1])[1]) > 0.99


def test_with_a_price_the_policy_becomes_the_reference_tilted_by_the_reward(config: Callable[..., PPOConfig]) -> None:
    """π* = π_ref exp(r/β) / Z, for every token within 2%."""
    rewards = [0.1 * token for token in range(8)]
    one = make_task(
        score=lambda prompts, answers: [rewards[int(answer)] for answer in answers],
        queries=[[2]],
        policy=tiny("gpt2", vocabulary=8),
        reference=tiny("gpt2", vocabulary=8).eval(),
    )
    reference = token_probabilities(one, [2])
    made = make_trainer(config(**BANDIT, beta=0.4, iterations=120, learning_rate=1e-2), one, micro_batch=256)
    for _ in range(120):
        made.iterate()
    tilted = reference * (torch.tensor(rewards) / 0.4).exp()
    expected = tilted / tilted.sum()
    assert float((expected / reference - 1).abs().max()) > 0.5  # it had somewhere to go
    assert torch.allclose(token_probabilities(one, [2]), expected, rtol=0.02)


# ------------------------------------------------------------------------------------------- scores, queries, ends


def rollouts_of(scores: list[float], ended: list[bool]) -> Rollouts:
    count = len(scores)
    return Rollouts([[2]] * count, [[3]] * count, [""] * count, [""] * count, torch.tensor(scores), torch.tensor(ended))


def test_scores_are_normalised_then_cut_then_marked_down_where_no_end_came(config: Callable[..., PPOConfig]) -> None:
    answered = rollouts_of([1.0, 5.0, 9.0], [True, True, False])
    for rule, last in (("none", 1.5), ("penalty", -0.5), ("replace", -2.0)):
        made = make_trainer(config(missing_eos=rule, missing_eos_amount=2.0, score_clip=1.5), make_task())
        made.moments.add(torch.tensor([3.0, 7.0]))  # mean 5, deviation 2
        assert made.judged(answered).tolist() == pytest.approx([-1.5, 0.0, last])


def test_the_scale_is_the_starting_policys_once_or_that_of_all_answers(config: Callable[..., PPOConfig]) -> None:
    start, running = (make_trainer(config(score_normalisation=rule), make_task()) for rule in ("start", "running"))
    for _ in range(2):
        start.iterate()
        running.iterate()
    assert (start.moments.count, running.moments.count) == (24, 48)


def test_the_rate_rises_over_the_warm_up_and_falls_to_nothing(config: Callable[..., PPOConfig]) -> None:
    rising = {"warmup_iterations": 1, "critic_learning_rate": 5e-2}
    for schedule, expected in (("linear", [5e-3, 7.5e-3, 5e-3, 2.5e-3]), ("constant", [5e-3, 1e-2, 1e-2, 1e-2])):
        updater = make_trainer(config(iterations=4, schedule=schedule, **rising), make_task()).updater
        for iteration, rate in enumerate(expected):
            updater.set_learning_rate(iteration)
            assert [group["lr"] for group in updater.optimizer.param_groups] == pytest.approx([rate, 5 * rate])


def test_queries_are_cut_to_a_drawn_number_of_first_tokens_or_to_what_fits(config: Callable[..., PPOConfig]) -> None:
    long = list(range(100))
    found = [clipped_query(long, f"0/{row}", config(query_tokens=[2, 8])) for row in range(200)]
    assert {len(query) for query in found} == set(range(2, 9))
    assert all(query == long[: len(query)] for query in found)
    assert clipped_query(long, "0/0", config(max_length=32)) == long[-20:]


def test_answers_end_at_eos_or_at_their_cap_and_every_query_comes_once_a_pass(config: Callable[..., PPOConfig]) -> None:
    made = make_trainer(config(batch_size=40, minibatch_size=40), make_task())
    _, rollouts = made.iterate()
    assert sorted(rollouts.queries) == sorted(QUERIES)
    for response, ended in zip(rollouts.responses, rollouts.ended.tolist(), strict=True):
        assert EOS not in response[:-1]
        assert ended == (response[-1] == EOS)
        assert ended or 8 <= len(response) <= 12


def test_an_answer_does_not_depend_on_the_batch_it_is_drawn_in(config: Callable[..., PPOConfig]) -> None:
    made = make_trainer(config(), make_task())
    names = [f"0/{row}" for row in range(40)]
    together = made.sampler(QUERIES, names).responses
    made.sampler.batch = 3
    assert made.sampler(QUERIES, names).responses == together


# ----------------------------------------------------------------------------------------------------------- guards


def test_an_update_too_far_from_the_answers_is_not_made_and_ends_the_epochs(config: Callable[..., PPOConfig]) -> None:
    bounded = make_trainer(config(max_approx_kl=1e-9), make_task()).iterate()[0]
    assert bounded["updates"] == 1  # the first minibatch's divergence is exactly 0
    assert make_trainer(config(max_approx_kl=None), make_task()).iterate()[0]["updates"] == 12


def test_honest_rollouts_pass_and_impossible_ones_trip(config: Callable[..., PPOConfig]) -> None:
    fine, made = torch.ones(4), config()
    check_rollouts(made, 1, fine, torch.tensor([-4.9] * 4), entropy=1.0)
    broken = {
        "KL of 4 answers summed to": (fine, torch.tensor([-5.1] * 4), 1.0),
        "the KL was nan": (fine, torch.tensor([1.0, float("nan")]), 1.0),
        "entropy fell": (fine, torch.zeros(4), 0.001),
        "score was not finite": (torch.tensor([1.0, float("inf")]), torch.zeros(2), 1.0),
    }
    for said, (scores, kl, entropy) in broken.items():
        with pytest.raises(TrippedError, match=said):
            check_rollouts(made, 1, scores, kl, entropy)


def test_probabilities_that_are_not_the_samplers_trip(
    config: Callable[..., PPOConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trainer.reference_logprobs
    monkeypatch.setattr(trainer, "reference_logprobs", lambda *args: honest(*args) + 0.3)
    with pytest.raises(TrippedError, match="honest sampling"):
        make_trainer(config(), make_task()).iterate()


# -------------------------------------------------------------------------------------------------------- the stage

SMALL = (
    *("iterations=5", "batch_size=8", "minibatch_size=4", "epochs=2", "normalisation_samples=8", "learning_rate=1e-3"),
    *("max_length=96", "response_tokens=[4,16]", "validation_prompts=4"),
)


class Vowels:
    """A reward that is somewhere else than the start."""

    def score(self, prompts: list[str], answers: list[str]) -> dict[str, list[float]]:
        return {"score": [sum(letter in "aeiou" for letter in answer) / (1 + len(answer)) for answer in answers]}


@pytest.fixture
def stage(
    composed: Callable[..., Any], model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(ppo, "load_scorer", lambda *rest: Vowels())

    def run(folder: str, context: Any, *words: str, **inputs: Any) -> dict[str, Any]:
        said = [f"stages.ppo.{word}" for word in (*SMALL, *words)]
        made = composed("model=gpt2", f"model.path={model_folders['gpt2']}", *said)
        artifact = tmp_path / folder
        artifact.mkdir(exist_ok=True)
        return ppo.run(
            made.stages.ppo,
            model=made.model,
            dataset=made.dataset,
            reward=made.judge,
            folder=artifact,
            context=context,
            **inputs,
        )

    return run


def test_a_killed_run_ends_as_an_undisturbed_one(
    stage: Callable[..., dict[str, Any]], new_context: Any, tmp_path: Path
) -> None:
    """Killed inside iteration 5, with the state of 4 saved, everything that has a state in use."""
    words = ("kl_target=1", "kl_horizon=100", "score_normalisation=running", "evaluate_every=2", "checkpoint=best")

    def work(name: str) -> tuple[dict[str, Any], Any]:
        context = new_context(name, log_every=2, save_every=8)
        return stage(f"{name}-artifact", context, *words, "iterations=7"), context

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
    best = max(
        (row for row in context.history.rows() if "validation/score" in row), key=lambda r: r["validation/score"]
    )
    assert undisturbed["step"] == best["step"]
    for name in ("model.safetensors", "value_head.safetensors"):
        ours, theirs = (load_file(tmp_path / f"{run}-artifact" / name) for run in ("killed", "undisturbed"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    for name in ("rollouts.jsonl", "validation.jsonl"):
        ours, theirs = ((tmp_path / f"{run}-artifact" / name).read_text() for run in ("killed", "undisturbed"))
        assert ours == theirs


def test_what_is_left_can_be_read(stage: Callable[..., dict[str, Any]], new_context: Any, tmp_path: Path) -> None:
    context = new_context(log_every=2)
    found = stage("done", context, "evaluate_every=3")
    assert found["iterations"] == 5
    assert found["episodes"] == 40
    rows = list(context.history.rows())
    told = {
        *("score/mean", "score/std", "score/median", "kl", "entropy", "beta", "approx_kl", "ratio/first", "updates"),
        *("clip_fraction/policy", "clip_fraction/value", "explained_variance", "loss/policy", "loss/value"),
        *("response/length", "response/ended", "learning_rate", "grad_norm", "value/mean", "return/mean", "step"),
    }
    assert told == set(rows[0])
    assert [row["step"] for row in rows if "validation/score" in row] == [3, 5]
    tables = {name: (tmp_path / f"done/{name}.jsonl").read_text().splitlines() for name in ("rollouts", "validation")}
    assert {json.loads(line)["step"] for line in tables["rollouts"]} == {1, 2, 4}
    assert len(tables["validation"]) == 2 * 4
    assert set(json.loads(tables["validation"][0])) == {"step", "prompt", "answer", "score"}
    head = load_file(tmp_path / "done/value_head.safetensors")
    assert head["weight"].shape == (1, 32)
    assert (head["weight"] != 0).any()


def test_a_guards_trip_is_a_result(
    stage: Callable[..., dict[str, Any]], new_context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = guards.check_step
    seen: list[int] = []

    def sabotaged(iteration: int, losses: Tensor, gradient_norm: float) -> None:
        seen.append(iteration)
        check(iteration, losses * (float("nan") if iteration == 3 else 1), gradient_norm)

    monkeypatch.setattr(update, "check_step", sabotaged)
    found = stage("tripped", new_context())
    assert found["diverged"].startswith("ppo: a loss was not finite at iteration 3")
    assert found["iterations"] == 2
    assert seen.count(3) == 1
    kept = load_file(tmp_path / "tripped/model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in kept.values())
    assert diverged({"ppo": {"metrics": found}, "evaluate": {"metrics": {"judge/mean": 0.1}}}) == found["diverged"]
    assert diverged({"evaluate": {"metrics": {"judge/mean": 0.1}}}) is None


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
        with pytest.raises(UserError, match="say shared or separate"):
            stage("refused", new_context(), "critic=reward", **inputs)


# ---------------------------------------------------------------------------------------------------- two processes


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def as_rank(rank: int, world: int, port: int, made: PPOConfig, runtime: Any, path: Path) -> None:
    """Two iterations as one of `world` processes; rank 0 writes the first gradient, the metrics and the weights."""
    if world > 1:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    accelerator = ppo.new_accelerator(runtime)
    assert accelerator.num_processes == world
    one = Trainer(made, make_task(), accelerator, 3, 16)
    gradients: list[Tensor] = []
    step = one.updater.optimizer.step

    def noted() -> None:
        gradients.append(torch.cat([weight.grad.flatten().clone() for weight in one.model.parameters()]))
        step()

    one.updater.optimizer.step = noted  # type: ignore[method-assign]
    metrics, rollouts = zip(*[one.iterate() for _ in range(2)], strict=True)
    weights = torch.cat([weight.detach().flatten() for weight in one.model.parameters()])
    responses = [each.responses for each in rollouts]
    torch.save([gradients[0], metrics, responses, weights], path / f"{world}-{rank}.pt")


def test_two_processes_make_the_update_of_one(
    config: Callable[..., PPOConfig], composed: Callable[..., Any], tmp_path: Path
) -> None:
    """Equal answers; gradients within 1e-5 of their largest: sums are added in another order, in other padding.

    Weights are compared after 24 steps of Adam, which turns a gradient's last bit near zero into a visible step; its
    epsilon bounds that: 1e-3 of the distance gone.
    """
    made, runtime, port = config(learning_rate=1e-3), composed().runtime, free_port()
    fork = multiprocessing.get_context("fork")
    for world in (1, 2):
        processes = [
            fork.Process(target=as_rank, args=(rank, world, port, made, runtime, tmp_path)) for rank in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert torch.equal(first[3], second[3])  # what two processes hold is one model
    assert alone[2] == first[2]
    assert torch.allclose(first[0], alone[0], rtol=0, atol=1e-5 * float(alone[0].abs().max()))
    for ours, theirs in zip(first[1], alone[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    start = torch.cat([weight.flatten() for weight in ActorCritic(tiny("gpt2"), None, 1.0).parameters()]).detach()
    gone = float((alone[3] - start).norm())
    assert float((first[3] - alone[3]).norm()) < 1e-3 * gone
