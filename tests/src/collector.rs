//! An OpenTelemetry collector of the tests' own: takes OTLP traces over HTTP or gRPC, decodes the protobuf, keeps the
//! spans.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::wait::within;

pub use proto::span::SpanKind as Kind;

/// How spans come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf in HTTP/1.1.
    Http,
    /// gRPC, without TLS.
    Grpc,
}

/// One span as it arrived.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of the process that sent it.
    pub service: String,
    /// The trace, in hex as in `traceparent`.
    pub trace: String,
    /// Its id, in hex.
    pub id: String,
    /// Its parent's id, in hex; empty if there is none.
    pub parent: String,
    /// `tracestate`.
    pub state: String,
    /// Its name.
    pub name: String,
    /// Whose side of a call it is.
    pub kind: Kind,
    /// Its status is an error.
    pub failed: bool,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Its times in Unix nanoseconds.
    pub times: (u64, u64),
    /// All of it, as text.
    pub raw: String,
}

impl Span {
    /// The value of an attribute; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A running collector. Dropping it closes its socket and all connections.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    protocol: Protocol,
    spans: Arc<watch::Sender<Vec<Span>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    /// Starts one on a free port of loopback.
    pub async fn start(protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let spans = Arc::new(watch::Sender::default());
        let serving = tokio::spawn(serve(listener, protocol, Arc::clone(&spans)));
        Self {
            address,
            protocol,
            spans,
            serving,
        }
    }

    /// The variables with which a process tells its traces here, at once.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let protocol = match self.protocol {
            Protocol::Http => "http/protobuf",
            Protocol::Grpc => "grpc",
        };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=secret".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
        ]
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.borrow().clone()
    }

    /// The spans of `trace`, as soon as there are `count`.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let of_it = |spans: &[Span]| {
            let of_it = spans.iter().filter(|span| span.trace == trace);
            of_it.cloned().collect::<Vec<Span>>()
        };
        let mut spans = self.spans.subscribe();
        let what = format!("{count} spans of the trace {trace}");
        let seen = within(&what, spans.wait_for(|spans| of_it(spans).len() >= count)).await;
        of_it(&seen.expect("the collector lives"))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, protocol: Protocol, spans: Arc<watch::Sender<Vec<Span>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, protocol, Arc::clone(&spans)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, protocol: Protocol, spans: Arc<watch::Sender<Vec<Span>>>) {
    let service = service_fn(move |request| answer(request, protocol, Arc::clone(&spans)));
    let io = TokioIo::new(stream);
    // A process that is killed leaves its connection as it is.
    let _ = match protocol {
        Protocol::Http => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await
        }
        Protocol::Grpc => {
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http2.serve_connection(io, service).await
        }
    };
}

async fn answer(
    request: Request<Incoming>,
    protocol: Protocol,
    spans: Arc<watch::Sender<Vec<Span>>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    assert_eq!(request.headers()["x-collector-key"], "secret");
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let told = match protocol {
        Protocol::Http => {
            assert_eq!(path, "/v1/traces");
            body
        }
        Protocol::Grpc => {
            assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            // A flag of compression and the length are before the one message.
            assert_eq!(body[0], 0);
            body.slice(5..)
        }
    };
    let told = ExportTraceServiceRequest::decode(told).expect("the request is OTLP");
    spans.send_modify(|spans| spans.extend(read(told)));
    let response = Response::builder().status(200);
    let response = match protocol {
        Protocol::Http => response
            .header("content-type", "application/x-protobuf")
            .body(Full::default().boxed()),
        Protocol::Grpc => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let empty = Full::new(Bytes::from_static(&[0; 5]));
            let body = empty.with_trailers(std::future::ready(Some(Ok(trailers))));
            response.header("content-type", "application/grpc").body(body.boxed())
        }
    };
    Ok(response.expect("the head is legal"))
}

fn read(told: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_process in told.resource_spans {
        let resource = of_process.resource.unwrap_or_default();
        let service = attributes(&resource.attributes)
            .remove("service.name")
            .unwrap_or_default();
        let of_scopes = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(of_scopes.map(|span| one(&service, &span)));
    }
    spans
}

fn one(service: &str, span: &proto::Span) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        service: service.to_owned(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state.clone(),
        name: span.name.clone(),
        kind: span.kind(),
        failed: span
            .status
            .as_ref()
            .is_some_and(|status| status.code() == proto::status::StatusCode::Error),
        attributes: attributes(&span.attributes),
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        raw: format!("{span:?}"),
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        any_value::Value::DoubleValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    };
    let of = |attribute: &KeyValue| Some((attribute.key.clone(), text(attribute)?));
    all.iter().filter_map(of).collect()
}
