"""A list worked on in parts by several processes: in order, with their errors, and none is left behind."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from prefsweep.data.parts import in_order


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_parts(workers: int) -> None:
    offset = 10
    meeting = multiprocessing.get_context("fork").Barrier(workers)

    def work(part: int) -> tuple[int, int]:
        if part < workers:
            meeting.wait(60)  # each of them has one of these
        time.sleep(0.002 * (part % 3))
        return part + offset, os.getpid()

    done = list(in_order(work, iter(range(40)), workers))
    assert [number for number, _ in done] == list(range(10, 50))
    others = {process for _, process in done} - {os.getpid()}
    assert len(others) == (workers if workers > 1 else 0)
    assert all(gone(process) for process in others)


def test_no_more_parts_are_held_than_keep_the_processes_busy() -> None:
    taken: list[int] = []
    parts = (taken.append(number) or number for number in range(100))  # type: ignore[func-returns-value]
    results = in_order(str, parts, 2)
    assert next(results) == "0" and len(taken) == 5
    results.close()  # type: ignore[attr-defined]


def test_what_a_process_raises_comes_out() -> None:
    def work(part: int) -> int:
        return 1 // (part - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(40), 2))


def test_a_process_that_dies_is_an_error_and_not_a_wait() -> None:
    def work(part: int) -> int:
        if part == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    with pytest.raises(RuntimeError, match="terminated abruptly"):
        list(in_order(work, range(40), 2))


def work_for_ever(diary: Path) -> None:
    def work(part: int) -> int:
        with diary.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.05)
        return part

    for _ in in_order(work, iter(int, 1), 2):
        pass


def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    parent = multiprocessing.get_context("fork").Process(target=work_for_ever, args=(diary,))
    parent.start()
    while not diary.exists() or len(set(diary.read_text().split())) < 2:
        time.sleep(0.05)
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    left = {int(line) for line in diary.read_text().split()}
    for _ in range(100):
        if all(gone(process) for process in left):
            return
        time.sleep(0.1)
    pytest.fail(f"{left} still run")


def gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # ended, and nobody has asked how
