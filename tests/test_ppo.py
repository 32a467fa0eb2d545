"""The PPO trainer on real architectures: exact ratios, scores, guards, two processes."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from ppo_toy import CODEC, EOS, PAD, QUERIES, make_task, make_trainer, threes, tiny
from prefsweep.config.stages import PPOConfig
from prefsweep.models.logprobs import completion_batch, completion_logits
from prefsweep.models.scorers import Measures
from prefsweep.ppo import token_logprobs, trainer, update
from prefsweep.ppo.batches import MicroBatch, Split
from prefsweep.ppo.guards import TrippedError, check_rollouts
from prefsweep.ppo.loss import policy_loss
from prefsweep.ppo.policy import ActorCritic, Critic
from prefsweep.ppo.rollout import Rollouts, clipped_query
from prefsweep.ppo.trainer import Trainer
from prefsweep.stages import on_policy, ppo

Config = Callable[..., PPOConfig]
SHARED = Critic(trunk=None, learning_rate=1e-2, coef=0.1, clip_range=0.2)


# ---------------------------------------------------------------------------------------------------------- the forward


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_log_probabilities_do_not_depend_on_batch_or_padding(name: str) -> None:
    model = ActorCritic(tiny(name), SHARED, temperature=1.0)
    torch.nn.init.normal_(model.value_head.weight)
    completions = [[3, 4, 5, EOS], [6, EOS], [7, 8, 9, 10, 11, 2], [EOS]]
    queries = QUERIES[:4]
    with torch.no_grad():
        whole = model(completion_batch(queries, completions, PAD, torch.device("cpu")))
        for row, (query, completion) in enumerate(zip(queries, completions, strict=True)):
            alone = model(completion_batch([query], [completion], PAD, torch.device("cpu")))
            padded = model(completion_batch([query, [2] * 20], [completion, [2] * 6], PAD, torch.device("cpu")))
            for other, index in ((alone, 0), (padded, 0)):
                for field in ("logprobs", "values", "entropy"):
                    ours = getattr(whole, field)[row, -len(completion) :]
                    assert torch.allclose(ours, getattr(other, field)[index, -len(completion) :], atol=1e-5), field


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_log_probabilities_and_entropy_are_the_models_own_at_the_temperature(name: str) -> None:
    model = ActorCritic(tiny(name), SHARED, temperature=0.7)
    batch = completion_batch(QUERIES[:3], [[3, 4, EOS], [5, EOS], [6]], PAD, torch.device("cpu"))
    with torch.no_grad():
        outputs, logs = model(batch), (completion_logits(model.policy, batch) / 0.7).log_softmax(-1)
    mask = batch.completion_mask
    expected = logs.gather(-1, batch.completions[..., None]).squeeze(-1)
    assert torch.allclose(outputs.logprobs[mask], expected[mask], atol=1e-5)
    assert torch.allclose(outputs.entropy[mask], -(logs.exp() * logs).sum(-1)[mask], atol=1e-5)
    assert (outputs.values == 0).all()  # a critic that knows nothing says so


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_in_pieces_are_those_of_the_plain_formula(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tokens a piece, the last piece with one; in bf16 a gradient is rounded to the logits' own dtype."""
    monkeypatch.setitem(token_logprobs.PIECE, "cpu", 3 * 50)
    batch = completion_batch(QUERIES[:3], [[3, 4, EOS, 7], [5, EOS], [6]], PAD, torch.device("cpu"))
    mask, generator = batch.completion_mask, torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(7, 50, generator=generator)).to(dtype).requires_grad_()
    weights = torch.randn(mask.shape, generator=generator)
    ours = token_logprobs.token_logprobs(logits, batch, 0.7)
    logs = (logits.float() / 0.7).log_softmax(-1)
    plain = torch.zeros(mask.shape).masked_scatter(mask, logs[torch.arange(7), batch.completions[mask]])
    assert torch.allclose(ours, plain, atol=1e-5)
    gradients = [torch.autograd.grad((given * weights).sum(), logits)[0].float() for given in (ours, plain)]
    assert torch.allclose(*gradients, atol=1e-5 if dtype == torch.float32 else 0.02)
    entropy = token_logprobs.entropies(logits, batch, 0.7)
    assert torch.allclose(entropy[mask], -(logs.exp() * logs).sum(-1), atol=1e-4)
    assert (entropy[~mask] == 0).all()


