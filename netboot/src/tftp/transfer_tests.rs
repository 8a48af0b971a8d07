//! Tests of the transfer's state machine: rules in tables, and a client behind a bad network.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::packet::ErrorCode;
use super::*;

const ACK0: Packet<'_> = Packet::Ack { block: 0 };

fn ack(block: u16) -> Packet<'static> {
    Packet::Ack { block }
}

fn stop() -> Packet<'static> {
    Packet::Error { code: ErrorCode::OTHER, message: b"Early terminate" }
}

fn data(first: u64, last: u64) -> Step {
    Step::Data { first, last }
}

fn terms(blksize: u16, windowsize: u16, oack: bool) -> Terms {
    let oack = oack.then(|| vec![0, 6]);
    Terms { blksize, windowsize, timeout: Duration::from_secs(1), oack }
}

/// A transfer that has sent its first packet at `t0`.
fn begun(blksize: u16, windowsize: u16, oack: bool, len: u64) -> (Transfer, Step, Instant) {
    let t0 = Instant::now();
    let (transfer, step) = Transfer::start(&terms(blksize, windowsize, oack), Some(len), t0);
    (transfer, step, t0)
}

#[test]
fn blocks_go_in_lock_step_to_a_short_one() {
    for (len, blocks) in [(0, 1), (1, 1), (511, 1), (512, 2), (513, 2), (1024, 3)] {
        let (mut transfer, mut step, t0) = begun(512, 1, false, len);
        for block in 1..=blocks {
            assert_eq!(step, data(block, block), "of {len} bytes");
            step = transfer.packet(&ack(block as u16), t0);
        }
        assert_eq!(step, Step::End(Outcome::Sent), "{len} bytes");
    }
}

#[test]
fn options_are_acknowledged_before_the_first_block() {
    let (mut transfer, step, t0) = begun(1468, 1, true, 10);
    assert_eq!(step, Step::Oack);
    assert_eq!(transfer.packet(&ack(1), t0), Step::Wait, "no block 1 was sent");
    assert_eq!(transfer.packet(&ACK0, t0), data(1, 1));
    assert_eq!(transfer.packet(&ACK0, t0), Step::Wait, "a second ACK 0");
    assert_eq!(transfer.packet(&ack(1), t0), Step::End(Outcome::Sent));
}

#[test]
fn block_numbers_roll_over_to_zero() {
    let (mut transfer, mut step, t0) = begun(8, 1, false, 8 * 70_000 * 2);
    for block in 1u64..=140_001 {
        assert_eq!(step, data(block, block));
        step = transfer.packet(&ack((block % 65536) as u16), t0);
    }
    assert_eq!(step, Step::End(Outcome::Sent));
}

/// firmware#1631: a DATA that comes twice makes `start4.elf` hang.
#[test]
fn a_repeated_ack_is_never_answered() {
    for window in [1, 4] {
        let (mut transfer, _, t0) = begun(512, window, true, 100_000);
        let _ = transfer.packet(&ACK0, t0);
        let end = u64::from(window);
        assert_eq!(transfer.packet(&ack(window), t0), data(end + 1, 2 * end));
        for old in [window, 0, 65535] {
            assert_eq!(transfer.packet(&ack(old), t0), Step::Wait, "window {window}, ACK {old}");
        }
        assert_eq!(transfer.resent(), 0);
    }
}

#[test]
fn what_is_no_ack_changes_nothing() {
    let (mut transfer, _, t0) = begun(512, 1, false, 5000);
    let oack = Packet::parse(b"\0\x06").unwrap();
    let request = Packet::parse(b"\0\x01f\0octet\0").unwrap();
    for packet in [oack, request, Packet::Data { block: 1, payload: b"x" }, ack(2), ack(7)] {
        assert_eq!(transfer.packet(&packet, t0), Step::Wait, "{packet:?}");
    }
    assert_eq!(transfer.packet(&ack(1), t0), data(2, 2));
}

