//! Boots as real firmware, forgers and restarts make them; no sockets, no sleeps.

use super::*;
use proptest::prelude::*;

fn pin(n: u8) -> Pin {
    let digest = |kind: u8| Digest::from([n * 4 + kind; 32]);
    Pin { generation: digest(0), root: digest(1), boot: digest(2) }
}

/// One node, a clock that is moved by hand, and a current generation.
struct Bench {
    boots: Boots,
    ms: u64,
    current: Option<Pin>,
}

impl Bench {
    fn new() -> Bench {
        Bench { boots: Boots::default(), ms: 0, current: Some(pin(1)) }
    }

    fn now(&self) -> Now {
        Now { wall: 1_700_000_000_000 + self.ms, steady: 5_000_000 + self.ms }
    }

    /// After `wait` milliseconds, events of `fenn`.
    fn see(&mut self, wait: u64, events: &[Event]) {
        self.ms += wait;
        for event in events {
            let current = self.current;
            self.boots.apply(self.now(), "fenn", *event, &|| current);
        }
    }

    fn firmware(&mut self) {
        self.see(0, &[Event::Discover(""), Event::Offer]);
        self.see(500, &[Event::Request, Event::Sent { path: "start4.elf", bytes: 10 }]);
        self.see(500, &[Event::Request, Event::Sent { path: "kernel8.img", bytes: 20 }]);
    }

    fn boot(&mut self) {
        self.firmware();
        self.see(5_000, &[Event::Mount { alone: false }, told("init"), told("switch"), told("login")]);
    }

    fn restart(&mut self) {
        let rows: Vec<Row> = self.boots.of("fenn").into_iter().cloned().collect();
        let json = serde_json::to_vec(&rows).unwrap();
        let rows: Vec<Row> = serde_json::from_slice(&json).unwrap();
        // Another process, another steady clock.
        let now = Now { wall: self.now().wall, steady: 3_000 + self.ms };
        self.boots = Boots::restore(rows, now);
        self.boots = Boots::restore(self.boots.of("fenn").into_iter().cloned(), self.now());
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.boots.of("fenn").iter().map(|row| row.boot.outcome).collect()
    }

    fn readable(&self) -> Vec<Pin> {
        self.boots.readable("fenn").collect()
    }
}

fn told(step: &str) -> Event<'_> {
    Event::Told { step, detail: "" }
}

#[test]
fn a_boot_from_discover_to_login_is_one_row() {
    let mut bench = Bench::new();
    bench.boot();
    let rows = bench.boots.of("fenn");
    assert_eq!(rows.len(), 1);
    let boot = &rows[0].boot;
    let steps: Vec<_> = boot.steps.iter().map(|s| (s.step.as_str(), s.at_ms)).collect();
    assert_eq!(
        steps,
        [
            ("discover", 0),
            ("offer", 0),
            ("file", 500),
            ("file", 1000),
            ("mount", 6000),
            ("init", 6000),
            ("switch", 6000),
            ("login", 6000)
        ]
    );
    assert_eq!((boot.outcome, boot.bytes()), (Outcome::Login, 30));
    assert_eq!(boot.ended, Some(bench.now().wall));
}

#[test]
fn firmware_that_asks_again_is_still_in_the_same_boot() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.see(4_000, &[Event::Discover(""), Event::Offer]);
    }
    // A Pi 3 asks again in its second stage.
    bench.see(500, &[Event::Request, Event::Sent { path: "bootcode.bin", bytes: 1 }]);
    bench.see(1_000, &[Event::Discover("")]);
    // config.txt is read again and again.
    for _ in 0..5 {
        bench.see(10, &[Event::Request, Event::Sent { path: "config.txt", bytes: 7 }]);
    }
    assert_eq!(bench.outcomes(), [Outcome::Booting]);
    let files = &bench.boots.of("fenn")[0].boot.steps;
    assert_eq!(files.iter().filter(|s| s.detail == "config.txt").map(|s| s.bytes).collect::<Vec<_>>(), [35]);
}

