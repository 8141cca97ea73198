//! What the kernel says of processes and of time.

use std::{fs, io, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// A process as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Stat {
    /// Its parent.
    pub parent: i32,
    /// When it began, in clock ticks after boot.
    pub start: u64,
    /// Whether it has ended and waits to be reaped.
    pub ended: bool,
}

/// Process `pid`; `None` if there is none.
pub(in crate::agent) fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The processes whose parent is `parent`.
pub(in crate::agent) fn children(parent: u32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| stat(*pid).is_some_and(|stat| stat.parent.unsigned_abs() == parent);
    pids.filter(is_child).filter_map(|pid| pid.try_into().ok()).collect()
}

/// The kernel's id of this boot.
pub(in crate::agent) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The time since boot, which also passes while the machine sleeps.
pub(super) fn boot_clock() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock").into()
}

fn parse(stat: &[u8]) -> Option<Stat> {
    // The name in parentheses may hold anything, also parentheses and bytes that are no text.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut words = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace();
    let ended = matches!(words.next()?, "Z" | "X" | "x");
    let parent = words.next()?.parse().ok()?;
    // Field 22, counted from the process id.
    let start = words.nth(17)?.parse().ok()?;
    Some(Stat { parent, start, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let text =
            b"42 (a) b\xff 1) R 7 42 42 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 98765 1000 200 18446744073709551615";
        assert_eq!(parse(text), Some(Stat { parent: 7, start: 98765, ended: false }));
        for cut in 0..text.len() - 40 {
            parse(&text[..cut]);
        }
        let own = stat(std::process::id()).expect("we are");
        assert!(!own.ended && children(own.parent.unsigned_abs()).contains(&(std::process::id() as i32)));
        assert_eq!(stat(u32::MAX), None);
    }

    #[test]
    fn the_boot_has_an_id_and_a_clock() {
        assert_eq!(boot_id().expect("an id").len(), 36);
        assert!(boot_clock() > Duration::ZERO);
    }
}
