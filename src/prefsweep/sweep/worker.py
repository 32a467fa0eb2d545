"""One job of a sweep, in a process of its own."""

import os
import signal
import sys
from pathlib import Path

from prefsweep.errors import DivergedError, UserError
from prefsweep.jobs.job import Job
from prefsweep.jobs.run import execute, exit_on_sigterm
from prefsweep.sweep.devices import use_gpu

LOG = "job.log"


def run_job(job: Job, folder: Path, group: str, share: int, gpu: str | None) -> None:
    """Run the job with all output in job.log; run.json and the exit code say how it ended."""
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    use_gpu(gpu)
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        execute(job, folder, group, share)
    except (UserError, DivergedError) as error:  # of any other, multiprocessing prints the traceback
        print(f"prefsweep: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
