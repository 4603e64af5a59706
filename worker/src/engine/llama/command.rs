//! The command line of llama.cpp's server, in either of its forms. Pure.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Runs the server inside Python, from the `xllamacpp` package.
const LAUNCHER: &str = include_str!("launcher.py");

/// Where llama.cpp's server comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LlamaRuntime {
    /// The `llama-server` program.
    LlamaServer(PathBuf),
    /// The Python package `xllamacpp`.
    Python {
        /// The interpreter.
        python: PathBuf,
        /// The folder that holds the package (a target of `pip install --target`).
        packages: PathBuf,
    },
}

/// What the server is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Settings {
    pub(super) model_path: String,
    pub(super) alias: String,
    pub(super) slots: u32,
    /// Of all slots together: llama.cpp divides it among them.
    pub(super) total_context: u64,
    /// `None`: llama.cpp's own choice.
    pub(super) threads: Option<u32>,
    /// `None`: llama.cpp's own choice.
    pub(super) gpu_layers: Option<u32>,
    /// Of the host's memory, for prompts that no slot has; `None`: llama.cpp's own choice.
    pub(super) cache_ram_mib: Option<u32>,
    pub(super) embeddings: bool,
    /// By llama.cpp's name; `None`: as the model was made for.
    pub(super) pooling: Option<&'static str>,
    pub(super) reranking: bool,
}

/// The words that start the server; `{host}` and `{port}` are filled in by the supervisor.
pub(super) fn words(runtime: &LlamaRuntime, settings: &Settings) -> Vec<String> {
    match runtime {
        LlamaRuntime::LlamaServer(program) => native(program, settings),
        LlamaRuntime::Python { python, packages } => in_python(python, packages, settings),
    }
}

fn native(program: &Path, settings: &Settings) -> Vec<String> {
    let mut words = vec![text(program)];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--model", settings.model_path.clone());
    option("--alias", settings.alias.clone());
    option("--host", "{host}".to_owned());
    option("--port", "{port}".to_owned());
    option("--parallel", settings.slots.to_string());
    option("--ctx-size", settings.total_context.to_string());
    // The worker chooses the slots.
    option("--slot-prompt-similarity", "0".to_owned());
    if let Some(threads) = settings.threads {
        option("--threads", threads.to_string());
    }
    if let Some(layers) = settings.gpu_layers {
        option("--n-gpu-layers", layers.to_string());
    }
    if let Some(mib) = settings.cache_ram_mib {
        option("--cache-ram", mib.to_string());
    }
    if let Some(pooling) = settings.pooling {
        option("--pooling", pooling.to_owned());
    }
    words.extend(["--metrics", "--slots", "--jinja"].map(str::to_owned));
    if settings.embeddings {
        words.push("--embeddings".to_owned());
    }
    if settings.reranking {
        words.push("--reranking".to_owned());
    }
    words
}

fn in_python(python: &Path, packages: &Path, settings: &Settings) -> Vec<String> {
    // `-I`: neither the user's packages nor the current folder nor PYTHON* variables matter.
    let json = serde_json::to_string(settings).unwrap_or_default();
    vec![
        text(python),
        "-I".to_owned(),
        "-c".to_owned(),
        LAUNCHER.to_owned(),
        text(packages),
        json,
    ]
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            model_path: "/models/a b.gguf".to_owned(),
            alias: "a".to_owned(),
            slots: 4,
            total_context: 16384,
            threads: Some(2),
            gpu_layers: None,
            cache_ram_mib: None,
            embeddings: false,
            pooling: None,
            reranking: false,
        }
    }

    #[test]
    fn the_program_is_told_everything_once() {
        let words = words(&LlamaRuntime::LlamaServer("/bin/llama-server".into()), &settings());
        assert_eq!(
            words.join("|"),
            "/bin/llama-server|--model|/models/a b.gguf|--alias|a|--host|{host}|--port|{port}|--parallel|4|--ctx-size|16384|--slot-prompt-similarity|0|--threads|2|--metrics|--slots|--jinja"
        );
        let own_choice = Settings {
            threads: None,
            ..settings()
        };
        let words = super::words(&LlamaRuntime::LlamaServer("x".into()), &own_choice);
        assert!(!words.contains(&"--threads".to_owned()));
        let more = Settings {
            gpu_layers: Some(99),
            cache_ram_mib: Some(0),
            embeddings: true,
            pooling: Some("mean"),
            reranking: true,
            ..settings()
        };
        let words = super::words(&LlamaRuntime::LlamaServer("x".into()), &more).join(" ");
        assert!(words.ends_with(
            "--threads 2 --n-gpu-layers 99 --cache-ram 0 --pooling mean --metrics --slots --jinja --embeddings --reranking"
        ));
    }

    #[test]
    fn python_runs_isolated_with_the_settings_as_json() {
        let runtime = LlamaRuntime::Python {
            python: "/bin/python3".into(),
            packages: "/cache/x".into(),
        };
        let words = words(&runtime, &settings());
        assert_eq!(words[..3], ["/bin/python3", "-I", "-c"]);
        assert_eq!(words[4], "/cache/x");
        let json: serde_json::Value = serde_json::from_str(&words[5]).unwrap();
        assert_eq!(json["model_path"], "/models/a b.gguf");
        assert_eq!((&json["total_context"], &json["threads"]), (&16384.into(), &2.into()));
        assert!(
            !words[3].contains("{port}") && !words[3].contains("{host}"),
            "the supervisor would fill them in"
        );
    }
}
