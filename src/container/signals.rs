//! Signals of the system.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that matter to a server.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// End in good order.
    Stop,
    /// Look at the configuration again.
    Reload,
}

impl Signals {
    /// Listens for signals from now on.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Waits until asked to stop.
    pub async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
