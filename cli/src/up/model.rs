//! `--model`: a GGUF file, or one of a hub.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::hub::{Hub, HubError};
use super::provision::{ProvisionError, Provisioner};
use crate::ui::Screen;

/// The name under which the small model is served.
pub(crate) const SMALL_MODEL: &str = "smollm2-135m-instruct";

/// What `--model` named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelSpec {
    /// A file on this machine.
    File(PathBuf),
    /// A repository of a hub, and a file or a quantisation in it.
    Hub {
        /// `owner/repo`.
        repo: String,
        /// File name or quantisation, if one is named.
        selector: Option<String>,
    },
}

impl FromStr for ModelSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("hf:") else {
            if text.is_empty() {
                return Err("name a GGUF file, or hf:owner/repo[:file]".to_owned());
            }
            return Ok(Self::File(text.into()));
        };
        let (repo, selector) = match rest.split_once(':') {
            Some((repo, selector)) => (repo, Some(selector.to_owned())),
            None => (rest, None),
        };
        let legal = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let fits = repo
            .split_once('/')
            .is_some_and(|(owner, name)| legal(owner) && legal(name));
        if !fits || selector.as_ref().is_some_and(String::is_empty) {
            return Err(format!("{text:?} is not hf:owner/repo or hf:owner/repo:file"));
        }
        Ok(Self::Hub {
            repo: repo.to_owned(),
            selector,
        })
    }
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelError {
    /// The file is not there, or not readable.
    #[error("cannot read the model {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such file.
    #[error("there is no file {path}; a model of Hugging Face is hf:owner/repo, or hf:owner/repo:Q4_K_M for one of its files", path = .0.display())]
    NoFile(PathBuf),
    /// The file is something else.
    #[error("{path} is no GGUF file: the engine reads models in the GGUF format only", path = .0.display())]
    NotGguf(PathBuf),
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The small model.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}

/// A model that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    /// By which clients ask for it.
    pub(crate) name: String,
    /// Its file; of a split model the first part.
    pub(crate) file: PathBuf,
}

/// Gets the model that `spec` names, or the small one.
///
/// # Errors
/// [`ModelError`], a sentence that says what to do.
pub(crate) async fn obtain(
    spec: Option<&ModelSpec>,
    provisioner: &Provisioner,
    screen: &Screen,
) -> Result<Model, ModelError> {
    let file = match spec {
        None => {
            let file = provisioner.small_model().await?;
            return Ok(Model {
                name: SMALL_MODEL.to_owned(),
                file,
            });
        }
        Some(ModelSpec::File(file)) => {
            // The engine runs in another directory.
            std::path::absolute(file).map_err(|source| ModelError::Read {
                path: file.clone(),
                source,
            })?
        }
        Some(ModelSpec::Hub { repo, selector }) => {
            Hub::from_env()
                .fetch(repo, selector.as_deref(), provisioner.cache(), screen)
                .await?
        }
    };
    check(&file)?;
    Ok(Model {
        name: name_of(&file),
        file,
    })
}

/// Looks at the first bytes: a wrong file is said here rather than by an engine that ends.
fn check(file: &Path) -> Result<(), ModelError> {
    let read = |source| ModelError::Read {
        path: file.to_owned(),
        source,
    };
    let mut magic = [0; 4];
    let got = File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    match got {
        Ok(()) if magic == *b"GGUF" => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ModelError::NoFile(file.to_owned())),
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(read(error)),
        _ => Err(ModelError::NotGguf(file.to_owned())),
    }
}

/// The file's name without its ending and the number of its part.
fn name_of(file: &Path) -> String {
    let stem = file
        .file_stem()
        .map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let is_part = |number: &str| number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    let whole = stem
        .rsplit_once("-of-")
        .filter(|(_, total)| is_part(total))
        .and_then(|(head, _)| head.rsplit_once('-'))
        .filter(|(_, number)| is_part(number))
        .map(|(head, _)| head);
    whole.unwrap_or(&stem).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn files_and_hubs() {
        let parse = |text: &str| text.parse::<ModelSpec>();
        assert_eq!(parse("a/b.gguf").unwrap(), ModelSpec::File("a/b.gguf".into()));
        let hub = |selector: Option<&str>| ModelSpec::Hub {
            repo: "o/r".to_owned(),
            selector: selector.map(str::to_owned),
        };
        assert_eq!(parse("hf:o/r").unwrap(), hub(None));
        assert_eq!(parse("hf:o/r:x/y-Q4_0.gguf").unwrap(), hub(Some("x/y-Q4_0.gguf")));
        for wrong in ["hf:", "hf:o", "hf:o/", "hf:o/r:", "hf:o/../x", "hf:o/r/x", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_model_is_called_as_its_file() {
        assert_eq!(name_of(Path::new("/m/Qwen2.5-0.5B.Q4_0.gguf")), "Qwen2.5-0.5B.Q4_0");
        assert_eq!(name_of(Path::new("m-Q4-00001-of-00003.gguf")), "m-Q4");
        assert_eq!(name_of(Path::new("best-of-three.gguf")), "best-of-three");
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.gguf");
        assert!(matches!(check(&file), Err(ModelError::NoFile(_))));
        std::fs::write(&file, "GG").unwrap();
        assert!(matches!(check(&file), Err(ModelError::NotGguf(_))));
        std::fs::write(&file, "GGUF and more").unwrap();
        check(&file).unwrap();
    }
}
