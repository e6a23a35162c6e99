"""How can real rows show drift? Replayed in shifted proportions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ratchet.contract import Contract
from ratchet.data.batch import conform, read_table
from ratchet.errors import BatchError, ContractError
from ratchet.problem import Problem


class Replay:
    """Real rows, each used at most once: first a random batch, then traffic drawn from the rest.

    Drifted traffic draws each row with the weight that `problem.yaml` gives it under `replay: favour`, so
    real rows arrive in other proportions than before.
    """

    def __init__(self, frame: pd.DataFrame, description: str, seed: int, problem: Problem, contract: Contract) -> None:
        self.description = description
        self._rng = np.random.default_rng(seed)
        self._rest = frame.sample(frac=1.0, random_state=seed).reset_index(drop=True)
        self._problem, self._target = problem, contract.target
        for expression in problem.replay.favour if problem.replay else ():
            self._holds(expression)

    def first_batch(self, rows: int) -> pd.DataFrame:
        """The first rows, at most two thirds of what there is, so that some are left to arrive later."""
        return self._take(np.arange(min(rows, len(self._rest) * 2 // 3)))

    def traffic(self, rows: int, drifted: bool) -> pd.DataFrame:
        """The next rows; BatchError where too few are left to draw from."""
        known = self._rest[self._target].notna().to_numpy()
        if known.sum() < rows:
            raise BatchError(f"{self.description}: {rows} more labelled rows are asked for, {known.sum()} are left.")
        weights = known.astype(float)
        if drifted and self._problem.replay is not None:
            for expression, weight in self._problem.replay.favour.items():
                weights = weights * np.where(self._holds(expression), weight, 1.0)
        chosen = self._rng.choice(len(self._rest), rows, replace=False, p=weights / weights.sum())
        # Favoured rows are drawn first: in that order the shift would fade away within the batch.
        return self._take(self._rng.permutation(chosen))

    def _holds(self, expression: str) -> np.ndarray:
        try:
            return np.asarray(self._rest.eval(expression), dtype=bool)
        except (NameError, SyntaxError, TypeError, ValueError) as error:
            raise ContractError(f"problem.yaml: replay.favour: {expression!r} cannot be evaluated: {error}.") from error

    def _take(self, positions: np.ndarray) -> pd.DataFrame:
        taken = self._rest.iloc[positions].reset_index(drop=True)
        self._rest = self._rest.drop(index=self._rest.index[positions]).reset_index(drop=True)
        return taken


def open_file(path: Path, seed: int, problem: Problem, contract: Contract) -> Replay:
    """Replay the rows of a CSV or Parquet file. BatchError where they do not fit the contract."""
    return Replay(conform(read_table(path), contract, str(path)), str(path), seed, problem, contract)
