//! `tokenbus completions` and `tokenbus man`: what is generated from the command line's own definition.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Command;

use crate::reference;

/// Print the completions of a shell
///
/// As in: tokenbus completions bash > /etc/bash_completion.d/tokenbus
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write the manual pages, one for each subcommand
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ManArgs {
    /// Write one page of Markdown with all settings instead, configuration.md
    #[arg(long)]
    markdown: bool,

    /// The folder for the pages; it is made if there is none
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints the completions of `command`.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tokenbus", &mut script);
    io::stdout().lock().write_all(&script)
}

/// Writes the pages of `command` and its subcommands.
///
/// # Errors
/// When the folder or a page cannot be written.
pub(crate) fn man(args: &ManArgs, command: Command) -> io::Result<()> {
    std::fs::create_dir_all(&args.folder)?;
    if args.markdown {
        return std::fs::write(args.folder.join("configuration.md"), reference::page(&command));
    }
    clap_mangen::generate_to(command, &args.folder)
}
