//! How QUIC is set for a network that delays for minutes but hardly loses. Each value was found by measurement on
//! Kafka; the reasons are in the decision record on QUIC settings.

use std::{any::Any, sync::Arc, time::Duration, time::Instant};

use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    congestion::{Controller, ControllerFactory},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ring::hmac;

use super::{
    Config, Identity, Lane,
    connection_id::{EpochIds, SilentIds},
    tls,
};

/// A QUIC packet's size: a long header's length field has two bytes, so 16,383 is the ceiling.
const MTU: u16 = 16_000;
/// quinn's receive buffer for one packet.
const MAX_PACKET: u16 = 16_384;
/// Half-open connections of one endpoint.
const MAX_INCOMING: usize = 256;

/// Keep-alives of the agent and of the controller: both, or an outage that lost packets kills a session that only one
/// side tries to revive; unequal, or they meet each time.
const KEEP_ALIVE_AGENT: Duration = Duration::from_secs(5);
const KEEP_ALIVE_CONTROLLER: Duration = Duration::from_secs(4);

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Agent,
    Controller,
}

fn transport(config: &Config, lane: Lane, side: Side) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    // The bulk lane has no limit for all its streams together: streams that nobody reads would use it up, and the others
    // hang. What may wait in memory is bounded above QUIC: for stdio by allowances (`protocol::allowance`), which are below
    // a stream's window, and for calls by the callers, who read the answer or give up within their patience.
    let (stream_window, receive_window, send_window) = match lane {
        Lane::Control => (2 << 20, VarInt::from_u32(4 << 20), 4 << 20),
        Lane::Bulk => (16 << 20, VarInt::MAX, 32 << 20),
    };
    let (keep_alive, streams) = match side {
        Side::Agent => (KEEP_ALIVE_AGENT, 4096u32),
        Side::Controller => (KEEP_ALIVE_CONTROLLER, 4),
    };
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(64)).max_ack_delay(Some(Duration::from_millis(25)));
    transport
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .packet_threshold(10_000)
        .time_threshold(3.0)
        .initial_rtt(Duration::from_millis(50))
        .ack_frequency_config(Some(acks))
        .enable_segmentation_offload(true)
        .congestion_controller_factory(Arc::new(NoPacing))
        .stream_receive_window(VarInt::from_u32(stream_window))
        .receive_window(receive_window)
        .send_window(send_window)
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .allow_spin(false)
        .keep_alive_interval(Some(keep_alive))
        .max_idle_timeout(Some(IdleTimeout::try_from(config.idle_timeout).unwrap_or(IdleTimeout::from(VarInt::MAX))));
    Arc::new(transport)
}

/// Settings of a controller's connections.
pub fn server(config: &Config, lane: Lane, identity: &Identity) -> ServerConfig {
    let mut server = ServerConfig::with_crypto(tls::server(identity, &config.protocols));
    server
        .transport_config(transport(config, lane, Side::Controller))
        .migration(false)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(4 << 20);
    server
}

/// Settings of an agent's connections.
pub fn client(config: &Config, lane: Lane, crypto: Arc<quinn::crypto::rustls::QuicClientConfig>) -> ClientConfig {
    let mut client = ClientConfig::new(crypto);
    client.transport_config(transport(config, lane, Side::Agent));
    client
}

/// Settings of a controller's endpoint: resets and connection ids survive it, keyed from the identity.
pub fn controller_endpoint(identity: &Identity, epoch: u32, mut random: StdRng) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &identity.derive("stateless reset"));
    let ids = identity.derive("connection ids");
    let id_seed: [u8; 32] = random.random();
    let mut endpoint = endpoint(reset, random);
    endpoint.min_reset_interval(Duration::ZERO).cid_generator(move || Box::new(EpochIds::new(&ids, epoch, id_seed)));
    endpoint
}

/// Settings of an agent's endpoint.
pub fn agent_endpoint(mut random: StdRng) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &random.random::<[u8; 32]>());
    let id_seed: [u8; 32] = random.random();
    let mut endpoint = endpoint(reset, random);
    endpoint.cid_generator(move || Box::new(SilentIds(StdRng::from_seed(id_seed))));
    endpoint
}

fn endpoint(reset: hmac::Key, mut random: StdRng) -> EndpointConfig {
    let mut endpoint = EndpointConfig::new(Arc::new(reset));
    endpoint.max_udp_payload_size(MAX_PACKET).expect("within QUIC's limits").rng_seed(Some(random.random()));
    endpoint
}

/// No congestion control: what is in flight is bounded by `send_window` and flow control, and Kafka has its own
/// backpressure. Above `u32::MAX` quinn does not pace either, which matters after an outage: held packets give
/// round-trip samples of minutes, and a paced connection would crawl.
#[derive(Debug, Clone, Copy)]
struct NoPacing;

const WINDOW: u64 = 1 << 33;

impl Controller for NoPacing {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl ControllerFactory for NoPacing {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}
