"""Ask a running server.

python -m server.client recommend --target 127.0.0.1:50051 --user-id 1 --k 10
python -m server.client recommend --history 318,296,593 --genre Comedy --year-from 1990
python -m server.client recommend --user-id 1 --explain 3 --diversity 0.3
python -m server.client score --user-id 1 --item-ids 318,296,593
python -m server.client similar --item-ids 318
python -m server.client info
python -m server.client models
python -m server.client health
python -m server.client bench --duration 30 --rate 500 --mix recommend=1,score=4,score_stream=4
python -m server.client admin status --target 127.0.0.1:50052
python -m server.client admin pin 7
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from server.client import arguments
from server.client.connection import Client
from server.client.values import ClientError


def main(words: Sequence[str] | None = None) -> int:
    """Returns  exit status: 0 for an answer, 1 for an error of the server or its absence, 2 for unusable flags"""
    given = arguments.parser().parse_args(words)
    command: Callable[..., int] = given.command
    try:
        given.connection = arguments.connection(given)
        with getattr(given, "client", Client)(**given.connection) as client:
            status = command(client, given)
            sys.stdout.flush()
            return status
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