#[test]
fn a_window_is_sent_at_once_and_rolls_back_to_what_arrived() {
    let (mut transfer, _, t0) = begun(512, 4, true, 512 * 9 + 100);
    assert_eq!(transfer.packet(&ACK0, t0), data(1, 4));
    assert_eq!(transfer.packet(&ack(2), t0), data(3, 6), "blocks 3 and 4 were lost");
    assert_eq!(transfer.packet(&ack(6), t0), data(7, 10), "block 10 is the short one");
    assert_eq!(transfer.tick(t0 + Duration::from_secs(1)), data(7, 10), "all of it was lost");
    assert_eq!(transfer.packet(&ack(10), t0), Step::End(Outcome::Sent));
}

/// The Pi's probe: it reads the size from the OACK and stops (rpi-eeprom#74).
#[test]
fn an_error_ends_the_transfer_in_every_state() {
    let (mut probed, _, t0) = begun(1468, 1, true, 2_252_256);
    assert_eq!(probed.packet(&stop(), t0), Step::End(Outcome::Stopped));
    let (mut running, _, t0) = begun(1468, 1, true, 2_252_256);
    let _ = running.packet(&ACK0, t0);
    assert_eq!(running.packet(&stop(), t0), Step::End(Outcome::Stopped));
}

#[test]
fn silence_is_met_by_few_and_ever_rarer_resends() {
    let (mut transfer, _, t0) = begun(512, 1, false, 5000);
    let mut at = Vec::new();
    let mut now = t0;
    let outcome = loop {
        now += Duration::from_millis(250);
        match transfer.tick(now) {
            Step::Wait => {}
            Step::End(outcome) => break outcome,
            step => {
                assert_eq!(step, data(1, 1));
                at.push((now - t0).as_secs());
            }
        }
    };
    assert_eq!((at, outcome), (vec![1, 3, 7, 15, 23], Outcome::TimedOut));
    assert_eq!((now - t0, transfer.resent()), (Duration::from_secs(31), 5));
}

#[test]
fn an_agreed_timeout_is_kept_to_and_never_shortened_by_the_cap() {
    let t0 = Instant::now();
    let long = Terms { timeout: Duration::from_secs(20), ..terms(512, 1, false) };
    let (mut transfer, _) = Transfer::start(&long, Some(9), t0);
    assert_eq!(transfer.tick(t0 + Duration::from_secs(19)), Step::Wait);
    assert_eq!(transfer.tick(t0 + Duration::from_secs(20)), data(1, 1));
    assert_eq!(transfer.deadline(), t0 + Duration::from_secs(40));
}

#[test]
fn every_acknowledgement_starts_the_wait_anew() {
    let (mut transfer, _, t0) = begun(512, 1, false, 5000);
    let second = Duration::from_secs(1);
    let _ = transfer.tick(t0 + second);
    let _ = transfer.tick(t0 + 3 * second);
    assert_eq!(transfer.packet(&ack(1), t0 + 4 * second), data(2, 2));
    assert_eq!(transfer.deadline(), t0 + 5 * second);
}

#[test]
fn a_repeated_request_is_told_from_a_restarted_client() {
    // Unanswered: the first packet again, OACK or DATA.
    for (oack, want) in [(true, Step::Oack), (false, data(1, 1))] {
        let (mut transfer, step, t0) = begun(512, 1, oack, 5000);
        assert_eq!(step, want);
        assert_eq!(transfer.repeated(t0 + Duration::from_millis(100)), want);
        assert_eq!(transfer.deadline(), t0 + Duration::from_millis(1100), "the timer does not add another");
    }
    // Under way: an echo; were it taken for a request, the network could kill a boot.
    let (mut transfer, _, t0) = begun(512, 1, false, 5000);
    let _ = transfer.packet(&ack(1), t0);
    assert_eq!(transfer.repeated(t0), Step::Wait);
    // Silent since: the client is new.
    let _ = transfer.tick(t0 + Duration::from_secs(1));
    assert_eq!(transfer.repeated(t0), Step::End(Outcome::Restarted));
}

