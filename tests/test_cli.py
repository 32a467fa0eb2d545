"""The words after `prefsweep`: flags anywhere, the config shown, help that is whole, completion that completes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from prefsweep import __main__, __version__, config_folder
from prefsweep.cli import parser
from prefsweep.config.compose import compose, composing
from prefsweep.errors import UserError
from prefsweep.sweep.grid import expand

CONF = config_folder()
Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Type a line in an empty folder; it must succeed. Returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    handler = signal.getsignal(signal.SIGTERM)

    def typed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["prefsweep", *words])
        assert __main__.main() == 0
        out, err = capsys.readouterr()
        assert not err
        return out

    yield typed
    signal.signal(signal.SIGTERM, handler)


# -------------------------------------------------------------------------------------------------------- the words


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_multirun_may_stand_anywhere(flag: str, place: int) -> None:
    words = ["method=sft,dpo", "seed=1,2"]
    line = parser.parse([*words[:place], flag, *words[place:]])
    assert line == parser.Line(overrides=words, multirun=True)


def test_other_flags_too_may_stand_anywhere() -> None:
    line = parser.Line(overrides=["seed=1", "jobs=2"], cfg=True, resolve=True, config_dir=Path("mine"))
    assert parser.parse(["seed=1", "--cfg", "job", "--config-dir", "mine", "jobs=2", "--resolve"]) == line
    assert parser.parse(["--resolve", "-cd=mine", "-c=job", "seed=1", "jobs=2"]) == line


def test_a_value_may_hold_an_equals_sign_and_a_key_may_be_removed() -> None:
    assert parser.parse(["a='b=c'", "~debug", "+x=1"]).overrides == ["a='b=c'", "~debug", "+x=1"]


@pytest.mark.parametrize(("word", "meant"), [("--multrun", "--multirun"), ("--verson", "--version"), ("-M", "")])
def test_an_unknown_flag_is_refused_with_the_nearest_one(word: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"^{word}: no such flag.*{meant}"):
        parser.parse([word])


def test_version_is_told(say: Say) -> None:
    assert say("--version") == f"prefsweep {__version__}\n"


# ------------------------------------------------------------------------------------------------ the config, shown


def test_the_config_is_shown_as_it_was_written(say: Say) -> None:
    shown = yaml.safe_load(say("--cfg", "job", "seed=5"))
    assert shown["stages"]["dpo"]["seed"] == "${seed}"
    assert shown["seed"] == 5


def test_the_config_is_shown_as_the_job_reads_it(say: Say) -> None:
    text = say("seed=5", "--cfg", "job", "--resolve")
    assert "${" not in text
    shown = yaml.safe_load(text)
    assert shown["stages"]["dpo"]["seed"] == 5
    assert shown["stages"]["reference"]["max_length"] == shown["stages"]["dpo"]["max_length"]


def test_what_is_shown_composes_to_the_same(say: Say, tmp_path: Path) -> None:
    shown = yaml.safe_load(say("--cfg", "job", "--resolve", "method=dpo", "stages.dpo.beta=.3"))
    del shown["method"]  # a graph is chosen, not merged
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/again.yaml").write_text("# @package _global_\n" + yaml.safe_dump(shown))
    with composing(tmp_path):
        again = compose(["method=dpo", "experiment=again"], tmp_path)
        assert again == compose(["method=dpo", "stages.dpo.beta=.3"])


# -------------------------------------------------------------------------------------------------------------- help


def test_help_shows_every_group_and_every_choice(say: Say) -> None:
    text = say("--help")
    assert text == say("seed=1", "-h")
    for folder in filter(Path.is_dir, CONF.iterdir()):
        names = [file.stem for file in folder.glob("*.yaml") if not file.stem.startswith("_")]
        if not names:
            continue
        assert re.search(rf"^  {folder.name}(@judge, scorer@reward)?$", text, flags=re.MULTILINE)
        for name in names:
            assert re.search(rf"^      {re.escape(name)}: \S|the stages:.*\b{name}\b", text, flags=re.MULTILINE), name
    assert not re.search(r"^ *_", text, flags=re.MULTILINE)


def test_help_shows_every_flag(say: Say) -> None:
    text = say("--help")
    assert all(flag in text for flag in parser.FLAGS)


def test_the_examples_in_help_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^  prefsweep( .*?)?   +\S", parser.help_text().partition("Commands")[0], flags=re.MULTILINE)
    assert len(examples) >= 5
    for example in examples:
        line = parser.parse([word for word in example.split() if example.split()[0] != "table"])
        with composing():
            if not any(word.startswith("experiment=") for word in line.overrides):
                assert expand(line.overrides, line.multirun, None).jobs
            else:
                assert compose(line.overrides).grid


# -------------------------------------------------------------------------------------------------------- completion


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], list[str]]:
    """A real bash that has installed our completion: what it would offer at the end of a line."""
    if not (bash := shutil.which("bash")):
        pytest.skip("there is no bash")
    command = tmp_path / "bin/prefsweep"
    command.parent.mkdir()
    script = f"#!{sys.executable}\nimport sys\nfrom prefsweep.__main__ import main\nsys.exit(main())\n"
    command.write_text(script)
    command.chmod(0o755)

    def press_tab(line: str) -> list[str]:
        words = (
            f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE='{line}'; COMP_POINT={len(line)}"
        )
        install = 'eval "$(prefsweep -sc install=bash)"; complete -p prefsweep >/dev/null'
        done = subprocess.run(
            [bash, "-c", f'{install} && {words} && hydra_bash_completion; echo "${{COMPREPLY[@]}}"'],
            env={**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return press_tab


def test_tab_offers_the_choices_of_a_group(shell: Callable[[str], list[str]]) -> None:
    offered = {choice for choice in shell("prefsweep -m seed=1,2 method=") if not choice.startswith("method=_")}
    assert offered == {f"method={file.stem}" for file in CONF.glob("method/*.yaml") if not file.stem.startswith("_")}


def test_tab_offers_the_keys_of_a_stage(shell: Callable[[str], list[str]]) -> None:
    assert shell("prefsweep stages.dpo.be") == ["stages.dpo.best_by=", "stages.dpo.beta="]


def test_tab_leaves_the_folders_of_a_table_to_the_shell(shell: Callable[[str], list[str]]) -> None:
    assert "bin" in shell("prefsweep table b")


# ----------------------------------------------------------------------------------------------------------- dry run


def test_a_dry_run_prints_the_plan_and_writes_nothing(say: Say, tmp_path: Path) -> None:
    out = say("method=dpo", "runtime.dry_run=true")
    with composing():
        (job,) = expand(["method=dpo"], False, None).jobs
    for stage in job.plan.stages:
        assert re.search(rf"^{re.escape(stage.role)} +{stage.identity} +missing", out, flags=re.MULTILINE)
    assert job.name in out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_grid_prints_every_plan_and_writes_nothing(say: Say, tmp_path: Path) -> None:
    out = say("method=sft", "seed=1,2", "runtime.dry_run=true", "-m")
    assert len(set(re.findall(r"^evaluate +(\w{16}) +missing", out, flags=re.MULTILINE))) == 2
    assert not list(tmp_path.iterdir())


def test_a_dry_run_over_a_local_file_remembers_its_hash_and_nothing_else(say: Say, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    say("dataset=local", "dataset.path=pairs.jsonl", "runtime.dry_run=true")
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written <= {"pairs.jsonl", ".file-hashes.json"}
