"""Links from the documents to lines of code. `make lines` puts every one where what it names now stands.

A link with a line says in its text what it leads to: [`trainer.Trainer.look`](../src/prefsweep/ppo/trainer.py#L1), the
module's name left out or not; a test without its `test_`, and cut with … where it is long.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[`([^`]+)`\]\(([^)#]+\.py)#L\d+\)")


def definitions(source: str) -> dict[str, int]:
    """Every function, class, method and constant of a module: `Trainer.look` → its line."""
    line_numbers: dict[str, int] = {}

    def visit(body: list[ast.stmt], above: str) -> None:
        for node in body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                line_numbers.update({above + each.id: node.lineno for each in targets if isinstance(each, ast.Name)})
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                line_numbers[above + node.name] = node.lineno
                visit(node.body if isinstance(node, ast.ClassDef) else [], f"{above}{node.name}.")

    visit(ast.parse(source).body, "")
    return line_numbers


def line_of(name: str, file: Path) -> int:
    """Of the one definition in `file` that is called so."""
    there = definitions(file.read_text())
    wanted, cut = name.removeprefix(f"{file.stem}.").removesuffix("…"), name.endswith("…")
    fits = [key for key in there if key in (wanted, f"test_{wanted}") or (cut and key.startswith(f"test_{wanted}"))]
    if len(fits) != 1:
        raise LookupError(f"`{name}` names {len(fits)} things in {file.name}; a link must name one")
    return there[fits[0]]


def with_lines(page: Path) -> str:
    """The page, each link's line as it is now."""

    def linked(match: re.Match[str]) -> str:
        name, where = match.groups()
        return f"[`{name}`]({where}#L{line_of(name, page.parent / where)})"

    return LINK.sub(linked, page.read_text())


if __name__ == "__main__":
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        page.write_text(with_lines(page))
