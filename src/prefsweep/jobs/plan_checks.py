"""Reject a plan whose judge is its reward, whose scorer has no data to train on, or whose stage does not exist."""

import contextlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefsweep.config.schema import Config, LocalConfig
from prefsweep.errors import UserError
from prefsweep.pipeline.plan import Plan
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import RECORD


def check_plan(plan: Plan, config: Config) -> None:
    check_targets(plan)
    trained = {stage.config.trains_scorer: stage for stage in plan.stages if stage.config.trains_scorer}
    if not config.method.allow_reward_as_judge:
        check_judge(plan, config, trained)
    if config.dataset.pairs == "generated" and isinstance(config.dataset, LocalConfig):
        check_pairs(config.dataset, trained)
    if "judge" in trained and not config.method.allow_reward_as_judge:
        check_shares(plan, config, trained["judge"])
    if config.dataset.pairs == "labelled":
        for name in (stage.name for stage in plan.stages if stage.config.needs_pairs):
            raise UserError(f"dataset.pairs=labelled: stages.{name} learns from pairs; set method=kto")


def check_judge(plan: Plan, config: Config, trained: dict[str, Any]) -> None:
    """Refuse to judge by the reward that was optimised: a policy learns to exploit the mistakes of its reward."""
    if {"reward", "judge"} <= trained.keys():
        return  # they learn other prompts
    sections = {name: stage.payload["sections"][name] for stage in plan.stages for name in stage.sections}
    same = {"reward", "judge"} <= sections.keys() and weights_of(sections["reward"]) == weights_of(sections["judge"])
    if same or ("reward" in trained and stage_at(getattr(config.judge, "path", None)) == trained["reward"].identity):
        choices = "choose another, or set method.allow_reward_as_judge=true"
        raise UserError(f"scorer@judge={config.judge.name}: is the reward that the method trains on; {choices}")


def weights_of(section: dict[str, Any]) -> Any:
    """Return what names a scorer's weights, whatever its other settings: their content, or their commit on the hub."""
    return section.get("path") or (section.get("id") and (section["id"], section["revision"])) or section


def stage_at(path: str | None) -> str | None:
    """Return the identity of the finished stage in a folder, or above a state that the stage kept."""
    for folder in [Path(path), *Path(path).resolve().parents[:2]] if path else []:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not the folder of a finished stage
            return str(json.loads((folder / RECORD).read_text())["identity"])
    return None


def check_shares(plan: Plan, config: Config, judge: Stage) -> None:
    """Refuse a judge that learns prompts from which a policy or a reward learns too."""
    share, (first, last) = config.dataset.share, judge.config.share
    learners = [stage for stage in plan.stages if stage.config.learns_from(config.dataset) and stage is not judge]
    start, end = share or (0, 1)
    if learners and max(start, first) < min(end, last):
        reason = f"{learners[0].name} would learn prompts that the judge learns too"
        rest = f"[0,{first:g}]" if first > 0 else f"[{last:g},1]"
        advice = f"set dataset.share={rest}" if last - first < 1 else f"set stages.{judge.name}.share=[0.5,1]"
        setting = f"dataset.share={share or 'null'}, stages.{judge.name}.share={judge.config.share}"
        raise UserError(f"{setting}: {reason}; {advice}")


def check_pairs(dataset: Any, trained: dict[str, Any]) -> None:
    """Refuse to train a scorer without pairs: generated pairs are ranked by a reward that must exist before them."""
    for role in trained:
        other = {"judge": "sentiment-roberta", "reward": "distilbert-imdb"}[role]
        reason = f"dataset={dataset.name} has no pairs to train it on"
        raise UserError(f"scorer@{role}=trained: {reason}; set scorer@{role}={other}, or another from the hub")


def check_targets(plan: Plan) -> None:
    """The module of every stage must exist. It is not imported, which would take seconds and may need torch."""
    for stage in plan.stages:
        module = stage.config._target_.rpartition(".")[0]
        try:
            exists = bool(module) and find_spec(module) is not None
        except ImportError:
            exists = False
        if not exists:
            target = f"stages.{stage.name}._target_={stage.config._target_}"
            raise UserError(f"{target}: no such module; set package.module.function")
