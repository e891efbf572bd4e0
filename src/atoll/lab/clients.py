# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs at both ends: a plain HTTP server and plain HTTP clients, and how long the clients waited.

They know nothing of atoll: the standard library's ``http.client`` in a thread each, one request after the other on a
connection that is kept, as a browser or a database client would.
"""

import http.client
import http.server
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

__all__ = ["HttpClient", "Pacer", "Request", "Visit", "Visitor", "Waits", "http_server", "waits_of"]

TIMEOUT_S: Final = 5.0  # What a patient program waits before it calls a request failed.
PACE_S: Final = 0.05  # From the end of one request to the start of the next.
REQUESTS_MAX: Final = 100_000  # Limit. Kept in memory; a demo makes some hundreds.
VISIT_S: Final = 0.25  # From visit to visit: each is a new connection.
WHO: Final = "/who"  # Asks which machine answers.

Whose = Callable[[int], str]
"""Return the name of the machine that a connection came to, by the port from which it reached the server."""


def nobody(_: int) -> str:
    """Know no machine by name."""
    return ""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a few bytes: what WHO asks for is the name of the machine on which this is."""
        body = b"hello from the other side\n"
        if self.path == WHO and isinstance(self.server, _Server):
            body = self.server.whose(int(self.client_address[1])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so.
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, whose: Whose) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.whose: Final = whose

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that went away, because its path did, is what the demo is about."""


@contextmanager
def http_server(whose: Whose = nobody) -> Generator[int]:
    """Serve HTTP on a loopback port until the block ends; yield the port.

    Args:
        whose: All machines of a lab share one loopback, and so one server; this tells which it stands for.
    """
    server = _Server(whose)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it began and ended, monotonic seconds, and whether it was answered."""

    began_s: float
    ended_s: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Waits:
    """What a client saw in a span of time.

    Attributes:
        requests: Begun in it; ``failed`` of them were not answered; ``late``: answered, but after more than LATE_TIMES
            its usual time.
        silence_s: Longest time without an answer, from the onset on.
        usual_s: Median time of an answer before the onset.
    """

    requests: int
    failed: int
    late: int
    silence_s: float
    usual_s: float


LATE_TIMES: Final = 3


@final
class Pacer:
    """Does the same again and again in a thread, from ``start`` to ``ask_to_stop``, at most REQUESTS_MAX times.

    Args:
        work: Does it once.
        pause_s: From the end of one to the start of the next.
    """

    def __init__(self, work: Callable[[], None], pause_s: float) -> None:
        self._work, self._pause_s = work, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._again, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End after what is under way; does not wait for it. Twice is harmless."""
        self._stop.set()

    def _again(self) -> None:
        for _ in range(REQUESTS_MAX):
            if self._stop.is_set():
                return
            self._work()
            self._stop.wait(self._pause_s)


@final
class HttpClient:
    """A client that keeps its connection; ``pacer`` starts and ends it.

    Args:
        port: Loopback port of the forward.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None
        self.pacer: Final = Pacer(self._request, PACE_S)
        self.requests: Final[list[Request]] = []

    def _request(self) -> None:
        began_s, answered = time.monotonic(), False
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
            self._connection.request("GET", "/")
            answered = self._connection.getresponse().read() != b""
        except (OSError, http.client.HTTPException):
            if self._connection is not None:
                self._connection.close()
            self._connection = None  # As any program would: a new connection after a failure.
        self.requests.append(Request(began_s, time.monotonic(), answered))

    def waits(self, onset_s: float, end_s: float) -> Waits:
        """Return what the client saw between two instants; an unfinished request counts as silence until ``end_s``."""
        return waits_of(tuple(self.requests), onset_s, end_s)


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection for one request: when it began and ended, monotonic seconds, and who answered; empty: nobody."""

    began_s: float
    ended_s: float
    who: str

    @property
    def answered(self) -> bool:
        """Whether it was answered."""
        return bool(self.who)


@final
class Visitor:
    """A client that makes a new connection for each request, as short-lived programs do; ``pacer`` starts and ends it.

    Args:
        port: Loopback port of the forward.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.pacer: Final = Pacer(self._visit, VISIT_S)
        self.visits: Final[list[Visit]] = []

    def _visit(self) -> None:
        began_s, who = time.monotonic(), ""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", WHO, headers={"Connection": "close"})
            who = connection.getresponse().read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            pass  # Nobody answered, which the visit tells.
        finally:
            connection.close()
        self.visits.append(Visit(began_s, time.monotonic(), who))

    def waits(self, onset_s: float, end_s: float) -> Waits:
        """Return what the client saw between two instants, as ``HttpClient.waits``."""
        return waits_of(tuple(self.visits), onset_s, end_s)

    def answer_s(self, from_s: float, until_s: float) -> float:
        """Return the median time of an answer to the visits that began in [from, until); 0.0: there was none."""
        known = tuple(self.visits)
        return _median(
            visit.ended_s - visit.began_s for visit in known if visit.who and from_s <= visit.began_s < until_s
        )

    def hosts(self, from_s: float, until_s: float) -> tuple[str, ...]:
        """Return which machines answered visits that began in [from, until), in the order in which they first did."""
        known = tuple(self.visits)
        return tuple(dict.fromkeys(visit.who for visit in known if visit.who and from_s <= visit.began_s < until_s))

    def moved_s(self, away_from: str) -> float | None:
        """Return when the first visit began of those that end the list and were not to this machine; None: none."""
        began_s = None
        for visit in reversed(tuple(self.visits)):
            if visit.who in {away_from, ""}:
                break
            began_s = visit.began_s
        return began_s


def _median(times_s: Iterable[float]) -> float:
    ordered = sorted(times_s)
    return ordered[len(ordered) // 2] if ordered else 0.0


def waits_of(known: Sequence[Request | Visit], onset_s: float, end_s: float) -> Waits:
    """Return what a client saw between two instants, of the clock of its requests."""
    usual_s = _median(r.ended_s - r.began_s for r in known if r.answered and r.ended_s <= onset_s)
    inside = [r for r in known if r.ended_s > onset_s and r.began_s < end_s]
    answers = [onset_s, *sorted(r.ended_s for r in inside if r.answered and r.ended_s < end_s), end_s]
    return Waits(
        requests=len(inside),
        failed=sum(not r.answered for r in inside),
        late=sum(r.answered and r.ended_s - r.began_s > LATE_TIMES * usual_s for r in inside),
        silence_s=max(later - earlier for earlier, later in pairwise(answers)),
        usual_s=usual_s,
    )
