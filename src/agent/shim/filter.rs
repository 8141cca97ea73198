//! The seam before the spool: what passes here decides which bytes an offset means, for ever.

use crate::bytelog::redact::{Redactor, Secrets};

/// Changes output on its way into the spool, one for each stream. It may hold back what could be the beginning of something that
/// it must change, a bounded number of bytes.
pub trait Filter {
    /// Takes `input` and appends to `output` what may go into the spool.
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>);

    /// Appends what may go out although no more came for a while.
    fn idle(&mut self, output: &mut Vec<u8>);

    /// Appends all that is left: the stream has ended.
    fn finish(&mut self, output: &mut Vec<u8>);

    /// Whether something is held back, so that [`Self::idle`] should be called.
    fn holds(&self) -> bool;
}

/// Changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct PassThrough;

impl Filter for PassThrough {
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>) {
        output.extend_from_slice(input);
    }

    fn idle(&mut self, _output: &mut Vec<u8>) {}

    fn finish(&mut self, _output: &mut Vec<u8>) {}

    fn holds(&self) -> bool {
        false
    }
}

/// Masks the values of secrets.
pub struct Mask(Option<Redactor>);

impl Mask {
    /// For the beginning of a stream.
    pub fn new(secrets: &Secrets) -> Self {
        Self(Some(Redactor::new(secrets)))
    }
}

impl Filter for Mask {
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>) {
        if let Some(redactor) = &mut self.0 {
            redactor.push(input, output);
        }
    }

    fn idle(&mut self, output: &mut Vec<u8>) {
        if let Some(redactor) = &mut self.0 {
            redactor.idle(output);
        }
    }

    fn finish(&mut self, output: &mut Vec<u8>) {
        if let Some(redactor) = self.0.take() {
            redactor.finish(output);
        }
    }

    fn holds(&self) -> bool {
        self.0.as_ref().is_some_and(|redactor| redactor.held() > 0)
    }
}
