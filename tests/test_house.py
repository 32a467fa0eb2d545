"""How the house is kept: imports flow one way, the README's tree is the tree, the text speaks of the project alone."""

import ast
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lines

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/prefsweep"
HEAVY = {"torch", "transformers", "trl", "datasets", "accelerate", "wandb"}

# ----------------------------------------------------------------------------------------------------------- imports

# A part of the package → the parts of ours that it may import beside itself. Parts not named here are free.
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "pipeline": {"errors", "config"},
    "report": {"errors", "config", "pipeline"},
    "hub": {"errors", "config", "pipeline"},
    "data": {"errors", "config", "pipeline", "hub"},
    "models": {"errors", "config", "pipeline", "hub", "data"},
    "ppo": {"errors", "config", "pipeline", "data", "models"},
    "evaluation": {"errors", "config", "pipeline", "data", "models"},
    "stages": {"errors", "config", "pipeline", "data", "models", "ppo", "evaluation"},
    "jobs": {"errors", "config", "pipeline", "hub", "data"},
    "sweep": {"errors", "config", "pipeline", "hub", "jobs", "report", "stages"},
}
# Parts that must start fast: no heavy library, not even inside a function.
LIGHT = {"config", "errors", "pipeline", "report"}


def imported(source: str, known: set[str]) -> Iterator[str]:
    """Top-level names of other projects, and `prefsweep.<part>` for ours; also those inside functions."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "say whose module it is: from prefsweep.x import y"
            ours = node.module == "prefsweep"
            names = (
                [f"prefsweep.{alias.name}" for alias in node.names if alias.name in known]
                if ours
                else [str(node.module)]
            )
        for name in names:
            parts = name.split(".")
            yield ".".join(parts[:2]) if parts[0] == "prefsweep" else parts[0]


def parts() -> dict[str, list[Path]]:
    """`pipeline` → its files, `config` → config.py."""
    modules = {path.stem: [path] if path.suffix == ".py" else sorted(path.rglob("*.py")) for path in PACKAGE.iterdir()}
    return {name: files for name, files in modules.items() if files and not name.startswith("__")}


def imports_of(part: str) -> set[str]:
    return {name for file in parts()[part] for name in imported(file.read_text(), set(parts()))}


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_flow_one_way(part: str) -> None:
    ours = {name.partition(".")[2] for name in imports_of(part) if name.startswith("prefsweep")}
    assert ours <= ALLOWED[part] | {part, ""}


@pytest.mark.parametrize("part", sorted(LIGHT))
def test_what_runs_before_a_job_imports_nothing_heavy(part: str) -> None:
    assert not imports_of(part) & HEAVY


def test_the_package_knows_nothing_of_its_tests() -> None:
    helpers = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"tests", "conftest", "pytest"}
    assert not {name for part in parts() for name in imports_of(part)} & helpers


def test_the_search_for_imports_sees_all_of_them() -> None:
    source = "import torch.nn\nfrom prefsweep import cli, x\ndef f():\n from prefsweep.stages.dpo import run\n"
    assert set(imported(source, {"cli"})) == {"torch", "prefsweep.cli", "prefsweep.stages"}


# ---------------------------------------------------------------------------------------------------------- the tree


def known_to_git() -> list[Path]:
    """Every file that is in git or would be: relative to the top."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    return [Path(line) for line in sorted(set(listed.stdout.splitlines())) if (ROOT / line).is_file()]


