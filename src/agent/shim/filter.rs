//! The seam before the spool: what passes here decides which bytes an offset means, for ever.

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
