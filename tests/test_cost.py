"""What a stage costs: its counts against hand-made ones, the clock over several attempts, GPUs that are stand-ins."""

import json
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import ppo_toy
import toy
from prefsweep.models.flops import forward_flops, multiplied, training_flops
from prefsweep.pipeline import gpu
from prefsweep.pipeline.cost import COUNTS, POINTS, SPENT, TRACE, Cost, merged, read, rows, thinned, total, watched
from prefsweep.ppo.cost import CostTracker
from prefsweep.stages import judging

# ------------------------------------------------------------------------------------------------------------- FLOPs


def test_a_forward_of_gpt2_costs_what_its_matrices_multiply() -> None:
    """By torch's own counter, which sees the products alone: no biases, no attention between tokens here."""
    from torch.utils.flop_counter import FlopCounterMode

    width, layers, words = 64, 2, 50
    model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=layers, n_head=2, n_positions=64, vocab_size=words))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(1, 1, dtype=torch.long))
    by_hand = 2 * (layers * 12 * width**2 + width * words)
    assert counter.get_total_flops() == pytest.approx(by_hand, rel=0.01)
    assert forward_flops(model, 1) == pytest.approx(by_hand, rel=0.03)  # biases and norms are parameters too
    assert forward_flops(model, 7) == 7 * forward_flops(model, 1)


def test_training_costs_six_a_parameter_and_adapters_spare_two() -> None:
    whole = ppo_toy.tiny("gpt2")
    size = sum(each.numel() for each in multiplied(whole))
    assert size == sum(each.numel() for each in whole.parameters()) - whole.transformer.wpe.weight.numel()
    assert training_flops(whole, 10) == 6 * size * 10
    adapted = ppo_toy.make_task("gpt2", lora=True).policy
    parts = [each.numel() for each in adapted.parameters() if each.requires_grad]
    assert training_flops(adapted, 10) == (4 * (size + sum(parts)) + 2 * sum(parts)) * 10


def test_a_table_that_no_head_reads_is_not_multiplied() -> None:
    reader = ppo_toy.tiny("opt").base_model
    tables = [part.weight.numel() for part in reader.modules() if isinstance(part, torch.nn.Embedding)]
    assert len(tables) == 2
    assert forward_flops(reader, 1) == 2 * (sum(each.numel() for each in reader.parameters()) - sum(tables))


class Reader:
    """A scorer that says what reading costs."""

    flops = 0

    def score(self, prompts: list[str], completions: list[str], ended: Any = None) -> dict[str, list[float]]:
        self.flops += 1000 * len(completions)
        return {"score": ppo_toy.threes(prompts, completions)}


@pytest.mark.parametrize("buys_labels", [True, False])
def test_what_an_iteration_costs_is_the_sum_of_its_parts(buys_labels: bool, ppo_config: Callable[..., Any]) -> None:
    """In the first, 24 answers to set the scale are drawn and scored too; in the second, none."""
    scorer, config = Reader(), ppo_config(score_normalisation="start", target_kl=None)
    trainer = ppo_toy.make_trainer(config, ppo_toy.make_task(score=lambda *texts: scorer.score(*texts)["score"]))
    spending = CostTracker(trainer, scorer, buys_labels)
    size = sum(each.numel() for each in multiplied(trainer.task.policy))
    for generate_completions in (48, 24):
        before = trainer.sampler.tokens_read, trainer.sampler.tokens_generated
        _, rollouts, cost = spending.iterate()
        read, generated = trainer.sampler.tokens_read - before[0], trainer.sampler.tokens_generated - before[1]
        tokens = sum(map(len, rollouts.queries)) + sum(map(len, rollouts.responses))
        assert (read, generated) >= (tokens, sum(map(len, rollouts.responses)))
        if generate_completions == 24:
            assert (read, generated) == (tokens, sum(map(len, rollouts.responses)))
        head = trainer.model.value_head.weight.numel() + 1
        looks = 2 * (size + head) * tokens + 2 * size * tokens
        assert cost == {
            "labels": generate_completions if buys_labels else 0,
            "episodes": 24,
            "tokens_generated": generated,
            "tokens_trained": config.epochs * tokens,
            "flops": 2 * size * read + looks + 1000 * generate_completions + 6 * (size + head) * config.epochs * tokens,
        }
    tally = spending.totals()
    trainer.validate(ppo_toy.QUERIES[:4])
    assert spending.totals()["tokens_generated"] > tally["tokens_generated"]  # and between two iterations nobody asks
    assert spending.iterate()[2]["labels"] == (24 if buys_labels else 0)