#[test]
fn when_a_new_boot_begins() {
    type Prepare = fn(&mut Bench);
    let cases: [(&str, Prepare, u64, Event, usize); 8] = [
        ("DISCOVER after login", Bench::boot, 100_000, Event::Discover(""), 2),
        ("DISCOVER after the kernel", Bench::firmware, 30_000, Event::Discover(""), 2),
        ("file after login", Bench::boot, 100_000, Event::Request, 2),
        ("file soon after the last", Bench::firmware, 30_000, Event::Request, 1),
        ("file long after the last", Bench::firmware, 61_000, Event::Request, 2),
        ("mount after the kernel", Bench::firmware, 61_000, Event::Mount { alone: false }, 1),
        ("mount again", Bench::boot, 100_000, Event::Mount { alone: false }, 1),
        ("a renewed lease", Bench::boot, 1_800_000, Event::Lease("systemd"), 1),
    ];
    for (what, prepare, wait, event, want) in cases {
        let mut bench = Bench::new();
        prepare(&mut bench);
        bench.see(wait, &[event]);
        assert_eq!(bench.boots.of("fenn").len(), want, "{what}");
    }
    let mut bench = Bench::new();
    bench.see(0, &[Event::Discover("")]);
    bench.see(11_000, &[Event::Discover("")]);
    assert_eq!(bench.boots.of("fenn").len(), 2, "a quiet gap");
    assert_eq!(bench.outcomes(), [Outcome::Booting, Outcome::Superseded]);
}

#[test]
fn nothing_begins_without_a_generation_and_a_mount_alone_only_without_dhcp() {
    let mut bench = Bench::new();
    bench.current = None;
    bench.see(0, &[Event::Discover(""), Event::Request, Event::Mount { alone: true }, told("login")]);
    assert!(bench.boots.of("fenn").is_empty());
    bench.current = Some(pin(1));
    bench.see(0, &[Event::Mount { alone: false }]);
    assert!(bench.readable().is_empty());
    bench.see(0, &[Event::Mount { alone: true }]);
    assert_eq!(bench.readable(), [pin(1)]);
    // The next generation is mounted beside the one that may be in use.
    bench.current = Some(pin(2));
    bench.see(9_000, &[Event::Mount { alone: true }]);
    assert_eq!(bench.readable(), [pin(2), pin(1)]);
}

#[test]
fn a_lease_begins_the_boot_of_a_node_that_was_never_seen() {
    let mut bench = Bench::new();
    bench.see(0, &[Event::Lease("Linux ipconfig"), Event::Mount { alone: false }]);
    assert_eq!(bench.readable(), [pin(1)]);
}

#[test]
fn a_running_node_keeps_its_root_until_the_next_boot_mounts() {
    let mut bench = Bench::new();
    bench.boot();
    bench.current = Some(pin(2));
    for _ in 0..50 {
        bench.see(20_000, &[Event::Discover("forged")]);
        bench.boots.tick(bench.now());
    }
    assert_eq!(bench.readable(), [pin(1)]);
    assert_eq!(bench.outcomes().len(), 3, "of forged requests only the last two are kept");
    bench.firmware();
    assert_eq!(bench.readable(), [pin(2), pin(1)]);
    assert_eq!(bench.boots.pins().len(), 2);
    bench.see(5_000, &[Event::Mount { alone: false }]);
    assert_eq!(bench.readable(), [pin(2)]);
    assert_eq!(bench.boots.pins().len(), 1);
}

#[test]
fn a_forged_discover_in_mid_boot_changes_no_file_of_it() {
    let mut bench = Bench::new();
    bench.firmware();
    bench.current = Some(pin(2));
    bench.see(100, &[Event::Discover("forged")]);
    bench.see(100, &[Event::Request, Event::Sent { path: "initramfs", bytes: 1 }]);
    assert_eq!(bench.boots.serving("fenn").unwrap().pin, pin(1));
    bench.see(5_000, &[Event::Mount { alone: false }]);
    assert_eq!(bench.readable(), [pin(1)]);
}

