"""Scorers on small models of each real architecture, saved in the hub's layout with tokenizers of their own kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from architectures import DECODERS, ENCODERS, save_classifier
from prefsweep import __main__
from prefsweep.config.schema import ClassifierConfig, PairInputConfig, TrainedConfig
from prefsweep.data.dialogue import HH, KALEIDOSCOPE, bare_question
from prefsweep.data.frames import joined_rows, paired_rows, templated_rows
from prefsweep.errors import UserError
from prefsweep.models import scorers
from prefsweep.models.batching import batches_by_length
from prefsweep.models.heads import REWARD, RewardModel, last_states
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import read_jsonl, write_jsonl
from prefsweep.stages import judging
from prefsweep.stages.generate import SAMPLES

CPU = torch.device("cpu")
PROMPTS = ["This quiet drama", "", "My sister would never", "The actor handled the climax beautifully, and", "The"]
COMPLETIONS = [
    " was filmed near the harbor.",
    "A witty script.",
    " call this comedy a bore. The plot was dull.",
    " the score was witty. Not once was it dull, and the ending was charming. I would watch it again.",
    " end.",
]


# ----------------------------------------------------------------------------------------------------- what is asked


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with a freshly initialised classifier of this architecture and its tokenizer."""
    made: dict[Any, Path] = {}

    def make(kind: str, labels: tuple[str, ...]) -> Path:
        if (kind, labels) not in made:
            made[kind, labels] = save_classifier(kind, labels, tmp_path_factory.mktemp(kind))
        return made[kind, labels]

    return make


def at(folder: Path, max_length: int) -> dict[str, Any]:
    """What a scorer's config says of where its model is and what it reads."""
    where = {"id": None, "revision": None, "path": str(folder), "architecture": None}
    return {"name": "mine", "code_version": 1, "max_length": max_length, "prompt_tokens": None, **where}


def classifier(folder: Path, label: str = "positive", output: str = "logit", max_length: int = 64) -> Any:
    target = "prefsweep.models.scorers.Classifier"
    return load_scorer(ClassifierConfig(_target_=target, label=label, output=output, **at(folder, max_length)), CPU)


def pair_input(folder: Path, max_length: int = 64, question: str = "prompt") -> Any:
    target = "prefsweep.models.scorers.PairInput"
    return load_scorer(PairInputConfig(_target_=target, question=question, **at(folder, max_length)), CPU)


