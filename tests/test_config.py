"""What can be said: every choice composes, every key is explained and read, every mistake is one line."""

import ast
import dataclasses
import inspect
import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefsweep import __main__, config_folder
from prefsweep.config import schema, stages
from prefsweep.config.architectures import ARCHITECTURES, EncoderArchitecture
from prefsweep.config.compose import compose, composing
from prefsweep.jobs.job import prepare
from prefsweep.sweep.grid import expand

CONF = config_folder()
ALL_STAGES = Path(__file__).parent / "conf"  # a method whose graph names every stage
SOURCE = Path(schema.__file__).parents[1]
HEAVY = ("torch", "transformers", "trl", "datasets", "accelerate", "wandb")
Result = tuple[int, str, str]
Say = Callable[..., Result]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Type a line in an empty folder: its exit code, stdout and stderr. No heavy library can be imported by it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in HEAVY:
        monkeypatch.setitem(sys.modules, name, None)
    handler = signal.getsignal(signal.SIGTERM)

    def typed(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["prefsweep", *words])
        code = __main__.main()
        return code, *capsys.readouterr()

    yield typed
    signal.signal(signal.SIGTERM, handler)


def mine(folder: Path, group: str, text: str) -> str:
    """A YAML of one's own called `mine`; returns the folder for --config-dir."""
    (folder / "own" / group).mkdir(parents=True)
    (folder / "own" / group / "mine.yaml").write_text(text)
    return str(folder / "own")


# ------------------------------------------------------------------------------------------------- what conf/ holds


def choices() -> list[str]:
    files = sorted(CONF.glob("*/*.yaml"))
    return [f"{file.parent.name}={file.stem}" for file in files if not file.stem.startswith("_")]


def test_every_group_has_choices() -> None:
    groups = {"model", "dataset", "method", "stage", "scorer", "runtime", "tracking", "experiment", "debug"}
    assert groups <= {choice.partition("=")[0] for choice in choices()}