# ------------------------------------------------------------------------------------------------------------ the ratio


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_the_ratio_is_exactly_one_on_the_first_minibatch_and_not_on_the_second(
    name: str, precision: str, separate: bool, lora: bool, ppo_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries of unequal lengths, some answers with an EOS inside, each minibatch in three micro-batches."""
    changes: list[float] = []

    def watched(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Any:
        changes.append(float((new - old)[mask].abs().max().detach()))
        return policy_loss(new, old, advantages, mask, clip)

    monkeypatch.setattr(update, "policy_loss", watched)
    trunk = tiny(name).base_model if separate else None
    task = make_task(name, lora=lora)
    kinds = set[torch.dtype]()
    task.policy.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: kinds.add(logits.dtype))
    made = make_trainer(ppo_config(precision=precision, target_kl=None), task, trunk=trunk)
    metrics, rollouts = made.iterate()
    assert kinds == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert 0 < int(rollouts.ended.sum()) < 24
    assert changes[:3] == [0, 0, 0]
    assert all(change > 0 for change in changes[3:6])
    assert metrics["ratio/first"] == 1
    assert metrics["kl"] == 0  # at the beginning the policy is its reference
    assert metrics["updates"] == 12


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_sampling_policy_and_reference_are_at_one_temperature(temperature: float, ppo_config: Config) -> None:
    """A policy that has not moved is its reference; and what is drawn is drawn from that distribution."""
    task = make_task(queries=[[2]] * 40)
    expected = (task.policy.eval()(torch.tensor([[2]])).logits[0, -1].detach() / temperature).softmax(-1)
    config = ppo_config(temperature=temperature, batch_size=1200, minibatch_size=600, epochs=1)
    metrics, rollouts = make_trainer(config, task, micro_batch=600).iterate()
    assert metrics["kl"] == 0 and metrics["ratio/first"] == 1
    first = torch.tensor([response[0] for response in rollouts.responses])
    assert torch.allclose(first.bincount(minlength=len(expected)) / len(first), expected, atol=0.06)


# ---------------------------------------------------------------------------------------- KL coefficient and whitening


def test_the_kl_coefficient_follows_the_kl_that_was_measured(ppo_config: Config) -> None:
    made = make_trainer(ppo_config(adaptive_kl_target=0.5, adaptive_kl_horizon=100), make_task())
    coefficients, kls = [made.kl_coef], []
    for _ in range(3):
        kls.append(made.iterate()[0]["kl"])
        coefficients.append(made.kl_coef)
    assert kls[0] == 0 < kls[1]
    for before, after, kl in zip(coefficients, coefficients[1:], kls, strict=False):
        assert after == pytest.approx(before * (1 + min(max(kl / 0.5 - 1, -0.2), 0.2) * 24 / 100))
    assert coefficients[1] < coefficients[0]  # too near to the reference
    fixed = make_trainer(ppo_config(adaptive_kl_target=None), make_task())
    fixed.iterate()
    assert fixed.kl_coef == coefficients[0]


@pytest.mark.parametrize("whitened", [False, True])
def test_rewards_are_whitened_where_the_config_sets_it(
    whitened: bool, ppo_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    gae = ppo.gae

    def watched(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
        seen.append((rewards, mask))
        return gae(rewards, values, mask, gamma, lam)

    monkeypatch.setattr(ppo, "gae", watched)
    make_trainer(ppo_config(whiten_rewards=whitened), make_task()).iterate()
    ((rewards, mask),) = seen
    assert (abs(float(rewards[mask].std()) - 1) < 0.01) == whitened


# ------------------------------------------------------------------------------------------------ scores, queries, ends


def rollouts_of(scores: list[float], ended: list[bool]) -> Rollouts:
    count = len(scores)
    whole = torch.zeros(count)
    texts = [""] * count
    return Rollouts([[2]] * count, [[3]] * count, texts, texts, torch.tensor(scores), whole, torch.tensor(ended))


def test_scores_are_normalised_then_cut_then_marked_down_where_no_end_came(ppo_config: Config) -> None:
    rollouts = rollouts_of([1.0, 5.0, 9.0], [True, True, False])
    for rule, last in (("none", 1.5), ("penalty", -0.5), ("replace", -2.0)):
        made = make_trainer(ppo_config(missing_eos=rule, missing_eos_penalty=2.0, score_clip=1.5), make_task())
        made.moments.add(torch.tensor([3.0, 7.0]))  # mean 5, deviation 2
        assert made.shape_scores(rollouts).tolist() == pytest.approx([-1.5, 0.0, last])


def test_the_scale_is_the_starting_policys_once_or_that_of_all_answers(ppo_config: Config) -> None:
    start, running = (make_trainer(ppo_config(score_normalisation=rule), make_task()) for rule in ("start", "running"))
    for _ in range(2):
        start.iterate()
        running.iterate()
    assert (start.moments.count, running.moments.count) == (24, 48)


def test_the_rate_rises_over_the_warm_up_and_falls_to_nothing(ppo_config: Config) -> None:
    rising = {"warmup_iterations": 1, "critic_learning_rate": 5e-2}
    for schedule, expected in (("linear", [5e-3, 7.5e-3, 5e-3, 2.5e-3]), ("constant", [5e-3, 1e-2, 1e-2, 1e-2])):
        updater = make_trainer(ppo_config(iterations=4, schedule=schedule, **rising), make_task()).updater
        for iteration, rate in enumerate(expected):
            updater.set_learning_rate(iteration)
            assert [group["lr"] for group in updater.optimizer.param_groups] == pytest.approx([rate, 5 * rate])


def test_queries_are_cut_to_a_drawn_number_of_first_tokens_or_to_what_fits(ppo_config: Config) -> None:
    long = list(range(100))
    queries = [clipped_query(long, f"0/{row}", ppo_config(query_tokens=[2, 8])) for row in range(200)]
    assert {len(query) for query in queries} == set(range(2, 9))
    assert all(query == long[: len(query)] for query in queries)
    assert clipped_query(long, "0/0", ppo_config(max_length=32)) == long[-20:]
    assert on_policy.truncated(ppo_config(max_length=32), [long, long[:20], long[:21]]) == 2
    assert on_policy.truncated(ppo_config(query_tokens=[2, 8], max_length=32), [long]) == 0


def test_answers_end_at_eos_or_at_their_cap_and_every_query_comes_once_a_pass(ppo_config: Config) -> None:
    made = make_trainer(ppo_config(batch_size=40, minibatch_size=40), make_task())
    _, rollouts = made.iterate()
    assert sorted(rollouts.queries) == sorted(QUERIES)
    for response, ended in zip(rollouts.responses, rollouts.ended.tolist(), strict=True):
        assert EOS not in response[:-1]
        assert ended == (response[-1] == EOS)
        assert ended or 8 <= len(response) <= 12


def test_the_scorer_reads_query_and_answer_as_text_and_each_row_gets_its_own_score(ppo_config: Config) -> None:
    made = make_trainer(ppo_config(), make_task())
    _, rollouts = made.iterate()
    for row, (query, response) in enumerate(zip(rollouts.queries, rollouts.responses, strict=True)):
        (prompt,), (completion,) = CODEC.prompts([query]), CODEC.completions([query], [response])
        assert (rollouts.prompts[row], rollouts.completions[row]) == (prompt, completion)
        assert rollouts.scores[row].item() == pytest.approx(threes([prompt], [completion])[0])
    assert len(set(rollouts.scores.tolist())) > 4


def test_the_scorer_is_passed_which_completions_ended(ppo_config: Config) -> None:
    def ends(prompts: list[str], completions: list[str], ended: list[bool]) -> Measures:
        return {"score": list(map(float, ended))}

    _, rollouts = make_trainer(ppo_config(), replace(make_task(), score=ends)).iterate()
    assert rollouts.scores.tolist() == [float(response[-1] == EOS) for response in rollouts.responses]
    assert 0 < rollouts.scores.sum() < len(rollouts.scores)


def test_an_answer_does_not_depend_on_the_batch_it_is_drawn_in(ppo_config: Config) -> None:
    made = make_trainer(ppo_config(), make_task())
    names = [f"0/{row}" for row in range(40)]
    together = made.sampler(QUERIES, names).responses
    made.sampler.batch = 3
    assert made.sampler(QUERIES, names).responses == together


# ------------------------------------------------------------------------------------------------ groups and critics


def test_the_rows_of_a_group_are_different_completions_of_one_query(ppo_config: Config) -> None:
    """Also where the number of its tokens is drawn; over the iterations every query comes once a pass."""
    made = make_trainer(ppo_config(group_size=4, query_tokens=[1, 6]), make_task())
    rollouts = [made.iterate()[1] for _ in range(2)]
    names = [f"{iteration}/{group}" for iteration in range(2) for group in range(6)]
    expected = [clipped_query(made.query(number), name, made.config) for number, name in enumerate(names)]
    rows = [query for each in rollouts for query in each.queries]
    assert rows == [query for query in expected for _ in range(4)]
    assert len({tuple(made.query(number)) for number in range(40)}) == len(set(map(tuple, QUERIES)))
    for each in rollouts:
        assert all(len({tuple(each.responses[row + n]) for n in range(4)}) > 1 for row in range(0, 24, 4))


def test_without_a_critic_there_is_no_value_head_and_no_value_metric(ppo_config: Config) -> None:
    def scores_alone(before: update.Snapshot, scores: Tensor, kl_coef: float) -> update.Targets:
        assert before.values is None
        return update.Targets(scores[:, None] * before.mask, kl_loss_coef=kl_coef)

    config, with_critic = ppo_config(), make_trainer(ppo_config(), make_task())
    made = Trainer(config, make_task(), scores_alone, None, Accelerator(cpu=True), MicroBatch(3), 16)
    metrics, expected = made.iterate()[0], with_critic.iterate()[0]
    assert {name for name, _ in made.model.named_parameters()} == {
        name for name, _ in with_critic.model.named_parameters() if not name.startswith("value_head.")
    }
    values = {"loss/value", "clip_fraction/value", "explained_variance", "value/mean", "return/mean"}
    assert set(metrics) == set(expected) - values | {"loss/kl"}
    assert metrics["kl"] == 0 and metrics["ratio/first"] == 1
    assert len(made.updater.optimizer.param_groups) == 1


# ----------------------------------------------------------------------------------------------------------- the update


def test_returns_are_the_advantages_before_whitening_with_the_values(ppo_config: Config) -> None:
    """With λ = 1 and no price of KL, the return of every token is its answer's score, whatever the critic predicted."""
    config = ppo_config(gae_lambda=1.0, whiten_advantages=True)
    mask = torch.arange(5)[None, :] >= 5 - torch.tensor([[2], [5], [4]])
    logprobs, reference, values, entropy = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    scores = torch.tensor([1.0, -2.0, 0.5])
    before = update.Snapshot(logprobs, reference, entropy, mask, values.where(mask, 0.0))
    estimates = ppo.advantage(config, before, scores, kl_coef=0.0)
    assert estimates.returns is not None
    assert torch.allclose(estimates.returns[mask], scores[:, None].expand(3, 5)[mask], atol=1e-5)
    plain = (scores[:, None] - values)[mask]
    assert torch.allclose(estimates.advantages[mask], (plain - plain.mean()) / plain.std(correction=0), atol=1e-4)


@pytest.mark.parametrize("world", [1, 3])
def test_every_epoch_has_each_row_once_in_an_order_of_its_own(world: int, ppo_config: Config) -> None:
    made, orders = ppo_config(), []
    lengths = [5 + 7 * row % 11 for row in range(made.batch_size)]
    for epoch in range(made.epochs):
        each = [Split(rank, world, MicroBatch(3)).minibatches(made, 2, epoch, lengths) for rank in range(world)]
        for parts in zip(*each, strict=True):
            assert len({part.rows for part in parts}) == 1
            assert sorted(row for part in parts for rows in part.micro_batches for row in rows) == sorted(parts[0].rows)
            assert all(len(rows) <= 3 for part in parts for rows in part.micro_batches)
            for part in parts:
                by_length = [lengths[row] for rows in part.micro_batches for row in rows]
                assert by_length == sorted(by_length)
        orders.append([row for minibatch in each[0] for row in minibatch.rows])
        assert sorted(orders[-1]) == list(range(made.batch_size))
    assert len(set(map(tuple, orders))) == made.epochs


def test_a_step_is_adams_on_the_clipped_gradient(ppo_config: Config) -> None:
    """The first step, in closed form: both moments are the gradient's own, so it is −η g / (|g| + ε)."""
    one = {"epochs": 1, "minibatch_size": 24, "max_grad_norm": 1e-4}
    made = make_trainer(ppo_config(**one), make_task())
    weights = update.trained(made.model.parameters())
    before = [weight.detach().clone() for weight in weights]
    metrics, _ = made.iterate()
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    assert len(gradients) == len(weights)
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    assert float(whole.norm()) == pytest.approx(1e-4, rel=1e-3)
    assert metrics["grad_norm"] > 0.01
    for weight, start, gradient in zip(weights, before, gradients, strict=True):
        expected = start - 1e-2 * gradient / (gradient.abs() + 1e-5)
        assert torch.allclose(weight, expected, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- guards


def test_an_update_too_far_from_the_answers_is_not_made_and_ends_the_epochs(ppo_config: Config) -> None:
    bounded = make_trainer(ppo_config(target_kl=1e-9), make_task()).iterate()[0]
    assert bounded["updates"] == 1  # the first minibatch's divergence is exactly 0
    assert make_trainer(ppo_config(target_kl=None), make_task()).iterate()[0]["updates"] == 12


def test_honest_rollouts_pass_and_impossible_ones_trip(ppo_config: Config) -> None:
    fine, made = torch.ones(4), ppo_config()
    check_rollouts(made, 1, fine, torch.tensor([-4.9] * 4), entropy=1.0)
    broken = {
        "KL of 4 completions summed to": (fine, torch.tensor([-5.1] * 4), 1.0),
        "the KL was nan": (fine, torch.tensor([1.0, float("nan")]), 1.0),
        "entropy fell": (fine, torch.zeros(4), 0.001),
        "score was not finite": (torch.tensor([1.0, float("inf")]), torch.zeros(2), 1.0),
    }
    for message, (scores, kl, entropy) in broken.items():
        with pytest.raises(TrippedError, match=message):
            check_rollouts(made, 1, scores, kl, entropy)


def test_probabilities_that_are_not_the_samplers_trip(ppo_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = trainer.reference_logprobs
    monkeypatch.setattr(trainer, "reference_logprobs", lambda *args: honest(*args) + 0.3)
    with pytest.raises(TrippedError, match="honest sampling"):
        make_trainer(ppo_config(), make_task()).iterate()


# -------------------------------------------------------------------------------------------------------- two processes


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def worker_main(rank: int, world: int, port: int, made: PPOConfig, runtime: Any, path: Path, lora: bool) -> None:
    """Two iterations as one of `world` processes; rank 0 writes the first gradient, the metrics and the weights."""
    if world > 1:
        variables = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in variables.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    accelerator = on_policy.new_accelerator(runtime)
    assert accelerator.num_processes == world
    one = make_trainer(made, make_task(lora=lora), accelerator=accelerator)
    gradients: list[Tensor] = []
    step = one.updater.optimizer.step

    def noted() -> None:
        gradients.append(
            torch.cat([weight.grad.flatten().clone() for weight in update.trained(one.model.parameters())])
        )
        step()

    one.updater.optimizer.step = noted  # type: ignore[method-assign]
    metrics, rollouts = zip(*[one.iterate() for _ in range(2)], strict=True)
    weights = torch.cat([weight.detach().flatten() for weight in update.trained(one.model.parameters())])
    responses = [each.responses for each in rollouts]
    torch.save([gradients[0], metrics, responses, weights], path / f"{world}-{rank}.pt")


@pytest.mark.parametrize("lora", [False, True])
def test_two_processes_make_the_update_of_one(
    lora: bool, ppo_config: Config, composed: Callable[..., Any], tmp_path: Path
) -> None:
    """Equal answers; gradients within 1e-5 of their largest: sums are added in another order, in other padding.

    Weights are compared after 24 steps of Adam, which turns a gradient's last bit near zero into a visible step; its
    epsilon bounds that: 1e-3 of the distance gone.
    """
    made, runtime, port = ppo_config(learning_rate=1e-3), composed().runtime, free_port()
    fork = multiprocessing.get_context("fork")
    for world in (1, 2):
        processes = [
            fork.Process(target=worker_main, args=(rank, world, port, made, runtime, tmp_path, lora))
            for rank in range(world)
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
    begun = update.trained(ActorCritic(make_task(lora=lora).policy, SHARED, 1.0).parameters())
    start = torch.cat([weight.flatten() for weight in begun]).detach()
    gone = float((alone[3] - start).norm())
    assert float((first[3] - alone[3]).norm()) < 1e-3 * gone
