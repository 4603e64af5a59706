//! Models from a hub: which file of a repository is meant, and getting it into the cache.

use std::path::{Component, Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

use super::cache::{Cache, CacheError};
use super::download::{DownloadError, Wanted, download};
use super::provision::wait_for;
use crate::ui::Screen;
use crate::{http, limits};

/// Where models are looked up unless `HF_ENDPOINT` names another hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Quantisations taken when a repository has several and none is named, best first.
const PREFERRED: [&str; 6] = ["Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q5_K_M", "Q8_0"];

/// The most names that a message lists.
const LISTED: usize = 12;

/// Why a model of a hub cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// No answer.
    #[error(
        "the model hub {endpoint} cannot be reached ({reason}): connect this machine to the network, set \
         HF_ENDPOINT to a mirror, or name a file with --model FILE.gguf"
    )]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// An answer that is an error.
    #[error("the model hub says HTTP {status} for {repo}{hint}")]
    Status {
        /// The repository.
        repo: String,
        /// HTTP status.
        status: u16,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// The hub's answer cannot be understood.
    #[error("the model hub {endpoint} gave an answer that cannot be understood: {reason}")]
    Strange {
        /// Its address.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// No file, or too many.
    #[error("{0}")]
    Choice(String),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The download.
    #[error("{0}")]
    Download(String),
}

impl From<DownloadError> for HubError {
    fn from(error: DownloadError) -> Self {
        Self::Download(error.to_string())
    }
}

/// A file of a repository, as the hub's API lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct HubFile {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<HubFile>,
}

/// A hub and what it wants to be told.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    /// `HF_ENDPOINT` and `HF_TOKEN`, as other tools read them.
    pub(crate) fn from_env() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::new(
            set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            set("HF_TOKEN"),
        )
    }

    fn new(endpoint: String, token: Option<String>) -> Self {
        let is_private = endpoint
            .get(..8)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        if token.is_some() && !is_private {
            tracing::warn!(endpoint, "HF_TOKEN is not sent to a hub without TLS");
        }
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.filter(|_| is_private),
        }
    }

    /// The first (or only) file of the model `repo`, in the cache. `selector` is a file's name or a
    /// quantisation. Nothing is asked of the network when an earlier start has got it.
    pub(crate) async fn fetch(
        &self,
        repo: &str,
        selector: Option<&str>,
        cache: &Cache,
        screen: &Screen,
    ) -> Result<PathBuf, HubError> {
        let name = repo.replace('/', "--");
        let folder = cache.root().join("models").join(&name);
        let choice = folder.join(format!("{}.choice", sanitized(selector.unwrap_or("default"))));
        if let Some(file) = chosen_before(&choice, &folder) {
            screen.line(format_args!("{repo}: ready"));
            return Ok(file);
        }
        let entry = cache.entry(&format!("model-{name}"));
        let _lock = match entry.try_lock()? {
            Some(lock) => lock,
            None => {
                screen.line(format_args!(
                    "{repo}: waiting for another process that is downloading it"
                ));
                wait_for(entry).await?
            }
        };
        let repository = self.list(repo).await?;
        let files = choose(repo, &repository.siblings, selector).map_err(HubError::Choice)?;
        let revision = repository.sha.as_deref().unwrap_or("main");
        let mut first = None;
        for file in &files {
            let place = folder.join(within(&file.rfilename)?);
            self.get(repo, revision, file, &place, screen).await?;
            first.get_or_insert(place);
        }
        let Some(first) = first else {
            return Err(HubError::Choice(format!("{repo} has no GGUF file")));
        };
        let name = files.first().map(|file| file.rfilename.as_str()).unwrap_or_default();
        std::fs::write(&choice, name).map_err(CacheError::io("write", &choice))?;
        Ok(first)
    }

    async fn get(
        &self,
        repo: &str,
        revision: &str,
        file: &HubFile,
        place: &Path,
        screen: &Screen,
    ) -> Result<(), HubError> {
        if place.is_file() {
            return Ok(());
        }
        let url = self.url(&format!("{repo}/resolve/{revision}/{}", file.rfilename))?;
        let lfs = file.lfs.as_ref();
        let wanted = Wanted {
            url,
            token: self.token.clone(),
            size: lfs.and_then(|lfs| lfs.size).or(file.size),
            sha256: lfs.and_then(|lfs| lfs.sha256.clone()),
        };
        let megabytes = wanted
            .size
            .map_or_else(String::new, |size| format!(" ({} MB, once)", size / 1_000_000));
        let step = screen.step(&file.rfilename, &format!("downloading{megabytes}"));
        download(&wanted, place, |done, total| step.bytes(done, total)).await?;
        step.done("downloaded");
        Ok(())
    }

    async fn list(&self, repo: &str) -> Result<Repository, HubError> {
        let unreachable = |error: &reqwest::Error| HubError::Unreachable {
            endpoint: self.endpoint.clone(),
            reason: http::cause(error),
        };
        let url = self.url(&format!("api/models/{repo}?blobs=true"))?;
        let client = http::client(&url, limits::DOWNLOAD_STALL).map_err(|error| unreachable(&error))?;
        let mut request = client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status().as_u16();
        if !response.status().is_success() {
            let hint = match status {
                401 | 403 => ": it is private, gated or not there; check its name, and set HF_TOKEN if it needs one",
                404 => ": there is no such repository; check its name",
                _ => "",
            };
            return Err(HubError::Status {
                repo: repo.to_owned(),
                status,
                hint,
            });
        }
        let body = http::bounded_body(response)
            .await
            .map_err(|reason| self.strange(reason))?;
        serde_json::from_slice(&body).map_err(|error| self.strange(error.to_string()))
    }

    fn url(&self, path: &str) -> Result<Url, HubError> {
        format!("{}/{path}", self.endpoint)
            .parse()
            .map_err(|error| self.strange(format!("{error}")))
    }

    fn strange(&self, reason: String) -> HubError {
        HubError::Strange {
            endpoint: self.endpoint.clone(),
            reason,
        }
    }
}