def read_tree(readme: str) -> dict[Path, str]:
    """The block after `## The tree`: a line is a path under the less indented one above it, then free text."""
    block = re.search(r"^## The tree\n+```\w*\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    assert block, "README.md needs a fenced block right after the heading `## The tree`"
    entries: dict[Path, str] = {}
    above: list[tuple[int, Path]] = []
    for line in filter(str.strip, block[1].splitlines()):
        word, _, text = line.strip().partition(" ")
        indent = len(line) - len(line.lstrip())
        above = [(depth, path) for depth, path in above if depth < indent]
        path = (above[-1][1] if above else Path()) / word
        above.append((indent, path))
        entries[path] = text.strip()
    return entries


def must_be_listed(files: list[Path]) -> set[Path]:
    """Every entry of the top, every group of conf/, and every folder and module of the package."""
    top = {Path(file.parts[0]) for file in files}
    groups = {file.parent for file in files if file.parts[0] == "conf" and len(file.parts) == 3}
    package = [file for file in files if file.is_relative_to("src/prefsweep")]
    folders = {folder for file in package for folder in file.parents if folder != Path()}
    modules = {file for file in package if file.suffix == ".py" and file.name != "__init__.py"}
    return top | groups | folders | modules


def choices(files: list[Path]) -> dict[Path, set[str]]:
    """conf/<group> → the names of its choices."""
    names_by_group: dict[Path, set[str]] = {}
    for file in files:
        if file.parts[0] == "conf" and len(file.parts) == 3 and not file.stem.startswith("_"):
            names_by_group.setdefault(file.parent, set()).add(file.stem)
    return names_by_group


def test_both_locks_pin_the_same_versions() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    of_uv = {package["name"]: package["version"] for package in packages if package["name"] != "prefsweep"}
    lines = (ROOT / "requirements.lock").read_text().lower().replace("_", "-").split()
    of_pip = dict(line.split("==") for line in lines)
    both = of_uv.keys() & of_pip.keys()
    assert {name: of_uv[name] for name in both} == {name: of_pip[name] for name in both}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[<>=]", line)[0].lower().replace("_", "-") for line in declared} <= both


def test_the_readmes_tree_is_the_tree_on_disk() -> None:
    tree, files = read_tree((ROOT / "README.md").read_text()), known_to_git()
    there = {path for file in files for path in (file, *file.parents)}
    assert must_be_listed(files) - set(tree) == set()
    assert set(tree) - there == set()


def test_the_readmes_tree_names_the_choices_of_each_group() -> None:
    tree = read_tree((ROOT / "README.md").read_text())
    for group, names in choices(known_to_git()).items():
        assert names <= set(re.split(r"[\s,:;]+", tree.get(group, ""))), group


SAMPLE = """
## The tree

```
README.md      what it does
conf/          what can be said
  method/      base sft+dpo: a small graph
src/
  prefsweep/
    cli.py     words
    sweep/     several jobs
      grid.py
tests/
```
"""


def test_a_tree_reads_as_it_is_indented() -> None:
    tree = read_tree(SAMPLE)
    assert tree[Path("conf/method")] == "base sft+dpo: a small graph"
    files = [
        "README.md",
        "conf/method/sft+dpo.yaml",
        "src/prefsweep/sweep/grid.py",
        "src/prefsweep/cli.py",
        "tests/a.py",
    ]
    known = [Path(name) for name in [*files, "src/prefsweep/__init__.py"]]
    assert must_be_listed(known) == set(tree)
    assert must_be_listed([*known, Path("src/prefsweep/new/thing.py")]) - set(tree) == {
        Path("src/prefsweep/new"),
        Path("src/prefsweep/new/thing.py"),
    }
    assert choices(known) == {Path("conf/method"): {"sft+dpo"}}


def test_the_documents_show_results_as_they_were_measured() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    tables = sorted((ROOT / "results").glob("*/table.md"))
    assert tables
    for table in tables:
        rows = [line for line in table.read_text().splitlines() if line.startswith("|")]
        assert rows and all(row in pages for row in rows), table


# ---------------------------------------------------------------------------------------------------------- the text

# Words that say what was done with a thing and not what it is: none of them names anything.
DIALECT = {"said", "told", "found", "place", "places", "kept", "several", "asked"}

# The places and papers in which this was written mean nothing to who reads it. (Written so as not to find themselves.)
FOREIGN = re.compile(r"\bissue[ ]#?\d|\bsittin[g]s?\b|/wor[k]/|/tmp/[w]\b", flags=re.IGNORECASE)


def test_the_text_speaks_of_the_project_alone() -> None:
    hits = []
    for file in known_to_git():
        content = (ROOT / file).read_bytes()
        if b"\0" not in content:
            hits += [f"{file}: {hit[0]}" for hit in FOREIGN.finditer(content.decode(errors="replace"))]
    assert not hits


def test_names_say_what_a_thing_is() -> None:
    """No identifier of the code is one of the words that would fit anything."""
    hits = []
    for file in known_to_git():
        if file.suffix == ".py":
            with tokenize.open(ROOT / file) as source:
                tokens = list(tokenize.generate_tokens(source.readline))
            hits += [
                f"{file}:{token.start[0]}: {token.string}"
                for token in tokens
                if token.type == tokenize.NAME and token.string.lower() in DIALECT
            ]
    assert not hits


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_between_documents_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_to_a_line_leads_to_what_it_names(page: Path) -> None:
    assert lines.with_lines(page) == page.read_text(), "make lines puts them right"


def test_every_detail_on_the_ppo_page_has_its_line_and_its_test() -> None:
    page = (ROOT / "docs/ppo.md").read_text()
    table = re.search(r"\| detail \| where \| test \|\n.*\n((?:\|.*\n)+)", page)
    assert table
    for row in table[1].splitlines():
        detail, where, tests = row.strip("| ").split(" | ")
        assert lines.LINK.search(where) and lines.LINK.search(tests), detail


def test_a_link_names_one_definition(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text("X = 1\n\n\nclass A:\n    y: int = 2\n\n    def run(self) -> None: ...\n")
    page = tmp_path / "page.md"
    page.write_text("[`toy.A.run`](toy.py#L1) [`X`](toy.py#L9) [`A.y`](toy.py#L9) [`A`](toy.py) [A](toy.py#L1)")
    expected = "[`toy.A.run`](toy.py#L7) [`X`](toy.py#L1) [`A.y`](toy.py#L5) [`A`](toy.py) [A](toy.py#L1)"
    assert lines.with_lines(page) == expected
    page.write_text("[`B`](toy.py#L1)")
    with pytest.raises(LookupError, match=r"^`B` names 0 things in toy\.py"):
        lines.with_lines(page)


# ------------------------------------------------------------------------------------ a stage says everything of itself


def stage_literals(source: str, names: set[str]) -> Iterator[str]:
    """Strings that name a stage, a role of it or a key of it; examples within a longer text are not meant."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = re.match(r"(?:stages\.)?(\w+)(?:[/.][\w/.]*)?$", node.value)
            if name and name[1] in names and not node.value.startswith("frontier/"):  # which begins its metrics
                yield node.value


def test_no_stage_is_named_outside_its_own_module_and_its_yaml() -> None:
    from prefsweep.config import stages
    from prefsweep.config.stage import STAGES

    names = set(STAGES) - {"evaluate"}  # which is a library's name too
    assert stages and len(names) > 10
    own = {PACKAGE / "config/stages.py", *(PACKAGE / "stages").glob("*.py")}
    for file in sorted(set(PACKAGE.rglob("*.py")) - own):
        assert list(stage_literals(file.read_text(), names)) == [], file


def test_the_search_for_stages_sees_them() -> None:
    source = (
        """a = "dpo"; b = f"stages.dpo.{x}"; c = ["sft/base"]; d = "method=dpo stages.dpo.beta=1"; e = {"dpos": 1}"""
    )
    assert sorted(stage_literals(source, {"dpo", "sft"})) == ["dpo", "sft/base", "stages.dpo."]


# ------------------------------------------------------------------------------------------------------ one code path


def conditions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert | ast.match_case):
            yield ast.unparse(node.pattern if isinstance(node, ast.match_case) else node.test)
        elif isinstance(node, ast.comprehension):
            yield from map(ast.unparse, node.ifs)


def test_no_code_asks_whether_it_is_a_smoke_run() -> None:
    for file in sorted((ROOT / "src").rglob("*.py")):
        assert [condition for condition in conditions(file.read_text()) if "smoke" in condition.lower()] == [], file


def test_the_search_for_conditions_sees_all_of_them() -> None:
    source = "if a: pass\nelif b: pass\nx = 1 if c else 2\n[y for y in x if d]\nmatch x:\n case 'e': pass\n"
    assert sorted(conditions(source)) == ["'e'", "a", "b", "c", "d"]
