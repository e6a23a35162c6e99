"""What happens when a person, or CI at its time limit, ends a command?"""

from __future__ import annotations

import signal
import sys
from types import FrameType


def interruptible() -> None:
    """From here on Ctrl-C and SIGTERM say that the command ends, and raise KeyboardInterrupt, so that servers are ended with it.

    What is ignored stays so, as Ctrl-C is in the background job of a script.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    # CI lets SIGTERM follow soon, which must not end the ending. A second Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: None)
    print("\nInterrupted: what is at work is brought to an end. This may take a minute.", file=sys.stderr)
    signal.default_int_handler(number, frame)
