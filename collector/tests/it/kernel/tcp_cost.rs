//! What the programs at TCP's state changes cost per connection, as the kernel measures them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use runwire_collector::kernel::statistics::Measuring;

use super::lab::Lab;
use super::measure::Measurement;

const ROUNDS: usize = 10;
const CONNECTIONS: u32 = 400;
/// Both ends of a connection on this host: ten changes of state.
const RUNS: f64 = 10.0;
/// 4 % of a core at ten thousand connections a second, on a machine that does other things too.
const BUDGET_SECONDS: f64 = 4e-6;
/// What measuring itself takes.
const MEASURING_SECONDS: f64 = 60e-9;

#[test]
#[ignore = "needs root"]
fn connections_cost_little() {
    let mut total = 0.0;
    for (signal, program) in [
        ("tcp_lifecycle", "tcp_state"),
        ("listen_queue", "listen_state"),
    ] {
        let lab = Lab::new();
        let Some(mut measurement) = Measurement::start(signal) else {
            return;
        };
        let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
        let _measuring = Measuring::start().unwrap();
        // A program that is interrupted is measured as if it had run on; the best round is the one
        // that was left alone.
        let mut best = f64::MAX;
        let (mut runs, mut seconds) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            churn(&lab, &listener);
            measurement.collect();
            let labels = [("program", program)];
            let now_runs = measurement.sum("bpf_program_runs_total", &labels);
            let now_seconds = measurement.sum("bpf_program_run_seconds_total", &labels);
            assert!(now_runs - runs >= f64::from(CONNECTIONS) * RUNS);
            best = best.min((now_seconds - seconds) / (now_runs - runs));
            (runs, seconds) = (now_runs, now_seconds);
        }
        say(&format!("{program}: {:.0} ns a run", best * 1e9));
        total += (best - MEASURING_SECONDS) * RUNS;
    }
    say(&format!("{:.2} us a connection", total * 1e6));
    assert!(total < BUDGET_SECONDS, "{total}");
}

fn churn(lab: &Lab, listener: &TcpListener) {
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0; 128]).unwrap();
                stream.write_all(&[0; 512]).unwrap();
            }
        });
        lab.in_client(|| {
            for _ in 0..CONNECTIONS {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&[0; 128]).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
        });
    });
}

#[expect(clippy::print_stderr, reason = "who runs the tests wants to see this")]
fn say(message: &str) {
    eprintln!("{message}");
}