#[test]
fn an_unknown_length_ends_where_the_sender_says() {
    let t0 = Instant::now();
    let (mut transfer, step) = Transfer::start(&terms(512, 1, false), None, t0);
    assert_eq!(step, data(1, 1));
    assert_eq!(transfer.packet(&ack(1), t0), data(2, 2));
    transfer.ends_with(2);
    assert_eq!(transfer.packet(&ack(2), t0), Step::End(Outcome::Sent));
}

/// A right client: takes blocks in order, acknowledges as RFC 1350 and 7440 say.
struct Client {
    window: u64,
    got: u64,
    unacked: u64,
    done: bool,
}

impl Client {
    fn take(&mut self, wire: u16, end: u64) -> Option<u16> {
        if wire != ((self.got + 1) % 65536) as u16 {
            self.unacked = 0;
            return Some((self.got % 65536) as u16);
        }
        self.got += 1;
        self.unacked += 1;
        self.done = self.got == end;
        if self.done || self.unacked == self.window {
            self.unacked = 0;
            return Some((self.got % 65536) as u16);
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is lost, doubled or late: a right client that is told "sent" has all blocks in order, and
    /// otherwise the transfer ends by itself.
    #[test]
    fn a_bad_network_costs_time_or_the_transfer_but_no_content(
        len in 0u64..3000, blksize in 8u16..64, window in 1u16..9, oack: bool,
        fates in proptest::collection::vec(0u8..10, 1..400)
    ) {
        // Without options there is no window.
        let window = if oack { window } else { 1 };
        let (mut transfer, mut step, mut now) = begun(blksize, window, oack, len);
        let end = len / u64::from(blksize) + 1;
        let mut client = Client { window: window.into(), got: 0, unacked: 0, done: false };
        let mut fates = fates.into_iter().cycle();
        let mut to_server: VecDeque<u16> = VecDeque::new();
        let mut late: Vec<u16> = Vec::new();
        for _ in 0..20_000 {
            let mut answers = Vec::new();
            match step {
                Step::End(outcome) => {
                    prop_assert!(outcome != Outcome::Sent || client.done);
                    prop_assert_ne!(outcome, Outcome::Stopped);
                    return Ok(());
                }
                Step::Oack => answers.push(0),
                Step::Data { first, last } => {
                    prop_assert!(first >= 1 && first <= last && last <= end);
                    prop_assert!(last - first < u64::from(window));
                    for block in first..=last {
                        if fates.next() != Some(0) {
                            answers.extend(client.take((block % 65536) as u16, end));
                        }
                    }
                }
                Step::Wait => {}
            }
            for answer in answers {
                match fates.next() {
                    Some(0) => {}
                    Some(1) => to_server.extend([answer, answer]),
                    Some(2) => late.push(answer),
                    _ => to_server.push_back(answer),
                }
            }
            step = match to_server.pop_front().or_else(|| late.pop()) {
                Some(block) => transfer.packet(&ack(block), now),
                None => {
                    now = transfer.deadline();
                    transfer.tick(now)
                }
            };
        }
        prop_assert!(false, "the transfer never ended");
    }

    /// No packets in any order make it send what it has not, or run for ever on silence.
    #[test]
    fn any_packets_are_survived(
        len in 0u64..2_000_000, oack: bool, window in 1u16..70,
        blocks in proptest::collection::vec((any::<u16>(), 0u8..20), 0..300)
    ) {
        let (mut transfer, _, mut now) = begun(8, window, oack, len);
        let end = len / 8 + 1;
        for (block, kind) in blocks {
            let near = (transfer.acked + u64::from(block % 80)) as u16;
            let step = match kind {
                0 => transfer.packet(&ack(block), now),
                1 => { now = transfer.deadline(); transfer.tick(now) }
                2 => transfer.repeated(now),
                _ => transfer.packet(&ack(near), now),
            };
            match step {
                Step::Data { first, last } => prop_assert!(first >= 1 && first <= last && last <= end),
                Step::End(_) => return Ok(()),
                Step::Wait | Step::Oack => {}
            }
        }
        let silent = (0..=MAX_RESENDS).any(|_| {
            let at = transfer.deadline();
            matches!(transfer.tick(at), Step::End(_))
        });
        prop_assert!(silent, "silence must end it");
    }
}
