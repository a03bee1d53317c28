"""An OpenTelemetry collector that keeps what it gets: `collector.py PORT`. POST /v1/traces takes OTLP as
protobuf, read by OpenTelemetry's own definitions; GET /log tells each span."""

import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from loopback import Refused, Service, serve


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector(Service):
    def post(self, path, query, body):
        if path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
            raise Refused(404, f"{path} as {self.headers['Content-Type']}")
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.log.add(
                        key=self.headers.get("X-Key"),
                        resource=attributes(resource.resource.attributes),
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        name=span.name,
                        kind=Span.SpanKind.Name(span.kind),
                        status=Status.StatusCode.Name(span.status.code),
                        start=span.start_time_unix_nano,
                        end=span.end_time_unix_nano,
                        about=attributes(span.attributes),
                        remarks=[event.name for event in span.events],
                    )
        self.answer(200, "application/x-protobuf", ExportTraceServiceResponse().SerializeToString())


if __name__ == "__main__":
    serve(Collector, int(sys.argv[1]))
