"""`nightscore docs`: Great Expectations' pages about a run, served on this machine until Ctrl-C."""

import contextlib
from typing import Annotated

import typer

from nightscore.cli.console import err


def docs(
    run: Annotated[str, typer.Argument(help="A run's id, or its beginning.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 chooses a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Show what a run's gates checked: its Data Docs, served on 127.0.0.1 until Ctrl-C.

    The pages need no network and hold no rows. The first line printed is their address.
    """
    import sys
    import webbrowser

    from nightscore.cli.app import services
    from nightscore.cli.runs import find_run
    from nightscore.gates.data_docs import site_of
    from nightscore.gates.serving import serve
    from nightscore.records import RunRecords

    bucket = services().bucket
    pages = site_of(RunRecords(bucket, *find_run(bucket, run)))
    with serve(pages, port) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        err.print("Ctrl-C ends it.", markup=False)
        if not no_open:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
