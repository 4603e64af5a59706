//! Finding out whether a server wants TLS before it says anything (`handshake_first` in nats-server).

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::address::Address;
use crate::limits;

/// Whether the first server that can be reached wants TLS at once. Only `tls://` servers are asked: others may not get
/// TLS at all. `connect` gives the options of a trial connection.
pub(crate) async fn wants_tls_first<F>(addresses: &[Address], connect: F) -> bool
where
    F: Fn(&Address) -> ConnectOptions,
{
    for address in addresses.iter().filter(|address| address.server.tls_required()) {
        match first_word(&address.server).await {
            Word::Away => {}
            Word::Spoke => return false,
            // Silence alone may be a slow server. Only the trial proves it.
            Word::Silent => {
                let trial = connect(address).tls_first().connect(address.server.clone());
                return match timeout(limits::CONNECT_TIMEOUT, trial).await {
                    Ok(Ok(_)) => true,
                    Ok(Err(error)) => was_encrypted(&error),
                    Err(_) => false,
                };
            }
        }
    }
    false
}

enum Word {
    /// It cannot be reached.
    Away,
    /// It spoke first.
    Spoke,
    /// It waits.
    Silent,
}

async fn first_word(server: &ServerAddr) -> Word {
    let connect = TcpStream::connect((server.host(), server.port()));
    let Ok(Ok(mut socket)) = timeout(limits::CONNECT_TIMEOUT, connect).await else {
        return Word::Away;
    };
    match timeout(limits::FIRST_BYTE, socket.read_u8()).await {
        Ok(Ok(_)) => Word::Spoke,
        Ok(Err(_)) => Word::Away,
        Err(_) => Word::Silent,
    }
}

/// Whether the failed trial spoke TLS: the server refused the login, or its certificate is not trusted.
fn was_encrypted(error: &ConnectError) -> bool {
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => true,
        _ => error.to_string().contains("certificate"),
    }
}