def test_what_an_earlier_attempt_scored_is_in_the_cost(new_context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Reader):
        def score(self, prompts: list[str], completions: list[str], ended: Any = None) -> dict[str, list[float]]:
            if self.flops:
                raise RuntimeError
            return super().score(prompts, completions, ended)

    monkeypatch.setattr(judging, "PART", 2)
    texts = ["5"] * 5, ["3", "3 3", "4", "3", "2"]
    with pytest.raises(RuntimeError):
        judging.measures(Failing(), *texts, [True] * 5, "some", new_context("killed"))
    context = new_context("killed")
    scores = judging.measures(Reader(), *texts, [True] * 5, "some", context)
    assert scores == {"score": ppo_toy.threes(*texts)}
    assert context.cost.counts["flops"] == 5000


# ------------------------------------------------------------------------------------------------- counts and clocks


def test_a_word_that_is_not_counted_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Cost().add(token=1)


def test_time_adds_up_over_attempts_and_counts_are_the_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), watched(Cost(tmp_path)) as first:
        first.add(flops=10, labels=4)
        raise RuntimeError
    assert first.record()["flops"] == 10
    written = read(tmp_path / SPENT)
    (tmp_path / SPENT).write_text(json.dumps(written | {"seconds": 100.0, "peak_memory_bytes": 2**60}))
    second = Cost(tmp_path)
    second.restore({"flops": 6})
    second.add(flops=5)
    record = second.record()
    assert 100 <= record["seconds"] < 200
    assert record["peak_memory_bytes"] == 2**60
    assert {name: record[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0) | {"flops": 11}
    assert second.row() == {f"cost/{name}": record[name] for name in COUNTS}
    assert record["gpu_hours"] == 0


def test_a_stage_has_what_it_cost_beside_its_record_and_no_time_in_its_files(tmp_path: Path) -> None:
    records, _ = toy.build(tmp_path)
    for record in records.values():
        assert set(record["cost"]) == {"seconds", "peak_memory_bytes", "gpu_hours", *COUNTS}
        assert TRACE not in record["files"]


def test_the_peak_of_memory_is_the_stages_own() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not forget a peak")
    before = Cost().spent()["peak_memory_bytes"]
    block = mmap.mmap(-1, 200_000_000)  # pages of its own: what the allocator frees, it may keep
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    assert Cost().spent()["peak_memory_bytes"] > before
    cost = Cost()
    block.close()
    assert cost.spent()["peak_memory_bytes"] > before
    assert Cost().spent()["peak_memory_bytes"] < before + 150_000_000


def test_what_several_processes_spent_is_one_stages(tmp_path: Path) -> None:
    folders = [tmp_path / "rank-0", tmp_path / "rank-1"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        spent = {"seconds": 50.0, "peak_memory_bytes": 2**60 + number, "gpu_seconds": 3600.0, "energy_joules": 10.0}
        counts = {"counts": {"flops": 7}, "energy_seconds": 5.0}
        (folder / SPENT).write_text(json.dumps(spent | counts))
        (folder / TRACE).write_text(json.dumps({"step": number, "seconds": 1.0}) + "\n")
    cost = Cost(tmp_path)
    cost.join()
    record = cost.record()
    assert record["seconds"] < 50
    assert (record["flops"], record["gpu_hours"], record["energy_joules"], record["power_watts"]) == (7, 2.0, 20.0, 2.0)
    assert record["peak_memory_bytes"] == 2**60 + 1
    (tmp_path / "artifact").mkdir()
    cost.export_to(tmp_path / "artifact")
    assert [row["step"] for row in rows(tmp_path / "artifact" / TRACE)] == [0]


def test_what_several_processes_spent_in_vain_is_counted_once(tmp_path: Path) -> None:
    rank = tmp_path / "rank-0"
    rank.mkdir()
    (tmp_path / "artifact").mkdir()
    for attempt in (1, 2, 3):
        with watched(Cost(tmp_path)) as cost:
            (rank / SPENT).write_text(json.dumps({"gpu_seconds": 100.0 * attempt, "counts": {"flops": 7 * attempt}}))
            with (rank / TRACE).open("a") as file:
                file.write(json.dumps({"step": attempt, "seconds": 1.0}) + "\n")
            cost.join()
        assert cost.spent()["gpu_seconds"] == 100.0 * attempt
        assert cost.counts["flops"] == 7 * attempt
    cost.export_to(tmp_path / "artifact")
    assert [row["step"] for row in rows(tmp_path / "artifact" / TRACE)] == [1, 2, 3]
    alone = Cost(tmp_path)  # the next attempt may be by one process
    assert alone.spent()["gpu_seconds"] == 300.0


def test_a_trace_is_thinned_to_what_a_figure_shows(tmp_path: Path) -> None:
    trace: list[dict[str, float]] = [{"seconds": float(at), "watts": float(at % 2)} for at in range(4 * POINTS)]
    points = thinned([{"step": 3, "seconds": 1.25}, *trace])
    assert points[0] == {"step": 3, "seconds": 1.25}
    assert len(points) == 1 + POINTS
    assert all(row["watts"] == 0.5 for row in points[1:])
    (tmp_path / TRACE).write_text('{"step": 1, "seconds": 2.0}\n{"seconds": 3.0, "wat')  # a kill cut it off
    assert list(rows(tmp_path / TRACE)) == [{"step": 1, "seconds": 2.0}]


def test_a_sum_says_nothing_of_what_one_of_them_does_not_know() -> None:
    new = dict.fromkeys(COUNTS, 2) | {"seconds": 1.0, "gpu_hours": 0.5, "energy_joules": 3.0}
    assert total([new, new]) == {name: 2 * value for name, value in new.items()}
    assert total([new, {"seconds": 1.0, "peak_memory_bytes": 5}]) == {"seconds": 2.0}
    lacking = {name: value for name, value in new.items() if name != "energy_joules"}
    assert "energy_joules" not in total([new, lacking])
    assert total([new, lacking | {"gpu_hours": 0.0}])["energy_joules"] == 3.0
    assert total([]) == dict.fromkeys(["seconds", *COUNTS, "gpu_hours"], 0)


def test_reasons_and_peaks_do_not_add_up() -> None:
    assert merged({"energy_left_out": "a", "seconds": 1.0}, {"energy_left_out": "b", "seconds": 2.0}) == {
        "energy_left_out": "a",
        "seconds": 3.0,
    }
    assert merged({"gpu_peak_memory_bytes": 3}, {"gpu_peak_memory_bytes": 2}) == {"gpu_peak_memory_bytes": 3}


# -------------------------------------------------------------------------------------------------------------- GPUs


class Card:
    """A GPU's driver, as torch and NVML show it: two cards, of which the second is worked on."""

    def __init__(self) -> None:
        self.allocations = [5, 5]
        self.processes = [SimpleNamespace(pid=1)]
        self.milliwatts = 250_000
        self.uuids: list[Any] = []

    def torch(self) -> Any:
        return SimpleNamespace(
            is_available=lambda: True,
            is_initialized=lambda: True,
            device_count=lambda: 2,
            memory_stats=lambda number: {"allocation.all.allocated": self.allocations[number]},
            reset_peak_memory_stats=lambda number: None,
            max_memory_allocated=lambda number: 1000 + number,
            get_device_properties=lambda number: SimpleNamespace(uuid=f"card-{number}"),
        )

    def nvml(self) -> Any:
        def handle(uuid: Any) -> str:
            self.uuids.append(uuid)
            return "handle"

        return SimpleNamespace(
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=handle,
            nvmlDeviceGetComputeRunningProcesses=lambda card: self.processes,
            nvmlDeviceGetPowerUsage=lambda card: self.milliwatts,
        )


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Card()
    monkeypatch.setattr(gpu, "cuda", made.torch)
    monkeypatch.setitem(sys.modules, "pynvml", made.nvml())
    gpu.library.cache_clear()
    yield made
    gpu.library.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [0.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


def test_power_is_that_of_the_cards_in_use(card: Card, clock: Callable[[float], None]) -> None:
    gpus = gpu.Gpus()
    assert (gpus.sample_power(), gpus.spent()) == (None, {})  # nothing runs on them yet
    card.allocations[1] += 1
    clock(10.0)
    assert gpus.sample_power() == 250.0
    clock(2.0)
    card.milliwatts = 100_000
    assert gpus.sample_power() == 100.0
    assert card.uuids == [b"GPU-card-1"] * 2
    assert gpus.spent() == {
        "gpu_seconds": 12.0,
        "gpu_peak_memory_bytes": 1001,
        "energy_joules": 250.0 * gpu.TICK + 100.0 * 2,
        "energy_seconds": gpu.TICK + 2.0,
    }


def test_a_card_that_is_shared_tells_no_energy(card: Card, clock: Callable[[float], None]) -> None:
    gpus = gpu.Gpus()
    card.allocations[0] += 1
    clock(1.0)
    assert gpus.sample_power() is not None
    card.processes.append(SimpleNamespace(pid=2))
    assert gpus.sample_power() is None
    card.processes.pop()
    assert gpus.sample_power() is None  # what it drew while it was shared is not known
    assert gpus.spent() == {
        "gpu_seconds": 1.0,
        "gpu_peak_memory_bytes": 1000,
        "energy_left_out": "NVML: another process used the GPU",
    }


def test_a_driver_that_complains_stops_nothing(card: Card, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(card: Any) -> None:
        raise OSError("the driver is gone")

    monkeypatch.setattr(sys.modules["pynvml"], "nvmlDeviceGetPowerUsage", fail)
    with watched(Cost(tmp_path)) as cost:
        card.allocations[0] += 1
    assert cost.record()["energy_left_out"] == "NVML: the driver is gone"
    cost.export_to(tmp_path / "nowhere")  # nothing was traced, so no file is written


def test_a_short_stage_is_looked_at_once(card: Card, tmp_path: Path) -> None:
    with watched(Cost(tmp_path)) as cost:
        card.allocations[0] += 1
        time.sleep(0.02)  # less would be rounded to no energy
    record = cost.record()
    assert record["power_watts"] == 250.0
    assert record["energy_joules"] > 0
    assert record["gpu_hours"] > 0


def test_without_a_driver_the_reason_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library, where there is no card: it says so, and a stage that used one would record it."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    import pynvml

    gpu.library.cache_clear()
    assert gpu.allocations() == {}
    with pytest.raises(pynvml.NVMLError):
        gpu.library()


def test_the_stand_in_has_the_librarys_words() -> None:
    import pynvml

    assert [name for name in vars(Card().nvml()) if not callable(getattr(pynvml, name, None))] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_real_card_tells_its_memory_and_its_power_or_why_not(tmp_path: Path) -> None:
    gpu.library.cache_clear()
    torch.cuda.init()
    with watched(Cost(tmp_path)) as cost:
        square = torch.ones(2048, 2048, device="cuda")
        for _ in range(200):
            square = (square @ square).clamp(max=1.0)
        torch.cuda.synchronize()
    record = cost.record()
    assert record["gpu_peak_memory_bytes"] >= square.numel() * square.element_size()
    assert record["gpu_hours"] > 0
    assert "energy_left_out" in record or 1 < record["power_watts"] < 5000


def test_a_thread_watches_while_the_work_is_done(card: Card, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("prefsweep.pipeline.cost.TICK", 0.01)
    with watched(Cost(tmp_path)) as cost:
        card.allocations[0] += 1
        while not (tmp_path / SPENT).is_file():
            time.sleep(0.01)
        cost.reached(7)
    (tmp_path / "artifact").mkdir()
    cost.export_to(tmp_path / "artifact")
    left = list(rows(tmp_path / "artifact" / TRACE))
    assert left[0]["step"] == 7
    assert left[-1]["watts"] == 250.0
