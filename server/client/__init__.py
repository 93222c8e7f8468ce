"""Ask a running server, from Python.

    from server.client import Client

    with Client("127.0.0.1:50051") as client:
        for item in client.recommend("1", k=10).items:
            print(item.rank, item.title, item.score)

Many at once, over one stream, and the same with asyncio:

    from server.client import AsyncClient, Recommend

    with Client() as client:
        for reply in client.recommend_stream(Recommend(user) for user in users):
            print(reply.query.user_id, reply.answer or reply.error)

    async with AsyncClient() as client:
        async for reply in client.recommend_stream(Recommend(user) for user in users):
            print(reply.query.user_id, reply.answer or reply.error)

It imports neither torch nor mlflow. The command line is in `__main__.py`.
"""

from server.client.aio import AsyncClient
from server.client.channel import DEFAULT_TARGET, DEFAULT_TIMEOUT
from server.client.connection import Client
from server.client.exchange import DEFAULT_IN_FLIGHT
from server.client.queries import Recommend, Score, Similar
from server.client.values import (
    Answer,
    ClientError,
    Item,
    Model,
    ModelInfo,
    ModelStatus,
    RankingMethod,
    Reason,
    RegistryStatus,
    Reply,
    ShadowAgreement,
)

__all__ = [
    "DEFAULT_IN_FLIGHT",
    "DEFAULT_TARGET",
    "DEFAULT_TIMEOUT",
    "Answer",
    "AsyncClient",
    "Client",
    "ClientError",
    "Item",
    "Model",
    "ModelInfo",
    "ModelStatus",
    "RankingMethod",
    "Reason",
    "Recommend",
    "RegistryStatus",
    "Reply",
    "Score",
    "ShadowAgreement",
    "Similar",
]
