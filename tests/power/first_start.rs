//! A first start that is killed leaves folders whose names nobody has synced: the next one must not take them for safe.

use std::time::{Duration, Instant};

use quittance::store::embedded::journal::disk::make_folder;

use crate::daemon::{Machine, end, post};
use crate::disk::Mode;
use crate::mount::Mounted;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn folders_that_a_killed_process_made_are_made_durable_by_the_next() {
    let mounted = Mounted::new();
    let path = mounted.path().join("a/b/c");
    for step in 1.. {
        mounted.format();
        mounted.cut_after(step);
        let made = make_folder(&path);
        if !mounted.is_off() {
            made.expect("nothing went wrong");
            assert!(step > 6, "three folders take six steps");
            return;
        }
        mounted.restart_process();
        make_folder(&path).expect("the second process makes what is left to make");
        mounted.restart(Mode::Lost, step);
        assert!(path.is_dir(), "killed at step {step}, a folder is lost although the next process relied on it");
    }
}

#[test]
fn what_is_acknowledged_after_a_first_start_that_was_killed_survives_a_power_cut() {
    let mounted = Mounted::new();
    let mut machine = Machine::new(&mounted, "90d");
    let steps = 40;
    for step in 1..=steps {
        mounted.format();
        mounted.cut_after(step);
        // Its disk is gone from this step on, and it with it; the machine stays, with all that the process did.
        let (mut child, log) = machine.launch();
        let until = Instant::now() + PATIENCE;
        while !mounted.is_off() {
            assert!(Instant::now() < until, "a start has more than {step} steps; it said:\n{}", log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
        end(&mut child);
        mounted.restart_process();

        let mut daemon = machine.start(&mounted).expect("starts");
        for number in 0..3 {
            assert_eq!(post(daemon.public, number).expect("answers").status, 200);
        }
        daemon.kill();
        mounted.restart(Mode::Lost, step);
        machine.boot();
        let daemon = machine.start(&mounted).expect("starts again");
        let kept = daemon.list().expect("lists").len();
        assert_eq!(kept, 3, "a first start was killed at its step {step}: {kept} of 3 acknowledged are left");
    }
}
