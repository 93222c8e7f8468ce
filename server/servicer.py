"""The service: decode, ask the model, encode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import TypeVar

import grpc

from server import convert, status
from server.model_store import ModelStore
from server.pb import recommender_pb2 as pb
from server.settings import ServerSettings
from widedeep.errors import InvalidQueryError

Result = TypeVar("Result")


class Recommender:
    """The methods of widedeep.v1.Recommender. Errors are raised; `Calls` makes statuses of them."""

    def __init__(self, store: ModelStore, settings: ServerSettings, compute: Executor) -> None:
        """compute  where models work, so that the event loop never waits for one"""
        self.store = store
        self.settings = settings
        self.compute = compute

    async def Recommend(
        self, request: pb.RecommendRequest, _: grpc.aio.ServicerContext
    ) -> pb.RecommendResponse:
        response = pb.RecommendResponse()
        await self._recommend(request, response)
        return response

    async def RecommendStream(
        self, requests: AsyncIterator[pb.RecommendStreamRequest], _: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.RecommendStreamResponse]:
        async for message in requests:
            reply = pb.RecommendStreamResponse()
            with status.reported(reply.status):
                await self._recommend(_enclosed(message), reply.response)
            reply.request_id = message.request.request_id
            yield reply

    async def Score(self, request: pb.ScoreRequest, _: grpc.aio.ServicerContext) -> pb.ScoreResponse:
        response = pb.ScoreResponse()
        await self._score(request, response)
        return response

    async def ScoreStream(
        self, requests: AsyncIterator[pb.ScoreStreamRequest], _: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ScoreStreamResponse]:
        async for message in requests:
            reply = pb.ScoreStreamResponse()
            with status.reported(reply.status):
                await self._score(_enclosed(message), reply.response)
            reply.request_id = message.request.request_id
            yield reply

    async def GetModel(self, _: pb.GetModelRequest, __: grpc.aio.ServicerContext) -> pb.GetModelResponse:
        with self.store.lease() as model:
            return convert.to_model_response(model)

    async def _recommend(self, request: pb.RecommendRequest, response: pb.RecommendResponse) -> None:
        query = convert.to_query(request, self.settings)
        with self.store.lease() as model:
            ranking, details = await self._computed(model.recommend, query, request.include_details)
            convert.fill_recommendation(response, request, ranking, details, model)

    async def _score(self, request: pb.ScoreRequest, response: pb.ScoreResponse) -> None:
        query = convert.to_score_query(request, self.settings)
        with self.store.lease() as model:
            scores, details = await self._computed(model.score, query, request.include_details)
            convert.fill_scores(response, request, scores, details, model)

    async def _computed(self, function: Callable[..., Result], *arguments: object) -> Result:
        """A call that is cancelled before its turn is never computed."""
        return await asyncio.get_running_loop().run_in_executor(self.compute, function, *arguments)


def _enclosed(
    message: pb.RecommendStreamRequest | pb.ScoreStreamRequest,
) -> pb.RecommendRequest | pb.ScoreRequest:
    if not message.HasField("request"):
        raise InvalidQueryError("request", "is missing, or the message is not one of this stream.")
    return message.request
