"""What is drawn is what was measured: lines, dots, cells and bars, read back from the figure itself."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prefsweep.pipeline.cost import TRACE
from prefsweep.report import curves, figures, style
from prefsweep.report.runs import read_runs
from prefsweep.report.table import table
from recorded import write_completions, write_run


def with_stage(run: Path, role: str, **files: list[dict[str, Any]]) -> None:
    """The run's stage in this role, with these files of rows."""
    record = json.loads((run / "run.json").read_text())
    identity = f"{role}-{run.name}"
    record["stages"][role] = identity
    record["config"]["runtime"]["outputs"] = str(run.parents[1] / "outputs")
    (run / "run.json").write_text(json.dumps(record))
    folder = run.parents[1] / "outputs/stages" / role / identity
    folder.mkdir(parents=True)
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def panel(figure: Figure, title: str) -> Any:
    (match,) = (axes for axes in figure.axes if axes.get_title(loc="left") == title)
    return match


def lines(axes: Any) -> list[tuple[list[float], list[float], str, str]]:
    """Of those with points: x, y, colour, dashes. A legend's lines have none."""
    return [
        (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())), line.get_color(), line.get_linestyle())
        for line in axes.lines
        if len(line.get_xdata())
    ]


def history(per_epoch: int, steps: int, epochs: bool = True) -> list[dict[str, Any]]:
    """A training row every step, a validation at each end of an epoch, as a stage leaves them."""
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        at = {"step": step, **({"epoch": step / per_epoch} if epochs else {})}
        rows.append({**at, "loss": 1 / step, "learning_rate": 0.1})
        if step % per_epoch == 0:
            rows.append({**at, "validation/loss": 2 / step, "validation/margin": float(step)})
    return rows


def test_curves_are_the_history_and_turn_at_epochs(tmp_path: Path) -> None:
    for method in ("dpo", "sft"):
        run = write_run(tmp_path / "s", method, 1, {"judge/mean": 0.5})
        with_stage(run, "dpo", history=history(per_epoch=2, steps=6))
        with_stage(run, "reward", history=history(per_epoch=6, steps=6))
    data = table(read_runs([tmp_path / "s"]))
    figure = drawn(curves.draw_panels(data, curves.points_of(data, curves.training)))
    loss = panel(figure, "dpo: loss")
    assert loss.get_xlabel() == "epoch"
    learned = ([0.5, 1.0, 1.5, 2.0, 2.5, 3.0], [1 / step for step in range(1, 7)])
    checked = ([1.0, 2.0, 3.0], [2 / step for step in (2, 4, 6)])
    for row in (0, 1):
        colour = style.colour(row)
        assert [line for line in lines(loss) if line[2] == colour] == [
            (*learned, colour, "-"),
            (*checked, colour, "--"),
        ]
    assert lines(panel(figure, "dpo: reward margin"))[0][:2] == ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert panel(figure, "reward: loss").get_xlabel() == "step"  # which read its data once


def test_where_one_history_knows_no_epochs_all_are_drawn_by_step(tmp_path: Path) -> None:
    for seed, knows in ((1, True), (2, False)):
        run = write_run(tmp_path / "s", "dpo", seed, {"judge/mean": 0.5})
        with_stage(run, "dpo", history=history(per_epoch=2, steps=6, epochs=knows))
    data = table(read_runs([tmp_path / "s"]))
    figure = drawn(curves.draw_panels(data, curves.points_of(data, curves.training)))
    loss = panel(figure, "dpo: loss")
    assert loss.get_xlabel() == "step"
    assert {tuple(line[0]) for line in lines(loss)} == {(1, 2, 3, 4, 5, 6), (2, 4, 6)}


def test_a_hyperparameter_is_a_line_through_its_means_over_dots(tmp_path: Path) -> None:
    for beta, scores in {0.1: (0.2, 0.4), 0.5: (0.6, 0.8), 2.0: (0.1, 0.3)}.items():
        for seed, score in enumerate(scores, 1):
            write_run(tmp_path / "s", "dpo", seed, {"judge/mean": score}, **{"stages.dpo.beta": beta})
    (axes,) = drawn(figures.draw_effects(table(read_runs([tmp_path / "s"])))).axes
    line, *dots = lines(axes)
    assert [(x, y) for x, y, *_ in dots] == [([0.1] * 2, [0.2, 0.4]), ([0.5] * 2, [0.6, 0.8]), ([2.0] * 2, [0.1, 0.3])]
    assert line[0] == [0.1, 0.5, 2.0] and line[1] == pytest.approx([0.3, 0.7, 0.2])


