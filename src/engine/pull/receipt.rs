//! The receipt of a message: what a consumer shows to acknowledge it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::{Job, JobId, Lease};

/// The right to acknowledge one receive of a message. It is worthless when the message has been
/// received again.
///
/// Its text is URL-safe base64 over 16 bytes of the message's id, 8 of the claim, 4 of the attempt
/// and 4 that stand for the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageReceipt {
    /// The message and its claim.
    pub lease: Lease,
    /// How often the message had been received before.
    pub attempt: u32,
    queue: u32,
}

/// A text that is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReceipt;

impl MessageReceipt {
    /// The receipt of a message that was just received.
    pub fn of(job: &Job) -> Self {
        Self { lease: job.lease(), attempt: job.attempt, queue: fingerprint(job.target.name()) }
    }

    /// Whether it was given out by this queue.
    pub fn is_of(&self, queue: &str) -> bool {
        self.queue == fingerprint(queue)
    }
}

/// Tells the receipts of one queue from those of another.
fn fingerprint(queue: &str) -> u32 {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(queue.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

impl fmt::Display for MessageReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend(self.lease.job.0.to_bytes());
        bytes.extend(self.lease.claim.to_be_bytes());
        bytes.extend(self.attempt.to_be_bytes());
        bytes.extend(self.queue.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for MessageReceipt {
    type Err = NoReceipt;

    fn from_str(text: &str) -> Result<Self, NoReceipt> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoReceipt)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| NoReceipt)?;
        let (id, rest) = bytes.split_at(16);
        let (claim, rest) = rest.split_at(8);
        let (attempt, queue) = rest.split_at(4);
        let wrong = |_| NoReceipt;
        Ok(Self {
            lease: Lease {
                job: JobId(ulid::Ulid::from_bytes(id.try_into().map_err(wrong)?)),
                claim: i64::from_be_bytes(claim.try_into().map_err(wrong)?),
            },
            attempt: u32::from_be_bytes(attempt.try_into().map_err(wrong)?),
            queue: u32::from_be_bytes(queue.try_into().map_err(wrong)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_it_was_written_and_nothing_else_is() {
        let receipt = MessageReceipt {
            lease: Lease { job: JobId(ulid::Ulid::from_parts(7, 9)), claim: 3 },
            attempt: 2,
            queue: fingerprint("payments"),
        };
        assert_eq!(receipt.to_string().parse(), Ok(receipt));
        for junk in ["", "x", "01ARZ3NDEKTSV4RRFFQ69G5FAV", &"A".repeat(44), "ü"] {
            assert!(junk.parse::<MessageReceipt>().is_err(), "{junk}");
        }
    }
}
