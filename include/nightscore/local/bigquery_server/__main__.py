"""Start `local-bigquery` with our patches: `python -m bigquery_server --port 9050 --grpc-port 9060 --data-dir DIR`.

The patches replace private functions, so exactly one version of the server is accepted. `--stock` leaves out every
patch that changes behaviour: the tests use it to show what each patch mends.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

SUPPORTED = "0.4.0"


def main() -> None:
    """Serve until SIGTERM."""
    installed = version("local-bigquery")
    if installed != SUPPORTED:
        sys.exit(
            f"The patches fit local-bigquery {SUPPORTED}, but {installed} is installed in {sys.prefix}. "
            f"Install {Path(__file__).with_name('requirements.txt')} there."
        )
    options = _parser().parse_args()

    from bigquery_server.patches import EXTENSIONS, PATCHES
    from local_bigquery.settings import settings

    settings.bigquery_host = options.host
    settings.bigquery_port = options.port
    settings.grpc_port = options.grpc_port
    settings.default_project_id = options.project
    settings.data_dir = options.data_dir
    for apply in (EXTENSIONS,) if options.stock else (EXTENSIONS, *PATCHES):
        apply()

    from local_bigquery import cli

    cli.main([])  # its defaults are the settings above


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bigquery_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--project", default="local")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--stock", action="store_true", help="apply no patch but the offline extensions")
    return parser


if __name__ == "__main__":
    main()
