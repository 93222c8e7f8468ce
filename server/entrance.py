"""What calls that are not answered can take of the server: next to nothing.

gRPC waits for the message of a call that is not a stream, however long it takes to come, and until then the call has a
place among those in flight. So callers without a token are turned away before their message is read, as are all while
too much waits, and the services that are open to all have few places for each connection, and wait a few seconds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

Metadata = Sequence[tuple[str, str | bytes]]


class Entrance(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service's methods, for calls whose message is worth reading."""

    def __init__(
        self,
        methods: grpc.GenericRpcHandler,
        refusal: Callable[[grpc.HandlerCallDetails], Callable[..., Any] | None],
    ) -> None:
        """refusal  what ends a call that may not go on; None for one that may"""
        self._methods = methods
        self._refusal = refusal

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        found = self._methods.service(details)
        if found is None or (refusal := self._refusal(details)) is None:
            return found
        # as for a stream, whatever the method: so it gets its turn before a message is there
        return grpc.stream_stream_rpc_method_handler(refusal)


class OpenServices:
    """Stands for a grpc.aio.Server where generated code adds a servicer that is open to all."""

    PLACES = 32  # calls in flight on one connection, health watchers above all
    PATIENCE = 5.0  # seconds for the first message to come
    REST = 60.0  # seconds between two messages of a stream

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self._open: Counter[str] = Counter()  # by connection

    def add_generic_rpc_handlers(self, _: Sequence[grpc.GenericRpcHandler]) -> None:
        """Generated code adds its methods in two ways; one is enough."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        bounded = {name: self._bounded(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, bounded),))

    def _bounded(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        async def handle(_: object, context: grpc.aio.ServicerContext) -> None:
            connection = context.peer()
            if self._open[connection] >= self.PLACES:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self.PLACES} such calls are in flight on this connection. Try again later.",
                )
            self._open[connection] += 1
            try:
                parse = handler.request_deserializer
                if handler.request_streaming:
                    async for reply in handler.stream_stream(self._requests(parse, context), context):
                        await context.write(reply)
                    return
                request = await self._request(parse, context, self.PATIENCE) or parse(b"")
                if handler.response_streaming:
                    await handler.unary_stream(request, context)
                else:
                    await context.write(await handler.unary_unary(request, context))
            except NotImplementedError:  # health's List; gRPC would log a traceback for whoever asks
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The server does not have this method.")
            finally:
                self._open[connection] -= 1
                if not self._open[connection]:
                    del self._open[connection]

        return grpc.stream_stream_rpc_method_handler(handle, response_serializer=handler.response_serializer)

    async def _requests(
        self, parse: Callable[[bytes], Any], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        patience = self.PATIENCE
        while (request := await self._request(parse, context, patience)) is not None:
            yield request
            patience = self.REST

    async def _request(
        self, parse: Callable[[bytes], Any], context: grpc.aio.ServicerContext, patience: float
    ) -> Any:
        """None where the client sends no more."""
        try:
            async with asyncio.timeout(patience):
                raw = await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"No message came for {patience:g} s.")
        if raw is grpc.aio.EOF:
            return None
        try:
            return parse(raw)
        except DecodeError:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "The bytes are not a message of this method's type."
            )
