"""The service: decode, ask the model, encode."""

from __future__ import annotations

from typing import TypeAlias

import grpc

from server import convert, describe, status
from server.lanes import Lanes
from server.model_store import ModelStore
from server.pb import recommender_pb2 as pb
from server.settings import ServerSettings
from server.shadow import Shadow
from widedeep.errors import InvalidQueryError

Context: TypeAlias = grpc.aio.ServicerContext


class Recommender:
    """The methods of widedeep.v1.Recommender. Errors are raised; `Calls` makes statuses of them.

    A method of a stream answers one of its messages, with a status of its own where that cannot be answered.
    """

    def __init__(self, store: ModelStore, settings: ServerSettings, lanes: Lanes, shadow: Shadow) -> None:
        self.store = store
        self.settings = settings
        self.lanes = lanes
        self.shadow = shadow

    async def Recommend(self, request: pb.RecommendRequest, context: Context) -> pb.RecommendResponse:
        response = pb.RecommendResponse()
        await self._recommend(request, response, context.time_remaining())
        return response

    async def RecommendStream(self, message: pb.RecommendStreamRequest) -> pb.RecommendStreamResponse:
        reply = pb.RecommendStreamResponse(request_id=message.request.request_id)
        with status.reported(reply.status):
            await self._recommend(_enclosed(message), reply.response, patient=True)
        return reply

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        response = pb.ScoreResponse()
        await self._score(request, response, context.time_remaining())
        return response

    async def ScoreStream(self, message: pb.ScoreStreamRequest) -> pb.ScoreStreamResponse:
        reply = pb.ScoreStreamResponse(request_id=message.request.request_id)
        with status.reported(reply.status):
            await self._score(_enclosed(message), reply.response, patient=True)
        return reply

    async def SimilarItems(
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        query = convert.to_similar_query(request, self.settings)
        with self.store.lease("", request.request_id, request.model_version) as model:
            answer = await self.lanes.similar(model, query, request.include_details, context.time_remaining())
            return convert.to_similar_response(request, *answer, model)

    async def GetModel(self, _: pb.GetModelRequest, __: Context) -> pb.GetModelResponse:
        return describe.to_model_response(self.store.main(), self.store.status(), self.shadow.agreement)

    async def ListModels(self, _: pb.ListModelsRequest, __: Context) -> pb.ListModelsResponse:
        return describe.to_models_response(self.store.status(), self.shadow.agreement)

    async def _recommend(
        self,
        request: pb.RecommendRequest,
        response: pb.RecommendResponse,
        remaining: float | None = None,
        patient: bool = False,
    ) -> None:
        query = convert.to_query(request, self.settings)
        with self.store.lease(request.user_id, request.request_id, request.model_version) as model:
            answer = await self.lanes.recommend(model, query, request.include_details, remaining, patient)
            convert.fill_recommendation(response, request, *answer, model)
            if not request.model_version:
                self.shadow.recommend(model, query, answer[0])

    async def _score(
        self,
        request: pb.ScoreRequest,
        response: pb.ScoreResponse,
        remaining: float | None = None,
        patient: bool = False,
    ) -> None:
        query = convert.to_score_query(request, self.settings)
        with self.store.lease(request.user_id, request.request_id, request.model_version) as model:
            answer = await self.lanes.score(model, query, request.include_details, remaining, patient)
            convert.fill_scores(response, request, *answer, model)
            if not request.model_version:
                self.shadow.score(model, query, answer[0])


def _enclosed(
    message: pb.RecommendStreamRequest | pb.ScoreStreamRequest,
) -> pb.RecommendRequest | pb.ScoreRequest:
    if not message.HasField("request"):
        raise InvalidQueryError("request", "is missing, or the message is not one of this stream.")
    return message.request
