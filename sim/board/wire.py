"""PYNQ's remote protocol on the wire: gRPC services, their methods and messages, as pynq 4.0.0 speaks them.

The tables below are the whole protocol as far as a board needs it. Message classes are made from them, so that neither
generated code nor pynq's pinned gRPC is needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PORT = 7967
CHUNK_BYTES = 2 << 20  # what one message of a stream carries; gRPC refuses messages above 4 MiB

# Message: its fields by number.
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "remote_device": {
        "ReadFileRequest": "1 string file_path",
        "ReadFileResponse": "1 bytes data",
        "WriteFileRequest": "1 string file_path, 2 bytes data",
        "WriteFileResponse": "",
        "ExistsFileRequest": "1 string file_path",
        "ExistsFileResponse": "1 bool exists",
        "SetBitstreamAttrsRequest": "1 string binfile_name, 2 bool partial",
        "SetBitstreamAttrsResponse": "1 bool status",
        "ShutdownRequest": "",
        "ShutdownResponse": "1 bool status",
        "SetPlClkRequest": "1 int32 i, 2 int32 div0, 3 int32 div1, 4 int32 clk_mhz",
        "SetPlClkResponse": "1 bool status",
        "DownloadRequest": "1 bytes buffer",
        "DownloadResponse": "1 bool status",
    },
    "mmio": {
        "GetMmioRequest": "1 uint64 base_addr, 2 uint64 length",
        "GetMmioResponse": "1 bool status, 2 string msg, 3 string mmio_id",
        "ReadRequest": "1 string mmio_id, 2 uint64 length, 3 uint64 offset, 4 string word_order",
        "ReadResponse": "1 bool status, 2 string msg, 3 uint32 data",
        "WriteRequest": "1 string mmio_id, 2 uint64 offset, 3 bytes data",
        "WriteResponse": "1 bool status, 2 string msg",
    },
    "buffer": {
        "AllocateRequest": "1 int32 size, 2 string dtype, 3 bool cacheable",
        "AllocateResponse": "2 string msg, 3 string buffer_id",
        "BufferWriteRequest": "1 string buffer_id, 2 bytes data, 3 int32 start, 4 int32 end",
        "BufferWriteResponse": "2 string msg",
        "BufferReadRequest": "1 string buffer_id, 2 int32 start, 3 int32 end",
        "BufferReadResponse": "2 string msg, 3 bytes data",
        "FreeBufferRequest": "1 string buffer_id",
        "FreeBufferResponse": "2 string msg",
        "FlushRequest": "1 string buffer_id",
        "FlushResponse": "2 string msg",
        "InvalidateRequest": "1 string buffer_id",
        "InvalidateResponse": "2 string msg",
        "AddressRequest": "1 string buffer_id",
        "AddressResponse": "2 string msg, 3 uint64 address",
        "CacheableRequest": "1 string buffer_id",
        "CacheableResponse": "2 string msg, 3 bool cacheable",
    },
    "gpio": {
        "GetGpioRequest": "1 int32 index, 2 string direction",
        "GetGpioResponse": "2 string message, 3 string gpio_id",
        "GpioReadRequest": "1 string gpio_id",
        "GpioReadResponse": "2 string message, 3 int32 value",
        "GpioWriteRequest": "1 string gpio_id, 2 int32 value",
        "GpioWriteResponse": "",
        "GpioUnexportRequest": "1 string gpio_id",
        "GpioUnexportResponse": "",
        "GpioIsExportedRequest": "1 string gpio_id",
        "GpioIsExportedResponse": "3 bool is_exported",
        "GetGpioBasePathRequest": "1 string target_label",
        "GetGpioBasePathResponse": "3 string base_path",
        "GetGpioNPinsRequest": "1 string target_label",
        "GetGpioNPinsResponse": "1 int32 npins",
    },
}
# Service: method, stem of its messages. ">" streams requests, "<" streams responses.
_METHODS: Mapping[str, Mapping[str, str]] = {
    "remote_device.RemoteDevice": {
        "set_bitstream_attrs": "SetBitstreamAttrs",
        "download": ">Download",
        "set_pl_clk": "SetPlClk",
        "shutdown": "Shutdown",
        "readfile": "<ReadFile",
        "writefile": ">WriteFile",
        "existsfile": "ExistsFile",
    },
    "mmio.Mmio": {"get_mmio": "GetMmio", "read": "Read", "write": "Write"},
    "buffer.RemoteBuffer": {
        "allocate": "Allocate",
        "write": ">BufferWrite",
        "read": "<BufferRead",
        "freebuffer": "FreeBuffer",
        "flush": "Flush",
        "invalidate": "Invalidate",
        "physical_address": "Address",
        "virtual_address": "Address",
        "cacheable": "Cacheable",
    },
    "gpio.Gpio": {
        "get_gpio": "GetGpio",
        "read": "GpioRead",
        "write": "GpioWrite",
        "unexport": "GpioUnexport",
        "is_exported": "GpioIsExported",
        "get_gpio_base_path": "GetGpioBasePath",
        "get_gpio_npins": "GetGpioNPins",
    },
}
_TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
}


@dataclass(frozen=True)
class Method:
    """A method with the classes of its messages."""

    service: str
    name: str
    request: Any
    response: Any
    stream_in: bool
    stream_out: bool

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


def _make_messages() -> dict[str, Any]:
    # A pool of its own: pynq's own messages have the same names, and both may be in one process.
    pool = descriptor_pool.DescriptorPool()
    made = {}
    for package, messages in _FIELDS.items():
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        for name, text in messages.items():
            message = file.message_type.add(name=name)
            for field in filter(None, text.split(", ")):
                number, kind, label = field.split()
                message.field.add(
                    name=label,
                    number=int(number),
                    type=_TYPES[kind],
                    label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
                )
        pool.Add(file)
        for name in messages:
            made[f"{package}.{name}"] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return made


MESSAGES = _make_messages()


def methods(service: str) -> dict[str, Method]:
    """The methods of a service by name."""
    package = service.split(".")[0]
    found = {}
    for name, text in _METHODS[service].items():
        stem = text.lstrip("<>")
        found[name] = Method(
            service,
            name,
            MESSAGES[f"{package}.{stem}Request"],
            MESSAGES[f"{package}.{stem}Response"],
            text.startswith(">"),
            text.startswith("<"),
        )
    return found


def handlers(service: str, implementation: Any) -> grpc.GenericRpcHandler:
    """A handler that calls ``implementation.<method>(request or requests, context)``, which returns or yields responses."""
    table = {}
    for name, method in methods(service).items():
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
        }[method.stream_in, method.stream_out]
        table[name] = make(
            getattr(implementation, name),
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service, table)


def stubs(channel: grpc.Channel, service: str) -> dict[str, tuple[Method, Callable[..., Any]]]:
    """For each method of a service, its description and what calls it."""
    found: dict[str, tuple[Method, Callable[..., Any]]] = {}
    for name, method in methods(service).items():
        make = {
            (False, False): channel.unary_unary,
            (True, False): channel.stream_unary,
            (False, True): channel.unary_stream,
        }[method.stream_in, method.stream_out]
        call = make(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        found[name] = (method, call)
    return found
