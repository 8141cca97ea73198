//! What the jobs run: this same program, which notes its start in a file, writes bytes that follow from a seed, with pauses,
//! and ends as it is told. Prints nothing else. What it wrote can therefore be told without having seen it.

use std::{
    fmt,
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, raise};
use ring::digest::{Context, SHA256};

use crate::random::Random;

/// How a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Code(u8),
    /// By a signal of its own.
    Signal(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Code(code) => write!(f, "code:{code}"),
            End::Signal(signal) => write!(f, "signal:{signal}"),
        }
    }
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<End, String> {
        let parsed = match text.split_once(':') {
            Some(("code", code)) => code.parse().ok().map(End::Code),
            Some(("signal", signal)) => signal.parse().ok().map(End::Signal),
            _ => None,
        };
        parsed.ok_or_else(|| format!("{text}: neither code:N nor signal:N"))
    }
}

/// What a job writes, and how.
#[derive(Debug, Clone)]
pub struct Writing {
    /// What the bytes follow from.
    pub seed: u64,
    /// How many go to stdout and to stderr.
    pub lengths: [u64; 2],
    /// How long it takes, at least.
    pub time: Duration,
    /// How it ends.
    pub end: End,
}

impl Writing {
    /// The arguments with which this program does it; `starts` is the file of its starts.
    pub fn args(&self, starts: &Path) -> Vec<String> {
        let [out, err] = self.lengths;
        let words = ["write", &self.seed.to_string(), &out.to_string(), &err.to_string()].map(str::to_owned);
        let rest = [self.time.as_millis().to_string(), self.end.to_string(), starts.display().to_string()];
        words.into_iter().chain(rest).collect()
    }

    fn parse(words: &[String]) -> Result<(Writing, PathBuf), String> {
        let [seed, out, err, time, end, starts] = words else { return Err("not six words".to_owned()) };
        let number = |text: &String| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        let lengths = [number(out)?, number(err)?];
        let time = Duration::from_millis(number(time)?);
        Ok((Writing { seed: number(seed)?, lengths, time, end: end.parse()? }, starts.into()))
    }

    /// SHA-256 of stdout and of stderr.
    pub fn hashes(&self) -> [String; 2] {
        [0, 1].map(|stream| {
            let mut content = Content::new(self.seed, stream);
            let mut hash = Context::new(&SHA256);
            let mut left = self.lengths[stream];
            while left > 0 {
                let piece = content.next(left);
                hash.update(piece);
                left -= piece.len() as u64;
            }
            hex(hash)
        })
    }
}

/// A digest in hex.
pub fn hex(hash: Context) -> String {
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of one stream: blocks of the same noise, each stamped with its number, so that none can stand for another.
/// Every second job writes text.
struct Content {
    block: Vec<u8>,
    number: u64,
    used: usize,
    text: bool,
}

const BLOCK: usize = 4096;

impl Content {
    fn new(seed: u64, stream: usize) -> Content {
        let mut random = Random::new(seed, ["stdout", "stderr"][stream]);
        let text = random.below(2) == 0;
        let mut block: Vec<u8> = (0..BLOCK / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        if text {
            for byte in &mut block {
                *byte = if *byte < 4 { b'\n' } else { b' ' + *byte % 95 };
            }
        }
        Content { block, number: 0, used: BLOCK, text }
    }

    /// The next bytes, at least one and at most `most`.
    fn next(&mut self, most: u64) -> &[u8] {
        if self.used == BLOCK {
            self.used = 0;
            let stamp =
                if self.text { format!("{:16}", self.number).into_bytes() } else { self.number.to_le_bytes().into() };
            self.block[..stamp.len()].copy_from_slice(&stamp);
            self.number += 1;
        }
        let end = BLOCK.min(self.used.saturating_add(usize::try_from(most).unwrap_or(BLOCK)));
        let piece = &self.block[self.used..end];
        self.used = end;
        piece
    }
}

/// Does what the words say. Its own failures end it with a code that no job ends with by plan.
pub fn run(words: &[String]) -> ExitCode {
    let done = Writing::parse(words).and_then(|(writing, starts)| {
        write(&writing, &starts).map_err(|e| e.to_string())?;
        Ok(writing.end)
    });
    match done {
        Ok(End::Code(code)) => ExitCode::from(code),
        Ok(End::Signal(signal)) => {
            raise(Signal::try_from(signal).unwrap()).unwrap();
            unreachable!("the signal ends us")
        }
        Err(e) => {
            eprintln!("the job itself failed: {e}");
            ExitCode::from(FAILED)
        }
    }
}

/// The exit code of a job that could not do what it was told.
pub const FAILED: u8 = 254;

fn write(writing: &Writing, starts: &Path) -> std::io::Result<()> {
    let attempt = std::env::var("RK_ATTEMPT").unwrap_or_default();
    let line = format!("{} {attempt}\n", process::id());
    File::options().create(true).append(true).open(starts)?.write_all(line.as_bytes())?;
    let mut streams = [
        File::from(std::io::stdout().as_fd().try_clone_to_owned()?),
        File::from(std::io::stderr().as_fd().try_clone_to_owned()?),
    ];
    let mut contents = [0, 1].map(|stream| Content::new(writing.seed, stream));
    let pieces = u64::try_from(writing.time.as_millis() / 50).unwrap_or(1).clamp(1, 20_000);
    let start = Instant::now();
    let mut written = [0_u64; 2];
    for piece in 1..=pieces {
        for stream in [0, 1] {
            let goal = (u128::from(writing.lengths[stream]) * u128::from(piece) / u128::from(pieces)) as u64;
            let mut buffer = Vec::with_capacity(64 << 10);
            while written[stream] < goal {
                buffer.clear();
                while written[stream] < goal && buffer.len() < 64 << 10 {
                    let bytes = contents[stream].next(goal - written[stream]);
                    written[stream] += bytes.len() as u64;
                    buffer.extend_from_slice(bytes);
                }
                streams[stream].write_all(&buffer)?;
            }
        }
        let due = start + writing.time.mul_f64(piece as f64 / pieces as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // The suite is gone, and nobody else would end us.
        if !fs::exists(starts)? {
            return Err(std::io::Error::other("the suite is gone"));
        }
    }
    Ok(())
}
