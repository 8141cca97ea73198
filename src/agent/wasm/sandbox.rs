//! A module's process: interprets it with what it was granted, and tells how that ended.
//!
//! One thread, no tokio. `wasmi` checks each access to memory, `wasi-common` each path.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    path::Path,
};

use wasmi::{
    Caller, Config, Engine, Error, Linker, Module, ResourceLimiter, Store, TrapCode,
    errors::{ErrorKind, LinkerError},
};
use wasmi_core::LimiterError;
use wasmi_wasi::{
    WasiCtx, WasiDir,
    sync::{self, WasiCtxBuilder, ambient_authority},
};

use super::{Limits, folder::ReadOnly, order::Order};

/// The largest file of a module: interpreters with all their libraries have some 30 MiB.
const LARGEST: u64 = 128 << 20;

/// What a module's calls may take of the stack, in bytes: what a native program's main thread has.
const STACK: usize = 8 << 20;

/// How deep they may be nested. Each has at least some bytes of the stack; the default of 1,000 is not enough for a parser.
const DEPTH: usize = 64 << 10;

/// What an element of a table takes.
const ELEMENT: usize = 16;

/// The functions of WASI preview 1.
const WASI: &str = "wasi_snapshot_preview1";

/// What a component has where a module has its version.
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];

const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// As a process that aborted.
const TRAPPED: u8 = 134;
/// As one that the kernel killed because memory was short.
const NO_MEMORY: u8 = 137;
/// As one that used up its time on the processor.
const NO_FUEL: u8 = 152;

/// Why a module did not end by itself.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: u8,
    pub message: String,
}

/// What belongs to the module that runs.
struct Host {
    wasi: WasiCtx,
    memory: Memory,
}

/// Counts what memories and tables take together.
struct Memory {
    limit: usize,
    used: usize,
    /// More was wanted.
    refused: bool,
}

/// Runs a module to its end; its exit code, of which a process has the lowest eight bits.
pub(super) fn run(order: &Order, own: &[(OsString, OsString)]) -> Result<u8, Failure> {
    let name = order.name.as_deref().unwrap_or(order.module.as_os_str()).display().to_string();
    let cannot = |message: String| Failure { code: CANNOT_RUN, message: format!("{name}: {message}") };
    let bytes = read(&order.module).map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
        Failure { code, message: format!("{name}: {error}") }
    })?;
    let engine = Engine::new(&config(order.limits));
    let module = Module::new(&engine, &bytes[..]).map_err(|error| cannot(not_one(&bytes, &error)))?;
    drop(bytes);
    let memory = Memory { limit: usize::try_from(order.limits.memory).unwrap_or(usize::MAX), used: 0, refused: false };
    let host = Host { wasi: context(order, own).map_err(cannot)?, memory };
    let mut store = Store::new(&engine, host);
    store.limiter(|host| &mut host.memory);
    if let Some(fuel) = order.limits.fuel {
        store.set_fuel(fuel).expect("the engine counts it");
    }
    let linker = linker(&engine).map_err(|error| cannot(error.to_string()))?;
    check(&module).map_err(cannot)?;
    let ended = linker.instantiate_and_start(&mut store, &module).and_then(|instance| {
        let start = instance.get_typed_func::<(), ()>(&store, "_start")?;
        start.call(&mut store, ())
    });
    match ended {
        Ok(()) => Ok(0),
        Err(error) => match error.i32_exit_status() {
            Some(code) => Ok(code.to_le_bytes()[0]),
            None => Err(failure(&name, &error, order.limits, store.data().memory.refused)),
        },
    }
}

fn config(limits: Limits) -> Config {
    let mut config = Config::default();
    config.consume_fuel(limits.fuel.is_some()).ignore_custom_sections(true);
    config.set_max_stack_height(STACK).set_max_recursion_depth(DEPTH);
    config
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(file)?;
    let mut bytes = Vec::new();
    if file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
        return Err(io::Error::other(format!("the module has more than {} MiB, which is the most", LARGEST >> 20)));
    }
    Ok(bytes)
}

/// Why these bytes are no module.
fn not_one(bytes: &[u8], error: &Error) -> String {
    if bytes.get(4..8) == Some(&COMPONENT[..]) {
        return "a component (WASI 0.2), and only modules for WASI preview 1 run here; build it for wasm32-wasip1"
            .to_owned();
    }
    if !bytes.starts_with(b"\0asm") {
        return "no WebAssembly module: it does not begin like one".to_owned();
    }
    format!("no WebAssembly module that runs here: {error}")
}

