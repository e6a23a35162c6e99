"""How many requests a second does a server answer, and how long does each take? wrk, a client in C."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import StackError

# Its own summary rounds; this prints what it rounds, in microseconds.
SCRIPT = """
local bodies, requests, n = {}, {}, 0
for line in io.lines(os.getenv("WRK_BODIES")) do bodies[#bodies + 1] = line end
local headers = {["Content-Type"] = "application/json"}
for name, value in string.gmatch(os.getenv("WRK_HEADERS"), "([^:\\n]+): ([^\\n]+)") do headers[name] = value end
init = function(args)
  for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", os.getenv("WRK_PATH"), headers, body) end
end
request = function() n = n % #requests + 1; return requests[n] end
done = function(summary, latency, rate)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests": %d, "seconds": %f, "failed": %d, "mean": %f, "p50": %f, "p99": %f, "slowest": %f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


@dataclass(frozen=True)
class Measured:
    """Requests in so many seconds, how many failed, and milliseconds; every connection asks again once it is answered."""

    requests: int
    seconds: float
    failed: int
    mean: float
    p50: float
    p99: float
    slowest: float

    @property
    def rps(self) -> float:
        """Requests a second that were answered as they should be."""
        return (self.requests - self.failed) / self.seconds


def run(url: str, path: str, bodies: Sequence[str], connections: int, seconds: int, headers: dict[str, str] | None = None) -> Measured:
    """POST the bodies by turns over so many connections. StackError where wrk is not installed, or cannot run."""
    if shutil.which("wrk") is None:
        raise StackError("wrk is not installed; on Debian: `apt-get install wrk`.")
    with tempfile.TemporaryDirectory() as folder:
        script, lines = Path(folder) / "post.lua", Path(folder) / "bodies.jsonl"
        script.write_text(SCRIPT, encoding="utf-8")
        lines.write_text("\n".join(bodies) + "\n", encoding="utf-8")
        told = "\n".join(f"{name}: {value}" for name, value in (headers or {}).items())
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), url]
        environment = {"WRK_BODIES": str(lines), "WRK_HEADERS": told, "WRK_PATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 120)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise StackError(f"wrk could not run: {(done.stderr or done.stdout).strip()[-300:]}")
    return Measured(**json.loads(found[0].removeprefix("RESULT ")))
