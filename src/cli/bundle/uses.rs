//! `--bundle` of commands that run something.

use std::path::{Path, PathBuf};

use super::push;
use crate::{api::Client, cli::Failure};

/// How a program is named that lies in a bundle: this and its path there.
const INSIDE: &str = "bundle:";

/// The bundles that a command uses.
pub struct Uses {
    /// What the controller is told.
    pub bundles: Vec<String>,
    /// The paths of those that lie here.
    local: Vec<PathBuf>,
}

impl Uses {
    /// Of `--bundle`s: what has a '/' in it, or is '.', is a path here, which is pushed unless the controller has it.
    pub async fn of(client: &Client, given: &[String]) -> Result<Self, Failure> {
        let mut uses = Self { bundles: Vec::new(), local: Vec::new() };
        for text in given {
            if text.contains('/') || text == "." || text == ".." {
                uses.bundles.push(push::ensure(client, Path::new(text)).await?);
                uses.local.push(PathBuf::from(text));
            } else {
                uses.bundles.push(text.clone());
            }
        }
        Ok(uses)
    }

    /// The command as agents are told it: a program that lies in a bundle here lies in it there.
    pub fn command(&self, argv: &[String]) -> Vec<String> {
        let mut argv = argv.to_vec();
        if let Some(program) = argv.first_mut()
            && program.contains('/')
            && let Some(inside) = self.local.iter().find_map(|bundle| inside(bundle, Path::new(program)))
        {
            *program = format!("{INSIDE}{inside}");
        }
        argv
    }
}

/// Where `program` lies in `bundle`.
fn inside(bundle: &Path, program: &Path) -> Option<String> {
    let bundle = std::fs::canonicalize(bundle).ok()?;
    // The last part may be a link of the bundle's own.
    let dir = std::fs::canonicalize(program.parent()?).ok()?;
    let program = dir.join(program.file_name()?);
    if program == bundle {
        return program.file_name()?.to_str().map(str::to_owned);
    }
    program.strip_prefix(&bundle).ok()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_a_bundle_is_named_by_its_path_there_and_others_are_left_alone() {
        let top = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(top.path().join("dir/bin")).expect("dirs");
        std::fs::write(top.path().join("dir/bin/tool"), "").expect("file");
        let path = |path: &str| top.path().join(path).display().to_string();
        let uses = Uses { bundles: Vec::new(), local: vec![top.path().join("dir"), top.path().join("dir/bin/tool")] };
        let first = |program: &str| uses.command(&[program.to_owned(), "./x".to_owned()]).remove(0);
        assert_eq!(first(&path("dir/bin/tool")), "bundle:bin/tool");
        assert_eq!(first(&path("dir/bin/../bin/tool")), "bundle:bin/tool");
        assert_eq!(first("tool"), "tool");
        assert_eq!(first("/bin/sh"), "/bin/sh");
        let single = Uses { bundles: Vec::new(), local: vec![top.path().join("dir/bin/tool")] };
        assert_eq!(single.command(&[path("dir/bin/tool")]), ["bundle:tool"]);
    }
}
