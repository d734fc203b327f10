"""Copy the trusted signers from Airflow's bucket: `signers.py BUCKET PREFIX FOLDER`."""

import sys
from pathlib import Path

from nightscore.clients import build_storage
from nightscore.settings import settings


def main() -> None:
    """Write every file right below the prefix into the folder; end with 1 when there is none."""
    bucket, prefix, folder = sys.argv[1], sys.argv[2].strip("/") + "/", Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    found = 0
    for blob in build_storage(settings()).list_blobs(bucket, prefix=prefix):
        name = blob.name.removeprefix(prefix)
        if name and "/" not in name:
            (folder / name).write_bytes(blob.download_as_bytes())
            found += 1
    if not found:
        sys.exit(f"NIGHTSCORE_TRUSTED_SIGNERS is set, and gs://{bucket}/{prefix} has no files.")


if __name__ == "__main__":
    main()
