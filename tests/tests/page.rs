//! The built-in page in a real browser, with the keyboard alone.

use serde_json::json;
use tokenbus_tests::browser::Browser;
use tokenbus_tests::clients::Clients;
use tokenbus_tests::{Cluster, Role, Script, Upstream};

#[tokio::test]
async fn the_page_chats_and_shows_the_cluster_in_a_browser() {
    let Some(browser) = Browser::find() else { return };
    let Some(python) = Clients::of("browser").await else {
        return;
    };
    let upstream = Upstream::start(&["odd"]).await;
    // What looks like a part of a page is text, wherever it comes from.
    let evil = "<img src=x onerror=\"document.title='bad'\">";
    let odd = Script::stream().role().delta(&json!({"reasoning_content": evil}));
    upstream.next(
        odd.text(evil)
            .text("\n```html\n<b>b</b>\n```\nend")
            .finish("stop")
            .usage(1, 3)
            .done(),
    );
    upstream.next(Script::error(
        400,
        "invalid_request_error",
        Some("odd_code"),
        "This is not liked.",
    ));
    let failed = json!({"error": {"message": "Out of memory.", "type": "server_error", "param": null, "code": "oom"}});
    upstream.next(Script::stream().role().text("half an ").data(&failed.to_string()));
    let sim = Role::sim("sim", 4).pace("200ms", "150ms");
    let cluster = Cluster::plan()
        .worker(sim)
        .worker(Role::proxy(&upstream, 2))
        .start()
        .await;
    let url = format!("http://{}", cluster.gateways[0].address());
    let (program, driver) = (browser.program.to_string_lossy(), browser.driver.to_string_lossy());
    let (sim, odd) = (cluster.workers[0].id(), cluster.workers[1].id());
    python
        .run("page_browser.py", &[&url, &program, &driver, &sim, &odd])
        .await;
}
