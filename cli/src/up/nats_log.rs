//! What the lines of nats-server's log mean to us. It has no other way to tell its port.

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The port that it listens on.
    Listening(u16),
    /// It takes connections, JetStream is recovered.
    Ready,
    /// Its port belongs to someone else.
    PortTaken,
    /// A warning or an error, in its words.
    Problem(String),
    /// Nothing of interest.
    Other,
}

/// Reads one line, with or without its time stamp.
pub(super) fn read(line: &str) -> Line {
    if let Some((_, address)) = line.split_once("Listening for client connections on ")
        && let Some(port) = address.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok())
    {
        return Line::Listening(port);
    }
    if line.ends_with("Server is ready") {
        return Line::Ready;
    }
    let problem = ["[FTL] ", "[ERR] ", "[WRN] "]
        .iter()
        .find_map(|mark| line.split_once(mark));
    match problem {
        Some((_, text)) if text.contains("address already in use") => Line::PortTaken,
        Some((_, text)) => Line::Problem(text.to_owned()),
        None => Line::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_start() {
        for (text, line) in [
            (
                "[7] [INF] Listening for client connections on 127.0.0.1:45137",
                Line::Listening(45137),
            ),
            ("[7] [INF] Server is ready", Line::Ready),
            (
                "[7] [FTL] Error listening on port: 127.0.0.1:4222, \"listen tcp 127.0.0.1:4222: bind: address already in use\"",
                Line::PortTaken,
            ),
            ("[7] 2026/01/01 00:00:00.1 [WRN] slow", Line::Problem("slow".to_owned())),
            ("[7] [INF] Starting nats-server", Line::Other),
        ] {
            assert_eq!(read(text), line, "{text}");
        }
    }
}
