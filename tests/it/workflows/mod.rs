//! Workflows, end to end in this process: the real engine over each store, a scripted receiver, a
//! clock that the test moves. A three-day wait takes as long as a call.

mod endings;
mod example;
mod keys;
mod machine;
mod play;
mod runs;
mod seeds;
mod steps;
