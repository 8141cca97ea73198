//! A page of Markdown, as far as a test needs it: fenced blocks, the comments that say how they are tested, headings
//! and links.
//!
//! Comments that readers do not see:
//!
//! - `<!-- test: run …shell… -->` runs shell in the page's shell at this place, to set up or to look at the result.
//! - `<!-- test: replace A => B -->` replaces in the commands that follow, for what a reader fills in.
//! - `<!-- test: exit N M … -->`: the commands of the next block end with these codes; the last holds for all others.
//! - `<!-- test: not run, REASON -->`: the next block cannot run here, see [`REASONS`].
//! - `<!-- test: excerpt PATH -->`: the next block's lines stand in this file, in this order.
//! - `<!-- test: foreign -->`: the next block is configuration of somebody else's program.

use std::{fs, path::Path};

/// Why a block may not run. There are no others: what runs nowhere is not known to work.
pub const REASONS: &[(&str, &str)] = &[
    ("docker", "needs a container engine and images"),
    ("vendor", "is a command of another vendor's program, or needs one"),
    ("systemd", "needs a machine whose first process is systemd"),
    ("build", "compiles for minutes"),
    ("network", "fetches from a network that tests do not use"),
];

/// What stands on a page and matters, in order.
#[derive(Debug)]
pub enum Item {
    /// Shell that readers do not see.
    Run { line: usize, text: String },
    /// Words in commands that a reader fills in.
    Replace { from: String, to: String },
    /// A fenced block.
    Block(Block),
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The line of its first line, from 1.
    pub line: usize,
    pub info: String,
    pub text: String,
    /// The codes that its commands end with.
    pub exit: Vec<u8>,
    pub not_run: Option<&'static str>,
    pub excerpt: Option<String>,
    pub foreign: bool,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Below the root of the project.
    pub path: String,
    pub items: Vec<Item>,
    /// Anchors of its headings.
    pub anchors: Vec<String>,
    /// Targets of its links, with their lines.
    pub links: Vec<(usize, String)>,
    /// What cannot be understood.
    pub wrong: Vec<String>,
}

#[derive(Default)]
struct Marks {
    exit: Vec<u8>,
    not_run: Option<&'static str>,
    excerpt: Option<String>,
    foreign: bool,
}

impl Page {
    pub fn read(path: &str) -> Page {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        Page::parse(path, &text)
    }

    pub fn parse(path: &str, text: &str) -> Page {
        let (items, anchors, links, wrong) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut page = Page { path: path.to_owned(), items, anchors, links, wrong };
        let mut marks = Marks::default();
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        while let Some((line, words)) = lines.next() {
            let bare = words.trim_start();
            if let Some(info) = bare.strip_prefix("```") {
                let indent = words.len() - bare.len();
                let mut text = String::new();
                let mut closed = false;
                for (_, inside) in lines.by_ref() {
                    if inside.trim() == "```" {
                        closed = true;
                        break;
                    }
                    let cut = inside.len() - inside.trim_start().len();
                    text.push_str(&inside[cut.min(indent)..]);
                    text.push('\n');
                }
                if !closed {
                    page.wrong.push(format!("{path}:{line}: the block has no end"));
                }
                let Marks { exit, not_run, excerpt, foreign } = std::mem::take(&mut marks);
                let info = info.trim().to_owned();
                page.items.push(Item::Block(Block { line: line + 1, info, text, exit, not_run, excerpt, foreign }));
            } else if let Some(comment) = bare.strip_prefix("<!-- test:") {
                let mut text = comment.to_owned();
                while !text.contains("-->") {
                    let Some((_, more)) = lines.next() else { break };
                    text.push('\n');
                    text.push_str(more);
                }
                let text = text.split("-->").next().unwrap_or_default().trim().to_owned();
                if let Err(problem) = page.mark(line, &text, &mut marks) {
                    page.wrong.push(format!("{path}:{line}: {problem}"));
                }
            } else {
                if bare.starts_with('#') && bare.trim_start_matches('#').starts_with(' ') {
                    page.anchors.push(anchor(bare.trim_start_matches('#').trim()));
                }
                page.links.extend(links_of(words).map(|link| (line, link)));
            }
        }
        page
    }

    fn mark(&mut self, line: usize, text: &str, marks: &mut Marks) -> Result<(), String> {
        let (word, rest) = text.split_once([' ', '\n']).unwrap_or((text, ""));
        match word {
            "run" => self.items.push(Item::Run { line, text: rest.to_owned() }),
            "replace" => {
                for pair in rest.lines().filter(|pair| !pair.trim().is_empty()) {
                    let (from, to) = pair.split_once(" => ").ok_or("replace takes A => B")?;
                    self.items.push(Item::Replace { from: from.trim().to_owned(), to: to.trim().to_owned() });
                }
            }
            "exit" => {
                let codes: Result<Vec<u8>, _> = rest.split_whitespace().map(str::parse).collect();
                marks.exit = codes.map_err(|_| "exit takes codes")?;
            }
            "not" => {
                let reason = rest.trim().strip_prefix("run,").ok_or("write: not run, REASON")?.trim();
                let known = REASONS.iter().find(|(known, _)| *known == reason);
                let known = known.ok_or_else(|| format!("{reason:?} is no reason that counts"))?;
                marks.not_run = Some(known.0);
            }
            "excerpt" => marks.excerpt = Some(rest.trim().to_owned()),
            "foreign" => marks.foreign = true,
            word => return Err(format!("{word:?} is nothing that a test does")),
        }
        Ok(())
    }
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The targets of links on a line. What stands between backticks is no link.
fn links_of(line: &str) -> impl Iterator<Item = String> + '_ {
    let plain: String = line.split('`').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "`" }).collect();
    let starts: Vec<usize> = plain.match_indices("](").map(|(at, _)| at + 2).collect();
    let targets = starts.into_iter().filter_map(move |at| plain[at..].split_once(')').map(|(to, _)| to.to_owned()));
    targets.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let page = Page::parse(
            "x.md",
            "# One two: `three`\n[a](b.md#c) and `[no](link)`\n<!-- test: run\ntouch a\n-->\n<!-- test: exit 2 -->\n\
             - x\n  ```sh\n  ls\n    a\n  ```\n<!-- test: not run, boredom -->\n<!-- a remark -->\n",
        );
        assert_eq!(page.anchors, ["one-two-three"]);
        assert_eq!(page.links, [(2, "b.md#c".to_owned())]);
        assert_eq!(page.wrong.len(), 1, "{:?}", page.wrong);
        let [Item::Run { line: 3, text }, Item::Block(block)] = &page.items[..] else { panic!("{:?}", page.items) };
        assert_eq!(text, "touch a");
        assert_eq!((block.line, block.info.as_str(), &block.exit[..]), (9, "sh", &[2][..]));
        assert_eq!(block.text, "ls\n  a\n");
    }
}
