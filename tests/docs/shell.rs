//! Commands of a block: taken apart, and their output compared.

use std::process::Command;

/// A command, the line that it starts at, and what it is to print where the page says so.
#[derive(Debug, PartialEq)]
pub struct Step {
    pub line: usize,
    pub command: String,
    pub output: Option<String>,
}

/// The commands of a script, each with all its lines.
pub fn script(text: &str, first: usize) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let mut command = line.to_owned();
        while !is_whole(&command) {
            let Some((_, more)) = lines.next() else {
                return Err(format!("line {}: this command has no end: {command}", first + at));
            };
            command.push('\n');
            command.push_str(more);
        }
        steps.push(Step { line: first + at, command, output: None });
    }
    Ok(steps)
}

/// The commands of a terminal's picture: a prompt `$ `, further lines with `> `, then the output.
pub fn console(text: &str, first: usize) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: first + at, command: command.to_owned(), output: Some(String::new()) });
            continue;
        }
        let Some(Step { command, output: Some(output), .. }) = steps.last_mut() else {
            return Err(format!("line {}: output stands before the first `$ `", first + at));
        };
        match line.strip_prefix("> ") {
            Some(more) if output.is_empty() && !is_whole(command) => {
                command.push('\n');
                command.push_str(more);
            }
            _ => {
                output.push_str(line);
                output.push('\n');
            }
        }
    }
    Ok(steps)
}

/// Whether the shell would run it, or wait for more.
fn is_whole(command: &str) -> bool {
    if command.ends_with('\\') {
        return false;
    }
    // The shell takes a here-document that ends with the text.
    if let Some((_, after)) = command.split_once("<<") {
        let word: String =
            after.trim_start_matches(['-', '\'', '"']).chars().take_while(|c| c.is_alphanumeric()).collect();
        if !word.is_empty() && !command.lines().skip(1).any(|line| line.trim() == word) {
            return false;
        }
    }
    Command::new("bash").args(["-n", "-c", command]).output().unwrap().status.success()
}

/// Whether `said` is what the page shows: spaces count as one, `…` stands for anything, on a line of its own for any
/// lines.
pub fn matches(shown: &str, said: &str) -> bool {
    let squeeze = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.filter(|line| !line.is_empty()).collect()
    };
    lines_match(&squeeze(shown), &squeeze(said))
}

fn lines_match(shown: &[String], said: &[String]) -> bool {
    match (shown, said) {
        ([], []) => true,
        ([first, rest @ ..], _) if first == "…" => (0..=said.len()).any(|skip| lines_match(rest, &said[skip..])),
        ([first, rest @ ..], [line, more @ ..]) => line_matches(first, line) && lines_match(rest, more),
        _ => false,
    }
}

fn line_matches(shown: &str, said: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|start| said.strip_prefix(start)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_all_their_lines() {
        let text = "# a remark\ncat > a <<'END'   # words\nb c\nEND\n\nls \\\n  -l\necho 'two\nlines'\n";
        let steps = script(text, 10).unwrap();
        let commands: Vec<(usize, &str)> = steps.iter().map(|step| (step.line, step.command.as_str())).collect();
        assert_eq!(
            commands,
            [(11, "cat > a <<'END'   # words\nb c\nEND"), (15, "ls \\\n  -l"), (17, "echo 'two\nlines'")]
        );
        assert!(script("cat <<END\nx\n", 1).is_err());
    }

    #[test]
    fn a_terminals_picture_is_commands_and_output() {
        let steps = console("$ echo 'a\n> b'\na\nb\n$ true\n", 1).unwrap();
        assert_eq!(steps[0].command, "echo 'a\nb'");
        assert_eq!(steps[0].output.as_deref(), Some("a\nb\n"));
        assert_eq!(steps[1].output.as_deref(), Some(""));
        assert!(console("a\n$ true\n", 1).is_err());
    }

    #[test]
    fn output_is_compared_but_for_what_varies() {
        assert!(matches("a   b\n", "a b\n\n"));
        assert!(matches("job … ended\n…\nlast\n", "job 7x ended\nmore\nand more\nlast\n"));
        assert!(matches("a\n…\n", "a\n"));
        assert!(!matches("a … c\n", "a b d\n"));
        assert!(!matches("a\n", "a\nb\n"));
        assert!(!matches("a\nb\n", "a\n"));
    }
}
