//! Open-loop load: sends each request when it is due, whatever the server does, and times its answer.
//!
//! Started by `headrace.loadtest.open_loop`, which plans what is due and reads what came of it. One
//! thread on one epoll, asleep until something is due or heard: the cache under test may share its core.
#![forbid(unsafe_code)]

mod connection;
mod files;
mod generator;
mod judge;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use files::{read_exchanges, read_plan, write_outcomes};
use generator::Generator;

const USAGE: &str =
    "headrace-generator PORT PATH ACCEPT CONNECTIONS WAITING_MAX SETTLE_S EXCHANGES PLAN OUTCOMES";

fn main() -> ExitCode {
    match run() {
        Ok(started_s) => {
            println!("{started_s}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("headrace-generator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Drives one server; returns the start on the monotonic clock, in seconds.
fn run() -> Result<f64, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, path, accept, connections, waiting, settle_s, exchanges, plan, outcomes] =
        arguments.as_slice()
    else {
        return Err(format!("expected 9 arguments, got {}; {USAGE}", arguments.len()).into());
    };
    let exchanges = read_exchanges(Path::new(exchanges), path, accept)?;
    let plan = read_plan(Path::new(plan), exchanges.len())?;
    // Timers of a process are late by 50 µs unless it asks for better.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut generator =
        Generator::new(port.parse()?, &exchanges, connections.parse()?, waiting.parse()?)?;
    let started_s = generator.run(&plan, settle_s.parse()?)?;
    write_outcomes(Path::new(outcomes), &generator.outcomes)?;
    Ok(started_s)
}
