"""How does BentoML run the service? Its process model and health pages, around the routes of app.py."""

from __future__ import annotations

import resource
import sys

import bentoml

from ratchet.problem import find_problem
from ratchet.settings import settings
from serving import protocol
from serving.app import Service
from serving.lines import write_json_lines

write_json_lines()
# The log's thread and the event loop take turns: the longest that one of them waits for the other.
sys.setswitchinterval(0.001)
# A connection is an open file; ask for as many as the system grants.
_, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _most))
if settings().fast_road:
    protocol.install()
_service = Service(find_problem(settings().problem, settings().problems), settings())
_app = _service.app()


@bentoml.service(
    name="prediction",
    workers=settings().workers,
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    # /metrics is our own: BentoML's middleware would time every request a second time.
    metrics={"enabled": False},
    # Spans are made even at sample rate 0; only this turns them off.
    tracing={"excluded_urls": ".*"},
    monitoring={"enabled": False},
)
@bentoml.asgi_app(_app, path="/")
class Prediction:
    """The prediction service of one problem."""

    async def __is_ready__(self) -> bool:
        """Whether the log and the route are being followed."""
        return _service.ready
