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
/// What others on this host open meanwhile; the best of the rounds is the one that was left alone.
const OTHERS: f64 = 0.5;

/// How long a run takes is measured by `runwire-eval bench --only ebpf`; that depends on the machine.
#[test]
#[ignore = "needs root"]
fn a_connection_costs_a_run_for_each_change_of_its_state() {
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
        let mut fewest = f64::MAX;
        let (mut runs, mut seconds) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            churn(&lab, &listener);
            measurement.collect();
            let labels = [("program", program)];
            let now_runs = measurement.sum("bpf_program_runs_total", &labels);
            let now_seconds = measurement.sum("bpf_program_run_seconds_total", &labels);
            assert!(now_seconds > seconds, "{program} takes no time");
            let of_one = (now_runs - runs) / f64::from(CONNECTIONS);
            assert!(of_one >= RUNS, "{program} misses changes: {of_one}");
            fewest = fewest.min(of_one);
            (runs, seconds) = (now_runs, now_seconds);
        }
        say(&format!(
            "{program}: {fewest} runs a connection, {:.0} ns each",
            seconds / runs * 1e9
        ));
        assert!(fewest <= RUNS + OTHERS, "{program}: {fewest}");
    }
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
