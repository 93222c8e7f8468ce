"""Generate server/pb out of proto/.

    python -m server.generate

Needs grpcio-tools, which the `dev` extra installs. The code is committed; a test holds it to be fresh.
"""

from __future__ import annotations

import sys
from pathlib import Path

import google.rpc

ROOT = Path(__file__).resolve().parent.parent


def generate(out: Path) -> None:
    """Write the generated code to `out`/server/pb.

    Raises  RuntimeError: protoc refused a file; it has said why on stderr
    """
    import grpc_tools  # type: ignore[import-untyped]
    from grpc_tools import protoc

    # google/protobuf comes with grpcio-tools, google/rpc with googleapis-common-protos.
    well_known = Path(grpc_tools.__path__[0]) / "_proto"
    googleapis = Path(next(iter(google.rpc.__path__))).parent.parent
    # proto/ is mapped to server/pb, so that the generated modules import one another as server.pb.
    (out / "server" / "pb").mkdir(parents=True, exist_ok=True)
    arguments = [
        "protoc",
        f"-Iserver/pb={ROOT / 'proto'}",
        f"-I{well_known}",
        f"-I{googleapis}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *map(str, sorted((ROOT / "proto").glob("*.proto"))),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc refused what is in proto/.")


if __name__ == "__main__":
    try:
        generate(ROOT)
    except ModuleNotFoundError:
        sys.exit("grpcio-tools is not installed. Run: pip install -e '.[dev]'")
    except RuntimeError as error:
        sys.exit(str(error))
