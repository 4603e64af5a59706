//! What is in `deploy/` is valid and agrees with the programs, as far as that can be known without a
//! container engine: schemas, paths, names, and every command line run as a process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokenbus_tests::binary::{nats_server, run};
use tokenbus_tests::limits::{PATIENCE, READY};
use tokenbus_tests::{Child, Client, NatsOptions, NatsServer, Role, Upstream};
use tokio::process::Command;

const COMPOSE_FILES: [&str; 6] = [
    "deploy/compose.yaml",
    "deploy/compose.gpu.yaml",
    "deploy/compose.cluster.yaml",
    "deploy/compose.worker.yaml",
    "deploy/compose.leaf.yaml",
    "deploy/compose.observability.yaml",
];

/// Provisioning may download 130 MB.
const PROVISION: Duration = Duration::from_secs(300);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn words(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap_or_else(|| panic!("not a list: {value}"));
    list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// A value of a Compose file where no variable is set.
fn with_defaults(value: &str) -> String {
    let mut parts = value.split("${");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').unwrap();
        text.push_str(variable.split_once(":-").expect("every variable has a default").1);
        text.push_str(rest);
    }
    text
}

#[test]
fn the_compose_files_fit_the_schema() {
    let schema: Value = serde_json::from_str(&text("tests/schema/compose-spec.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let complaints = |file: &Value| -> Vec<String> {
        let all = validator.iter_errors(file);
        all.map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    for path in COMPOSE_FILES {
        let mut file = yaml(path);
        assert_eq!(complaints(&file), Vec::<String>::new(), "{path}");
        // The schema does see what is wrong.
        file["services"]["worker"]["comand"] = Value::from("x");
        assert_eq!(complaints(&file).len(), 1, "{path}");
    }
}

#[test]
fn the_cluster_has_every_role_twice_and_scales() {
    let services = &yaml("deploy/compose.yaml")["services"];
    for role in ["coordinator", "gateway"] {
        let replicas = services[role]["deploy"]["replicas"].as_str().unwrap();
        assert_eq!(with_defaults(replicas), "2", "{role}");
    }
    for (name, service) in services.as_object().unwrap() {
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service["stop_grace_period"].is_string(), "{name}");
        assert!(service["healthcheck"].is_object(), "{name}");
        // An engine before 25 refuses it, and raising a limit takes a right that not every engine has.
        assert!(service["healthcheck"].get("start_interval").is_none(), "{name}");
        assert!(service.get("ulimits").is_none(), "{name}");
        // A name or a port of its own would let only one of them run.
        assert!(service.get("container_name").is_none(), "{name}");
        assert!(service.get("ports").is_none() || name == "ingress", "{name}");
    }
    // Compose stops what depends on something before that.
    let order = ["ingress", "gateway", "worker", "coordinator", "nats"];
    for pair in order.windows(2) {
        assert_eq!(words(&services[pair[0]]["depends_on"]), [pair[1]], "{}", pair[0]);
    }
}

#[test]
fn every_path_and_stage_that_a_compose_file_names_exists() {
    let dockerfile = Dockerfile::read();
    for path in COMPOSE_FILES {
        let file = yaml(path);
        for (name, service) in file["services"].as_object().unwrap() {
            if let Some(target) = service["build"]["target"].as_str() {
                assert!(
                    dockerfile.stages.contains_key(target),
                    "{path}: {name}: no stage {target}"
                );
            }
            if let Some(context) = service["build"]["context"].as_str() {
                let context = root().join("deploy").join(context);
                let dockerfile = service["build"]["dockerfile"].as_str().unwrap();
                assert!(context.join(dockerfile).is_file(), "{path}: {name}");
            }
            for volume in service["volumes"].as_array().into_iter().flatten() {
                let volume = with_defaults(volume.as_str().unwrap());
                let source = volume.split(':').next().unwrap();
                let known = match source.strip_prefix("./") {
                    // What `tokenbus nats-config` writes.
                    Some(file) => file.starts_with("bus/") || root().join("deploy").join(file).exists(),
                    None => file["volumes"].get(source).is_some(),
                };
                assert!(known, "{path}: {name}: no {source}");
            }
        }
    }
}

#[test]
fn images_of_others_have_a_version() {
    let dockerfile = Dockerfile::read();
    let mut images: Vec<String> = dockerfile.all("FROM").map(|(_, from)| from.to_owned()).collect();
    for path in COMPOSE_FILES {
        for service in yaml(path)["services"].as_object().unwrap().values() {
            images.extend(service["image"].as_str().map(str::to_owned));
        }
    }
    // What has no tag is a stage of our own; `trixie` is a version of Debian.
    let has_version = |tag: &str| tag.starts_with("trixie") || tag.contains(|c: char| c.is_ascii_digit());
    let fits = |(name, tag): (&str, &str)| name == "tokenbus" || has_version(tag);
    images.retain(|image| !image.split_once(':').is_none_or(fits));
    assert_eq!(images, [""; 0]);
}

#[test]
fn the_ingress_passes_events_on_and_points_at_the_gateways() {
    let caddy = text("deploy/ingress/Caddyfile");
    let code: Vec<&str> = caddy
        .lines()
        .map(|line| line.split('#').next().unwrap().trim())
        .collect();
    for setting in [
        "flush_interval -1",
        "versions h2c",
        "lb_try_duration 15s",
        "header Retry-After 2",
        ":8080 {",
        "dynamic a gateway 8080 {",
    ] {
        assert!(code.contains(&setting), "{setting}");
    }
    let body = code
        .iter()
        .find_map(|line| line.strip_prefix("respond `")?.strip_suffix("` 503"));
    let body: Value = serde_json::from_str(body.expect("an answer in JSON")).unwrap();
    assert!(body["error"]["message"].is_string(), "{body}");
    let services = &yaml("deploy/compose.yaml")["services"];
    assert_eq!(
        words(&services["gateway"]["command"]),
        ["gateway", "--listen", "0.0.0.0:8080"]
    );
    assert!(words(&services["ingress"]["ports"])[0].ends_with(":8080"));
}

#[tokio::test]
async fn the_nats_configuration_is_valid_and_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = root().join("deploy/nats.conf");
    let check = Command::new(nats_server())
        .arg("-t")
        .arg("-c")
        .arg(&path)
        .output()
        .await
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));

    let store = format!("store_dir: {:?}", folder.path());
    let config = text("deploy/nats.conf").replace("store_dir: \"/data\"", &store);
    assert!(config.contains(&store));
    assert!(config.contains("\nhost: \"127.0.0.1\"\n"), "it has no users");
    let path = folder.path().join("nats.conf");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(nats_server());
    command
        .arg("-c")
        .arg(&path)
        .args(["-a", "127.0.0.1", "-p", "-1", "-m", "-1"]);
    let server = Child::spawn("nats-server", command);
    let monitor = |line: &str| line.split_once("http monitor on ")?.1.parse().ok();
    let monitor = server.logs().wait_for(READY, "its monitor's address", monitor).await;
    let ready = |line: &str| line.ends_with("Server is ready").then_some(());
    server.logs().wait_for(READY, "its ready line", ready).await;

    let client = Client::new(monitor);
    assert_eq!(
        client.get("/healthz").await.status,
        200,
        "the health check of compose.yaml"
    );
    let settings = client.get("/varz").await.ok();
    let seconds = |n: u64| Value::from(n * 1_000_000_000);
    assert_eq!(settings["ping_interval"], seconds(2));
    assert_eq!(settings["ping_max"], 2);
    assert_eq!(settings["write_deadline"], seconds(5));
    assert_eq!(settings["max_payload"], 8 << 20);
    assert!(settings["jetstream"]["config"].is_object(), "{settings}");
    let log = server.logs().lines().join("\n");
    assert!(!log.contains("[WRN]"), "{log}");
}

