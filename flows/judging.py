"""How are the cases of an experiment judged side by side, each answer told as soon as it is there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

Case = TypeVar("Case")


def judge_all(judge: Callable[[Case], dict[str, Any]], todo: Sequence[Case], workers: int) -> Iterator[dict[str, Any]]:
    """Judge every case, in `workers` processes, each as soon as it is done; `judge` stands in a module."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
        try:
            for done in as_completed([processes.submit(judge, case) for case in todo]):
                yield done.result()
        finally:
            # A case that fails is told at once, not after all the others.
            processes.shutdown(cancel_futures=True)