#[test]
fn a_restart_changes_nothing() {
    let mut bench = Bench::new();
    bench.boot();
    bench.current = Some(pin(2));
    bench.see(60_000, &[]);
    bench.firmware();
    let (rows, pins) = (bench.outcomes(), bench.boots.pins());
    bench.restart();
    assert_eq!((bench.outcomes(), bench.boots.pins()), (rows, pins));
    assert_eq!(bench.readable(), [pin(2), pin(1)]);
    bench.see(1_000, &[Event::Request]);
    assert_eq!(bench.outcomes().len(), 2, "the firmware goes on in its boot");
    bench.see(1_000, &[Event::Mount { alone: false }, told("login")]);
    bench.see(100_000, &[Event::Discover("")]);
    let ids: Vec<u64> = bench.boots.of("fenn").iter().map(|row| row.boot.id).collect();
    assert_eq!(ids, [3, 2, 1], "numbers go on");
}

#[test]
fn what_is_late_is_marked_once_and_what_is_hopeless_ends() {
    let mut bench = Bench::new();
    bench.firmware();
    for _ in 0..200 {
        bench.ms += 5_000;
        bench.boots.tick(bench.now());
    }
    let row = &bench.boots.of("fenn")[0].boot;
    let late: Vec<_> = row.steps.iter().filter(|s| s.step == "late").map(|s| s.detail.as_str()).collect();
    assert_eq!((late, row.outcome), (vec!["mount"], Outcome::TimedOut));
    bench.see(0, &[Event::Mount { alone: false }, told("switch")]);
    assert_eq!(bench.outcomes(), [Outcome::Running], "slow, not dead");
    bench.see(200_000, &[]);
    bench.boots.tick(bench.now());
    assert!(bench.boots.of("fenn")[0].boot.steps.iter().any(|s| s.step == "late" && s.detail == "login"));
}

#[test]
fn a_failure_is_told_with_why() {
    let mut bench = Bench::new();
    bench.firmware();
    bench.see(1_000, &[Event::Told { step: "fail", detail: "no root" }]);
    assert_eq!(bench.outcomes(), [Outcome::Failed]);
    assert_eq!(bench.boots.of("fenn")[0].boot.steps.last().unwrap().detail, "no root");
}

#[derive(Debug, Clone)]
enum Act {
    See(u8),
    Wait(u64),
    Publish(u8),
    Tick,
    Restart,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u8..10).prop_map(Act::See),
        3 => prop_oneof![0u64..3_000, 5_000u64..70_000, 100_000u64..2_000_000].prop_map(Act::Wait),
        1 => (1u8..4).prop_map(Act::Publish),
        1 => Just(Act::Tick),
        1 => Just(Act::Restart),
    ]
}

fn event(n: u8) -> Event<'static> {
    match n {
        0 | 1 => Event::Discover(""),
        2 => Event::Offer,
        3 => Event::Lease("x"),
        4 => Event::Request,
        5 => Event::Sent { path: "kernel8.img", bytes: 9 },
        6 => Event::Missing("x"),
        7 => Event::Mount { alone: false },
        8 => Event::Told { step: "login", detail: "" },
        _ => Event::Alarm("x"),
    }
}

proptest! {
    /// Whatever happens: a root that was mounted stays readable until the next mount; only the
    /// generation that is current when a boot begins is pinned; numbers grow; memory is bounded.
    #[test]
    fn invariants_hold(acts in proptest::collection::vec(any_act(), 0..200)) {
        let mut bench = Bench::new();
        let mut running: Option<Pin> = None;
        for act in acts {
            match act {
                Act::See(n) => {
                    bench.see(1, &[event(n)]);
                    if n == 7 {
                        running = bench.boots.serving("fenn").map(|row| row.pin);
                    }
                }
                Act::Wait(ms) => bench.ms += ms,
                Act::Publish(n) => bench.current = Some(pin(n)),
                Act::Tick => _ = bench.boots.tick(bench.now()),
                Act::Restart => bench.restart(),
            }
            if let Some(running) = running {
                prop_assert!(bench.readable().contains(&running));
                prop_assert!(bench.boots.pins().contains(&("fenn".to_owned(), running.generation)));
            }
            let rows = bench.boots.of("fenn");
            prop_assert!(rows.len() <= PAST + 3);
            prop_assert!(rows.windows(2).all(|w| w[0].boot.id > w[1].boot.id));
            prop_assert!(rows.iter().all(|row| row.boot.steps.len() <= STEPS));
            prop_assert!(rows.iter().all(|row| row.boot.steps.is_sorted_by_key(|s| s.at_ms)));
        }
    }
}
