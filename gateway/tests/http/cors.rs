//! Pages of other origins.

use reqwest::Method;
use tokenbus_gateway::testing::{Auth, HttpOptions, Metrics};
use tokenbus_protocol::Name;

use crate::support::*;

const PAGE: &str = "https://app.example.org";

async fn with(origins: &[&str], auth: Auth) -> Gateway {
    let options = HttpOptions {
        cors: origins.iter().map(|origin| origin.parse().unwrap()).collect(),
        ..HttpOptions::default()
    };
    let extras = Extras {
        auth,
        ..Extras::default()
    };
    Gateway::with_extras(options, extras).await
}

async fn preflight(gateway: &Gateway, origin: &str) -> Answer {
    let request = gateway
        .client
        .request(Method::OPTIONS, gateway.url("/v1/chat/completions"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,x-stainless-lang");
    Answer::of(soon(request.send()).await.unwrap()).await
}

async fn get(gateway: &Gateway, origin: &str) -> Answer {
    let request = gateway.client.get(gateway.url("/v1/models")).header("origin", origin);
    Answer::of(soon(request.send()).await.unwrap()).await
}

#[tokio::test]
async fn no_page_may_read_answers_unless_it_is_told_so() {
    let gateway = Gateway::start().await;
    let asked = preflight(&gateway, PAGE).await;
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (403, ""));
    assert_eq!(get(&gateway, PAGE).await.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn pages_of_a_listed_origin_may_and_others_may_not() {
    let gateway = with(&[PAGE, "http://localhost:3000"], Auth::off()).await;
    for origin in [PAGE, "http://localhost:3000"] {
        let asked = preflight(&gateway, origin).await;
        assert_eq!(
            (asked.status, asked.header("access-control-allow-origin")),
            (200, origin)
        );
        assert!(asked.header("access-control-allow-methods").contains("POST"));
        assert_eq!(
            asked.header("access-control-allow-headers"),
            "authorization,x-stainless-lang"
        );
        assert!(!asked.header("x-request-id").is_empty());
        let answer = get(&gateway, origin).await;
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert_eq!(answer.header("access-control-allow-credentials"), "");
        let exposed = answer.header("access-control-expose-headers");
        for header in ["x-request-id", "retry-after", "x-ratelimit-remaining-tokens"] {
            assert!(exposed.contains(header), "{exposed}");
        }
    }
    for origin in ["https://evil.example.org", "http://app.example.org", "null"] {
        assert_eq!(
            preflight(&gateway, origin).await.header("access-control-allow-origin"),
            ""
        );
        assert_eq!(get(&gateway, origin).await.header("access-control-allow-origin"), "");
    }
}

#[tokio::test]
async fn a_star_is_every_origin() {
    let gateway = with(&["*"], Auth::off()).await;
    assert_eq!(
        preflight(&gateway, PAGE).await.header("access-control-allow-origin"),
        "*"
    );
    assert_eq!(get(&gateway, "null").await.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn a_preflight_needs_no_key_and_a_page_can_read_why_it_is_refused() {
    let auth = Auth::on(Name::new("g1").unwrap(), Metrics::default());
    auth.set(tokenbus_gateway::KeyTable::default());
    let gateway = with(&[PAGE], auth).await;
    assert_eq!(preflight(&gateway, PAGE).await.status, 200);
    let refused = get(&gateway, PAGE).await;
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, PAGE)
    );
}