def test_of_two_hyperparameters_the_second_tells_lines_apart(tmp_path: Path) -> None:
    score = {(0.1, 1e-5): 0.2, (0.1, 1e-4): 0.4, (1.0, 1e-5): 0.9}  # one of the four was not run
    for (beta, rate), mean in score.items():
        write_run(tmp_path / "s", "dpo", 1, {"judge/mean": mean}, **{"stages.dpo.beta": beta, "stages.dpo.rate": rate})
    (axes,) = drawn(figures.draw_effects(table(read_runs([tmp_path / "s"])))).axes
    named = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert named["dpo.rate 1e-05"] == ([0.1, 1.0], [0.2, 0.9]) and named["dpo.rate 0.0001"] == ([0.1], [0.4])


def test_dots_bars_and_intervals_are_those_of_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for method, centre in (("dpo", 0.6), ("ppo", 0.2)):
        for seed in (1, 2, 3):
            run = write_run(tmp_path / "s", method, seed, {"kl/base": centre * 10 + seed})
            write_completions(run, {"judge/mean": list(centre + rng.normal(scale=0.1, size=40))})
    runs = read_runs([tmp_path / "s"])
    data = table(runs, ["judge/mean"])
    rows, tradeoff = figures.draw_runs(data).axes
    (bars,) = drawn(figures.draw_bars(data)).axes
    for index, row in enumerate(data.rows):
        (cell,) = row.cells
        colour = style.colour(index)
        assert cell.mean is not None and cell.interval is not None
        assert [line[0] for line in lines(rows) if line[2] == colour] == [pytest.approx(cell.values)]
        kl = cell.runs["kl/base"].tolist()
        assert [line[:2] for line in lines(tradeoff) if line[2] == colour] == [(kl, pytest.approx(cell.values))]
        assert cast(Rectangle, bars.patches[index]).get_height() == pytest.approx(cell.mean)
        assert list(cast(Any, bars.collections[index]).get_segments()[0][:, 1]) == pytest.approx(cell.interval)
        (left, at), (right, _) = cast(Any, rows.collections[2 * index + 1]).get_segments()[0]
        assert (left, right) == pytest.approx(cell.interval) and abs(at - index) < 0.5


def test_power_by_the_minute_and_cost_by_the_run(tmp_path: Path) -> None:
    for method, watts, flops in (("dpo", 150.0, 1e12), ("ppo", 300.0, 4e12)):
        cost = {"stages": {}, "method": {"flops": flops, "labels": 7}}
        run = write_run(tmp_path / "s", method, 1, {"judge/mean": watts / 1000}, cost=cost)
        looks = [{"seconds": 60.0 * minute, "watts": watts + minute} for minute in (1, 2, 3)]
        with_stage(run, method, **{Path(TRACE).stem: [{"seconds": 5.0, "step": 1}, *looks]})
    data = table(read_runs([tmp_path / "s"]))
    figure = drawn(curves.draw_panels(data, curves.points_of(data, curves.power), curves.POWER))
    for method, watts in (("dpo", 150.0), ("ppo", 300.0)):
        ((x, y, *_),) = lines(panel(figure, method))
        assert (x, y) == ([1.0, 2.0, 3.0], [watts + minute for minute in (1, 2, 3)])
        assert panel(figure, method).get_ylim()[0] == 0
    by_cost = drawn(curves.draw_panels(data, curves.points_of(data, curves.cost), is_marked=True))
    (axes,) = (axes for axes in by_cost.axes if axes.axison)  # of labels all took as many
    assert axes.get_xlabel() == "FLOPs" and [line[:2] for line in lines(axes)] == [([1e12], [0.15]), ([4e12], [0.3])]


# Machado, Oliveira and Fernandes 2009: what the three kinds of the colour-blind see of linear RGB.
SEEN = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, at its white."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt((to_xyz @ rgb) / to_xyz.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", ["everybody", *SEEN])
def test_the_colours_of_two_rows_differ_for_everybody(kind: str) -> None:
    """By at least twice what is just seen side by side (a difference of about 2.3), and no shape comes with two."""
    linear = [
        np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)])
        for name in style.COLOURS
    ]
    seen = [lab(np.clip(np.array(SEEN[kind]) @ colour, 0, 1) if kind in SEEN else colour) for colour in linear]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 4.6
    both = [(style.colour(index), style.marker(index)) for index in range(len(style.COLOURS) * len(style.MARKERS))]
    assert len(set(both)) == len(both)


def test_in_black_and_white_print_shapes_tell_rows_apart() -> None:
    assert len({style.marker(index) for index in range(6)}) == 6
