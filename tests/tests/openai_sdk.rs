//! OpenAI's own Python client, as it comes from the package index, against a cluster.

use tokenbus_tests::python::Python;
use tokenbus_tests::{Cluster, Role};

#[tokio::test]
async fn openais_python_client_chats_calls_tools_completes_and_embeds() {
    let Some(python) = Python::with("openai>=3,<4").await else {
        return;
    };
    let plain = Role::sim("plain", 4).args(&["--no-capability", "tools", "--no-capability", "embeddings"]);
    let cluster = Cluster::plan().worker(Role::sim("sim", 4)).worker(plain).start().await;
    let url = format!("http://{}/v1", cluster.gateways[0].address());
    python.run("openai_sdk.py", &[&url]).await;
}