def trained_folder(folder: Path, to: Path, **metrics: float) -> Path:
    """What the reward stage leaves, with a head that is not zero."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = RewardModel(AutoModel.from_pretrained(folder))
    torch.manual_seed(5)
    torch.nn.init.normal_(model.head.weight)
    to.mkdir(exist_ok=True)
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    measured = {"validation/accuracy": 0.9, "validation/length_accuracy": 0.6, **metrics}
    record = {"template": "{prompt}{completion}", "max_length": 64, "prompt_tokens": None, "metrics": measured}
    (to / REWARD).write_text(json.dumps(record))
    return to


def trained(folder: Path) -> Any:
    return load_scorer(TrainedConfig("prefsweep.models.scorers.Trained", "trained", 1, None, None, str(folder)), CPU)


# ------------------------------------------------------------------------------------------------------- labels

LABELS = ("NEGATIVE", "POSITIVE")


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_label_is_found_by_name_whatever_the_order(kind: str, hub: Callable[..., Path], tmp_path: Path) -> None:
    folder = hub(kind, LABELS)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    head = [weight for name, weight in model.named_parameters() if len(weight) == 2 and "embed" not in name]
    with torch.no_grad():
        for weight in head:
            weight.copy_(weight.flip(0))
    model.config.id2label = {0: "Positive", 1: "Negative"}
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path)
    assert head
    for label in ("POSITIVE", "negative"):
        ours = classifier(folder, label).score(PROMPTS, COMPLETIONS)["score"]
        swapped = classifier(tmp_path, label).score(PROMPTS, COMPLETIONS)["score"]
        assert ours == pytest.approx(swapped, abs=1e-5)


def test_an_unknown_label_is_one_line_that_lists_them(hub: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"^label=positiv: .*nearest: positive\); there are: NEGATIVE, POSITIVE$"):
        classifier(hub("bert", ("NEGATIVE", "POSITIVE")), "positiv")


def test_a_probability_is_the_softmax_of_the_logits(hub: Callable[..., Path]) -> None:
    folder = hub("bert", LABELS)
    positive, negative = (
        torch.tensor(classifier(folder, name).score(PROMPTS, COMPLETIONS)["score"]) for name in ("positive", "negative")
    )
    probabilities = classifier(folder, output="probability").score(PROMPTS, COMPLETIONS)["score"]
    assert probabilities == pytest.approx((positive - negative).sigmoid().tolist(), abs=1e-6)


def test_a_classifier_is_refused_as_a_pair_scorer(hub: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="NEGATIVE, POSITIVE"):
        pair_input(hub("bert", LABELS))


@pytest.mark.parametrize(
    "prompt",
    [
        HH.prompt([("user", "Is it witty?")]),
        KALEIDOSCOPE.prompt([("user", "Is it witty?")]),
    ],
)
def test_a_pair_scorer_reads_the_bare_question_and_the_bare_answer(prompt: str, hub: Callable[..., Path]) -> None:
    """As the model's card has it: tokenizer(question, answer)."""
    folder = hub("deberta", ("LABEL_0",))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        card = model(**tokenizer("Is it witty?", "Very.", return_tensors="pt")).logits.item()
    assert pair_input(folder, question="bare").score([prompt], [" Very."])["score"] == [pytest.approx(card, abs=1e-5)]
    assert pair_input(folder).score([prompt], [" Very."])["score"] != [pytest.approx(card, abs=1e-5)]


@pytest.mark.parametrize(
    "prompt",
    [
        HH.prompt([("user", "Hello."), ("assistant", "Hello."), ("user", "Is it witty?")]),
        HH.prompt([("system", "Be brief."), ("user", "Is it witty?")]),
        HH.prompt([("user", "Is it witty?")])[3:],  # its beginning was cut
        "The plot",
    ],
)
def test_a_prompt_that_is_no_single_question_is_read_as_it_is(prompt: str) -> None:
    assert bare_question(prompt) == prompt