@pytest.mark.parametrize("choice", choices())
def test_every_choice_of_every_group_composes(choice: str, tmp_path: Path) -> None:
    group, _, name = choice.partition("=")
    words = {"stage": ["method=all_stages"], "scorer": [f"scorer@reward={name}"]}.get(group, [choice])
    if choice == "dataset=local":
        (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
        words.append(f"dataset.path={tmp_path / 'pairs.jsonl'}")
    if choice == "dataset=hub":
        words.append("dataset.id=someone/pairs")
    with composing(ALL_STAGES):
        made = compose(words, ALL_STAGES)
        if group == "stage":
            assert name in made.stages
        if group == "experiment":
            assert expand([*words, "runtime.dry_run=true"], False, None).jobs  # which asks no hub for a commit
    assert getattr(getattr(made, group, None), "name", name) == name


def test_every_cell_is_planned_offline_and_before_any_heavy_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HEAVY, "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    """The 36 of three models, four datasets and three methods, and one of each other model."""
    three = ["model=gpt2", "model=gpt2-medium", "model=opt-350m"]
    datasets = [f"dataset={name}" for name in ("hh-rlhf", "ultrafeedback", "CulturalKaleidoscope", "imdb")]
    cells = list(itertools.product(three, datasets, ["method=ppo", "method=dpo", "method=sft+dpo"]))
    others = [
        choice for choice in choices() if choice.startswith("model=") and choice not in (*three, "model=gpt2-tiny")
    ]
    cells += [(model, "dataset=hh-rlhf", "method=dpo") for model in others]
    with composing():
        names = {prepare([*cell], compose([*cell, "runtime.dry_run=true"])).name for cell in cells}
    assert len(names) == len(cells) > 36


def test_an_untouched_config_is_whole() -> None:
    with composing():
        made = compose([])
    assert "???" not in str(dataclasses.asdict(made))


# ------------------------------------------------------------------------------ every key says what moving it does

SPEAKS_FOR_ITSELF = ("_target_", "name", "code_version", "reads", "defaults")
LEAF = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?P<comment>#.*\S)?")


def leaves(file: Path) -> Iterator[tuple[str, bool]]:
    """Each key with a value in the section that the file is about, and whether it is explained on its line."""
    section = ""
    for line in file.read_text().splitlines():
        match = LEAF.fullmatch(line)
        if not match:
            continue
        if not match["indent"]:
            section = match["key"]
        value = match["value"].strip()
        about = not match["indent"] or section == file.parent.name or section == "architecture"
        if about and value and match["key"] not in SPEAKS_FOR_ITSELF:
            yield match["key"], bool(match["comment"])


def explained(file: Path) -> set[str]:
    """The keys that this file explains, or one that it inherits from."""
    keys = {key for key, has_comment in leaves(file) if has_comment}
    for name in re.findall(r"^  - (\w+)$|^defaults: \[(\w+)", file.read_text(), flags=re.MULTILINE):
        parent = file.with_name(f"{name[0] or name[1]}.yaml")
        keys |= explained(parent) if parent.is_file() and parent != file else set()
    return keys


def explainable() -> list[Path]:
    groups = ("stage", "model", "dataset", "scorer", "runtime", "tracking")
    return [CONF / "config.yaml", *(file for group in groups for file in sorted((CONF / group).glob("*.yaml")))]


@pytest.mark.parametrize("file", explainable(), ids=lambda file: file.relative_to(CONF).as_posix())
def test_every_key_says_what_moving_it_does(file: Path) -> None:
    assert {key for key, _ in leaves(file)} <= explained(file)


def test_the_search_for_comments_sees_the_keys() -> None:
    assert {"beta", "loss", "learning_rate"} <= {key for key, _ in leaves(CONF / "stage/dpo.yaml")}
    assert {"n_embd", "id", "from_scratch"} <= {key for key, _ in leaves(CONF / "model/gpt2-tiny.yaml")}
    assert {"noise", "size"} <= {key for key, _ in leaves(CONF / "dataset/synthetic-reviews.yaml")}
    assert {"seed", "jobs", "grid"} <= {key for key, _ in leaves(CONF / "config.yaml")}


# ----------------------------------------------------------------------------------------- no key that nothing reads


SCHEMAS = ("schema.py", "architectures.py", "stages.py", "stage.py")
# Read whole, by no key's name: the first go to transformers as they are, the stages' keys are named by the method, and
# the report's lie in sweep.json.
READ_WHOLE = (*ARCHITECTURES.values(), EncoderArchitecture, schema.ReportConfig)


def schema_keys() -> set[str]:
    members = [
        *inspect.getmembers(schema, dataclasses.is_dataclass),
        *inspect.getmembers(stages, dataclasses.is_dataclass),
    ]
    kinds = [kind for _, kind in members if kind not in READ_WHOLE]
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def test_no_key_that_nothing_reads() -> None:
    trees = [ast.parse(file.read_text()) for file in SOURCE.rglob("*.py") if file.name not in SCHEMAS]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for file in CONF.rglob("*.yaml"):
        paths = re.findall(r'\$\{([\w.]+)\}|when: "?([^,"}]+)', file.read_text())
        read |= {name for pair in paths for path in pair for name in re.findall(r"\w+", path)}
    assert schema_keys() - {"code_version"} <= read  # it is part of an identity, and nothing else


# ------------------------------------------------------------------------------------- a mistake is one line and exit 2

MISTAKES = [
    # a misspelt key
    ("stages.dpo.betta=1", "stages.dpo.betta", "nearest: stages.dpo.beta)"),
    ("stages.dop.beta=1", "stages.dop", "nearest: stages.dpo)"),
    ("seeed=1", "seeed", "nearest: seed)"),
    ("runtime.devise=cpu", "runtime.devise", "nearest: runtime.device)"),
    ("dataset.noize=0.2", "dataset.noize", "nearest: dataset.noise)"),
    ("dataset.path=x", "dataset.path", "no such key in this dataset"),
    ("model.architecture.n_embed=8", "model.architecture.n_embed", "nearest: model.architecture.n_embd)"),
    ("model=gpt2 model.architecture.n_embd=8", "model.architecture.n_embd", "is null"),
    # an added or removed one
    ("+stages.dpo.betta=1", "stages.dpo.betta", "nearest: stages.dpo.beta)"),
    ("++stages.dpo.betta=1", "stages.dpo.betta", "nearest: stages.dpo.beta)"),
    ("+stages.dpo.beta=1", "stages.dpo.beta", "without the +"),
    ("+anything=1", "anything", "no such key"),
    ("~stages.dpo.beta", "stages.dpo.beta", "deletion"),
    ("~model", "model.max_length", "has no value"),
    # a wrong type
    ("stages.dpo.beta=high", "stages.dpo.beta", "Float"),
    ("seed=1.5", "seed", "Integer"),
    ("seed=null", "seed", "not Optional"),
    ("seed=", "seed", "Integer"),
    ("tracking.enabled=maybe", "tracking.enabled", "bool"),
    ("stages.dpo.loss=sigmoid", "stages.dpo.loss", "stages.dpo.loss=[...]"),
    ("stages.dpo=3", "stages.dpo", "holds keys"),
    ("judge=oracle", "judge", "by its group"),
    ("reward=oracle", "reward", "by its group"),
    ("reward.lable=GOOD scorer@reward=distilbert-imdb", "reward.lable", "nearest: reward.label)"),
    ("judge.label=GOOD", "judge.label", "no such key in this judge"),
    # out of range, or no number
    ("stages.dpo.beta=-1", "stages.dpo.beta=-1", "above 0"),
    ("stages.dpo.beta=nan", "stages.dpo.beta=nan", "finite"),
    ("stages.dpo.beta=inf", "stages.dpo.beta=inf", "finite"),
    ("stages.dpo.f_alpha=nan", "stages.dpo.f_alpha=nan", "finite"),
    ("stages.dpo.loss_weights=[inf]", "stages.dpo.loss_weights=inf", "finite"),
    ("dataset.noise=0.7", "dataset.noise=0.7", "at most 0.5"),
    ("stages.dpo.label_smoothing=0.5", "stages.dpo.label_smoothing=0.5", "below 0.5"),
    ("jobs=0", "jobs=0", "at least 1"),
    ("runtime.device=tpu", "runtime.device=tpu", "auto, cpu, cuda"),
    ("stages.sft.completion_only_loss=anser", "stages.sft.completion_only_loss", "not a valid bool"),
    ("stages.dpo.loss=[sigmod]", "stages.dpo.loss=sigmod", "nearest: sigmoid)"),
    # an unknown choice or group
    ("method=dop", "method=dop", "nearest: dpo)"),
    ("model=gpt3", "model=gpt3", "nearest: gpt2)"),
    ("dataset=imbd", "dataset=imbd", "nearest: imdb)"),
    ("experiment=dmo", "experiment=dmo", "nearest: demo)"),
    ("debug=smok", "debug=smok", "nearest: smoke)"),
    ("scorer@judge=orcale", "scorer=orcale", "nearest: oracle)"),
    ("metod=dpo", "metod", "nearest: method)"),
    ("scorer=oracle", "scorer", "nearest: scorer@judge, scorer@reward)"),
    ("method=null", "method=null", "--help"),
    ("model=3", "model=3", "--help"),
    ("hydra.run.dir=x", "hydra.run.dir", "no effect"),
    # a missing value, a broken interpolation
    ("dataset=local", "dataset.path", "has no value"),
    ("stages.sft.learning_rate=???", "stages.sft.learning_rate", "has no value"),
    ("stages.dpo.beta=${stages.dpo.betta}", "stages.dpo.beta", "nearest: stages.dpo.beta)"),
    ("stages.dpo.beta=${oc.env:NO_SUCH_VARIABLE}", "stages.dpo.beta", "NO_SUCH_VARIABLE"),
    ("stages.dpo.beta=${stages.dpo.beta}", "stages.dpo.beta", "Recursive"),
    ("stages.dpo.beta=${", "stages.dpo.beta=${", "key=value"),
    # several values, or none
    ("seed=1,2", "seed", "add -m"),
    ("method=sft,dpo", "method", "add -m"),
    ("-m seed=range(3,1)", "seed=range(3,1)", "no value"),
    ("-m seed=interval(1,3)", "seed=interval(1,3)", "list its values"),
    ("grid=[]", "grid", "no job"),
    ("grid=[{seed:[]}]", "grid", "seed"),
    ("--cfg job -m seed=1,2", "--cfg", "leave out -m"),
    # a stage that the method does not run
    ("method=sft stages.dpo.beta=.1", "stages.dpo.beta", "method=sft does not run"),
    ("-m method=base,sft stages.dpo.beta=.1,.5", "stages.dpo.beta", "does not run"),
    ("method=sft stages={dpo:{beta:.1}}", "stages.dpo", "method=sft does not run"),
    ("method=sft stages={sft:{epochs:1},dpo:{beta:.1}}", "stages.dpo", "method=sft does not run"),
    ("-m method=base,sft stages={ppo:{beta:.1}}", "stages.ppo", "does not run"),
    ("method=dpo reward.path=null", "reward.path", "reads no reward"),
    (
        "model=gpt2 dataset=hh-rlhf method=base dataset.max_train_samples=9",
        "dataset.max_train_samples",
        "trains on no row",
    ),
    ("method=base dataset.max_train_samples=9", "dataset.max_train_samples", "trains on no row"),
    ("method=dpo scorer@reward=deberta-v3", "scorer@reward", "scorer@judge"),
    # settings that contradict each other
    ("stages.sft.checkpoint=best", "stages.sft.checkpoint=best", "stages.sft.evaluate_every"),
    (
        "runtime.resume_checkpoint_every=7 runtime.log_every=5",
        "runtime.resume_checkpoint_every=7",
        "runtime.log_every=5",
    ),
    ("model.from_scratch=false", "model.id", "path"),
    ("model.architecture=null", "model.architecture", "model.from_scratch=true"),
    ("model.architecture.n_embd=64 model.architecture.n_head=5", "model.architecture.n_head=5", "n_embd=64"),
    (
        "debug=smoke method=ppo stages.reward_model.backbone=encoder stages.reward_model.encoder.small.hidden_sise=8",
        "stages.reward_model.encoder.small.hidden_sise",
        "nearest: stages.reward_model.encoder.small.hidden_size)",
    ),
    (
        "debug=smoke method=ppo stages.reward_model.backbone=encoder stages.reward_model.encoder.small.n_heads=2",
        "stages.reward_model.encoder.small.n_heads",
        "of another model_type",
    ),
    (
        "debug=smoke method=ppo stages.reward_model.backbone=encoder stages.reward_model.encoder.small.hidden_size=big",
        "stages.reward_model.encoder.small.hidden_size",
        "Integer",
    ),
    (
        "debug=smoke method=ppo stages.reward_model.backbone=encoder stages.reward_model.encoder.small.hidden_size=33",
        "stages.reward_model.encoder.architecture.num_attention_heads=2",
        "hidden_size=33",
    ),
    (
        "debug=smoke scorer@judge=deberta-v3 judge.small.pos_att_type=[c2c]",
        "judge.architecture.pos_att_type=c2c",
        "p2c",
    ),
    ("debug=smoke scorer@judge=distilbert-imdb judge.small.hidden_size=8", "judge.small.hidden_size", "model_type"),
    ("stages.sft.max_length=9999", "stages.sft.max_length=9999", "positions"),
    (
        "stages.generate.protocol={harmful:50,helpful:50,words:[kill],whole_words:false,seed:100}",
        "stages.generate.protocol",
        "dataset.subset=all",
    ),
    ("stages.generate.max_new_tokens=9999", "stages.generate.max_new_tokens=9999", "positions"),
    ("stages.dpo.loss=[]", "stages.dpo.loss=[]", "[sigmoid]"),
    ("method=ppo stages.ppo.minibatch_size=33", "stages.ppo.minibatch_size=33", "divide"),
    ("method=ppo stages.ppo.response_tokens=[5]", "stages.ppo.response_tokens", "[4,16]"),
    ("method=ppo stages.ppo.query_tokens=[8,2]", "stages.ppo.query_tokens", "[4,16]"),
    ("method=ppo stages.ppo.response_tokens=[64,64]", "stages.ppo.max_length=64", "65 tokens"),
    ("method=ppo stages.ppo.checkpoint=best", "stages.ppo.checkpoint=best", "stages.ppo.evaluate_every"),
    ("method=ppo stages.ppo.max_length=9999", "stages.ppo.max_length=9999", "positions"),
    ("runtime.micro_batch=0", "runtime.micro_batch=0", "must be auto or a number of rows"),
    ("runtime.micro_batch=often", "runtime.micro_batch=often", "must be auto or a number of rows"),
    ("runtime.gradient_checkpointing=maybe", "runtime.gradient_checkpointing=maybe", "must be auto, true or false"),
    ("stages.dpo.loss=[aot] stages.dpo.batch_size=64 runtime.micro_batch=8", "runtime.micro_batch=8", "micro_batch=64"),
    ("stages.dpo.loss=[exo_pair]", "stages.dpo.label_smoothing", "set 0.001"),
    ("method=sft stages.sft.prompt_tokens=64", "stages.sft.prompt_tokens=64", "in stages.sft.max_length=64; lower it"),
    ("scorer@judge=deberta-v3 judge.prompt_tokens=512", "judge.prompt_tokens=512", "in judge.max_length=512; lower it"),
    ("stages.dpo.loss=[robust]", "stages.dpo.label_smoothing=0", "stages.dpo.loss=[sigmoid]"),
    ("stages.dpo.loss=[ipo] stages.dpo.label_smoothing=.1", "stages.dpo.label_smoothing=0.1: ipo", "sigmoid, robust"),
    (
        "stages.dpo.loss=[sigmoid,exo_pair] stages.dpo.label_smoothing=.1",
        "stages.dpo.label_smoothing=0.1: sigmoid",
        "one loss",
    ),
    ("stages.dpo.loss=[hinge] stages.dpo.use_weighting=true", "stages.dpo.use_weighting=true: hinge", "set false"),
    (
        "stages.dpo.loss=[sft] stages.dpo.use_weighting=true stages.dpo.batch_size=8",
        "stages.dpo.use_weighting=true: sft",
        "false",
    ),
    ("stages.dpo.loss_weights=[1,2]", "stages.dpo.loss_weights", "one weight"),
    ("stages.dpo.loss=[aot] stages.dpo.use_weighting=true", "stages.dpo.use_weighting=true", "false"),
    ("stages.dpo.loss=[apo_zero] stages.dpo.f_divergence=forward_kl", "stages.dpo.f_divergence", "reverse_kl"),
    (
        "method=ppo stages.reward_model.template='{prompt}'",
        "stages.reward_model.template",
        "must end with {completion}",
    ),
    (
        "method=ppo scorer@judge=trained",
        "dataset.share=null, stages.judge_model.share=[0.5, 1.0]: reward_model",
        "set dataset.share=[0,0.5]",
    ),
    ("scorer@judge=trained stages.judge_model.share=[0.5]", "stages.judge_model.share=[0.5]", "[0,0.5]"),
    ("method=dpo scorer@judge=trained stages.judge_model.share=[0,.4]", "dataset.share=null", "dataset.share=[0.4,1]"),
    ("method=dpo scorer@judge=trained stages.judge_model.share=[0,1]", "dataset.share=null", "l.share=[0.5,1]"),
    ("method=ppo dataset.share=[0.5,0.5]", "dataset.share=[0.5, 0.5]", "[0,0.5]"),
    ("method=base dataset.share=[0,0.5] scorer@judge=trained", "dataset.share", "trains on no row"),
    (
        "method=dpo scorer@reward=oracle stages.dpo.reads=[model,dataset,reward]",
        "scorer@judge=oracle",
        "allow_reward_as_judge",
    ),
    # what is not there
    ("scorer@judge=deberta-v3 judge.path=/nowhere", "judge.path=/nowhere", "no such model folder"),
    (
        "method=ppo stages.reward_model.backbone=encoder stages.reward_model.encoder.path=/no",
        "stages.reward_model.encoder.path=/no",
        "no such model",
    ),
    ("score", "score", "needs SCORER"),
    ("score orcale x", "scorer=orcale", "nearest: oracle)"),
    ("score oracle", "score", "needs TEXT"),
    ("score oracle a b c", "score", "not 3"),
    ("score oracle x -cd /nowhere", "--config-dir /nowhere", "no such folder"),
    ("score distilbert-imdb lable=GOOD x", "reward.lable", "nearest: reward.label)"),
    ("model.path=/nowhere", "model.path=/nowhere", "no such model folder"),
    ("dataset=local dataset.path=/nowhere", "dataset.path=/nowhere", "no such file"),
    (f"dataset=local dataset.path={Path(__file__).parent}", "dataset.path=", "is a folder"),
    (f"dataset=local dataset.path={__file__} scorer@judge=oracle", "scorer@judge=oracle", "deberta-v3"),
    ("dataset=hh-rlhf dataset.path=/nowhere", "dataset.path=/nowhere", "no such file"),
    (f"dataset=hh-rlhf dataset.path={Path(__file__).parent}", "dataset.path=", "holds no harmless-base/train"),
    ("dataset=hh-rlhf dataset.subset=harmles-base", "dataset.subset=harmles-base", "nearest: harmless-base)"),
    ("dataset=hh-rlhf dataset.max_train_samples=0", "dataset.max_train_samples=0", "at least 1"),
    ("dataset=ultrafeedback dataset.subset=all", "dataset.subset", "no such key in this dataset"),
    ("dataset=imdb dataset.query_tokens=[8,2]", "dataset.query_tokens=[8, 2]", "[4,16]"),
    ("dataset=imdb dataset.pairs=dataset", "dataset.pairs=dataset", "set dataset.pairs=generated"),
    ("method.start=nope", "method.pipeline.evaluate.start_policy", "no stage nope"),
    ("+stages.sft={epochs:1,epohcs:2}", "stages.sft.epohcs", "nearest: stages.sft.epochs)"),
    ("stages.dpo.reads=[modle]", "stages.dpo.reads", "nearest: model)"),
    ("--config-dir /nowhere", "--config-dir /nowhere", "no such folder"),
    ("table /nowhere", "/nowhere", "no such folder"),
    ("sweep=../x", "sweep=../x", "no name of a folder"),
    # no key=value at all
    ("tabel", "tabel", "nearest: table)"),
    ("=1", "=1", "key=value"),
    ("seed=[1", "seed=[1", "key=value"),
    ("--multirn", "--multirn", "nearest: --multirun)"),
    ("--cfg hydra", "-c/--cfg", "'job'"),
    ("--resolve", "--resolve", "--cfg job"),
    ("-sc foo", "-sc", "install=bash"),
]


def refused(result: Result, *parts: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("prefsweep: ") and err.count("\n") == 1 and err.endswith("\n")
    for part in parts:
        assert part in err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(("line", "key", "help"), MISTAKES, ids=[line for line, *_ in MISTAKES])
def test_a_mistake_on_the_line_is_one_line_and_leaves_nothing(line: str, key: str, help: str, say: Say) -> None:
    refused(say(*line.split()), f"prefsweep: {key}", help)


WRITTEN = [
    ("experiment", "stages: {dpo: {betta: 1}}", "stages.dpo.betta", "nearest: stages.dpo.beta)"),
    ("experiment", "stagess: {dpo: {beta: 1}}", "stagess", "nearest: stages)"),
    ("experiment", "stages: {dpo: {beta: high}}", "stages.dpo.beta", "Float"),
    ("experiment", "stages: {dpo: {beta: .nan}}", "stages.dpo.beta=nan", "finite"),
    ("experiment", "stages: {dpo: {beta: -1}}", "stages.dpo.beta=-1.0", "above 0"),
    ("experiment", "stages: {dpo: {beta: '${stages.dpo.betta}'}}", "stages.dpo.beta", "nearest: stages.dpo.beta)"),
    ("experiment", "stages: {dpo: {beta: 1}", "mine.yaml, line 3", "not YAML"),
    ("experiment", "seed: 1\nseed: 2", "mine.yaml, line 3", "duplicate key seed"),
    ("experiment", "defaults: [override /method: dop]", "method=dop", "nearest: dpo)"),
    ("experiment", "defaults: [override /metod: dpo]", "experiment/mine.yaml: metod", "nearest: method)"),
    ("experiment", "defaults: 3", "experiment/mine", "must be a list"),
    ("experiment", "grid: [{stages.dpo.betta: [1]}]", "stages.dpo.betta", "nearest: stages.dpo.beta)"),
    ("experiment", "grid: [{stages.dpo.beta: [1, -1]}]", "stages.dpo.beta=-1.0", "above 0"),
    ("experiment", "grid: [seed]", "grid", "keys with lists of values"),
    ("method", "resuld: dpo\nstart: base\ndefaults: [_judged]", "method.resuld", "nearest: method.result)"),
    ("method", "name: mine\nstart: base\ndefaults: [_judged]", "method.result", "has no value"),
    ("dataset", "dataset: {name: mine}", "dataset", "defaults: [_local, _self_]"),
]


@pytest.mark.parametrize(("group", "text", "key", "help"), WRITTEN, ids=[text for _, text, *_ in WRITTEN])
def test_a_mistake_in_a_yaml_of_ones_own_is_one_line_too(
    group: str, text: str, key: str, help: str, say: Say, tmp_path: Path
) -> None:
    package = "" if group == "method" else "# @package _global_\n"
    folder = mine(tmp_path, group, f"{package}{text}\n")
    refused(say("--config-dir", folder, f"{group}=mine"), key, help)


REAL = (
    "import sys; from prefsweep.__main__ import main; code = main(); "
    f"print(sorted(set(sys.modules) & set({HEAVY}))); sys.exit(code)"
)


@pytest.mark.parametrize(
    "line", ["stages.dpo.betta=1", "method=dop", "model.path=/nowhere", "-m method=dpo,sft stages.dpo.beta=.1,nan"]
)
def test_a_mistake_is_reported_before_any_heavy_library_is_imported(line: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", REAL, *line.split()], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "bug"),
    [
        ("prefsweep.sweep.grid.prepare", KeyError("planted")),
        ("prefsweep.config.compose.check_stages", ValueError("planted")),
        ("prefsweep.config.compose.type_architectures", AssertionError("planted")),
    ],
)
def test_a_bug_is_never_taken_for_a_mistake(
    target: str, bug: Exception, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object) -> None:
        raise bug

    monkeypatch.setattr(target, planted)
    with pytest.raises(type(bug), match="planted"):
        say("method=sft")


def test_a_bug_keeps_its_traceback_and_exits_1(tmp_path: Path) -> None:
    script = (
        "import sys; import prefsweep.sweep.grid as grid; from prefsweep.__main__ import main\n"
        "def prepare(*_): raise KeyError('planted')\n"
        "grid.prepare = prepare; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("KeyError: 'planted'\n")
    assert "in expand" in done.stderr
