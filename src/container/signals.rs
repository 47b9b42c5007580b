//! The Unix signals that a server listens for: SIGTERM and SIGINT stop it, SIGHUP makes it compare
//! its configuration with the file.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives the signals that a server reacts to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks the server to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAction {
    /// Shut down gracefully (SIGTERM, SIGINT).
    Stop,
    /// Load the configuration again and log what a restart would change (SIGHUP).
    Reload,
}

impl Signals {
    /// Starts listening; from now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The system does not let this process listen.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal and says what it asks for.
    pub async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hang_up.recv() => SignalAction::Reload,
        }
    }

    /// Waits for a signal that asks to stop; requests to reload are ignored meanwhile.
    pub async fn stop(&mut self) {
        while self.next().await != SignalAction::Stop {}
    }
}
