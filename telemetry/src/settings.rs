//! The environment variables of the OpenTelemetry specification that decide whether and where traces are told. Those of
//! the exporter itself (headers, time-outs, certificates) are read by it.

use std::time::Duration;

use crate::limits::{BATCH, DELAY, QUEUE};

/// Why traces cannot be told as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TelemetryError {
    /// A variable has a value that is not understood.
    #[error("{variable}={value:?}: {expected}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The exporter cannot be made.
    #[error("OpenTelemetry: {0}")]
    Exporter(String),
    /// The feature `otlp` is off.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT is set, but this tokenbus was built without OpenTelemetry")]
    NotBuilt,
}

/// How traces are told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) grpc: bool,
    pub(crate) queue: usize,
    pub(crate) batch: usize,
    pub(crate) delay: Duration,
}

impl Settings {
    /// Reads them with `variable`; `None` when traces are off, as they are unless an endpoint is named. An empty variable
    /// is as good as none, says the specification.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TelemetryError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let endpoint = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if endpoint.is_none() || disabled {
            return Ok(None);
        }
        match set("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => return Err(wrong("OTEL_TRACES_EXPORTER", other, "otlp or none")),
        }
        sampler(&set)?;
        let count = |name, usual| number(&set, name).map(|number| number.map_or(usual, |number| number.max(1)));
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)?;
        let delay = number(&set, "OTEL_BSP_SCHEDULE_DELAY")?;
        Ok(Some(Self {
            grpc: is_grpc(&set)?,
            queue,
            batch: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)?.min(queue),
            delay: delay.map_or(DELAY, |ms| Duration::from_millis(ms as u64)),
        }))
    }
}

fn is_grpc(set: &impl Fn(&str) -> Option<String>) -> Result<bool, TelemetryError> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match set(name).as_deref() {
            None => {}
            Some("grpc") => return Ok(true),
            Some("http/protobuf") => return Ok(false),
            Some(other) => return Err(wrong(name, other, "grpc or http/protobuf")),
        }
    }
    Ok(false)
}

/// Whether the sampler is one that there is. The exporter's library would take another one for "all traces".
fn sampler(set: &impl Fn(&str) -> Option<String>) -> Result<(), TelemetryError> {
    let name = "OTEL_TRACES_SAMPLER";
    match set(name).as_deref() {
        None | Some("always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off") => Ok(()),
        Some("traceidratio" | "parentbased_traceidratio") => {
            let name = "OTEL_TRACES_SAMPLER_ARG";
            let ratio = set(name).unwrap_or_default();
            match ratio.parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) => Ok(()),
                _ => Err(wrong(name, &ratio, "the part of all traces that is kept, from 0 to 1")),
            }
        }
        Some(other) => Err(wrong(
            name,
            other,
            "always_on, always_off, traceidratio, or one of these behind parentbased_",
        )),
    }
}

fn number(set: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<Option<usize>, TelemetryError> {
    let Some(text) = set(name) else { return Ok(None) };
    // Far above what makes sense, and far below what overflows.
    let number = text.parse().ok().filter(|number| *number <= 1_000_000);
    number
        .map(Some)
        .ok_or_else(|| wrong(name, &text, "a whole number up to 1000000"))
}

fn wrong(variable: &'static str, value: &str, expected: &'static str) -> TelemetryError {
    TelemetryError::Variable {
        variable,
        value: value.to_owned(),
        expected,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<Settings>, TelemetryError> {
        Settings::read(|name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn traces_are_off_unless_an_endpoint_is_named() {
        let off: [&[(&str, &str)]; 5] = [
            &[],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[("OTEL_TRACES_SAMPLER", "no_such")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "true")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ];
        for set in off {
            assert_eq!(read(set), Ok(None), "{set:?}");
        }
        let on = read(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!((on.grpc, on.queue, on.batch, on.delay), (false, QUEUE, BATCH, DELAY));
        assert!(read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "x")]).unwrap().is_some());
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_guessed() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ] {
            assert!(read(&[ENDPOINT, (name, value)]).is_err(), "{name}={value}");
        }
        let ratio = |text| {
            read(&[
                ENDPOINT,
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", text),
            ])
        };
        assert!(ratio("0").is_ok() && ratio("0.25").is_ok() && ratio("1").is_ok());
        assert!(ratio("1.5").is_err() && ratio("NaN").is_err() && ratio("-1").is_err());
    }

    #[test]
    fn the_protocol_of_traces_goes_before_that_of_all() {
        let set = |traces: &'static str, all: &'static str| {
            let set = [
                ENDPOINT,
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", traces),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", all),
            ];
            read(&set).unwrap().unwrap().grpc
        };
        assert!(set("grpc", "http/protobuf") && set("", "grpc"));
        assert!(!set("http/protobuf", "grpc") && !set("", ""));
    }
}
