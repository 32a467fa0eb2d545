"""The command line: flags anywhere, commands with a help each, errors of one line, tab completion."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from prefsweep import __main__, __version__, config_folder
from prefsweep.cli.parser import COMMANDS, RUN, Parser, parse
from prefsweep.config.compose import compose, composing
from prefsweep.errors import UserError
from prefsweep.sweep.grid import expand

CONF = config_folder()
DOCS = Path(__file__).parents[1] / "docs"
Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Type a line in an empty folder; it must succeed. Return what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    handler = signal.getsignal(signal.SIGTERM)

    def typed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["prefsweep", *words])
        try:
            code = __main__.main()
        except SystemExit as exit:  # argparse's, after help and version
            code = exit.code  # type: ignore[assignment]
        assert code == 0
        out, err = capsys.readouterr()
        assert not err
        return out

    yield typed
    signal.signal(signal.SIGTERM, handler)


# ---------------------------------------------------------------------------------------------------------- the line


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as error:
        __main__.dispatch(list(words))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_multirun_may_stand_anywhere(flag: str, index: int) -> None:
    overrides = ["method=sft,dpo", "seed=1,2"]
    command, arguments = parse([*overrides[:index], flag, *overrides[index:]])
    assert command == "run" and arguments["multirun"] and arguments["overrides"] == overrides


def test_other_flags_too_may_stand_anywhere() -> None:
    expected = {"overrides": ["seed=1", "jobs=2"], "cfg": "job", "resolve": True, "config_dir": Path("mine")}
    for line in ("seed=1 --cfg job --config-dir mine jobs=2 --resolve", "--resolve -cd=mine -c=job seed=1 jobs=2"):
        assert parse(line.split())[1] == expected | {"multirun": False, "shell_completion": None}
    for line in ("-cd mine show test seed=1", "show test -cd mine seed=1", "show test seed=1 --config-dir=mine"):
        assert parse(line.split()) == ("show", {"words": ["test", "seed=1"], "config_dir": Path("mine")})


def test_a_config_dir_may_be_called_like_a_command() -> None:
    assert parse(["-cd", "table", "seed=1"])[0] == "run"


def test_a_value_may_hold_an_equals_sign_and_a_key_may_be_removed() -> None:
    assert parse(["a='b=c'", "~debug", "+x=1"])[1]["overrides"] == ["a='b=c'", "~debug", "+x=1"]


def test_a_text_to_score_may_begin_with_a_dash() -> None:
    assert parse(["score", "oracle", "- The plot", "-1"])[1]["words"] == ["- The plot", "-1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--multrun", "--multrun: no such flag (nearest: --multirun); `prefsweep --help` lists them"),
        ("--verson", "--verson: no such flag (nearest: --version)"),
        ("-M", "-M: no such flag;"),
        ("tabel", "tabel: not key=value and not a command (nearest: table)"),
        ("seed", "seed: not key=value"),
        ("--cfg", "--cfg: expected one argument"),
        ("diff a", "diff: needs B, as in: prefsweep diff"),
        ("diff a b c", "diff: c is too much, as in: prefsweep diff"),
        ("diff a b --form=md", "--form=md: no such flag of diff; `prefsweep diff --help` lists them"),
        ("rescore a", "rescore: needs key=value, as in: prefsweep rescore"),
        ("rescore a b", "b: not key=value"),
        ("score oracle", "score: needs TEXT|key=value"),
        ("score oracle a b c", "score: takes a text, or a prompt and a completion, not 3"),
        ("export a", "export: needs DIR, as in: prefsweep export"),
        ("export a b --merg", "--merg: no such flag of export (nearest: --merge)"),
    ],
)
def test_a_mistake_on_the_line_is_one_line(line: str, message: str) -> None:
    assert message in refusal(*line.split())


def test_the_process_exits_with_0_1_2_or_130() -> None:
    """Of a whole process, as a script sees it: argparse must not exit by itself but for help and version."""
    for words, code in ((["--version"], 0), (["table", "-h"], 0), (["table"], 2), (["best", "a"], 2)):
        done = subprocess.run([sys.executable, "-m", "prefsweep", *words], capture_output=True, text=True)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, int(code > 0))


def test_version_is_printed(say: Say) -> None:
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
    assert shown["stages"]["reference_logps"]["max_length"] == shown["stages"]["dpo"]["max_length"]


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


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_each_help_shows_its_flags_and_an_example(command: str, say: Say) -> None:
    text = say(command, "--help") if command else say("--help")
    assert all(re.search(rf"^  .*{flag}\b", text, flags=re.MULTILINE) for flag in Parser(command).flags)
    assert f"\n  prefsweep {command}" in text
    if command:
        assert COMMANDS[command].summary in text and f"usage: prefsweep {command} " in text


def test_help_lists_the_commands_with_a_line_each(say: Say) -> None:
    text = say("--help")
    assert [line for line in text.splitlines() if line.split()[:1] and line.split()[0] in COMMANDS] == [
        f"  {name:<9}{command.summary}" for name, command in COMMANDS.items()
    ]


def test_the_examples_in_help_are_read() -> None:
    for name, command in COMMANDS.items():
        assert parse(shlex.split(command.example)[1:])[0] == name


def test_the_examples_of_a_run_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^  (prefsweep(?: .*?)?)   +\S", RUN.summary.partition("commands")[0], flags=re.MULTILINE)
    assert len(examples) >= 5
    for example in examples:
        command, arguments = parse(example.split()[1:])
        if command == "run":
            with composing():
                if not any(word.startswith("experiment=") for word in arguments["overrides"]):
                    assert expand(arguments["overrides"], arguments["multirun"], None).jobs
                else:
                    assert compose(arguments["overrides"]).grid


def test_the_page_of_the_command_line_has_every_command_flag_and_valid_examples() -> None:
    sections = re.split(r"^## ", (DOCS / "cli.md").read_text(), flags=re.MULTILINE)[1:]
    assert [section.split()[0] for section in sections] == ["Running", *COMMANDS]
    for command, section in zip(["", *COMMANDS], sections, strict=True):
        expected = {flag for flag in Parser(command).flags if not command or flag not in ("-h", "--help")}
        assert {flag for flag in expected if f"`{flag}" not in section} == set()
        examples = re.findall(r"^prefsweep (.*)", section, flags=re.MULTILINE)
        assert {parse(shlex.split(example))[0] for example in examples} == {command or "run"}


@pytest.mark.parametrize("words", [["--help"], ["rescore", "--help"], ["--cfg", "job"], ["score", "oracl", "x"]])
def test_no_heavy_library_is_imported_for_help_config_or_a_mistake(words: list[str], tmp_path: Path) -> None:
    script = (
        "import atexit, sys; from prefsweep.__main__ import main\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'wandb', 'matplotlib'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert done.returncode == (2 if "oracl" in words else 0)


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


def test_tab_offers_the_commands_and_their_flags(shell: Callable[[str], list[str]]) -> None:
    assert shell("prefsweep resc") == ["rescore"]
    assert {"show", "score"} <= set(shell("prefsweep s"))
    assert shell("prefsweep table a --ro") == ["--rows"]


def test_tab_offers_choices_and_keys_after_a_command_too(shell: Callable[[str], list[str]]) -> None:
    assert shell("prefsweep rescore multirun_sweeps/a dataset=ultraf") == ["dataset=ultrafeedback"]
    assert shell("prefsweep show test stages.dpo.be") == ["stages.dpo.best_by=", "stages.dpo.beta="]


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
