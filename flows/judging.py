"""How are the cases of an experiment judged side by side, each answer told as soon as it is there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Case = TypeVar("Case")


def judge_all(judge: Callable[[Case], dict[str, Any]], todo: Sequence[Case], workers: int) -> Iterator[dict[str, Any]]:
    """Judge every case, in `workers` processes of one thread each, each as soon as it is done; `judge` stands in a module."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
        try:
            for done in as_completed([processes.submit(_alone, judge, case) for case in todo]):
                yield done.result()
        finally:
            # A case that fails is told at once, not after all the others.
            processes.shutdown(cancel_futures=True)


def _alone(judge: Callable[[Case], dict[str, Any]], case: Case) -> dict[str, Any]:
    # More threads than processors would wait for each other.
    with threadpool_limits(1):
        return judge(case)
