"""The command line: `nightscore …`, one of the two front doors.

Exit codes: 0 done (for `run`: published), 1 a gate refused the data, 2 usage or configuration, 3 infrastructure.
"""

import os
import sys
import traceback

from typer import Abort, TyperException

from nightscore.cli.app import app
from nightscore.cli.console import INTERRUPTED, PIPE_CLOSED, errors_as_json, print_error, print_usage_error
from nightscore.errors import NightscoreError

INFRASTRUCTURE = 3
USAGE = 2


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    try:
        # Not standalone: a wrong option, too, is answered by JSON where JSON was asked for.
        sys.exit(app(standalone_mode=False) or 0)
    except NightscoreError as error:
        print_error(error, as_json=errors_as_json(sys.argv))
        sys.exit(error.exit_code)
    except TyperException as error:
        print_usage_error(error, as_json=errors_as_json(sys.argv))
        sys.exit(USAGE)
    except Abort:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more while it ends
        sys.exit(PIPE_CLOSED)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one exit code and the whole traceback
        traceback.print_exc()
        print_error(error, as_json=errors_as_json(sys.argv))
        sys.exit(INFRASTRUCTURE)
