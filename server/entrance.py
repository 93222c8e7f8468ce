"""What callers that nobody knows can take of the server: next to nothing.

gRPC waits for the message of a call that is not a stream, however long it takes to come, and until then the call has a
place among those in flight. So callers without a token are turned away before their message is read, and the services
that are open to all have few places and wait a few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

Metadata = Sequence[tuple[str, str | bytes]]


class Entrance(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service's methods, for callers that are known."""

    def __init__(
        self,
        methods: grpc.GenericRpcHandler,
        knows: Callable[[Metadata], bool],
        refusals: Mapping[str, Callable[..., Any]],
    ) -> None:
        """
        knows     whether a call with this metadata may go on
        refusals  by full method name, such as /widedeep.v1.Recommender/Score: what ends a call that may not
        """
        self._methods = methods
        self._knows = knows
        self._refusals = {
            # As for a stream, whatever the method: this is how it gets its turn before a message is there.
            name: grpc.stream_stream_rpc_method_handler(refusal)
            for name, refusal in refusals.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        found = self._methods.service(details)
        if found is None or self._knows(details.invocation_metadata or ()):
            return found
        return self._refusals[details.method]


class OpenServices:
    """Stands for a grpc.aio.Server where generated code adds a servicer that is open to all."""

    PLACES = 64  # calls in flight, health watchers above all
    PATIENCE = 5.0  # seconds for the message to come

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self._open = 0

    def add_generic_rpc_handlers(self, _: Sequence[grpc.GenericRpcHandler]) -> None:
        """Generated code adds its methods in two ways; one is enough."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        bounded = {name: self._bounded(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, bounded),))

    def _bounded(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        async def handle(_: object, context: grpc.aio.ServicerContext) -> None:
            if self._open >= self.PLACES:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self.PLACES} such calls are in flight. Try again later.",
                )
            self._open += 1
            try:
                request = await self._request(handler.request_deserializer, context)
                if handler.response_streaming:
                    await handler.unary_stream(request, context)
                else:
                    await context.write(await handler.unary_unary(request, context))
            except NotImplementedError:  # health's List; gRPC would log a traceback for whoever asks
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The server does not have this method.")
            finally:
                self._open -= 1

        return grpc.stream_stream_rpc_method_handler(handle, response_serializer=handler.response_serializer)

    async def _request(self, parse: Callable[[bytes], Any], context: grpc.aio.ServicerContext) -> Any:
        try:
            async with asyncio.timeout(self.PATIENCE):
                raw = await context.read()
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"No message came for {self.PATIENCE:g} s."
            )
        try:
            return parse(b"" if raw is grpc.aio.EOF else raw)
        except DecodeError:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "The bytes are not a message of this method's type."
            )
