"""Metrics of answers, each against a second derivation."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.optimize import minimize
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefsweep.data.views import encode_prompts
from prefsweep.evaluation import by_group, divergence, judged, overlap, preference, text
from prefsweep.evaluation.by_group import ALL
from prefsweep.evaluation.values import means
from prefsweep.models import decoding
from prefsweep.models.loading import load_policy, load_tokenizer
from prefsweep.pipeline.files import read_jsonl
from workplace import Workplace

TEXTS = ["the cat sat on the mat", "a dog ran", "the cat sat on the cat sat on the cat"]


# ------------------------------------------------------------------------------------------------------------ the text


def test_a_perfect_match_scores_full_marks_and_nothing_in_common_none() -> None:
    long = ["the cat sat on the mat today", "a dog ran over the hill"]
    assert all(value == 1 for row in overlap.rouge(long, long) for value in row.values())
    assert overlap.Bleu(long, long)(ALL) == {"text/bleu": pytest.approx(100), "text/bleu1": pytest.approx(100)}
    apart = overlap.rouge(["x y z"], ["a b c"])[0]
    assert set(apart.values()) == {0.0}


def test_bleu_1_is_clipped_precision_times_the_brevity_penalty() -> None:
    """Papineni et al. 2002, section 2: two of "the the the the" count, and a short answer pays."""
    completions, references = ["the the the the", "a dog"], ["the cat on the mat", "a dog ran off"]
    precision, brevity = (2 + 2) / 6, math.exp(1 - 9 / 6)
    assert overlap.Bleu(completions, references)(ALL)["text/bleu1"] == pytest.approx(100 * precision * brevity)
    assert "nrefs:1" in overlap.signature()


def test_rouge_1_and_l_by_hand() -> None:
    (scores,) = overlap.rouge(["the cat was found under the bed"], ["the cat was under the bed"])
    assert scores["text/rouge1"] == pytest.approx(2 * (6 / 7) * 1 / (6 / 7 + 1))
    assert scores["text/rougeL"] == pytest.approx(scores["text/rouge1"])
    assert scores["text/rouge2"] == pytest.approx(2 * (4 / 6) * (4 / 5) / (4 / 6 + 4 / 5))
    assert overlap.rouge(["x"], [None]) == [{}]


def test_variety_by_hand() -> None:
    assert text.distinct(TEXTS[:2], 1) == 8 / 9  # "the" twice
    assert text.distinct(["a"], 2) == 0
    assert text.repetition(TEXTS[0]) == 0
    assert text.repetition(TEXTS[2]) == pytest.approx(3 / 7)
    assert text.repetition("a b") == 0


def test_a_run_measures_base_start_and_result_alike(tmp_path: Path) -> None:
    """Each metric again by numpy, rouge_score, sacrebleu and transformers, and by the run with that start as result."""
    workplace = Workplace(tmp_path)
    longer = ["stages.sft.max_steps=12", "stages.sft.learning_rate=3e-3", "scorer@judge=deberta-v3"]
    assert workplace.run("-m", "method=sft,sft+dpo", *longer, "sweep=s", "tracking=off").returncode == 0
    runs = workplace.jobs("s")
    run, before = runs["sft+dpo/1"], runs["sft/1"]
    stages, metrics = tmp_path / "outputs/stages", run["metrics"]
    eos = load_tokenizer_of(run, stages).eos_token_id
    for subject in ("base", "start", "result"):
        identity = run["stages"][f"judge_completions/{subject}"]
        rows = list(read_jsonl(stages / "judge_completions" / identity / "completions.jsonl"))
        scores = np.array([row["scores"]["score"] for row in rows])
        prefix = "" if subject == "result" else f"{subject}_"
        judged_metrics = [metrics[f"judge/{prefix}{name}"] for name in ("mean", "median", "std")]
        assert judged_metrics == pytest.approx([scores.mean(), np.quantile(scores, 0.5), scores.std()])
        tokens = [row["completion_tokens"] for row in rows]
        assert metrics[f"text/{prefix}length"] == pytest.approx(np.mean([len(row) for row in tokens]))
        assert metrics[f"text/{prefix}ended"] == pytest.approx(np.mean([row[-1] == eos for row in tokens]))
        repeated = [text.repetition(row["completion"]) for row in rows]
        assert metrics[f"text/{prefix}repetition"] == pytest.approx(np.mean(repeated))
    scores_of = {}
    for part in ("opponents", "result", "base"):
        folder = stages / "judge_completions" / run["stages"][f"judge_completions/{part}"]
        for row in read_jsonl(folder / "completions.jsonl"):
            scores_of.setdefault((part, row["id"]), []).append(row["scores"]["score"])
    prompts = {prompt for _, prompt in scores_of}
    duels = [
        np.sign(np.subtract.outer(scores_of["result", prompt], scores_of["opponents", prompt])) for prompt in prompts
    ]
    assert {duel.shape[1] for duel in duels} == {2}
    assert metrics["judge/win_rate"] == pytest.approx(np.mean([(duel.mean() + 1) / 2 for duel in duels]))
    assert metrics["judge/ties"] == pytest.approx(np.mean([(duel == 0).mean() for duel in duels]))
    assert any(scores_of["opponents", prompt][:1] != scores_of["base", prompt][:1] for prompt in prompts)
    assert metrics["kl/start_to_base"] == pytest.approx(before["metrics"]["kl/base"])
    assert metrics["kl/start_to_base"] > 0
    assert len({metrics[f"judge/{name}"] for name in ("mean", "start_mean", "base_mean")}) == 3
    assert before["metrics"]["kl/start_to_base"] == 0
    base = AutoModelForCausalLM.from_pretrained(stages / "pretrain" / run["stages"]["pretrain"])
    assert metrics["text/coherence"] == pytest.approx(np.mean([surprise(base, row) for row in rows]), rel=1e-5)
    completions, references = [row["completion"] for row in rows], [row["chosen"] for row in rows]
    kinds = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    scorer = RougeScorer(kinds, use_stemmer=True)
    rouge = [scorer.score(*texts) for texts in zip(references, completions, strict=True)]
    for kind in kinds:
        assert metrics[f"text/{kind}"] == pytest.approx(np.mean([row[kind].fmeasure for row in rouge]))
    assert metrics["text/bleu"] == pytest.approx(sacrebleu.corpus_bleu(completions, [references]).score)
    by_prompts = {
        row["metric"]: row for row in read_jsonl(stages / "evaluate" / run["stages"]["evaluate"] / by_group.FILE)
    }
    for name, row in by_prompts.items():
        assert np.average(row["values"], weights=row["rows"]) == pytest.approx(metrics[name]), name
    without = {name for name in metrics.keys() - by_prompts.keys() if not name.endswith("median")}
    assert without == {"judge/accuracy", "judge/length_accuracy", "judge/pairs", "text/distinct1", "text/distinct2"} | {
        name for name in without if name.startswith("judge/pairs_")
    }


def surprise(model: Any, row: dict[str, Any]) -> float:
    """The mean −log π of a completion's tokens by a plain forward over one row."""
    prompt, completion = row["prompt_tokens"], row["completion_tokens"]
    with torch.no_grad():
        logs = model(torch.tensor([prompt + completion])).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return -float(logs.gather(-1, torch.tensor(completion)[:, None]).mean())


