"""The wire contract: its generated code is fresh, and all of it is explained."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from server.generate import ROOT, generate
from server.pb import recommender_pb2 as pb

PROTO = ROOT / "proto" / "recommender.proto"
GENERATED = ("recommender_pb2.py", "recommender_pb2.pyi", "recommender_pb2_grpc.py")

FILE = descriptor_pb2.FileDescriptorProto()
pb.DESCRIPTOR.CopyToProto(FILE)


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools, of the dev extra")
    generate(tmp_path)
    for name in GENERATED:
        fresh = (tmp_path / "server" / "pb" / name).read_text()
        assert (ROOT / "server" / "pb" / name).read_text() == fresh, "run: python -m server.generate"
    committed = {path.name for path in (ROOT / "server" / "pb").iterdir() if path.is_file()}
    assert committed == {"__init__.py", *GENERATED}


def test_package() -> None:
    assert FILE.package == "widedeep.v1"
    assert FILE.syntax == "proto3"
    assert [service.name for service in FILE.service] == ["Recommender"]


def test_enum_zeros_say_that_nothing_was_said() -> None:
    assert FILE.enum_type
    for enum in FILE.enum_type:
        prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.name).lstrip(
            "_"
        )
        assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
        assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


def test_each_method_has_messages_of_its_own() -> None:
    for method in FILE.service[0].method:
        assert method.input_type == f".widedeep.v1.{method.name}Request"
        assert method.output_type == f".widedeep.v1.{method.name}Response"
        assert method.client_streaming == method.server_streaming == method.name.endswith("Stream")


def test_names_are_in_buf_style() -> None:
    for message in FILE.message_type:
        assert message.name[0].isupper()
        assert "_" not in message.name
        for field in message.field:
            assert field.name == field.name.lower()
            is_list = field.label == field.LABEL_REPEATED
            assert not is_list or field.name.endswith(("s", "ies")), f"{message.name}.{field.name} is a list"


def test_lists_are_flat_and_packed() -> None:
    """A submessage for each item would cost six to eight times as much."""
    for message in FILE.message_type:
        for field in message.field:
            if field.label == field.LABEL_REPEATED and field.type == field.TYPE_MESSAGE:
                rare = field.type_name.endswith(
                    (".MetricsEntry", ".ModelStatus")
                )  # few, and seldom asked for
                assert rare, f"{message.name}.{field.name}"
            assert not field.options.HasField("packed"), "proto3 packs by itself"


def test_everything_has_a_comment() -> None:
    """On the line above each message, field, enum, value, service and method; on the file, too."""
    lines = [line.strip() for line in PROTO.read_text().splitlines()]
    assert lines[0].startswith("// ")
    declared = 0
    for above, line in itertools.pairwise(lines):
        if line.startswith(("message ", "enum ", "service ", "rpc ")) or (
            "=" in line and not line.startswith(("//", "syntax"))
        ):
            declared += 1
            assert above.startswith("// "), f"no comment above: {line}"
    expected = len(FILE.service) + sum(1 + len(message.field) for message in FILE.message_type)
    expected += sum(len(service.method) for service in FILE.service)
    expected += sum(1 + len(enum.value) for enum in FILE.enum_type)
    assert declared == expected, "the test missed a declaration"