/// Where a command line's names lead to in a test.
struct Places {
    nats: NatsServer,
    upstream: Upstream,
    logs: tempfile::TempDir,
}

impl Places {
    async fn new() -> Self {
        let options = NatsOptions {
            jetstream: true,
            ..NatsOptions::default()
        };
        Self {
            nats: NatsServer::start_with(options).await,
            upstream: Upstream::start(&["m"]).await,
            logs: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs a role's command line, with its names replaced, until it is ready, and stops it.
    async fn serve(&self, name: &str, args: &[String]) {
        let split = args.iter().flat_map(|arg| match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => vec![flag.to_owned(), value.to_owned()],
            _ => vec![arg.clone()],
        });
        let mut local: Vec<String> = split.collect();
        for at in 1..local.len() {
            let value = match local[at - 1].as_str() {
                "--listen" => "127.0.0.1:0".to_owned(),
                "--url" => self.upstream.url(),
                "--engine-log-dir" => self.logs.path().to_str().unwrap().to_owned(),
                _ => continue,
            };
            local[at] = value;
        }
        let rest: Vec<&str> = local[1..].iter().map(String::as_str).collect();
        let mut process = Role::new(&local[0])
            .args(&rest)
            .named(name)
            .start(&self.nats.url())
            .await;
        assert!(process.stop_within(PATIENCE).await.success(), "{name}");
    }
}

#[tokio::test]
async fn every_service_of_the_compose_files_starts() {
    // As the image has it: the engine and the model in the cache.
    let said = run(PROVISION, &["provision", "llama", "model"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let places = Places::new().await;
    let mut seen = Vec::new();
    for path in COMPOSE_FILES {
        let file = yaml(path);
        for (name, service) in file["services"].as_object().unwrap() {
            let ours = service["image"]
                .as_str()
                .is_some_and(|image| image.starts_with("tokenbus:"));
            if ours && service["command"].is_array() {
                places
                    .serve(&format!("{path}: {name}"), &words(&service["command"]))
                    .await;
                seen.push(name.clone());
            }
        }
    }
    // As it stands there it listens on all addresses: it starts because it is published on this machine alone.
    let file = yaml("deploy/compose.yaml");
    let role = |bind: &str| {
        let environment = file["services"]["gateway"]["environment"].as_object().unwrap().iter();
        let environment = environment.filter(|(name, _)| *name != "TOKENBUS_NATS");
        let role = environment.fold(Role::new("gateway"), |role, (name, value)| {
            let value = value.as_str().unwrap().replace("${TOKENBUS_BIND:-127.0.0.1}", bind);
            role.env(name, &with_defaults(&value))
        });
        role.args(&["--listen", "0.0.0.0:0"])
    };
    let mut gateway = role("127.0.0.1").start(&places.nats.url()).await;
    assert!(gateway.stop_within(PATIENCE).await.success());
    let refused = run(
        PATIENCE,
        &["gateway", "--listen", "0.0.0.0:0", "--published", "0.0.0.0:8080"],
    )
    .await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("--published 0.0.0.0:8080 can be reached"),
        "{refused:?}"
    );
    seen.sort_unstable();
    assert_eq!(seen, ["coordinator", "gateway", "worker", "worker", "worker"]);
    let nats = &yaml("deploy/compose.yaml")["services"]["gateway"]["environment"]["TOKENBUS_NATS"];
    assert_eq!(nats, "nats://nats:4222");
}

#[tokio::test]
async fn every_systemd_service_starts_with_the_settings_beside_it() {
    let places = Places::new().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("tokenbus.toml");
    let keys = folder.path().join("keys.toml");
    let keys = keys.to_str().unwrap();
    let said = run(PATIENCE, &["keys", "create", "alice", "--keys", keys]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let toml = text("deploy/systemd/tokenbus.toml")
        .replace("0.0.0.0:8080", "0.0.0.0:0")
        .replace("/etc/tokenbus/keys.toml", keys)
        .replace("127.0.0.1:8081", "127.0.0.1:0")
        .replace("http://127.0.0.1:8000/v1", &places.upstream.url());
    std::fs::write(&settings, toml).unwrap();
    for role in ["gateway", "coordinator", "worker"] {
        let unit = text(&format!("deploy/systemd/tokenbus-{role}.service"));
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let start = start.replace("/etc/tokenbus/tokenbus.toml", settings.to_str().unwrap());
        let command: Vec<String> = start.split(' ').map(str::to_owned).collect();
        assert_eq!(
            (command[0].as_str(), command[1].as_str()),
            ("/usr/local/bin/tokenbus", role)
        );
        places.serve(role, &command[1..]).await;
    }
}

#[tokio::test]
async fn the_systemd_units_are_closed_and_share_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    for role in ["gateway", "coordinator", "worker"] {
        let unit = text(&format!("deploy/systemd/tokenbus-{role}.service"));
        let own = [
            format!("StateDirectory=tokenbus-{role}"),
            format!("CacheDirectory=tokenbus-{role}"),
        ];
        let closed = [
            "DynamicUser=yes",
            "UMask=0077",
            "SystemCallFilter=@system-service",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            "NoNewPrivileges=yes",
        ];
        for line in own.iter().map(String::as_str).chain(closed) {
            assert!(unit.lines().any(|found| found == line), "{role}: {line}");
        }
        assert!(
            unit.contains("\nMemoryMax=") && unit.contains("LoadCredential="),
            "{role}"
        );
        // systemd's own check, where it is installed.
        let path = folder.path().join(format!("tokenbus-{role}.service"));
        std::fs::write(&path, unit.replace("/usr/local/bin/tokenbus", "/bin/true")).unwrap();
        if let Ok(said) = Command::new("systemd-analyze").arg("verify").arg(&path).output().await {
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(!said.contains("tokenbus"), "{said}");
        }
    }
}

/// The stages of `deploy/Dockerfile`, each with its instructions.
struct Dockerfile {
    stages: BTreeMap<String, Vec<(String, String)>>,
    order: Vec<String>,
}

impl Dockerfile {
    fn read() -> Self {
        let lines = text("deploy/Dockerfile").replace("\\\n", " ");
        let (mut stages, mut order) = (BTreeMap::new(), Vec::new());
        for line in lines
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        {
            let (instruction, rest) = line.split_once(' ').unwrap();
            if instruction == "FROM" {
                order.push(rest.split_once(" AS ").expect("every stage has a name").1.to_owned());
            }
            let stage: &mut Vec<_> = stages.entry(order.last().expect("FROM is first").clone()).or_default();
            stage.push((instruction.to_owned(), rest.trim().to_owned()));
        }
        Self { stages, order }
    }

    fn all(&self, instruction: &str) -> impl Iterator<Item = (usize, &str)> {
        let stages = self.order.iter().enumerate();
        let all = stages.flat_map(|(at, name)| self.stages[name].iter().map(move |step| (at, step)));
        all.filter(move |(_, step)| step.0 == instruction)
            .map(|(at, step)| (at, step.1.as_str()))
    }

    fn json(&self, stage: &str, instruction: &str) -> Vec<String> {
        let step = self.stages[stage].iter().rfind(|step| step.0 == instruction);
        let step = step.unwrap_or_else(|| panic!("stage {stage} has no {instruction}"));
        words(&serde_json::from_str(&step.1).unwrap())
    }
}

#[test]
fn the_dockerfile_copies_what_is_there_and_not_ignored() {
    let dockerfile = Dockerfile::read();
    let ignore = text(".dockerignore");
    let mut copied = Vec::new();
    for (at, rest) in dockerfile.all("COPY") {
        let (flags, paths): (Vec<&str>, Vec<&str>) = rest.split(' ').partition(|word| word.starts_with("--"));
        if let Some(from) = flags.iter().find_map(|flag| flag.strip_prefix("--from=")) {
            assert!(
                dockerfile.order[..at].iter().any(|stage| stage == from),
                "no stage {from} above"
            );
            continue;
        }
        for source in &paths[..paths.len() - 1] {
            assert!(root().join(source).exists(), "COPY {source}");
            assert!(
                ignore.lines().any(|line| line == format!("!{source}")),
                "{source} is ignored"
            );
            copied.push(PathBuf::from(source));
        }
    }
    let manifest = text("Cargo.toml");
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .unwrap();
    for member in words(&serde_json::from_str(members).unwrap()) {
        assert!(copied.contains(&PathBuf::from(&member)), "cargo needs {member}");
    }
    for (at, rest) in dockerfile.all("FROM") {
        let base = rest.split(' ').next().unwrap();
        let stage = dockerfile.order[..at].iter().any(|stage| stage == base);
        assert!(stage || base.contains(':'), "{base} is no stage above and has no tag");
    }
}

#[tokio::test]
async fn the_images_run_as_nobody_special_and_their_commands_are_understood() {
    let dockerfile = Dockerfile::read();
    assert_eq!(
        dockerfile.order.last().map(String::as_str),
        Some("full"),
        "the default image"
    );
    for stage in ["slim", "full"] {
        let steps = &dockerfile.stages[stage];
        assert_eq!(
            steps.iter().rfind(|step| step.0 == "USER").unwrap().1,
            "tokenbus",
            "{stage}"
        );
        assert_eq!(dockerfile.json(stage, "ENTRYPOINT"), ["tokenbus"], "{stage}");
        understood(&dockerfile.json(stage, "CMD")).await;
    }
    let provision = dockerfile.stages["provision"]
        .iter()
        .find_map(|step| step.1.strip_prefix("tokenbus "));
    let provision = provision.unwrap().split(['>', '&']).next().unwrap().trim();
    understood(&provision.split(' ').map(str::to_owned).collect::<Vec<_>>()).await;
    let rust = text("Cargo.toml")
        .lines()
        .find_map(|l| l.strip_prefix("rust-version = ").map(str::to_owned));
    let image = format!("rust:{}-", rust.unwrap().trim_matches('"'));
    assert!(
        dockerfile.stages["build"][0].1.starts_with(&image),
        "the build uses the Rust of Cargo.toml"
    );
}

/// Whether the command line is right: `--help` behind it is reached only if all before it is known.
async fn understood(args: &[String]) {
    let mut args: Vec<&str> = args.iter().map(String::as_str).filter(|arg| *arg != "--help").collect();
    args.push("--help");
    let said = run(PATIENCE, &args).await;
    assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
    args.insert(args.len() - 1, "--no-such-flag");
    let said = run(PATIENCE, &args).await;
    assert_ne!(said.code, Some(0), "{args:?}: an unknown flag must be seen: {said:?}");
}