# -------------------------------------------------------------------------------- the numbers are transformers' own


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_classifier_scores_as_its_model_does_one_text_at_a_time(kind: str, hub: Callable[..., Path]) -> None:
    folder = hub(kind, LABELS)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = [
            model(**tokenizer(prompt + completion, return_tensors="pt")).logits[0, 1].item()
            for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
        ]
    assert classifier(folder).score(PROMPTS, COMPLETIONS)["score"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_pair_scorer_scores_as_its_model_does_one_pair_at_a_time(kind: str, hub: Callable[..., Path]) -> None:
    folder = hub(kind, ("LABEL_0",))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = [
            model(**tokenizer(prompt, completion, return_tensors="pt")).logits[0, 0].item()
            for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
        ]
    assert pair_input(folder).score(PROMPTS, COMPLETIONS)["score"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_trained_scorer_reads_the_whole_text(kind: str, hub: Callable[..., Path], tmp_path: Path) -> None:
    """EOS is part of it, also where the pad token is the same (GPT-2) or the tokenizer puts none there."""
    folder = hub(kind, LABELS)
    scorer = trained(trained_folder(folder, tmp_path))
    tokenizer, backbone = PreTrainedTokenizerFast.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        head, tail = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
        around = {"gpt2": ([], [2]), "opt": ([2], [2]), "roberta": ([0], [2])}.get(kind, ([2], [3]))
        ids = torch.tensor([[*around[0], *head, *tail, *around[1]]])
        with torch.no_grad():
            states = backbone(ids).last_hidden_state[0]
            expected.append(scorer.model.head(states[-1]).item())
    assert scorer.score(PROMPTS, COMPLETIONS)["score"] == pytest.approx(expected, abs=1e-5)


def test_the_last_state_is_found_by_length_and_not_by_the_pad_token() -> None:
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    attention = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert torch.equal(last_states(hidden, attention), torch.stack([hidden[0, 1], hidden[1, 3]]))


# ----------------------------------------------------------------------------------------- batches, order, padding


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_score_does_not_depend_on_the_texts_beside_it(
    kind: str, hub: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub(kind, LABELS)
    for scorer in (classifier(folder), trained(trained_folder(folder, tmp_path))):
        together = scorer.score(PROMPTS, COMPLETIONS)["score"]
        backwards = scorer.score(PROMPTS[::-1], COMPLETIONS[::-1])["score"][::-1]
        monkeypatch.setattr(scorers, "BATCH_TOKENS", 1)
        alone = scorer.score(PROMPTS, COMPLETIONS)["score"]
        monkeypatch.undo()
        assert together == pytest.approx(alone, abs=1e-5)
        assert together == pytest.approx(backwards, abs=1e-5)
        assert len({round(value, 3) for value in together}) == len(PROMPTS)


def test_batches_hold_rows_of_like_length_and_each_row_once() -> None:
    lengths = [4000, 10, 4000, 10, 9000, 12]
    assert list(batches_by_length(lengths, batch_tokens=8192)) == [[1, 3, 5], [0, 2], [4]]
    assert list(batches_by_length(lengths, batch_tokens=8192, equal_only=True)) == [[1, 3], [5], [0, 2], [4]]
    assert list(batches_by_length(lengths, 2)) == [[1, 3], [5, 0], [2, 4]]
    assert list(batches_by_length([], 2)) == []


# -------------------------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_text_that_is_too_long_loses_its_prompt_and_says_so(kind: str, hub: Callable[..., Path]) -> None:
    scorer = classifier(hub(kind, LABELS))
    completion = " The plot was dull."
    long = scorer.score([20 * "The script was witty. ", "Short."], [completion, completion])
    assert long["truncated"] == [1.0, 0.0] and long["prompt_mostly_truncated"] == [1.0, 0.0]
    tail = scorer.tokenizer(completion, add_special_tokens=False)["input_ids"]
    (ids,) = joined_rows([20 * "The script was witty. "], [completion], scorer.tokenizer, 64).ids
    end = len(scorer.tokenizer("")["input_ids"]) // 2 if kind in ENCODERS else 0
    assert len(ids) == (64 - 2 * end) // 2 + len(tail) + 2 * end  # half of the room is the prompt's
    assert ids[len(ids) - end - len(tail) : len(ids) - end] == tail


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_question_that_is_too_long_is_cut_and_its_answer_kept(kind: str, hub: Callable[..., Path]) -> None:
    scorer = pair_input(hub(kind, ("LABEL_0",)))
    completion = " The plot was dull."
    measures = scorer.score([40 * "Was it witty? ", "Was it?", "Was it?"], [completion, completion, 40 * completion])
    assert measures["truncated"] == [1.0, 0.0, 1.0]
    rows = paired_rows([40 * "Was it witty? "], [completion], scorer.tokenizer, 64)
    tail = scorer.tokenizer(completion, add_special_tokens=False)["input_ids"]
    assert rows.ids[0][-1 - len(tail) : -1] == tail
    assert rows.cut.metrics() == {
        "rows": 1,
        "prompts_truncated": 1,
        "prompts_mostly_truncated": 1,
        "completions_truncated": 0,
    }


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_rows_are_what_the_tokenizer_makes_of_them(kind: str, hub: Callable[..., Path]) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(hub(kind, LABELS))
    joined = joined_rows(PROMPTS, COMPLETIONS, tokenizer, 64)
    whole = [prompt + completion for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert joined.ids == tokenizer(whole)["input_ids"]
    if kind in ENCODERS:
        both = tokenizer(PROMPTS, COMPLETIONS)
        rows = paired_rows(PROMPTS, COMPLETIONS, tokenizer, 64)
        assert rows.ids == both["input_ids"]
        if "token_type_ids" in both:
            assert rows.segments == both["token_type_ids"]


def test_a_template_says_who_speaks_and_keeps_the_answer_last(tokenizer: Any) -> None:
    rows = templated_rows(["Is it {good}?"], [" Yes."], tokenizer, "User: {prompt}\nAssistant:{completion}", 96)
    assert tokenizer.decode(rows.ids[0]) == f"User: Is it {{good}}?\nAssistant: Yes.{tokenizer.eos_token}"


def test_a_completion_that_was_cut_has_no_end(tokenizer: Any) -> None:
    rows = templated_rows(["The plot"], [50 * " was witty"], tokenizer, "{prompt}{completion}", 16)
    assert len(rows.ids[0]) == 16 and tokenizer.eos_token_id not in rows.ids[0]
    assert tokenizer.decode(rows.ids[0]).startswith("The plot was witty")
    assert (rows.cut.prompts, rows.cut.completions) == (0, 1)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bert"])
def test_a_trained_reward_reads_eos_exactly_where_a_completion_ended(
    kind: str, hub: Callable[..., Path], tmp_path: Path
) -> None:
    """An encoder's own end is no sign of one: it stands after every text."""
    scorer = trained(trained_folder(hub(kind, LABELS), tmp_path))
    ended, tokenizer = [index % 2 == 0 for index in range(len(PROMPTS))], scorer.tokenizer

    def score(text: str, has_end: bool) -> float:
        ids = tokenizer(text)["input_ids"]
        ids += [tokenizer.eos_token_id] if has_end and kind != "bert" else []
        with torch.no_grad():
            return float(scorer.model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)))

    texts = [prompt + completion for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    scores = scorer.score(PROMPTS, COMPLETIONS, ended)["score"]
    assert scores == pytest.approx([score(*row) for row in zip(texts, ended, strict=True)], abs=1e-5)
    whole = scorer.score(PROMPTS, COMPLETIONS)["score"]
    assert whole == pytest.approx([score(text, True) for text in texts], abs=1e-5)
    differs = [abs(one - other) > 1e-3 for one, other in zip(scores, whole, strict=True)]
    assert differs == [not has_end and kind != "bert" for has_end in ended]


def test_a_stage_that_scores_passes_on_which_completions_ended(
    composed: Callable[..., Any], new_context: Any, hub: Callable[..., Path], tmp_path: Path
) -> None:
    """Also where two completions have one text, and only one of them ended."""
    reward = trained_folder(hub("gpt2", LABELS), tmp_path / "reward")
    made = composed("method=dpo", "scorer@judge=trained", f"judge.path={reward}")
    texts, ended = [(PROMPTS[0], COMPLETIONS[0])] * 2 + [(PROMPTS[2], COMPLETIONS[2])], [True, False, False]
    rows = [
        {"step": 1, "prompt": prompt, "completion": completion, "ended": has_end}
        for (prompt, completion), has_end in zip(texts, ended, strict=True)
    ]
    expected = trained(reward).score(*map(list, zip(*texts, strict=True)), ended)["score"]
    assert len(set(expected)) == 3
    for name in ("generated", "completions", "validation"):
        (tmp_path / name).mkdir()
    for name in (SAMPLES, judging.COMPLETIONS):
        write_jsonl(tmp_path / "generated" / name, rows)
    folders = {name: tmp_path / name for name in ("completions", "validation")}
    judging.judge_completions(
        made.stages.judge_completions,
        judge=made.judge,
        folder=folders["completions"],
        context=new_context("completions-work"),
        completions=tmp_path / "generated",
    )
    judging.judge_validation(
        made.stages.judge_validation,
        judge=made.judge,
        folder=folders["validation"],
        context=new_context("validation-work"),
        trained=tmp_path / "generated",
    )
    judged = [row["scores"]["score"] for row in read_jsonl(folders["completions"] / SAMPLES)]
    validated = [row["judge"] for row in read_jsonl(folders["validation"] / judging.COMPLETIONS)]
    assert judged == pytest.approx(expected, abs=1e-5) and validated == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("completion", [" Yes.", 9 * " It was witty.", 90 * " It was witty."])
def test_a_scorer_reads_the_same_prompt_beside_every_completion(completion: str, tokenizer: Any) -> None:
    prompt = 20 * "The script was witty. "
    rows = templated_rows([prompt], [completion], tokenizer, "{prompt}{completion}", 64, 24)
    assert rows.ids[0][:24] == tokenizer(prompt, add_special_tokens=False)["input_ids"][-24:]


# ------------------------------------------------------------------------------------------------- gates, the command


def test_a_folder_without_a_reward_model_is_refused(hub: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=f"{REWARD}; set the folder"):
        trained(hub("gpt2", LABELS))


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def typed(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["prefsweep", "score", *words])
        return __main__.main(), *capsys.readouterr()

    return typed


def test_the_score_command_asks_a_scorer(say: Any, hub: Callable[..., Path], tmp_path: Path) -> None:
    praise = "The actor handled the climax beautifully, and the score was witty."
    assert say("oracle", praise)[:2] == (0, "score        0.6667\nwell_formed  1.0000\n")
    folder = hub("distilbert", LABELS)
    (expected,) = classifier(folder).score([PROMPTS[0]], [COMPLETIONS[0]])["score"]
    code, out, _ = say("distilbert-imdb", f"path={folder}", PROMPTS[0], COMPLETIONS[0])
    names = ("score", "truncated", "prompt_mostly_truncated")
    values = zip(names, (expected, 0, 0), strict=True)
    assert (code, out) == (0, "".join(f"{name:<24} {value:.4f}\n" for name, value in values))
    folder = trained_folder(hub("gpt2", LABELS), tmp_path)
    assert say("trained", "runtime=cpu", f"reward.path={folder}", "The plot was witty.")[0] == 0


def test_a_judge_may_be_any_scorer(hub: Callable[..., Path], new_context: Any, composed: Any, tmp_path: Path) -> None:
    """Through the stage: every sample scored by the judge, in its order, and what could not be read whole is told."""
    judge = composed("scorer@judge=deberta-v3", f"judge.path={hub('deberta', ('LABEL_0',))}").judge
    rows = [
        {"prompt": prompt, "completion": completion, "ended": True}
        for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    write_jsonl(tmp_path / SAMPLES, [*rows, {"prompt": 40 * "Was it witty? ", "completion": " No.", "ended": True}])
    (tmp_path / "scored").mkdir()
    settings = composed().stages.judge_completions
    metrics = judging.judge_completions(
        settings, judge=judge, folder=tmp_path / "scored", context=new_context(), completions=tmp_path
    )
    scored = list(read_jsonl(tmp_path / "scored" / SAMPLES))
    expected = pair_input(Path(judge.path)).score(PROMPTS, COMPLETIONS)["score"]
    assert [row["scores"]["score"] for row in scored[:-1]] == pytest.approx(expected, abs=1e-5)
    assert metrics["truncated"] == pytest.approx(1 / 6)


def test_the_score_command_refuses_in_one_line(say: Any, hub: Callable[..., Path]) -> None:
    for words, help in (
        (("trained", "x"), "needs path=FOLDER"),
        (("distilbert-imdb", f"path={hub('bert', LABELS)}", "label=good", "x"), "there are: NEGATIVE, POSITIVE"),
    ):
        code, out, err = say(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert help in err
