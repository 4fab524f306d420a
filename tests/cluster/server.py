"""The API over HTTP, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from aiohttp import web

from tests.cluster import discovery, requests
from tests.cluster.faults import Faults
from tests.cluster.refusals import Refusal, bad_request
from tests.cluster.rights import Asked, Rights, User
from tests.cluster.routes import Route, number, route, truth
from tests.cluster.store import Store
from tests.cluster.watching import watched

ADMIN_PATH = "/_cluster"
#: Seconds that the first part of a followed log may take before its headers go out.
_PATIENCE = 0.2
_LARGEST = 3 * 1024 * 1024
_OPEN = ("/healthz", "/livez", "/readyz", "/version")

#: (pod, container, options) -> the log. Options are those of the request, by their own names:
#: follow, previous, timestamps (bool), tailLines, sinceSeconds, limitBytes (int or None),
#: sinceTime (text or ""). It may raise a Refusal before its first part.
Logs = Callable[[dict[str, Any], str, Mapping[str, Any]], AsyncIterator[bytes]]


class Server:
    """Serves a store.

    Args:
        store: What is served.
        logs: Where pods' logs come from; without it there are none.
        rights: The users; by default nobody but who is added to it later.
        bookmarks: Seconds between the bookmarks of a watch.
    """

    def __init__(
        self,
        store: Store,
        *,
        logs: Logs | None = None,
        rights: Rights | None = None,
        bookmarks: float = 5,
    ) -> None:
        self.store = store
        self.faults = Faults()
        self.rights = rights or Rights(store)
        self.logs = logs
        self.bookmarks = bookmarks
        self.asked: dict[str, int] = {}
        """How often each verb of each resource was asked for: {"create jobs": 3}."""
        self._web: web.Server[web.BaseRequest] | None = None
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._return: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self, port: int = 0) -> str:
        """Listens on a port of loopback (0: a free one); returns the URL."""
        loop = asyncio.get_running_loop()
        if self._web is None:
            # Who has gone is answered no longer: a watch and a hang end with their client.
            self._web = web.Server(
                self._answer, access_log=None, request_factory=_request, handler_cancellation=True
            )
        self._listener = await loop.create_server(
            self._web, "127.0.0.1", port or self._port, reuse_address=True
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        return self.url

    async def stop(self) -> None:
        """Ends every connection and stops to listen."""
        if self._return is not None:
            self._return.cancel()
        await self._away()
        if self._web is not None:
            await self._web.shutdown(1)

    async def _away(self, spare: object = None) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._web.connections) if self._web is not None else ():
            if connection is not spare and connection.transport is not None:
                connection.transport.abort()

    async def outage(self, seconds: float, spare: object = None) -> None:
        """Refuses every connection for so long, and ends those that there are but one."""
        await self._away(spare)
        loop = asyncio.get_running_loop()
        self._return = loop.call_later(seconds, lambda: asyncio.ensure_future(self.back()))

    async def back(self) -> None:
        """Ends an outage, if there is one."""
        if self._return is not None:
            self._return.cancel()
            self._return = None
        if self._listener is None:
            await self.start()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        fault = None
        try:
            if request.path.startswith(ADMIN_PATH):
                return await self._admin(request)
            fault = await self.faults.befall(request)
            answer = await self._handled(request)
        except Refusal as refusal:
            answer = _refused(refusal)
        except ConnectionAbortedError:
            return self._cut(request)
        if fault is not None and fault.kind == "drop":
            return self._cut(request)
        return answer

    def _cut(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _admin(self, request: web.BaseRequest) -> web.StreamResponse:
        """The trouble maker's own path; whoever reaches this server may use it."""
        what = request.path.removeprefix(ADMIN_PATH).strip("/")
        body = json.loads(await request.read() or b"{}")
        if what == "faults" and request.method == "POST":
            self.faults.told(body)
        elif what == "faults" and request.method == "DELETE":
            self.faults.clear()
        elif what == "outage" and request.method == "POST":
            await self.outage(float(body["seconds"]), request.protocol)
        elif what == "asked" and request.method == "GET":
            return web.json_response(self.asked)
        else:
            raise bad_request(f"{request.method} {request.path} is nothing of the cluster's")
        answer = web.json_response({"met": self.faults.met})
        answer.force_close()
        return answer

    async def _handled(self, request: web.BaseRequest) -> web.StreamResponse:
        user = self.rights.user(request.headers)
        if request.path in _OPEN[:3]:
            return web.Response(text="ok")
        if request.path == _OPEN[3]:
            return web.json_response(discovery.version())
        if "system:unauthenticated" in user.groups and discovery.is_discovery(request.path):
            raise _no_path(user, request)
        if request.method == "GET" and (found := discovery.found(request.path)) is not None:
            return web.json_response(found)
        if not request.path.startswith(("/api/", "/apis/")):
            raise _no_path(user, request) if not _master(user) else discovery.nowhere()
        return await self._resource(user, route(request.path), request)

    async def _resource(
        self, user: User, place: Route, request: web.BaseRequest
    ) -> web.StreamResponse:
        asked = place.asked(request.method, request.query)
        self.rights.check(user, asked)
        told = f"{asked.verb} {asked.resource}"
        self.asked[told] = self.asked.get(told, 0) + 1
        if place.review:
            return await self._review(user, request)
        if place.subresource == "log":
            return await self._log(place, request)
        if asked.verb in ("watch", "list") and truth(request.query, "watch"):
            return await watched(self.store, place, request, self.bookmarks)
        return await requests.answer(self.store, place, asked.verb, request)

    async def _review(self, user: User, request: web.BaseRequest) -> web.Response:
        """SelfSubjectAccessReview: whether the asker may do something."""
        review, _ = await requests.body(request)
        wanted = (review.get("spec") or {}).get("resourceAttributes")
        if wanted is None:
            raise bad_request("a review of anything but resourceAttributes is not served here")
        resource = wanted.get("resource", "*")
        if wanted.get("subresource"):
            resource = f"{resource}/{wanted['subresource']}"
        asked = Asked(
            wanted.get("verb", "*"),
            wanted.get("group", ""),
            resource,
            wanted.get("namespace", ""),
            wanted.get("name", ""),
        )
        status = {"allowed": self.rights.may(user, asked)}
        return web.json_response({**review, "status": status}, status=201)

    async def _log(self, place: Route, request: web.BaseRequest) -> web.StreamResponse:
        pod = self.store.read("Pod", place.namespace, place.name)
        query = request.query
        container = requests.log_container(pod, query.get("container", ""))
        options: dict[str, Any] = {
            flag: truth(query, flag) for flag in ("follow", "previous", "timestamps")
        }
        for key in ("tailLines", "sinceSeconds", "limitBytes"):
            options[key] = number(query, key)
        options["sinceTime"] = query.get("sinceTime", "")
        requests.log_is_there(pod, container, previous=options["previous"])
        parts = self._parts(pod, container, options)
        first = asyncio.ensure_future(anext(parts, None))
        # Who follows a log that is still empty gets the headers; else a refusal comes first.
        try:
            await asyncio.wait({first}, timeout=_PATIENCE if options["follow"] else None)
            if first.done():
                first.result()
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            with contextlib.suppress(ConnectionResetError):
                part = await first
                while part is not None:
                    await response.write(part)
                    part = await anext(parts, None)
                await response.write_eof()
        finally:
            first.cancel()
        return response

    async def _parts(
        self, pod: dict[str, Any], container: str, options: Mapping[str, Any]
    ) -> AsyncIterator[bytes]:
        """A log, as long as it may be."""
        if self.logs is None or not pod["spec"].get("nodeName"):
            return
        left = options["limitBytes"]
        async for part in self.logs(pod, container, options):
            yield part[:left]
            left = None if left is None else left - len(part)
            if left is not None and left <= 0:
                return


def _request(*parts: Any) -> web.BaseRequest:
    return web.BaseRequest(*parts, asyncio.get_running_loop(), client_max_size=_LARGEST)


def _refused(refusal: Refusal) -> web.Response:
    headers = {}
    if "retryAfterSeconds" in refusal.details:
        headers["Retry-After"] = str(refusal.details["retryAfterSeconds"])
    return web.json_response(refusal.status(), status=refusal.code, headers=headers)


def _master(user: User) -> bool:
    return "system:masters" in user.groups


def _no_path(user: User, request: web.BaseRequest) -> Refusal:
    verb = request.method.lower()
    return Refusal(
        403, "Forbidden", f'forbidden: User "{user.name}" cannot {verb} path "{request.path}"'
    )
