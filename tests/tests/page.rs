//! The built-in page in a real browser, with the keyboard alone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::json;
use tokenbus_tests::browser::Browser;
use tokenbus_tests::clients::Clients;
use tokenbus_tests::keys::{create, text};
use tokenbus_tests::{Cluster, Role, Script, Upstream};

/// What looks like a part of a page is text, wherever it comes from.
const EVIL: &str = "<img src=x onerror=\"document.title='bad'\">";

/// Markdown that is still coming at each `pause`.
const STREAMED: [&str; 3] = [
    "## Two **things**\n\n| a | b |\n|:--|--:|\n| a\\|b | 1 |\n",
    "\n```python\nprint(1)\n",
    "print(2)\n```\n\n1. one\n   - inner\n2. two\n\n> said\n\nSee [this][later].\n\n[later]: https://example.org/later\n",
];

/// Ways to make a page do something: raw elements, addresses that run, an attribute that breaks out.
const ATTACKS: [&str; 12] = [
    EVIL,
    "<script>document.title='bad'</script>",
    "<svg onload=\"document.title='bad'\"><style>*{display:none}</style></svg>",
    "a <b onmouseover=\"document.title='bad'\">b</b> <iframe srcdoc=\"<script>parent.document.title='bad'</script>\">",
    "[run](javascript:document.title='bad') <javascript:document.title='bad'> [v](vbscript:x)",
    "[data](data:text/html;base64,PHNjcmlwdD4=) [here](/v1/models) [tab](java\tscript:x) [ent](&#106;avascript:x)",
    "![picture](https://example.org/p.png \"a\\\" onerror=\\\"x\") and [mail](mailto:a@example.org)",
    "```failure\"><img/src=x/onerror=document.title='bad'>\ncode\n```",
    "- ```\"onload=\"x\n  nested\n  ```",
    "| <form action=x><input autofocus onfocus=\"document.title='bad'\"> |\n|--|\n| <math><mtext></mtext></math> |",
    "<base href=x><meta http-equiv=refresh content=\"0;url=x\"><object data=x></object>",
    "- [ ] `</code><img src=x onerror=\"document.title='bad'\">`",
];

/// What the engine of the model `odd` answers, in order.
fn scripts(upstream: &Upstream) {
    let odd = Script::stream().role().delta(&json!({"reasoning_content": EVIL}));
    let odd = odd.text(EVIL).text("\n\n```html\n<b>b</b>\n```\nend");
    upstream.next(odd.finish("stop").usage(1, 3).done());
    let refused = Script::error(400, "invalid_request_error", Some("odd_code"), "This is not liked.");
    upstream.next(refused);
    let failed = json!({"error": {"message": "Out of memory.", "type": "server_error", "param": null, "code": "oom"}});
    upstream.next(Script::stream().role().text("half an ").data(&failed.to_string()));
    let streamed = STREAMED.into_iter().fold(Script::stream().role(), |script, part| {
        script.text(part).pause(Duration::from_millis(1500))
    });
    upstream.next(streamed.finish("stop").done());
    // A character at a time: what is half there must be as harmless as the whole.
    let attack = ATTACKS.join("\n\n");
    let attack = attack.chars().fold(Script::stream().role(), |script, one| {
        script.text(one.encode_utf8(&mut [0; 4]))
    });
    upstream.next(attack.finish("stop").done());
    upstream.always(Script::texts(&STREAMED));
}

#[tokio::test]
async fn the_page_chats_and_shows_the_cluster_in_a_browser() {
    let Some(browser) = Browser::find() else { return };
    let Some(python) = Clients::of("browser").await else {
        return;
    };
    let upstream = Upstream::start(&["odd"]).await;
    scripts(&upstream);
    let cluster = Cluster::plan()
        .worker(Role::sim("sim", 4).pace("200ms", "150ms"))
        .worker(Role::proxy(&upstream, 2))
        .start()
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let place = ["--keys", text(&file)];
    let key = create(&place, "page", &[]).await;
    let keyed = Role::gateway()
        .args(&place)
        .named("keyed")
        .start(&cluster.nats.url())
        .await;
    let plan = json!({
        "browser": browser.program, "driver": browser.driver, "key": key,
        "url": format!("http://{}", cluster.gateways[0].address()),
        "keyed": format!("http://{}", keyed.address()),
        "sim": cluster.workers[0].id(), "odd": cluster.workers[1].id(),
        "gateway_pid": cluster.gateways[0].pid(), "odd_pid": cluster.workers[1].pid(),
    });
    python.run("page/run.py", &[&plan.to_string()]).await;
}