def load_tokenizer_of(run: dict[str, Any], stages: Path) -> Any:
    return AutoTokenizer.from_pretrained(stages / "pretrain" / run["stages"]["pretrain"])


# ------------------------------------------------------------------------------------------------------ by prompt group

GROUPS = [f"g{number // 3}" for number in range(40)]  # the last one is smaller


def test_a_mean_has_one_value_a_group_by_either_way() -> None:
    values = np.random.default_rng(0).normal(size=40)
    by_mean = by_group.averaged(GROUPS, [{"x": value} for value in values.tolist()])
    by_jackknife = by_group.jackknifed(GROUPS, lambda indices: {"x": float(values[indices].mean())})
    assert by_jackknife.metrics == pytest.approx(by_mean.metrics)
    (one,), (other,) = by_mean.by_group, by_jackknife.by_group
    assert one["groups"] == other["groups"] == sorted(set(GROUPS)) and one["rows"] == other["rows"]
    assert other["values"] == pytest.approx(one["values"])


def test_what_is_no_mean_has_values_whose_mean_it_is() -> None:
    """Its own value, and for a ratio of means the variance of the delta method."""
    rng = np.random.default_rng(0)
    above, below = rng.normal(3, 1, 400), rng.normal(5, 1, 400)
    groups = [f"g{number:03}" for number in range(400)]
    measured = by_group.jackknifed(groups, lambda indices: {"x": float(above[indices].sum() / below[indices].sum())})
    (row,), ratio = measured.by_group, measured.metrics["x"]
    assert np.mean(row["values"]) == pytest.approx(ratio)
    assert np.std(row["values"]) == pytest.approx(np.std((above - ratio * below) / below.mean()), rel=0.01)
    rows = [
        {
            "id": group,
            "group": group,
            "sample": 0,
            "completion": TEXTS[number % 3] + " x" * (number % 7),
            "chosen": other,
        }
        for number, (group, other) in enumerate(zip(groups, TEXTS * 134, strict=False))
    ]
    result = text.metrics(rows)
    assert result.metrics["text/bleu"] == pytest.approx(
        sacrebleu.corpus_bleu([row["completion"] for row in rows], [[row["chosen"] for row in rows]]).score
    )
    assert [row["metric"] for row in result.by_group] == ["text/bleu", "text/bleu1"]
    for row in result.by_group:
        assert np.average(row["values"], weights=row["rows"]) == pytest.approx(result.metrics[row["metric"]])


