//! Chromium and its driver, if the machine has them.

use std::path::{Path, PathBuf};

/// The paths of both.
#[derive(Debug)]
pub struct Browser {
    /// The browser.
    pub program: PathBuf,
    /// `chromedriver` of the same version.
    pub driver: PathBuf,
}

impl Browser {
    /// Finds both on PATH. If one is missing, says so on standard error and returns `None`.
    ///
    /// # Panics
    /// When one is missing and `TOKENBUS_REQUIRE_BROWSER` is set, as it is before a merge.
    pub fn find() -> Option<Self> {
        let program = ["chromium", "chromium-browser", "google-chrome"]
            .iter()
            .find_map(on_path);
        match (program, on_path(&"chromedriver")) {
            (Some(program), Some(driver)) => Some(Self { program, driver }),
            (program, driver) => {
                let missing = format!("a browser is needed: chromium {program:?}, chromedriver {driver:?}");
                assert!(std::env::var_os("TOKENBUS_REQUIRE_BROWSER").is_none(), "{missing}");
                eprintln!("SKIPPED: {missing}");
                None
            }
        }
    }
}

fn on_path(name: &&str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place: &PathBuf| Path::is_file(place))
}
