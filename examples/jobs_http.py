# SPDX-License-Identifier: Apache-2.0
"""The queue of ``jobs.py`` over HTTP: a plain ASGI application beside the environment, for any ASGI server.

It keeps nothing, so it may run on several nodes, be killed and be started again; what it has said "201" to is durable.

Try it::

    atoll run examples/jobs.py
    uvicorn --app-dir examples jobs_http:app
    curl -d '{"payload": "hello", "key": "first"}' http://127.0.0.1:8000/jobs
    curl http://127.0.0.1:8000/jobs/1

There is no framework here, to show that none is needed; with one, ``jobs.call`` is all that a view does.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from jobs import Job, Look, Put

import atoll
from atoll.base.errors import UserError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES_MAX = 100_000
STATUS = {"unknown": 404, "timeout": 504, "queue-full": 429}  # By code of a failure; what is not here is 503.


class App:
    """The ASGI application. It attaches to the group when the server starts, and detaches when it ends."""

    def __init__(self) -> None:
        self._group = atoll.join()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve the server's life, or one request."""
        if scope["type"] == "lifespan":
            await receive()
            try:
                async with self._group:
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
                await send({"type": "lifespan.shutdown.complete"})
            except UserError as error:  # No node runs here.
                await send({"type": "lifespan.startup.failed", "message": str(error)})
        elif scope["type"] == "http":
            status, answer = await self._answer(scope["method"], scope["path"], receive)
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": msgspec.json.encode(answer)})

    async def _answer(self, method: str, path: str, receive: Receive) -> tuple[int, object]:
        try:
            match method, path.strip("/").split("/"):
                case "POST", ["jobs"]:
                    return 201, await self._jobs(msgspec.json.decode(await _body(receive), type=Put))
                case "GET", ["jobs", number] if number.isdecimal():
                    return 200, await self._jobs(Look(int(number)))
                case _:
                    return 404, {"error": "there are POST /jobs and GET /jobs/NUMBER"}
        except msgspec.DecodeError as error:
            return 400, {"error": str(error)}
        except atoll.CallError as error:
            return STATUS.get(error.failure.code, 503), {"error": str(error)}
        except UserError as error:
            return 503, {"error": str(error)}

    async def _jobs(self, event: Put | Look) -> Job:
        jobs = await self._group.environment("jobs")
        return await jobs.call(event, Job, timeout_s=10)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more and len(body) < BODY_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


app = App()