def test_a_median_of_few_levels_has_no_values_by_group() -> None:
    column = np.random.default_rng(0).normal(size=40)
    measured = by_group.median(GROUPS, "x", column)
    assert np.average(measured.by_group[0]["values"], weights=measured.by_group[0]["rows"]) == pytest.approx(
        np.median(column)
    )
    assert by_group.median(GROUPS, "x", column.round()).by_group == []


def test_cas_and_one_group_without_which_it_is_not_defined() -> None:
    values = [{"judge/hmr": 1.0}, {"judge/hmr": 0.0}, {"judge/hpr": 1.0}]
    assert judged.cas(["a", "b", "c"], values) == by_group.Measured({"judge/cas": 0.75})
    assert len(judged.cas(["a", "b", "a", "b"], [*values, {"judge/hpr": 0.0}]).by_group) == 1


# ----------------------------------------------------------------------------------------------------------- the judge


def row(number: int, score: float, length: int = 5, kind: str | None = None) -> dict[str, Any]:
    prompt = {"id": f"p{number}", "group": f"p{number}", "sample": 0, "kind": kind}
    return prompt | {"scores": {"score": score}, "completion_tokens": [1] * length}


def paired(base: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """One opponent a completion, as by common random numbers."""
    return judged.opponents(base, base, [])


def test_a_win_rate_is_over_all_draws_of_the_base_for_the_prompt() -> None:
    ours = [row(0, 1.0), row(1, 0.0)]
    draws = [row(number, score) for number in (1, 0) for score in (0.0, 1.0, 2.0, -1.0)]
    opponents = judged.opponents(ours, [], draws)
    assert [{other["id"] for other in others} for others in opponents] == [{"p0"}, {"p1"}]
    first, second = judged.values(ours, opponents, {}, {})
    assert (first["judge/win_rate"], first["judge/ties"]) == (2.5 / 4, 1 / 4)
    assert (second["judge/win_rate"], second["judge/ties"]) == (1.5 / 4, 1 / 4)
    metrics = judged.metrics(ours, [row(0, 0.0)], [row(0, 0.0)], opponents, [{}] * 2, {}).metrics
    assert metrics["judge/win_rate_length_controlled"] == pytest.approx((2.5 + 1.5 + 1) / (8 + 2))


def test_without_draws_it_is_against_the_completion_by_the_same_random_numbers() -> None:
    base = [row(number, float(sample)) | {"sample": sample} for number in range(2) for sample in (1, 0)]
    assert judged.opponents(base[::-1], base, []) == [[other] for other in base[::-1]]


def test_wins_ties_and_thresholds() -> None:
    ours = [row(0, 1.0, kind="harmful"), row(1, -3.0, kind="harmful"), row(2, -1.0, kind="helpful"), row(3, 0.0)]
    base = [row(0, 0.0), row(1, -3.0), row(2, 5.0), row(3, -1.0)]
    pairs = {"p0": {"chosen": 2.0, "rejected": 0.0}, "p3": {"chosen": 0.0, "rejected": 0.0}}
    values = judged.values(ours, paired(base), pairs, {"harmful": -3.0, "helpful": -2.0})
    metrics = means(values)
    assert metrics["judge/win_rate"] == (1 + 0.5 + 0 + 1) / 4 and metrics["judge/ties"] == 0.25
    assert metrics["judge/win_rate_chosen"] == (0 + 0.5) / 2 and metrics["judge/ties_chosen"] == 0.5
    assert metrics["judge/hmr"] == 0.5, "a score at the threshold is not above it"
    assert metrics["judge/hpr"] == 1.0
    assert (metrics["judge/mean_harmful"], metrics["judge/mean_helpful"]) == (-1.0, -1.0)
    assert judged.metrics(ours, base, base, paired(base), values, {}).metrics["judge/cas"] == 0.75


def test_the_judges_own_accuracy_stands_beside_that_of_length() -> None:
    pairs = [
        {"id": "a", "chosen": 1.0, "rejected": 0.0, "chosen_length": 9, "rejected_length": 3},
        {"id": "b", "chosen": 0.0, "rejected": 0.0, "chosen_length": 9, "rejected_length": 3},
        {"id": "c", "chosen": 0.0, "rejected": 2.0, "chosen_length": 9, "rejected_length": 3},
    ]
    assert judged.agreement(pairs) == {"judge/accuracy": 0.5, "judge/length_accuracy": 1.0, "judge/pairs": 3}


def test_the_logistic_fit_is_that_of_a_general_optimiser() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    y = (rng.random(300) < 1 / (1 + np.exp(-(0.4 + 1.5 * x)))) * 1.0
    y[:20] = 0.5  # ties

    def loss(weights: np.ndarray) -> float:
        z = weights[0] + weights[1] * x
        return float((np.logaddexp(0, z) - y * z).sum() + 1e-3 / 2 * weights[1] ** 2)

    assert judged.logistic(x, y) == pytest.approx(minimize(loss, np.zeros(2), tol=1e-12).x, abs=1e-4)


def test_a_win_rate_that_is_all_length_is_none_at_equal_length() -> None:
    rng = random.Random(0)
    lengths = [(rng.randint(5, 50), rng.randint(5, 50)) for _ in range(2000)]
    base = [row(number, theirs + rng.gauss(0, 5), theirs) for number, (_, theirs) in enumerate(lengths)]
    longer = [row(number, ours + 10 + rng.gauss(0, 5), ours + 10) for number, (ours, _) in enumerate(lengths)]
    rate = means(judged.values(longer, paired(base), {}, {}))["judge/win_rate"]
    assert rate > 0.65
    metrics = judged.metrics(longer, base, base, paired(base), [{}] * 2000, {}).metrics
    assert metrics["judge/win_rate_length_controlled"] == pytest.approx(0.5, abs=0.05)
    assert "judge/win_rate_chosen_length_controlled" not in metrics
    chosen = {
        row["id"]: {"chosen": row["scores"]["score"], "chosen_length": len(row["completion_tokens"])} for row in base
    }
    longer = [{**row, "completion": "." * len(row["completion_tokens"])} for row in longer]
    metrics = judged.metrics(longer, base, base, paired(base), [{}] * 2000, chosen).metrics
    assert metrics["judge/win_rate_chosen_length_controlled"] == pytest.approx(0.5, abs=0.05)


def test_at_equal_lengths_it_is_the_win_rate() -> None:
    ours, base = [row(n, float(n % 4 > 0)) for n in range(400)], [row(n, 0.5) for n in range(400)]
    metrics = judged.metrics(ours, base, base, paired(base), [{}] * 400, {}).metrics
    assert metrics["judge/win_rate_length_controlled"] == pytest.approx(0.75, abs=0.002)


# --------------------------------------------------------------------------------------------------- the probabilities


@pytest.fixture
def policies(composed: Callable[..., Any], model_folders: dict[str, Path]) -> tuple[Any, Any, Any]:
    config = composed("model=gpt2", f"model.path={model_folders['gpt2']}")
    policy, start = load_policy(config.model, None).eval(), load_policy(config.model, None).eval()
    with torch.no_grad():
        policy.transformer.h[0].mlp.c_fc.weight.mul_(1.5)
    return config, policy, start


def test_in_the_world_a_policys_kl_is_what_other_answers_of_it_say(policies: tuple[Any, Any, Any]) -> None:
    """The truth by transformers' own sampling and its own log-probabilities, Σ log π(y) − log π_ref(y) over as
    many answers: unbiased, and noisier, so the two agree within that noise, of which ours has less."""
    from prefsweep.data.sources import load

    config, policy, base = policies
    with torch.no_grad():  # surer of itself, so that KL(π_ref ‖ π) is another number
        policy.transformer.ln_f.weight.mul_(4)
    tokenizer = load_tokenizer(config.model, None)
    eos, pad, cap, each = tokenizer.eos_token_id, tokenizer.pad_token_id, 10, 250
    prompts = encode_prompts([row.prompt for row in load(config.dataset, "test")[:6]], tokenizer)
    torch.manual_seed(0)
    sampled = []
    for prompt in prompts:
        batch = torch.tensor([prompt] * each)
        out = policy.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            do_sample=True,
            top_k=0,
            max_new_tokens=cap,
            min_new_tokens=1,
            eos_token_id=eos,
            pad_token_id=pad,
            suppress_tokens=None,
        )
        with torch.no_grad():
            ours, theirs = (model(out).logits.log_softmax(-1)[:, len(prompt) - 1 : -1] for model in (policy, base))
        completions = out[:, len(prompt) :, None]
        ended = (completions.squeeze(-1) == eos).cumsum(-1)
        mask = (ended - (completions.squeeze(-1) == eos).long()) == 0
        sampled += (((ours - theirs).gather(-1, completions).squeeze(-1)) * mask).sum(-1).tolist()
    uniform = decoding.uniforms([f"{index}/{number}" for index in range(6) for number in range(each)], cap, 3)
    repeated = [prompt for prompt in prompts for _ in range(each)]
    drawn = decoding.sample(policy, repeated, uniform, eos, pad, 1.0)
    rows = [
        {"prompt_tokens": prompt, "completion_tokens": completion}
        for prompt, completion in zip(repeated, drawn, strict=True)
    ]
    values = divergence.values(policy, base, base, rows, divergence.Forward(pad, 64, "fp32"), True)
    kls = [row["kl/base"] for row in values]
    errors = [np.std(column) / math.sqrt(len(column)) for column in (kls, sampled)]
    assert np.mean(kls) == pytest.approx(np.mean(sampled), abs=4 * math.hypot(*errors))
    assert np.mean(kls) > 20 * errors[0] and errors[0] < errors[1] / 2


