//! Tests of `Trust`: rows 20, 21, 24, 25 and 58 of the threats, and the bounds.

use super::super::book::{DEVICES_MAX, INVITES_MAX};
use super::*;
use crate::model::Link;
use std::path::Path;

const VALID: Duration = Duration::from_secs(600);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn share(name: &str) -> ShareName {
    ShareName::parse(name).unwrap()
}

fn device(number: u16) -> DeviceId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    DeviceId(id)
}

fn home() -> (tempfile::TempDir, Home) {
    let place = tempfile::tempdir().unwrap();
    let home = Home::open(place.path()).unwrap();
    (place, home)
}

fn rewrite(path: &Path, edit: impl FnOnce(&mut Book)) {
    let file = path.join(TRUST_FILE);
    let mut book = std::fs::read(&file).map_or(Book::default(), |text| Book::decode(&text).unwrap());
    edit(&mut book);
    std::fs::write(&file, book.encode()).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).unwrap();
}

// Protects the main path: a secret lets one device in, to one share, with the rights of the invite.
#[test]
fn an_invite_grants_its_rights_once() {
    let (place, home) = home();
    let trust = home.trust();
    let secret = trust.invite(&share("A"), Rights::READ, VALID, at(0)).unwrap();
    let file = std::fs::read_to_string(place.path().join(TRUST_FILE)).unwrap();
    assert!(!file.contains(&secret.to_hex()), "the secret itself is never stored");
    assert_eq!(
        std::fs::metadata(place.path().join(TRUST_FILE)).unwrap().mode() & 0o7777,
        0o600
    );

    let redeem = |trust: Trust<'_>, number| {
        trust
            .redeem(&secret, &share("A"), &device(number), "laptop", at(1))
            .unwrap()
    };
    assert_eq!(redeem(trust, 1), Redeemed::Granted(Rights::READ));
    assert_eq!(redeem(trust, 2), Redeemed::Refused);
    // It is on disk: another process sees the same.
    let other = Home::open(place.path()).unwrap();
    assert_eq!(other.trust().rights(&device(1), &share("A")).unwrap(), Rights::READ);
    assert_eq!(other.trust().rights(&device(2), &share("A")).unwrap(), Rights::NONE);
    assert_eq!(redeem(other.trust(), 2), Redeemed::Refused);
}

// Protects a share from devices of another one, and an invite from being burned by the wrong share.
#[test]
fn row_25_rights_and_invites_hold_for_one_share_only() {
    let (_place, home) = home();
    let trust = home.trust();
    let secret = trust.invite(&share("A"), Rights::READ_WRITE, VALID, at(0)).unwrap();
    let redeem = |name| trust.redeem(&secret, &share(name), &device(1), "x", at(1)).unwrap();
    assert_eq!(redeem("B"), Redeemed::Refused);
    assert_eq!(redeem("A"), Redeemed::Granted(Rights::READ_WRITE));
    assert_eq!(trust.rights(&device(1), &share("B")).unwrap(), Rights::NONE);
}

// Protects against guesses: a wrong secret changes nothing on disk, however often it comes.
#[test]
fn row_20_a_wrong_secret_is_refused_and_costs_no_write() {
    let (place, home) = home();
    let trust = home.trust();
    let secret = trust.invite(&share("A"), Rights::READ, VALID, at(0)).unwrap();
    let before = std::fs::metadata(place.path().join(TRUST_FILE)).unwrap();
    for byte in 0..16 {
        let mut wrong = secret.clone();
        wrong.0[byte] ^= 1;
        let answer = trust.redeem(&wrong, &share("A"), &device(1), "x", at(1)).unwrap();
        assert_eq!(answer, Redeemed::Refused);
    }
    let after = std::fs::metadata(place.path().join(TRUST_FILE)).unwrap();
    assert_eq!(FileIdentity::of(&before), FileIdentity::of(&after));
}

