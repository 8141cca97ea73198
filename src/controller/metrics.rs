//! How the controller is, in numbers.

use std::sync::atomic::Ordering::Relaxed;

use super::Handle;
use crate::{health::Health, metrics::Page};

impl Health for Handle {
    fn ready(&self) -> Result<(), String> {
        let kafka = self.status().kafka;
        match kafka.reachable {
            true => Ok(()),
            false => Err(format!("Kafka unreachable: {}", kafka.detail.unwrap_or_default())),
        }
    }

    fn measure(&self, page: &mut Page) {
        let status = self.status();
        let shared = self.shared();
        page.gauge("rk_controller_epoch", "Grows with each controller that takes over.", status.epoch);
        page.gauge("rk_controller_uptime_seconds", "Since it took over.", status.uptime);
        page.gauge(
            "rk_kafka_unreachable_partitions",
            "Control partitions from which nothing comes back.",
            status.kafka.unreachable_partitions.len(),
        );
        let agents = status.agents;
        let agents = [("online", agents.online), ("silent", agents.silent), ("offline", agents.offline)];
        page.gauges("rk_agents", "Agents by state.", "state", &agents);
        let jobs = status.jobs;
        let jobs =
            [("queued", jobs.queued), ("assigned", jobs.assigned), ("running", jobs.running), ("ended", jobs.ended)];
        page.gauges("rk_jobs", "Jobs by state.", "state", &jobs);
        page.gauge("rk_executions", "Executions that run.", status.executions);
        let dropped = shared.endpoints.dropped();
        page.counters("rk_packets_dropped_total", "Packets that were not let through.", "reason", &dropped);
        let forged = shared.jobs.forged();
        page.counter("rk_log_records_forged_total", "Records of logs that were not their jobs' own.", forged);
        let ends: Vec<(&str, i64)> =
            shared.certificates.iter().map(|(what, validity)| (what.as_str(), validity.not_after)).collect();
        page.gauges("rk_certificate_ends_seconds", "When certificates end, in seconds since 1970.", "of", &ends);
        let unauthorized = shared.unauthorized.load(Relaxed);
        page.counter("rk_api_unauthorized_total", "Requests with no token that is good.", unauthorized);
        let limited = shared.limiter.limited();
        let help = "Requests that came too often, by what they are counted by.";
        page.counters("rk_api_limited_total", help, "by", &limited);
        page.counter("rk_audit_lost_total", "Lines of the audit log that could not be written.", shared.audit.lost());
        if let Some(feed) = &shared.feed {
            page.counter("rk_events_written_total", "Events that other systems can read.", feed.written());
            page.counter("rk_events_dropped_total", "Events that Kafka did not take in time.", feed.dropped());
            page.gauge("rk_events_waiting", "Events that Kafka has not taken yet.", feed.waiting());
        }
    }
}
