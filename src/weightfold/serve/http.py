"""The HTTP service.

Starlette and (in `server`) uvicorn: the smallest well-kept pair that streams uploads, has a
lifespan to drain in, and finishes requests on SIGTERM; FastAPI would add a schema layer that image
bytes have no use for.

| request | answer |
|---|---|
| POST /v1/domains/NAME/predict?top=5, an image as the body | {"domain", "predictions": [...]} |
| the same, files as multipart/form-data | {"domain", "images": [{"file", "predictions"}]} |
| GET /v1/domains | the domains with their classes and preprocessing |
| GET /healthz, /readyz | 200 while the process lives, while it takes on images |
| GET /metrics | Prometheus' text format |

A prediction is {"class": index, "label": name, "probability": p}, the likeliest first. An error is
{"error": text} with 400, 404, 408, 413, 415, 422, 500 or 503.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive
from torch import Tensor

from weightfold.core.preprocessing import Preprocessing
from weightfold.data.decode import count_pixels
from weightfold.serve.batcher import Batcher, Refused
from weightfold.serve.decoders import Decoders
from weightfold.serve.images import UndecodableImage, check_servable, prepare
from weightfold.serve.limits import DEFAULT, Limits
from weightfold.serve.metrics import CountRequests, Metrics
from weightfold.serve.snapshot import DomainUnavailable

if TYPE_CHECKING:
    from weightfold.serve.engine import Engine

Files = list[tuple[str, bytes]]
Result = TypeVar("Result")

_CLOSE = {"connection": "close"}
_LATER = {"retry-after": "1"}


def make_app(engine: "Engine", limits: Limits = DEFAULT) -> Starlette:
    """The service as an ASGI application, for any ASGI server.

    `server.serve` runs it on uvicorn and adds the limits on connections.

    Args:
        engine: What predicts. The application owns no other state, and any number may live in one
            process.
        limits: What it accepts.

    Raises:
        ValueError: A domain whose images cannot be made of image files.
    """
    for domain in engine.domains:
        _servable(engine, domain, limits)
    service = _Service(engine, limits)
    count = Middleware(CountRequests, metrics=service.metrics)
    predict = "/v1/domains/{domain}/predict"
    return Starlette(
        routes=[
            Route(predict, service.predict, methods=["POST"], middleware=[count]),
            Route("/v1/domains", service.domains),
            Route("/healthz", service.healthz),
            Route("/readyz", service.readyz),
            Route("/metrics", service.show_metrics),
        ],
        exception_handlers={
            HTTPException: _refuse,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
        lifespan=service.lifespan,
    )


class _Service:
    """The endpoints."""

    def __init__(self, engine: "Engine", limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self.metrics = Metrics(engine)
        self._batcher = Batcher(
            engine,
            max_batch=limits.max_batch,
            max_wait_ms=limits.max_wait_ms,
            max_queue=limits.max_queue,
            observe=self.metrics.observe_batch,
        )
        self.metrics.waiting.set_function(lambda: self._batcher.waiting)
        self._decoders = Decoders(limits.max_decoding_pixels)
        self._under_way = 0
        self.metrics.under_way.set_function(lambda: self._under_way)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Run the threads; on leaving, compute what waits."""
        async with self._decoders, self._batcher:
            yield

    async def healthz(self, request: Request) -> Response:
        """Alive."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Whether images are taken on."""
        if self._batcher.accepting:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "starting or shutting down"}, 503)

    async def show_metrics(self, request: Request) -> Response:
        """The metrics."""
        return self.metrics.page()

    async def domains(self, request: Request) -> Response:
        """What can be asked of this server."""
        await self._refresh()
        while True:
            version = self._engine.version
            with suppress(KeyError):  # of a domain that was removed meanwhile
                listed = [self._describe(domain) for domain in self._engine.domains]
                refused = self._engine.update_refused
                if self._engine.version == version:
                    break
        told = {} if refused is None else {"update_refused": refused}
        return JSONResponse({"domains": listed, **told})

    async def predict(self, request: Request) -> Response:
        """Classify the images of a request."""
        await self._refresh()
        domain, top = self._domain(request), _top(request)
        if self._under_way >= self._limits.max_requests:
            raise HTTPException(503, "too many requests are under way; try again later", _LATER)
        if not self._batcher.accepting:
            raise HTTPException(503, "the server is starting or shutting down", _LATER)
        self._under_way += 1
        try:
            files = await self._receive(request)
            answers, classes = await self._answer(request, files, domain)
        finally:
            self._under_way -= 1
        ranked = [_ranking(answer, classes, top) for answer in answers]
        if _content_type(request) != "multipart/form-data":
            return JSONResponse({"domain": domain, "predictions": ranked[0]})
        rows = zip(files, ranked, strict=True)
        listed = [{"file": name, "predictions": ranking} for (name, _), ranking in rows]
        return JSONResponse({"domain": domain, "images": listed})

    async def _refresh(self) -> None:
        """Take over a bundle that was written again, in a thread."""
        if self._engine.outdated:
            await asyncio.to_thread(self._engine.refresh)

    def _domain(self, request: Request) -> str:
        """The domain that the path names."""
        given, domains = request.path_params["domain"], self._engine.domains
        if given not in domains:
            near = get_close_matches(given, domains, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise HTTPException(404, f"no domain {given!r}; {hint}there are: {', '.join(domains)}")
        request.state.domain = given
        return given

    def _describe(self, domain: str) -> dict[str, Any]:
        classes = self._engine.classes(domain)
        described = {"name": domain, "num_classes": len(classes), "classes": list(classes)}
        try:
            prepared = _servable(self._engine, domain, self._limits)
        except ValueError as error:
            return {**described, "refused": str(error)}
        return described | {
            "preprocessing": {
                "image_shape": list(prepared.image_shape),
                "mean": list(prepared.mean),
                "std": list(prepared.std),
            },
        }

    async def _receive(self, request: Request) -> Files:
        """Names and bytes of the uploaded files, at least one."""
        limits = self._limits
        try:
            async with asyncio.timeout(limits.timeout_s):
                return await _files(request, limits.max_bytes, limits.max_images)
        except TimeoutError:
            text = f"the request did not arrive within {limits.timeout_s:g} s"
            raise HTTPException(408, text, _CLOSE) from None

    async def _answer(
        self, request: Request, files: Files, domain: str
    ) -> tuple[list[Tensor], tuple[str, ...]]:
        """What `_classify` gives, unless the client leaves or the time is up."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await _unless_gone(request, self._classify(files, domain))
        except (Refused, DomainUnavailable) as error:
            raise HTTPException(503, str(error), _LATER) from error
        except TimeoutError:
            text = f"no answer within {self._limits.timeout_s:g} s; try again later"
            raise HTTPException(503, text, _LATER) from None

    async def _classify(self, files: Files, domain: str) -> tuple[list[Tensor], tuple[str, ...]]:
        """Probabilities of the images, and the names of the classes.

        Done again where the bundle was written again meanwhile, so that images are prepared,
        computed and named by one and the same state of it.
        """
        while True:
            version = self._engine.version
            try:
                images = await self._prepare(files, self._wanted(domain))
                answers = await self._batcher.predict(images, domain)
                classes = self._engine.classes(domain)
                if self._engine.version == version:
                    return answers, classes
            except Exception:
                if self._engine.version == version:
                    raise
            if domain not in self._engine.domains:
                raise HTTPException(404, f"there is no domain {domain!r} any more")

    def _wanted(self, domain: str) -> Preprocessing:
        """How the images of a domain, which may have come while this serves, are prepared."""
        try:
            return _servable(self._engine, domain, self._limits)
        except ValueError as error:
            raise HTTPException(503, str(error)) from error

    async def _prepare(self, files: Files, wanted: Preprocessing) -> list[Tensor]:
        """The files as the domain's network takes them, decoded in threads."""
        limits, pixels = self._limits, []
        for name, data in files:
            options = {"size": wanted.image_shape[1], "max_pixels": limits.max_pixels}
            pixels.append(await self._decoding(name, partial(count_pixels, data, **options)))
        if (total := sum(pixels)) > limits.max_request_pixels:
            raise HTTPException(
                413,
                f"the images of the request have {total} pixels; at most "
                f"{limits.max_request_pixels} are taken at once",
            )
        images = []
        for (name, data), count in zip(files, pixels, strict=True):
            work = partial(prepare, data, wanted, max_pixels=limits.max_pixels)
            images.append(await self._decoding(name, work, count))
        return images

    async def _decoding(self, name: str, work: Callable[[], Result], pixels: int = 0) -> Result:
        """What `work` on the file `name` gives, in a thread with room for `pixels`."""
        try:
            return await self._decoders.run(work, pixels)
        except UndecodableImage as error:
            raise HTTPException(422, f"{name}: {error}") from error


def _servable(engine: "Engine", domain: str, limits: Limits) -> Preprocessing:
    """How a domain's images are prepared.

    Raises:
        ValueError: They cannot come from image files, or the bundle does not say how.
    """
    wanted = engine.preprocessing(domain)
    check_servable(domain, wanted.image_shape)
    size = wanted.image_shape[1]
    if size * size > limits.max_pixels:
        raise ValueError(
            f"domain {domain!r} takes images of {size} x {size}, more than "
            f"max_pixels={limits.max_pixels}"
        )
    return wanted


def _top(request: Request) -> int:
    """How many predictions the query asks for."""
    given = request.query_params.get("top", "5")
    if not (given.isascii() and given.isdigit() and len(given) <= 100 and int(given) > 0):
        raise HTTPException(
            400, f"top={given[:20]!r} must be a positive number of at most 100 digits"
        )
    return int(given)


def _content_type(request: Request) -> str:
    """Of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _files(request: Request, max_bytes: int, max_images: int) -> Files:
    """Names and bytes of the files in a body of at most `max_bytes`."""
    kind = _content_type(request)
    bounded = Request(request.scope, _bounded(request, max_bytes))
    if kind == "multipart/form-data":
        async with bounded.form(max_files=max_images, max_fields=0) as form:
            parts = [part for _, part in form.multi_items() if not isinstance(part, str)]
            files = [(part.filename or "?", await part.read()) for part in parts]
    elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
        body = await bounded.body()
        files = [("body", body)] if body else []
    else:
        raise HTTPException(
            415,
            f"content type {kind!r} is not taken; send an image as the body with image/png or the "
            "like, or several as multipart/form-data",
        )
    if not files:
        raise HTTPException(400, "the request has no image")
    return files


def _bounded(request: Request, max_bytes: int) -> Receive:
    """The request's `receive`, which refuses to go past `max_bytes`, announced or received."""
    announced, received = int(request.headers.get("content-length", 0)), 0
    # What was announced, uvicorn drops, and a client that reads only after it has sent all sees the
    # answer; what has no end is cut off.
    headers = _CLOSE if "transfer-encoding" in request.headers else {}
    error = HTTPException(413, f"the request has more than {max_bytes} bytes", headers)

    async def receive() -> Message:
        nonlocal received
        if announced > max_bytes:
            raise error
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise error
        return message

    return receive


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, cancelled when the client closes the connection.

    Raises:
        ClientDisconnect: It did.
    """
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise ClientDisconnect
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    """Return when the client closes the connection; its body has been received."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _ranking(probabilities: Tensor, classes: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    """The `top` likeliest classes, or all if there are fewer."""
    values, indices = probabilities.topk(min(top, len(classes)))
    return [
        {"class": index, "label": classes[index], "probability": value}
        for index, value in zip(indices.tolist(), values.tolist(), strict=True)
    ]


async def _refuse(request: Request, error: Exception) -> Response:
    """What the client did wrong, or that there is too much to do."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads it; the status (nginx's) is for the metrics."""
    return Response(status_code=499)


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of the server, whose log has the traceback."""
    return JSONResponse({"error": "the server could not answer; its log says why"}, 500)