// Protects "one use" when many connections, and several processes, bring the secret at once.
#[test]
fn row_21_concurrent_redeems_have_exactly_one_winner() {
    let (place, home) = home();
    for round in 0..8 {
        let secret = home
            .trust()
            .invite(&share("A"), Rights::READ, VALID, at(round))
            .unwrap();
        let wins: usize = std::thread::scope(|scope| {
            let redeem = |number| {
                let home = Home::open(place.path()).unwrap();
                let secret = secret.clone();
                move || {
                    let trust = home.trust();
                    let answer = trust
                        .redeem(&secret, &share("A"), &device(number), "x", at(round))
                        .unwrap();
                    usize::from(answer != Redeemed::Refused)
                }
            };
            let threads: Vec<_> = (0..6).map(|number| scope.spawn(redeem(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(wins, 1, "round {round}");
    }
}

// Protects against guessing: a secret is 128 bits, all of them random, and no link may carry a shorter one.
#[test]
fn row_21_secrets_are_too_long_to_guess() {
    let (_place, home) = home();
    let draw = || home.trust().invite(&share("A"), Rights::READ, VALID, at(0)).unwrap();
    let drawn: Vec<u128> = (0..64).map(|_| u128::from_be_bytes(draw().0)).collect();
    let (ones, zeros) = drawn
        .iter()
        .fold((0, 0), |(ones, zeros), secret| (ones | secret, zeros | !secret));
    assert_eq!((ones, zeros), (u128::MAX, u128::MAX), "each bit is either");
    assert!(drawn.iter().enumerate().all(|(at, one)| !drawn[..at].contains(one)));
    let link = |digits: usize| format!("syncline://nas:1/A#{}.{}", "0".repeat(64), "5".repeat(digits));
    for digits in 0..=40 {
        assert_eq!(link(digits).parse::<Link>().is_ok(), digits == 32, "{digits} digits");
    }
}

// Protects concurrent changes from overwriting each other.
#[test]
fn changes_of_several_processes_are_all_kept() {
    let (place, home) = home();
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            let home = Home::open(place.path()).unwrap();
            scope.spawn(move || {
                for number in 0..5 {
                    let name = format!("host{thread}-{number}:1");
                    home.trust().remember_server(&name, &device(thread), "x").unwrap();
                }
            });
        }
    });
    for thread in 0..4 {
        for number in 0..5 {
            let known = home.trust().known_server(&format!("host{thread}-{number}:1")).unwrap();
            assert_eq!(known, Some(device(thread)));
        }
    }
}

// Protects against clocks: an invite ends, and neither a spent nor an ended one comes back.
#[test]
fn row_58_no_clock_brings_a_spent_or_expired_invite_back() {
    let (_place, home) = home();
    let trust = home.trust();
    let redeem = |secret, when| trust.redeem(secret, &share("A"), &device(1), "x", when).unwrap();
    let spent = trust.invite(&share("A"), Rights::READ, VALID, at(1000)).unwrap();
    assert_eq!(redeem(&spent, at(1001)), Redeemed::Granted(Rights::READ));
    for when in [at(1000), at(0), SystemTime::UNIX_EPOCH, at(1599)] {
        assert_eq!(redeem(&spent, when), Redeemed::Refused);
    }
    let expired = trust.invite(&share("A"), Rights::READ, VALID, at(1000)).unwrap();
    assert_eq!(redeem(&expired, at(1600)), Redeemed::Refused);
    assert_eq!(
        redeem(&expired, at(1001)),
        Redeemed::Refused,
        "it was dropped when it was late"
    );
}

// Protects against an invite that was made while the clock was years ahead; small steps are normal.
#[test]
fn row_58_an_invite_from_the_far_future_is_refused_but_a_small_step_is_not() {
    let (_place, home) = home();
    let trust = home.trust();
    let secret = trust.invite(&share("A"), Rights::READ, VALID, at(10_000)).unwrap();
    let redeem = |when| trust.redeem(&secret, &share("A"), &device(1), "x", when).unwrap();
    assert_eq!(redeem(at(0)), Redeemed::Refused);
    assert_eq!(
        redeem(at(10_000 - CLOCK_STEP_SECONDS_MAX)),
        Redeemed::Granted(Rights::READ)
    );
}

// Protects the decision: without a whole, private trust file nobody is let in.
#[test]
fn row_24_a_damaged_or_exposed_file_is_an_error_and_grants_nothing() {
    let (place, home) = home();
    let trust = home.trust();
    let secret = trust.invite(&share("A"), Rights::READ, VALID, at(0)).unwrap();
    trust.redeem(&secret, &share("A"), &device(1), "x", at(1)).unwrap();
    let file = place.path().join(TRUST_FILE);
    let good = std::fs::read(&file).unwrap();
    for bad in [
        &b""[..],
        b"{",
        b"[]",
        b"{\"version\":9}",
        &good[..good.len() / 2],
        b"\xff\xfe",
    ] {
        std::fs::write(&file, bad).unwrap();
        let error = trust.rights(&device(1), &share("A")).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("trust.json") && text.contains("restored"), "{text}");
        assert!(trust.invite(&share("A"), Rights::READ, VALID, at(2)).is_err());
        assert!(trust.redeem(&secret, &share("A"), &device(2), "x", at(2)).is_err());
        assert!(trust.known_server("nas:1").is_err());
        assert_eq!(std::fs::read(&file).unwrap(), bad, "damage is never written over");
    }
    std::fs::write(&file, &good).unwrap();
    assert_eq!(trust.rights(&device(1), &share("A")).unwrap(), Rights::READ);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&file, open).unwrap();
    let error = trust.rights(&device(1), &share("A")).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

// Protects a revoke: the running server, another process, notices it by its stamp.
#[test]
fn row_22_a_revoke_by_another_process_takes_effect() {
    let (place, home) = home();
    let trust = home.trust();
    for name in ["A", "B"] {
        let secret = trust.invite(&share(name), Rights::READ_WRITE, VALID, at(0)).unwrap();
        trust
            .redeem(&secret, &share(name), &device(1), "laptop", at(1))
            .unwrap();
    }
    let before = trust.stamp().unwrap();
    assert_eq!(trust.stamp().unwrap(), before);
    let command = Home::open(place.path()).unwrap();
    assert!(command.trust().revoke(&device(1), Some(&share("A"))).unwrap());
    assert!(!command.trust().revoke(&device(1), Some(&share("A"))).unwrap());
    assert_ne!(trust.stamp().unwrap(), before);
    assert_eq!(trust.rights(&device(1), &share("A")).unwrap(), Rights::NONE);
    assert_eq!(trust.rights(&device(1), &share("B")).unwrap(), Rights::READ_WRITE);
    assert!(command.trust().revoke(&device(1), None).unwrap());
    assert!(!command.trust().revoke(&device(1), None).unwrap());
    assert_eq!(trust.devices().unwrap(), []);
}

// Protects the stamp from inode reuse: two quick changes of equal size are two changes.
#[test]
fn every_change_changes_the_stamp() {
    let (place, home) = home();
    let command = Home::open(place.path()).unwrap();
    let mut last = home.trust().stamp().unwrap();
    for round in 0..20u16 {
        command.trust().remember_server("nas:1", &device(round), "x").unwrap();
        let stamp = home.trust().stamp().unwrap();
        assert_ne!(stamp, last, "round {round}");
        assert_eq!(home.trust().known_server("nas:1").unwrap(), Some(device(round)));
        last = stamp;
    }
}

// Protects the record of devices: pairing again adds rights, keeps the date, and names are harmless.
#[test]
fn pairing_again_adds_rights_and_keeps_the_first_date() {
    let (_place, home) = home();
    let trust = home.trust();
    let write_only = Rights {
        read: false,
        write: true,
    };
    for (rights, when, sum) in [(Rights::READ, 5, Rights::READ), (write_only, 9, Rights::READ_WRITE)] {
        let secret = trust.invite(&share("A"), rights, VALID, at(when)).unwrap();
        let name = format!("lap\u{1b}top{when}");
        let answer = trust.redeem(&secret, &share("A"), &device(1), &name, at(when)).unwrap();
        assert_eq!(answer, Redeemed::Granted(sum));
    }
    let devices = trust.devices().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].name, "laptop9");
    assert_eq!(devices[0].paired_at, 1_800_000_005);
    assert_eq!(devices[0].shares, [(share("A"), Rights::READ_WRITE)]);
}

