"""Ask a running server, from Python.

    from server.client import Client

    with Client("127.0.0.1:50051") as client:
        for item in client.recommend("1", k=10).items:
            print(item.rank, item.title, item.score)

It imports neither torch nor mlflow. The command line is in `__main__.py`.
"""

from server.client.connection import DEFAULT_TARGET, DEFAULT_TIMEOUT, Client
from server.client.values import Answer, ClientError, Item, Model, ModelInfo, Reason

__all__ = [
    "DEFAULT_TARGET",
    "DEFAULT_TIMEOUT",
    "Answer",
    "Client",
    "ClientError",
    "Item",
    "Model",
    "ModelInfo",
    "Reason",
]
