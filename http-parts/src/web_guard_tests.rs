//! Which requests a server without keys answers.
#![allow(clippy::unwrap_used)]

use super::*;

const OWN: (&str, &str) = ("host", "localhost:8080");

fn guard(hosts: &[&str], origins: &[&'static str]) -> WebGuard {
    WebGuard {
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        origins: origins.iter().map(|origin| HeaderValue::from_static(origin)).collect(),
        any_origin: false,
    }
}

fn check(guard: &WebGuard, method: Method, uri: &str, headers: &[(&'static str, &str)]) -> Result<(), ForeignRequest> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    guard.check(&method, &uri.parse().unwrap(), &map)
}

fn passes(guard: &WebGuard, method: Method, headers: &[(&'static str, &str)]) -> bool {
    check(guard, method, "/v1/models", headers).is_ok()
}

#[test]
fn only_addresses_localhost_and_listed_names_are_the_server() {
    let guard = guard(&["Tokens.example.org"], &[]);
    for own in [
        "localhost",
        "LocalHost:8080",
        "gateway:8080",
        "x",
        "127.0.0.1",
        "192.168.1.7:80",
        "[::1]:8080",
        "[fe80::1]",
        "tokens.EXAMPLE.org",
        "tokens.example.org:443",
    ] {
        assert!(passes(&guard, Method::GET, &[("host", own)]), "{own}");
    }
    for other in [
        "evil.example.org",
        "evil.example.org:8080",
        "localhost.example.org",
        "x.localhost",
        "127.0.0.1.nip.io",
        "2130706433",
        "127.1",
        "[localhost]",
        "user@localhost",
        "localhost:80:80",
        "",
        ":8080",
    ] {
        assert!(!passes(&guard, Method::GET, &[("host", other)]), "{other}");
    }
    // Not a browser: HTTP/1.0.
    assert!(passes(&guard, Method::GET, &[]));
    let star = WebGuard {
        hosts: vec![AllowedHost::Any],
        ..WebGuard::default()
    };
    assert!(passes(&star, Method::GET, &[("host", "evil.example.org")]));
}

#[test]
fn each_place_where_a_request_names_its_host_counts() {
    let guard = guard(&[], &[]);
    let check = |uri, headers| check(&guard, Method::GET, uri, headers).is_ok();
    assert!(check("http://localhost:8080/v1/models", &[]));
    assert!(!check("http://evil.example.org/v1/models", &[]));
    assert!(!check("http://evil.example.org/v1/models", &[OWN]));
    assert!(!check(
        "http://localhost:8080/v1/models",
        &[("host", "evil.example.org")]
    ));
    assert!(!check("/", &[OWN, ("host", "evil.example.org")]));
}

#[test]
fn pages_of_other_origins_are_refused_and_those_that_are_listed_pass() {
    let guard = guard(&[], &["https://app.example.org"]);
    for (headers, own) in [
        (&[][..], true),
        (&[("origin", "http://localhost:8080")], true),
        (&[("origin", "https://LOCALHOST:8080")], true),
        (&[("origin", "https://app.example.org")], true),
        (
            &[("origin", "https://app.example.org"), ("sec-fetch-site", "cross-site")],
            true,
        ),
        (&[("origin", "http://localhost:3000")], false),
        (&[("origin", "https://evil.example.org")], false),
        (&[("origin", "null")], false),
        (&[("origin", "chrome-extension://abc")], false),
        (&[("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("sec-fetch-site", "same-site")], false),
        (&[("sec-fetch-site", "cross-site")], false),
        (
            &[("sec-fetch-site", "cross-site"), ("origin", "http://localhost:8080")],
            false,
        ),
        (&[("sec-fetch-site", "")], false),
    ] {
        let mut all = vec![OWN];
        all.extend(headers);
        assert_eq!(passes(&guard, Method::POST, &all), own, "{headers:?}");
    }
    let all = WebGuard {
        any_origin: true,
        ..WebGuard::default()
    };
    assert!(passes(
        &all,
        Method::POST,
        &[OWN, ("origin", "https://evil.example.org")]
    ));
    assert!(!passes(&all, Method::POST, &[("host", "evil.example.org")]));
}

#[test]
fn a_link_may_be_followed_and_nothing_may_be_sent_by_it() {
    let guard = guard(&[], &[]);
    let link = |destination| {
        [
            OWN,
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", destination),
        ]
    };
    assert!(passes(&guard, Method::GET, &link("document")));
    assert!(!passes(&guard, Method::GET, &link("iframe")));
    // A form.
    assert!(!passes(&guard, Method::POST, &link("document")));
}

#[test]
fn a_host_is_a_name_alone() {
    for wrong in ["", "http://x", "x:80", "x/y", "*.x", "ä"] {
        assert_eq!(wrong.parse::<AllowedHost>(), Err(NoHost), "{wrong}");
    }
    assert_eq!("*".parse(), Ok(AllowedHost::Any));
    assert_eq!("A.b".parse(), Ok(AllowedHost::Name("a.b".to_owned())));
}
