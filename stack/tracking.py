"""Is MLflow's database of the version that its server wants? Brought forward before the server starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys


def main() -> None:
    """Run MLflow's own migration on MLFLOW_BACKEND_STORE_URI. Ends with a sentence where it cannot be done."""
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]], capture_output=True, text=True
    )
    if done.returncode == 0:
        print("MLflow's database is of this version")
        return
    said = done.stderr.strip().splitlines()
    if newer := re.search(r"Can't locate revision identified by '(\w+)'", done.stderr):
        sys.exit(f"MLflow's database was written by a newer MLflow (revision {newer[1]}). Start that release again; nothing was changed.")
    sys.exit(f"MLflow's database cannot be used: {said[-1] if said else 'no reason given'}. Check MLFLOW_DB_PASSWORD in .env.")


if __name__ == "__main__":
    main()
