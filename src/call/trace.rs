//! Where a call's requests belong: W3C Trace Context. The trace of a call follows from its name, so that
//! a second stream of the call, wherever it arrives, goes on with the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// A span's id; never 0.
pub type SpanId = u64;

/// A call's trace, and the span of it that what happens now belongs to.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: [u8; 16],
    current: AtomicU64,
}

impl Trace {
    /// Of the call with this name, whose own span is `span`.
    pub fn of_call(name: &str, span: SpanId) -> Trace {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
        Trace(Arc::new(Inner { id, current: AtomicU64::new(span) }))
    }

    pub fn id(&self) -> &[u8; 16] {
        &self.0.id
    }

    pub fn current(&self) -> SpanId {
        self.0.current.load(Ordering::Relaxed)
    }

    /// What happens from now on belongs to that span.
    pub fn enter(&self, span: SpanId) {
        self.0.current.store(span, Ordering::Relaxed);
    }

    /// The header `traceparent`.
    pub fn parent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", u128::from_be_bytes(self.0.id), self.current())
    }
}

impl PartialEq for Trace {
    fn eq(&self, other: &Trace) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Trace {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_is_one_trace() {
        let (first, again) = (Trace::of_call("CA1", 7), Trace::of_call("CA1", 8));
        assert_eq!(first, again);
        assert_ne!(first, Trace::of_call("CA2", 7));
        assert_ne!(first.parent(), again.parent(), "two streams are two spans");
        first.enter(0x1f);
        let parent = first.parent();
        assert_eq!((parent.len(), &parent[35..]), (55, "-000000000000001f-01"));
    }
}
