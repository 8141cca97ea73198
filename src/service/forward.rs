//! Connections through an agent: what `rk forward` asks of it.
//!
//! | service | about | what runs on the stream |
//! |---|---|---|
//! | [`CONNECT`] | `HOST:PORT` | the bytes of a connection that the agent opens there |
//! | [`LISTEN`] | `[HOST:]PORT` | lines from the agent: first where it listens, then for each connection a ticket and who it is |
//! | [`TAKE`] | a ticket | the bytes of that connection |

use std::io;

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::Channel;

/// Opens a connection from the agent.
pub const CONNECT: &str = "rk.connect";
/// Listens at the agent.
pub const LISTEN: &str = "rk.listen";
/// Takes a connection that came there.
pub const TAKE: &str = "rk.take";

/// What is read at once.
const PIECE: usize = 64 << 10;

/// `HOST:PORT`, with the brackets of an IPv6 address taken off.
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok()?;
    (!host.is_empty()).then_some((host, port))
}

/// Moves bytes between a connection and a channel until both directions have ended, each by itself. A direction that breaks off
/// breaks off on the other side too: the connection is then reset, and the channel's reader sees an error.
pub async fn splice(mut connection: TcpStream, channel: Channel) -> io::Result<()> {
    let _ = connection.set_nodelay(true);
    let Channel { reader, mut writer } = channel;
    let moved = {
        let (from, mut to) = connection.split();
        let out = async {
            tokio::io::copy_buf(&mut BufReader::with_capacity(PIECE, from), &mut writer).await?;
            writer.shutdown().await
        };
        let back = async {
            tokio::io::copy_buf(&mut BufReader::with_capacity(PIECE, reader), &mut to).await?;
            to.shutdown().await
        };
        tokio::try_join!(out, back)
    };
    if moved.is_err() {
        // Its close would look like an end.
        let _ = connection.set_zero_linger();
    }
    moved.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_as_people_write_them() {
        assert_eq!(host_and_port("localhost:80"), Some(("localhost", 80)));
        assert_eq!(host_and_port("[::1]:80"), Some(("::1", 80)));
        for wrong in ["localhost", ":80", "a:b", "a:70000", ""] {
            assert_eq!(host_and_port(wrong), None, "{wrong}");
        }
    }
}
