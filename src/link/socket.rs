//! The socket that quinn drives: datagrams go into a [`Queue`] and come out of an [`Inbox`].
//!
//! One socket per (lane, partition), because quinn's `WouldBlock` is per socket: a partition whose leader is gone
//! stalls its own agents and nobody else. Neither function ever returns an error other than `WouldBlock`, for which
//! quinn would end every connection of the endpoint.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{inbox::Inbox, packet, queue::Queue, route::Route};

/// Datagrams that quinn may hand over at once. More than 8 gained nothing when it was measured.
const SEGMENTS: usize = 8;

/// A packet topic's partition, seen as a datagram socket.
#[derive(Debug)]
pub struct PartitionSocket {
    /// What is to be sent.
    pub queue: Arc<Queue>,
    /// What came.
    pub inbox: Arc<Inbox>,
    /// How it is addressed.
    pub route: Arc<Route>,
    /// Our own synthetic address.
    pub local: SocketAddr,
}

impl AsyncUdpSocket for PartitionSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(RoomPoller { id: self.queue.poller(), queue: self.queue.clone() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let datagrams = transmit.contents.chunks(segment);
        let to = transmit.destination;
        let taken = match &*self.route {
            Route::Up(up) => {
                let key = Bytes::copy_from_slice(up.caller.text().as_bytes());
                let header = up.header();
                let prove = |datagram: &[u8]| {
                    if packet::is_long(datagram) { up.prove(&header, datagram) } else { None }
                };
                self.queue.push(to, &key, &header, datagrams, prove)
            }
            Route::Down(down) => match down.header(to) {
                Some((key, header)) => self.queue.push(to, &key, &header, datagrams, |_| None),
                // Forgotten: the packet is lost, as packets may be.
                None => true,
            },
        };
        if taken { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let limit = bufs.len().min(meta.len());
        let n = ready!(self.inbox.poll_take(cx, limit, |i, addr, datagram| {
            // A datagram longer than quinn's buffer is none of quinn's; its head alone decrypts to nothing.
            let len = datagram.len().min(bufs[i].len());
            bufs[i][..len].copy_from_slice(&datagram[..len]);
            meta[i] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
        }));
        Poll::Ready(Ok(n))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct RoomPoller {
    id: u64,
    queue: Arc<Queue>,
}

impl UdpPoller for RoomPoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.poll_room(self.id, cx).map(Ok)
    }
}

impl Drop for RoomPoller {
    fn drop(&mut self) {
        self.queue.leave(self.id);
    }
}