/// What it sees of the world.
fn context(order: &Order, own: &[(OsString, OsString)]) -> Result<WasiCtx, String> {
    let mut builder = WasiCtxBuilder::new();
    builder.inherit_stdio();
    let name = order.name.as_deref().unwrap_or(order.module.as_os_str());
    // Strings of WASI are UTF-8.
    for argument in std::iter::once(name).chain(order.arguments.iter().map(OsString::as_os_str)) {
        builder.arg(&argument.to_string_lossy()).map_err(|error| format!("its arguments are too long: {error}"))?;
    }
    for (name, value) in &order.variables {
        let value = value.as_deref().or_else(|| named(own, name));
        // One that this process has not is not set there either.
        let Some(value) = value else { continue };
        let given = builder.env(&name.to_string_lossy(), &value.to_string_lossy());
        given.map_err(|error| format!("its environment is too long: {error}"))?;
    }
    let context = builder.build();
    for folder in &order.folders {
        let opened = sync::Dir::open_ambient_dir(&folder.host, ambient_authority());
        let dir = opened.map_err(|error| format!("directory {} cannot be granted: {error}", folder.host.display()))?;
        let dir: Box<dyn WasiDir> = Box::new(sync::dir::Dir::from_cap_std(dir));
        let dir: Box<dyn WasiDir> = if folder.writable { dir } else { Box::new(ReadOnly(dir)) };
        context.push_preopened_dir(dir, folder.guest()).map_err(|error| error.to_string())?;
    }
    Ok(context)
}

fn named<'a>(own: &'a [(OsString, OsString)], name: &OsStr) -> Option<&'a OsStr> {
    own.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_os_str())
}

fn linker(engine: &Engine) -> Result<Linker<Host>, wasmi_wasi::Error> {
    let mut linker = Linker::new(engine);
    wasmi_wasi::add_to_linker(&mut linker, |host: &mut Host| &mut host.wasi)?;
    // Theirs takes no code above 125.
    linker.allow_shadowing(true);
    linker
        .func_wrap(WASI, "proc_exit", |_: Caller<'_, Host>, code: i32| -> Result<(), Error> {
            Err(Error::i32_exit(code))
        })
        .expect("it may be defined again");
    Ok(linker)
}

/// Whether it is a program.
fn check(module: &Module) -> Result<(), String> {
    match module.exports().any(|export| export.name() == "_start") {
        true => Ok(()),
        false => Err("a library, not a program: it has no _start".to_owned()),
    }
}

/// What to say of a module that did not end by itself.
fn failure(name: &str, error: &Error, limits: Limits, refused: bool) -> Failure {
    if let ErrorKind::Linker(LinkerError::MissingDefinition { name: import, .. }) = error.kind() {
        let import = format!("{}.{}", import.module(), import.name());
        let why = "which nobody provides here; build it for wasm32-wasip1, and without a network";
        return Failure { code: CANNOT_RUN, message: format!("{name}: it needs {import}, {why}") };
    }
    let message = match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => {
            let fuel = limits.fuel.unwrap_or_default();
            return Failure {
                code: NO_FUEL,
                message: format!("{name}: stopped, its fuel of {fuel} is used up (the agent's --wasm-fuel)"),
            };
        }
        Some(code) => format!("trapped: {code}"),
        None if matches!(error.kind(), ErrorKind::Linker(_) | ErrorKind::Func(_) | ErrorKind::Instantiation(_))
            && !refused =>
        {
            return Failure { code: CANNOT_RUN, message: format!("{name}: cannot be run: {error}") };
        }
        None => format!("stopped: {error}"),
    };
    match refused {
        true => {
            let limit = limits.memory;
            let why = format!("after it wanted more than the {limit} bytes of memory that it may have");
            Failure { code: NO_MEMORY, message: format!("{name}: {message}, {why} (the agent's --wasm-memory)") }
        }
        false => Failure { code: TRAPPED, message: format!("{name}: {message}") },
    }
}

impl Memory {
    /// Whether it may grow; one that its own maximum will hold back is not counted.
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, each: usize) -> bool {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return true;
        }
        let more = desired.saturating_sub(current).checked_mul(each).and_then(|more| more.checked_add(self.used));
        match more.filter(|used| *used <= self.limit) {
            Some(used) => self.used = used,
            None => self.refused = true,
        }
        more.is_some_and(|used| used <= self.limit)
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool, LimiterError> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool, LimiterError> {
        Ok(self.grow(current, desired, maximum, ELEMENT))
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}
