//! What stands between all clients and one broker, so that their connections can be cut.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Carries bytes between a port and another one of this machine, for as long as the process lives.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    target: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// No byte passes.
    stalled: bool,
    /// New connections end at once.
    refusing: bool,
    next: u64,
    open: BTreeMap<u64, [TcpStream; 2]>,
}

impl Proxy {
    /// Listens on `port` of the loopback address, for a server on `target`.
    pub fn start(port: u16, target: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let shared = Arc::new(Shared { target, state: Mutex::default(), changed: Condvar::new() });
        let proxy = Proxy(shared.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || shared.carry(client));
            }
        });
        proxy
    }

    /// Ends all connections.
    pub fn reset(&self) {
        let mut state = self.0.state.lock().unwrap();
        for pair in std::mem::take(&mut state.open).into_values() {
            pair.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }

    /// Whether new connections end at once.
    pub fn refuse(&self, refuse: bool) {
        self.0.state.lock().unwrap().refusing = refuse;
    }

    /// Whether no byte passes.
    pub fn stall(&self, stall: bool) {
        self.0.state.lock().unwrap().stalled = stall;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn carry(self: Arc<Shared>, client: TcpStream) {
        if self.state.lock().unwrap().refusing {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { return };
        let Ok(pair) = (|| Ok::<_, std::io::Error>([client.try_clone()?, server.try_clone()?]))() else { return };
        pair.iter().for_each(|stream| drop(stream.set_nodelay(true)));
        let number = {
            let mut state = self.state.lock().unwrap();
            state.next += 1;
            let number = state.next;
            state.open.insert(number, pair);
            number
        };
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&client, &server));
            self.pump(&server, &client);
        });
        self.state.lock().unwrap().open.remove(&number);
    }

    /// Carries one direction to its end; then the whole connection is at its end.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let state = self.state.lock().unwrap();
            drop(self.changed.wait_while(state, |state| state.stalled).unwrap());
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}
