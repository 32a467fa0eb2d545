"""The share of a machine's measured matrix-product peak that DPO's forward and backward pass reach.

    python benchmarks/flops.py --device cpu --model gpt2 --rows hh --precision fp32 bf16

Only products that the result needs are counted, each once: a pair's prompt once, the vocabulary head at the tokens that
are learned, attention to visible positions, a forward and twice that backward. The time is from the end of an optimiser
step to the next one's beginning, with the loading of the batch and all else that is no product. The peak is the best of
several shapes that the model multiplies.
"""

import json
import time
from pathlib import Path
from statistics import median

import harness
from dpo import runtime, stage_settings
from harness import Bench, Run

SHAPES = ((2048, 768, 3072), (2048, 3072, 768), (4096, 4096, 4096))


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("flops", __doc__, ["gpt2", "opt-350m"], ["hh"], argv)


def measure_all(bench: Bench) -> None:
    for model, shape, precision in bench.cases():
        measure(bench, model, shape, precision)


def measure(bench: Bench, model: str, shape: str, precision: str) -> None:
    steps = bench.options.steps or (3 if bench.options.quick else {"cpu": 5, "cuda": 30}[bench.device])
    batch = bench.options.batch or (4 if bench.options.quick else {"cpu": 8, "cuda": 32}[bench.device])
    spec = {
        "steps": steps, "batch": batch, "micro_batch": min(batch, {"cpu": 4, "cuda": 32}[bench.device]),
        "forward_batch": 8, "learning_rate": 5e-5,
    }  # fmt: skip
    world = bench.world(model, shape, steps * batch)
    settings = [*stage_settings("dpo", spec, precision), "stages.dpo.validation_prompts=0", *runtime(spec)]

    def compare(folder: Path) -> dict[str, object]:
        peak = matmul_peak(bench.device, precision)
        runs = bench.in_turn(
            folder, lambda work: bench.ours(work, precision, [*world.overrides, "method=only-dpo", *settings]), None
        )[0]
        a_step = needed_flops(world.policy, world.train) / steps
        seconds = median(sum(forward_backward(run)) / (steps - 1) for run in runs)
        summary = {"peak_gflops": peak / 1e9, "gflops": a_step / seconds / 1e9, "share": a_step / seconds / peak}
        return {"summary": summary, "runs": {"ours": runs}}

    bench.case(f"{model}-{shape}-{precision}", compare, model=model, rows=shape, precision=precision, **spec)


def forward_backward(run: Run) -> list[float]:
    """Return the seconds between each optimiser step's end and the next one's beginning."""
    return [begin - end for end, begin in zip(run["steps"][:-1], run["gradients"][1:], strict=True)]


def pair_flops(prompt: int, completions: list[int], trunk: int, head: int, layers: int, width: int) -> int:
    """Return the products of one pair's forward and backward pass, three times 2 for each weight and token.

    `trunk` and `head` are numbers of weights. A completion's token sees the prompt and its own completion up to itself;
    attention multiplies each visible position's key and value by `width`, in every layer.
    """
    learned = sum(completions)
    seen = prompt * (prompt + 1) // 2 + sum(own * prompt + own * (own + 1) // 2 for own in completions)
    return 6 * (trunk * (prompt + learned) + head * learned + 2 * layers * width * seen)


def needed_flops(policy: Path, rows: Path) -> int:
    """Return the products that one pass over the rows needs; each completion ends with EOS."""
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(policy), AutoConfig.from_pretrained(policy)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    trunk = sum(weight.numel() for weight in model.parameters() if weight.dim() > 1 and id(weight) not in tables)
    head = model.get_output_embeddings().weight.numel()
    total = 0
    for row in map(json.loads, rows.read_text().splitlines()):
        prompt, *completions = (len(tokenizer(row[name])["input_ids"]) for name in ("prompt", "chosen", "rejected"))
        lengths = [length + 1 for length in completions]
        total += pair_flops(prompt, lengths, trunk, head, config.num_hidden_layers, config.hidden_size)
    return total


def matmul_peak(device: str, precision: str, repeat: int = 20) -> float:
    """Return the most floating-point operations a second that products of these shapes reach, each at its median."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    rates = []
    for rows, inner, columns in SHAPES:
        a, b = (torch.randn(size, device=device, dtype=dtype) for size in ((rows, inner), (inner, columns)))
        times = []
        for _ in range(repeat):
            begun = time.perf_counter()
            a @ b
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
        rates.append(2 * rows * inner * columns / median(times))
    return max(rates)


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