def test_coherence_is_the_bases_mean_surprise(policies: tuple[Any, Any, Any]) -> None:
    _, policy, base = policies
    rows = [{"prompt_tokens": [5, 6], "completion_tokens": [7, 8, 0]}, {"prompt_tokens": [9], "completion_tokens": [4]}]
    forward = divergence.Forward(0, 2, "fp32")
    for with_kl in (True, False):
        values = divergence.values(policy, base, base, rows, forward, with_kl)
        assert ("kl/base" in values[0]) == with_kl
        for row, value in zip(rows, values, strict=True):
            assert value["text/coherence"] == pytest.approx(surprise(base, row), abs=1e-5)


def test_the_dpo_loss_and_perplexity_of_test_pairs(policies: tuple[Any, Any, Any]) -> None:
    from prefsweep.data.sources import load

    config, policy, start = policies
    tokenizer = load_tokenizer(config.model, None)
    pairs = load(config.dataset, "test")[:6]
    forward = divergence.Forward(tokenizer.pad_token_id, 4, "fp32")
    metrics = preference.metrics(policy, start, pairs, tokenizer, 96, None, forward, beta=0.3).metrics

    def logprob(model: Any, prompt: str, completion: str) -> tuple[float, int]:
        head, tail = tokenizer(prompt)["input_ids"], [*tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logs = model(torch.tensor([head + tail])).logits.log_softmax(-1)[0, len(head) - 1 : -1]
        return float(sum(logs[index, token] for index, token in enumerate(tail))), len(tail)

    sides = {
        side: [[logprob(m, p.prompt, p.completion(side)) for p in pairs] for m in (policy, start)]
        for side in ("chosen", "rejected")
    }
    gains = {side: [a[0] - b[0] for a, b in zip(*sides[side], strict=True)] for side in sides}
    margins = [a - b for a, b in zip(gains["chosen"], gains["rejected"], strict=True)]
    assert metrics["preference/accuracy"] == sum((m > 0) + (m == 0) / 2 for m in margins) / 6
    assert metrics["preference/margin"] == pytest.approx(sum(margins) / 6, abs=1e-4)
    assert metrics["preference/loss"] == pytest.approx(
        sum(math.log1p(math.exp(-0.3 * m)) for m in margins) / 6, abs=1e-4
    )
    for side in sides:
        total, tokens = map(sum, zip(*sides[side][0], strict=True))
        assert metrics[f"preference/perplexity_{side}"] == pytest.approx(math.exp(-total / tokens), rel=1e-4)
