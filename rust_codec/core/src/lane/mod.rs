//! What a connection keeps between its requests, so that a usual one is answered without parsing
//! its head again and without a Python frame: [`heads`] knows heads that came before, [`turns`] keeps
//! answers in request order, [`ids`] names requests, [`times`] counts and times them, [`pace`]
//! says how many more may wait.
//!
//! Nothing here does I/O or reads a clock.

pub mod heads;
pub mod ids;
pub mod pace;
pub mod times;
pub mod turns;
