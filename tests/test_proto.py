"""The wire contract: its generated code is fresh, and all of it is explained."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from server.generate import ROOT, generate
from server.pb import admin_pb2
from server.pb import recommender_pb2 as pb

GENERATED = tuple(
    f"{name}_{ending}" for name in ("admin", "recommender") for ending in ("pb2.py", "pb2.pyi", "pb2_grpc.py")
)


def described(module: Any) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


FILES = [pytest.param(described(module), id=module.__name__) for module in (pb, admin_pb2)]
every_file = pytest.mark.parametrize("file", FILES)


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools, of the dev extra")
    generate(tmp_path)
    for name in GENERATED:
        fresh = (tmp_path / "server" / "pb" / name).read_text()
        assert (ROOT / "server" / "pb" / name).read_text() == fresh, "run: python -m server.generate"
    committed = {path.name for path in (ROOT / "server" / "pb").iterdir() if path.is_file()}
    assert committed == {"__init__.py", *GENERATED}


def test_packages() -> None:
    found = [
        (file.package, [service.name for service in file.service]) for file in map(described, (pb, admin_pb2))
    ]
    assert found == [("widedeep.v1", ["Recommender"]), ("widedeep.admin.v1", ["Admin"])]


@every_file
def test_enum_zeros_say_that_nothing_was_said(file: descriptor_pb2.FileDescriptorProto) -> None:
    assert file.enum_type
    for enum in file.enum_type:
        prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.name).lstrip(
            "_"
        )
        assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
        assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


@every_file
def test_each_method_has_messages_of_its_own(file: descriptor_pb2.FileDescriptorProto) -> None:
    for method in file.service[0].method:
        assert method.input_type == f".{file.package}.{method.name}Request"
        assert method.output_type == f".{file.package}.{method.name}Response"
        assert method.client_streaming == method.server_streaming == method.name.endswith("Stream")


@every_file
def test_names_are_in_buf_style(file: descriptor_pb2.FileDescriptorProto) -> None:
    for message in file.message_type:
        assert message.name[0].isupper()
        assert "_" not in message.name
        for field in message.field:
            assert field.name == field.name.lower()
            is_list = field.label == field.LABEL_REPEATED
            assert not is_list or field.name.endswith(("s", "ies")), f"{message.name}.{field.name} is a list"


@every_file
def test_lists_are_flat_and_packed(file: descriptor_pb2.FileDescriptorProto) -> None:
    """A submessage for each item would cost six to eight times as much."""
    for message in file.message_type:
        for field in message.field:
            if field.label == field.LABEL_REPEATED and field.type == field.TYPE_MESSAGE:
                rare = field.type_name.endswith(
                    (".MetricsEntry", ".ModelStatus", ".WorkerStatus", ".LaneStatus")
                )  # few, and seldom asked for
                assert rare, f"{message.name}.{field.name}"
            assert not field.options.HasField("packed"), "proto3 packs by itself"


@every_file
def test_everything_has_a_comment(file: descriptor_pb2.FileDescriptorProto) -> None:
    """On the line above each message, field, enum, value, service and method; on the file, too."""
    path = ROOT / "proto" / Path(file.name).name
    lines = [line.strip() for line in path.read_text().splitlines()]
    assert lines[0].startswith("// ")
    declared = 0
    for above, line in itertools.pairwise(lines):
        if line.startswith(("message ", "enum ", "service ", "rpc ")) or (
            "=" in line and not line.startswith(("//", "syntax"))
        ):
            declared += 1
            assert above.startswith("// "), f"no comment above: {line}"
    expected = len(file.service) + sum(1 + len(message.field) for message in file.message_type)
    expected += sum(len(service.method) for service in file.service)
    expected += sum(1 + len(enum.value) for enum in file.enum_type)
    assert declared == expected, "the test missed a declaration"