/// The file that an earlier start chose and has downloaded.
fn chosen_before(choice: &Path, folder: &Path) -> Option<PathBuf> {
    let name = std::fs::read_to_string(choice).ok()?;
    let all = parts(&name).unwrap_or_else(|| vec![name.clone()]);
    let all_there = all
        .iter()
        .all(|part| within(part).is_ok_and(|path| folder.join(path).is_file()));
    all_there.then(|| folder.join(name))
}

/// `name` as a path that stays within a folder.
fn within(name: &str) -> Result<&Path, HubError> {
    let path = Path::new(name);
    if !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(path);
    }
    Err(HubError::Choice(format!(
        "the hub lists a file with an impossible name: {name:?}"
    )))
}

fn sanitized(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// The files to download for `selector`: one, or all parts of one that is split.
fn choose(repo: &str, files: &[HubFile], selector: Option<&str>) -> Result<Vec<HubFile>, String> {
    let is_model = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.ends_with(".gguf") && !name.contains("mmproj")
    };
    // Of a split model the first part stands for all.
    let models: Vec<&str> = files
        .iter()
        .map(|file| file.rfilename.as_str())
        .filter(|name| is_model(name) && parts(name).is_none_or(|parts| parts.first().is_some_and(|p| p == name)))
        .collect();
    let name = match (selector, models.as_slice()) {
        (_, []) => {
            return Err(format!(
                "{repo} has no GGUF file: name a repository that has (often NAME-GGUF)"
            ));
        }
        (Some(selector), models) => models
            .iter()
            .find(|name| **name == selector)
            .or_else(|| models.iter().find(|name| has_quantisation(name, selector))),
        (None, [only]) => Some(only),
        (None, models) => PREFERRED
            .iter()
            .find_map(|tag| models.iter().find(|name| has_quantisation(name, tag))),
    };
    let Some(name) = name else {
        let listed: Vec<&str> = models.iter().take(LISTED).copied().collect();
        let more = if models.len() > LISTED { ", …" } else { "" };
        return Err(format!(
            "{repo}: name one of its files, as in --model hf:{repo}:FILE: {}{more}",
            listed.join(", ")
        ));
    };
    let names = parts(name).unwrap_or_else(|| vec![(*name).to_owned()]);
    names
        .iter()
        .map(|part| {
            let found = files.iter().find(|file| file.rfilename == *part);
            found
                .cloned()
                .ok_or_else(|| format!("{repo} lacks {part}, a part of {name}"))
        })
        .collect()
}

/// Whether the file's name ends with the quantisation `tag`, as in `name-Q4_K_M.gguf`.
fn has_quantisation(name: &str, tag: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let stem = name.strip_suffix(".GGUF").unwrap_or(&name);
    let stem = stem
        .rsplit_once("-OF-")
        .and_then(|(head, _)| head.rsplit_once('-'))
        .map_or(stem, |(head, _)| head);
    let Some(before) = stem.strip_suffix(&tag.to_ascii_uppercase()) else {
        return false;
    };
    before.is_empty() || before.ends_with(['-', '.', '_', '/'])
}

/// The names of all parts of `name-00001-of-00003.gguf`; `None` for a file that is not split.
fn parts(name: &str) -> Option<Vec<String>> {
    let stem = name.strip_suffix(".gguf")?;
    let (head, total) = stem.rsplit_once("-of-")?;
    let (head, number) = head.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(total) || !digits(number) {
        return None;
    }
    let count: u32 = total.parse().ok().filter(|count| (1..=1000).contains(count))?;
    Some(
        (1..=count)
            .map(|part| format!("{head}-{part:05}-of-{total}.gguf"))
            .collect(),
    )
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
