//! The stream of orders and reports, for one session.

use tokio::{io::AsyncWriteExt, sync::mpsc};

use super::{Begin, Jobs, Shared, Told, marks};
use crate::{
    agent::stream::{RecvHalf, SendHalf},
    frame::{FrameError, Incoming, Outgoing},
    job::Returned,
    protocol::jobs::{Event, Hello, Order, Report},
};

impl Jobs {
    /// Serves a controller's stream until it ends, or another one comes.
    pub async fn serve(&self, hello: Hello, send: impl SendHalf, recv: impl RecvHalf) {
        let mut out = Outgoing::new(send);
        if let Err(error) = self.talk(hello, &mut out, recv).await {
            tracing::debug!("the stream of jobs ended: {error}");
        }
        let _ = out.stream().shutdown().await;
    }

    async fn talk(
        &self,
        hello: Hello,
        out: &mut Outgoing<impl SendHalf>,
        recv: impl RecvHalf,
    ) -> Result<(), FrameError> {
        if let Err(seen) = marks::accept(&self.0.settings.mark, hello.mark, hello.accept_rollback) {
            tracing::error!(
                "the controller's journal ends before what this agent was shown (epoch {}, offset {}): it was rolled back, and no \
                 jobs are taken; if that was done on purpose, start the controller once with --accept-rollback",
                seen.epoch,
                seen.offset
            );
            out.put(&Event::RolledBack(seen))?;
            return Ok(out.send().await?);
        }
        let (number, mut events) = self.enter(out)?;
        let _entered = Entered { shared: &self.0, number };
        let mut orders = Incoming::<_, Order>::new(recv);
        loop {
            tokio::select! {
                biased;
                sent = out.send(), if out.has_more() => sent?,
                event = events.recv() => match event {
                    Some(event) => out.put(&event)?,
                    None => return Ok(()),
                },
                order = orders.next() => self.obey(order?),
            }
        }
    }

    /// Reports go to this stream from now on, all that is known first.
    fn enter(&self, out: &mut Outgoing<impl SendHalf>) -> Result<(u64, mpsc::UnboundedReceiver<Event>), FrameError> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut state = self.0.lock();
        state.streams += 1;
        let number = state.streams;
        // The one before, whose orders were all obeyed, as obeying does not wait, sees its channel's end.
        state.stream = Some((number, sender));
        for ((job, attempt), entry) in &state.attempts {
            for report in entry.left.clone().into_iter().chain(entry.report.clone()) {
                out.put(&Event::Report { job: *job, attempt: *attempt, report })?;
            }
        }
        out.put(&Event::Ready { slots: self.0.settings.slots, draining: state.is_closed() })?;
        for ((job, attempt), entry) in &state.attempts {
            if entry.trouble.is_some() {
                let trouble = entry.trouble.clone();
                out.put(&Event::Trouble { job: *job, attempt: *attempt, trouble })?;
            }
        }
        Ok((number, events))
    }

    fn obey(&self, order: Order) {
        match order {
            Order::Start { job, attempt, spec, log, bundles } => {
                let key = (job, attempt);
                let refused = {
                    let mut state = self.0.lock();
                    if let Some(entry) = state.attempts.get(&key) {
                        let reports = entry.left.clone().into_iter().chain(entry.report.clone());
                        let reports: Vec<Report> = reports.collect();
                        reports.into_iter().for_each(|report| state.say(Event::Report { job, attempt, report }));
                        return;
                    }
                    let refused = state.is_closed().then_some(Returned::Draining);
                    if let Some(reason) = refused {
                        state.say(Event::Report { job, attempt, report: Report::Returned(reason) });
                    }
                    refused
                };
                if refused.is_none() {
                    self.begin(key, Begin::Ordered(spec, log, bundles));
                }
            }
            Order::Cancel { job, attempt, cancel } => self.tell((job, attempt), Told::Cancel(cancel)),
            Order::Release { job, attempt } => {
                if let Some(entry) = self.0.lock().attempts.get_mut(&(job, attempt)) {
                    (entry.report, entry.left) = (None, None);
                }
                self.tell((job, attempt), Told::Release);
            }
            Order::Mark(mark) => marks::note(&self.0.settings.mark, mark),
        }
    }

    fn tell(&self, key: super::Key, told: Told) {
        let mut state = self.0.lock();
        match state.attempts.get(&key) {
            Some(entry) => drop(entry.orders.send(told)),
            // It was released before, or never came here.
            None if matches!(told, Told::Cancel(_)) => {
                let report = Report::Returned(Returned::Unwanted);
                state.say(Event::Report { job: key.0, attempt: key.1, report });
            }
            None => {}
        }
    }
}

/// The stream that serves orders.
struct Entered<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.stream.as_ref().is_some_and(|(number, _)| *number == self.number) {
            state.stream = None;
        }
    }
}
