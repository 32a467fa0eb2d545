"""One job of a sweep, in a process of its own."""

import os
import signal
import sys
import traceback
from pathlib import Path

from prefsweep.errors import DivergedError, UserError
from prefsweep.jobs.job import Job
from prefsweep.jobs.run import execute, terminated
from prefsweep.sweep.devices import see_only

LOG = "job.log"


def work(job: Job, folder: Path, group: str, share: int, gpu: str | None) -> None:
    """Everything it prints goes to job.log; how it ended stands in run.json and in the exit code."""
    signal.signal(signal.SIGTERM, terminated)
    see_only(gpu)
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        execute(job, folder, group, share)
    except (UserError, DivergedError) as error:
        print(f"prefsweep: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        sys.exit(1)
