"""The one entrypoint: environment, dispatch, exit codes.

Exit codes: 0 done; 1 a run or a job of a sweep failed (a bug keeps its traceback); 2 bad input, reported in one line;
130 interrupted.
"""

import os
import sys

from prefsweep.cli import commands
from prefsweep.cli.parser import parse
from prefsweep.errors import DivergedError, UserError

QUIET = {
    # TRL reports each trainer's name to the hub from a thread; nothing is sent that was not asked for.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # transformers asks the hub, from a thread, to convert a repository that has only a .bin.
    "DISABLE_SAFETENSORS_CONVERSION": "1",
}


def main() -> int:
    os.environ |= QUIET | os.environ
    try:
        return dispatch(sys.argv[1:])
    except UserError as error:
        code, message = 2, str(error)
    except DivergedError as error:
        code, message = 1, str(error)
    except KeyboardInterrupt:
        code, message = 130, "interrupted; the same command goes on from here"
    print(f"prefsweep: {message}", file=sys.stderr)
    return code


def dispatch(argv: list[str]) -> int:
    command, arguments = parse(argv)
    code: int = getattr(commands, command)(**arguments) or 0
    return code


if __name__ == "__main__":
    sys.exit(main())