// Protects the disk from a write per connection: sightings are kept and written once a minute.
#[test]
fn sightings_are_shown_at_once_and_written_once_a_minute() {
    let (place, home) = home();
    let trust = home.trust();
    let secret = trust.invite(&share("A"), Rights::READ, VALID, at(0)).unwrap();
    trust.redeem(&secret, &share("A"), &device(1), "x", at(0)).unwrap();
    let other = Home::open(place.path()).unwrap();
    let seen = |home: &Home| {
        home.trust().devices().unwrap()[0]
            .last_seen
            .map(|at| at - 1_800_000_000)
    };
    trust.touch_seen(&device(1), at(10));
    assert_eq!((seen(&home), seen(&other)), (Some(10), Some(10)));
    trust.touch_seen(&device(1), at(69));
    assert_eq!((seen(&home), seen(&other)), (Some(69), Some(10)));
    trust.touch_seen(&device(1), at(70));
    assert_eq!((seen(&home), seen(&other)), (Some(70), Some(70)));
    trust.touch_seen(&device(9), at(200));
    assert_eq!(trust.devices().unwrap().len(), 1, "a sighting makes nobody known");
}

// Protects memory and the file from growing without end.
#[test]
fn tables_are_bounded_and_expired_invites_make_room() {
    let (place, home) = home();
    let trust = home.trust();
    let invite = |number: usize, expires| Invite {
        secret_sha256: std::array::from_fn(|index| number.to_le_bytes()[index % 8]),
        share: share("A"),
        rights: Rights::READ,
        created: unix_seconds(at(0)),
        expires,
    };
    let later = unix_seconds(at(100));
    rewrite(place.path(), |book| {
        book.invites = (0..INVITES_MAX).map(|n| invite(n, later)).collect();
    });
    let error = trust.invite(&share("A"), Rights::READ, VALID, at(99)).unwrap_err();
    assert!(matches!(error, StateError::Full { .. }), "{error}");
    let secret = trust.invite(&share("A"), Rights::READ, VALID, at(100)).unwrap();
    rewrite(place.path(), |book| {
        assert_eq!(book.invites.len(), 1);
        let peer = Peer {
            name: "x".into(),
            paired_at: 0,
            last_seen: None,
            shares: Vec::new(),
        };
        book.devices = (0..DEVICES_MAX)
            .map(|n| (device(n.try_into().unwrap()), peer.clone()))
            .collect();
    });
    let new = device(u16::MAX);
    let error = trust.redeem(&secret, &share("A"), &new, "x", at(101)).unwrap_err();
    assert!(matches!(error, StateError::Full { .. }), "{error}");
    assert_eq!(trust.rights(&new, &share("A")).unwrap(), Rights::NONE);
    let known = trust.redeem(&secret, &share("A"), &device(3), "x", at(101)).unwrap();
    assert_eq!(
        known,
        Redeemed::Granted(Rights::READ),
        "the invite was not burned by the full table"
    );
}

// Protects clients: a server's identity is remembered per address, and damage is told, not ignored.
#[test]
fn known_servers_are_remembered_and_replaced() {
    let (_place, home) = home();
    let trust = home.trust();
    assert_eq!(trust.known_server("nas:7171").unwrap(), None);
    trust.remember_server("nas:7171", &device(1), "nas").unwrap();
    trust.remember_server("[::1]:7171", &device(2), "me").unwrap();
    trust.remember_server("nas:7171", &device(3), "nas").unwrap();
    assert_eq!(trust.known_server("nas:7171").unwrap(), Some(device(3)));
    assert_eq!(trust.known_server("[::1]:7171").unwrap(), Some(device(2)));
    assert!(trust.remember_server(&"x".repeat(400), &device(1), "x").is_err());
}
