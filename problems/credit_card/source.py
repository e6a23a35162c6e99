"""Where do the credit card clients come from?

From a file, or from OpenML: data set 42477, "default of credit card clients" (Yeh, Taiwan 2005; CC BY 4.0). The
server names the columns x1 to x23 and y, in the order of the data set's documentation.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from sklearn.datasets import fetch_openml

from ratchet.contract import Contract
from ratchet.data.batch import conform
from ratchet.errors import BatchError
from ratchet.problem import Problem, Source
from ratchet.settings import settings
from ratchet.simulation.replay import Replay, open_file

OPENML = 42477


def fetch(contract: Contract) -> pd.DataFrame:
    """Fetch the data set from OpenML; scikit-learn verifies its checksum and keeps it in the state folder.

    BatchError where the server cannot be reached, or sends something else.
    """
    origin = f"OpenML data set {OPENML}"
    try:
        bunch = fetch_openml(
            data_id=OPENML, as_frame=True, parser="auto", data_home=str(settings().home / "openml"), n_retries=2, delay=1.0
        )
    except (OSError, ValueError) as error:
        raise BatchError(f"{origin}: cannot be fetched: {error}. Give a file with --source instead.") from error
    frame = bunch.frame
    names = [column.name for column in contract.columns if column.name != contract.id]
    if frame.shape[1] != len(names):
        raise BatchError(f"{origin}: has {frame.shape[1]} columns where {len(names)} are expected.")
    frame.columns = names
    frame.insert(0, contract.id, range(1, len(frame) + 1))
    return conform(frame.astype({contract.target: str}), contract, origin)


def open_source(source: str | None, seed: int, problem: Problem, contract: Contract) -> Source:
    """The rows of the file that `source` names, or those of OpenML."""
    if source is not None:
        return open_file(Path(source), seed, problem, contract)
    return Replay(fetch(contract), f"OpenML data set {OPENML}", seed, problem, contract)
