"""Commands of the tests as forks of one server that has imported the libraries, as the jobs of a sweep are."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMIT = 400  # seconds of one command


class Server:
    """Starts commands one at a time; ends when this process does, because its stdin then closes."""

    def __init__(self, environment: dict[str, str]) -> None:
        line = [sys.executable, __file__]
        self.process = subprocess.Popen(
            line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, words: tuple[str, ...], folder: Path, environment: dict[str, str]) -> Any:
        """Run `prefsweep` with these words in a folder; return what `subprocess.run` returns."""
        assert self.process.stdin and self.process.stdout
        with tempfile.TemporaryDirectory() as aside:
            out, err = Path(aside, "stdout"), Path(aside, "stderr")
            request = {"words": words, "folder": str(folder), "environment": environment, "files": [str(out), str(err)]}
            print(json.dumps(request), file=self.process.stdin)
            code = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(["prefsweep", *words], code, out.read_text(), err.read_text())


def serve() -> list[str]:
    """Fork for each request and answer with the exit code; return in the fork alone, with the words of its command."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library may print while it is imported
    from prefsweep.__main__ import QUIET

    os.environ |= QUIET | os.environ
    import prefsweep.sweep.preload  # noqa: F401
    from prefsweep.sweep import driver

    driver.forkserver = lambda: multiprocessing.get_context("fork")  # this process is what it would start
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
            return list(request["words"])
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers)
    sys.exit()


def become(request: dict[str, Any]) -> None:
    """Give this process the folder, the environment and the files that the command would have been started with."""
    signal.alarm(LIMIT)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    modes = ((os.devnull, os.O_RDONLY), *((file, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for file in request["files"]))
    for number, (file, mode) in enumerate(modes):
        os.dup2(os.open(file, mode), number)


if __name__ == "__main__":
    words = serve()
    from prefsweep import __main__

    sys.argv = [__main__.__file__, *words]
    sys.exit(__main__.main())
