"""Run a trainer in this process and note when each optimiser step ends: the same clock for every trainer.

    python benchmarks/marks.py MARKS.json prefsweep OVERRIDES...     the command, in this process
    python benchmarks/marks.py MARKS.json trl SPEC.json              peer.py's trainer, in this process

torch calls a hook around every step of every optimiser, so neither side is changed to be timed. The clock starts after
the imports that both sides share.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


class Marks:
    """Times and peaks of memory, written to a file at the end."""

    def __init__(self, path: Path):
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        self.torch, self.path = torch, path
        self.values: dict[str, Any] = {"torch": torch.__version__, "gradients": [], "steps": []}
        register_optimizer_step_pre_hook(lambda *_: self.note("gradients"))
        register_optimizer_step_post_hook(lambda *_: self.note("steps"))
        self.values["started"] = self.now()

    def now(self) -> float:
        if self.torch.cuda.is_available() and self.torch.cuda.is_initialized():
            self.torch.cuda.synchronize()
        return time.monotonic()

    def note(self, name: str) -> None:
        self.values[name].append(self.now())

    def write(self, **more: Any) -> None:
        self.values |= more | {"ended": self.now(), "peak_bytes": peak_bytes()}
        if self.torch.cuda.is_available():
            self.values["gpu_peak_bytes"] = self.torch.cuda.max_memory_allocated()
        self.path.write_text(json.dumps(self.values))


def peak_bytes() -> int:
    """Return the most memory that this process has held; what `wait4` reports would be its parent's, before exec."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main(path: str, side: str, *arguments: str) -> int:
    for library in ("torch", "transformers", "datasets", "trl.trainer.dpo_trainer"):
        importlib.import_module(library)
    if side == "trl":
        import peer

        marks = Marks(Path(path))
        marks.write(**peer.run(json.loads(Path(arguments[0]).read_text()), marks.now))
        return 0
    from prefsweep.__main__ import main as command

    marks = Marks(Path(path))
    sys.argv = ["prefsweep", *arguments]
    code = command()
    marks.write()
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
