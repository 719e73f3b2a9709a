//! Who may do what, through the whole stack: rights, invites, revocation, fingerprints.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used)]

mod harness;

use harness::raw::RawClient;
use harness::tls::{greeted, in_between};
use harness::{World, WorldOptions, pull_job, push_job, snapshot};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
use syncline::model::{CloseCode, DeviceId, Fault, Link, Rights, ShareName};
use syncline::node::{Client, ClientEvent, ClientOptions, JobError, Outcome, ServerEvent, TransferOptions};
use syncline::reactor::Identity;
use syncline::store::Home;
use syncline::wire::{FrameType, Message, Open};

fn closed() -> WorldOptions {
    WorldOptions {
        plain: false,
        open: Rights::NONE,
        ..WorldOptions::default()
    }
}

/// A push of `source` by the device that lives in `home`.
fn push_as(world: &mut World, home: &str, source: &Path, link: &Link) -> Outcome {
    let job = push_job(&[source], link);
    let client = Client::start(world.client_options(home), job, TransferOptions::default()).unwrap();
    world.drive(client, |_, _| {}).outcome
}

fn code(outcome: &Outcome) -> Option<CloseCode> {
    match &outcome.result {
        Err(JobError::Closed { code, .. }) => Some(*code),
        _ => None,
    }
}

#[test]
fn read_rights_are_not_enough_to_push() {
    let mut world = World::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    fs::write(world.share().join("g"), b"g").unwrap();
    let link = world.invite(Rights::READ);
    let refused = push_as(&mut world, "reader", &source, &link);
    assert_eq!(code(&refused), Some(CloseCode::Forbidden), "{refused:?}");
    assert!(!world.share().join("f").exists());
    // What was refused did not cost the invite, and the server of the link's key is known from now on.
    let home = Home::open(&world.path("reader")).unwrap();
    let known = home.trust().known_server(&link.authority()).unwrap();
    assert_eq!(known, world.server.device());
    let job = pull_job(&link, &world.path("first"));
    let other = Client::start(world.client_options("other"), job, TransferOptions::default()).unwrap();
    world.drive(other, |_, _| {}).assert_clean();
    let link = world.invite(Rights::READ);
    let job = pull_job(&link, &world.path("second"));
    let reader = Client::start(world.client_options("reader"), job, TransferOptions::default()).unwrap();
    world.drive(reader, |_, _| {}).assert_clean();
    // The same device may read; and rights to write are not rights to read.
    let target = world.path("g");
    let job = pull_job(&world.link("/g"), &target);
    let reader = Client::start(world.client_options("reader"), job, TransferOptions::default()).unwrap();
    world.drive(reader, |_, _| {}).assert_clean();
    assert_eq!(fs::read(&target).unwrap(), b"g");
    let write_only = Rights {
        read: false,
        write: true,
    };
    let link = world.invite(write_only);
    assert_eq!(push_as(&mut world, "writer", &source, &link).result, Ok(()));
    let job = pull_job(&world.link("/g"), &world.path("g2"));
    let writer = Client::start(world.client_options("writer"), job, TransferOptions::default()).unwrap();
    let refused = world.drive(writer, |_, _| {}).outcome;
    assert_eq!(code(&refused), Some(CloseCode::Forbidden), "{refused:?}");
    assert!(!world.path("g2").exists());
}

/// Row 21: an invite lets one device in, which may use the same link again; no other may.
#[test]
fn row_21_a_used_invite_is_good_for_its_device_only() {
    let mut world = World::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    let link = world.invite(Rights::READ_WRITE);
    assert_eq!(push_as(&mut world, "first", &source, &link).result, Ok(()));
    let stranger = push_as(&mut world, "second", &source, &link);
    assert_eq!(code(&stranger), Some(CloseCode::Refused), "{stranger:?}");
    assert_eq!(push_as(&mut world, "first", &source, &link).result, Ok(()));
    let paired = world
        .server_events
        .iter()
        .filter(|event| matches!(event, ServerEvent::Paired { .. }));
    assert_eq!(paired.count(), 1);
    // Without the link the first is known and the second is not.
    let bare = world.link("");
    assert_eq!(push_as(&mut world, "first", &source, &bare).result, Ok(()));
    assert_eq!(
        code(&push_as(&mut world, "second", &source, &bare)),
        Some(CloseCode::Refused)
    );
}

/// Row 21: whoever is in between, with a key of their own, hears nothing, and the invite stays good.
#[test]
fn row_21_who_is_in_between_hears_nothing_of_the_secret() {
    let mut world = World::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    let link = world.invite(Rights::READ_WRITE);
    let identity = Identity::generate().unwrap();
    let (own, middle) = (world.address.to_string(), identity.device().to_string());
    // Its own key in the link is what makes somebody talk to it.
    let fingerprint = world.server.device().unwrap().to_string();
    for is_named in [true, false] {
        let (address, heard) = in_between(&identity);
        let mut through = link.to_string().replace(&own, &address.to_string());
        if is_named {
            through = through.replace(&fingerprint, &middle);
        }
        let outcome = push_as(&mut world, "device", &source, &through.parse().unwrap());
        let wrong = matches!(outcome.result, Err(JobError::WrongServer { .. }));
        assert_eq!(wrong, !is_named, "{outcome:?}");
        let heard = heard.join().unwrap();
        assert_eq!(heard.is_empty(), !is_named, "{} bytes were heard", heard.len());
    }
    assert_eq!(push_as(&mut world, "device", &source, &link).result, Ok(()));
}

/// Row 21: of sessions that bring one secret at the same time, one is let in, and who is paired by it is the key that
/// this session's handshake proved.
#[test]
fn row_21_of_many_sessions_with_one_secret_one_is_let_in() {
    let mut world = World::with(&closed());
    let secret = world.invite(Rights::READ_WRITE).secret.unwrap().invite;
    let identities: Vec<Identity> = (0..8).map(|_| Identity::generate().unwrap()).collect();
    let mut open = Vec::new();
    Open {
        share: Some(ShareName::parse("Share").unwrap()),
        secret,
        wanted: Rights::READ_WRITE,
    }
    .encode(0, &mut open);
    let answers = world.serve_while(|address| {
        let mut clients: Vec<_> = identities.iter().map(|one| greeted(address, one)).collect();
        clients.iter_mut().for_each(|client| client.send(&open));
        let answers = clients.iter_mut().map(|client| client.next().unwrap().kind);
        answers.collect::<Vec<_>>()
    });
    let let_in: Vec<DeviceId> = answers
        .iter()
        .zip(&identities)
        .filter(|(answer, _)| **answer == FrameType::Opened)
        .map(|(_, identity)| identity.device())
        .collect();
    assert_eq!(let_in.len(), 1, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|kind| matches!(kind, FrameType::Opened | FrameType::Close))
    );
    let home = Home::open(&world.path("server-home")).unwrap();
    let paired: Vec<DeviceId> = home.trust().devices().unwrap().iter().map(|device| device.id).collect();
    assert_eq!(paired, let_in);
}

/// Row 21: without TLS there is no key that a secret could pair: it lets nobody in, and is not spent.
#[test]
fn row_21_a_secret_without_tls_is_neither_taken_nor_spent() {
    let mut world = World::with(&WorldOptions {
        plain: true,
        ..closed()
    });
    let home = Home::open(&world.path("server-home")).unwrap();
    let (share, valid) = (ShareName::parse("Share").unwrap(), Duration::from_secs(600));
    let now = SystemTime::now();
    let secret = home.trust().invite(&share, Rights::READ_WRITE, valid, now).unwrap();
    let brought = secret.clone();
    let answer = world.serve_while(|address| {
        let mut client = RawClient::connect(address);
        client.greet();
        client.ask("Share", Some(brought), Rights::READ)
    });
    assert_eq!(answer.kind, FrameType::Close);
    assert_eq!(Fault::decode(&answer.payload).unwrap().code, CloseCode::Refused);
    let invited = home.trust().invited(&secret, &share, now).unwrap();
    assert_eq!(invited, Some(Rights::READ_WRITE));
}

/// Row 22: a device that is revoked while it transfers is cut off, and nothing half is published.
#[test]
fn row_22_revoking_cuts_a_running_transfer() {
    let mut world = World::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"small").unwrap();
    let link = world.invite(Rights::READ_WRITE);
    assert_eq!(push_as(&mut world, "device", &source, &link).result, Ok(()));
    let before = snapshot(&world.share());
    fs::write(&source, vec![1; 40 << 20]).unwrap();
    let options = ClientOptions {
        bandwidth: syncline::model::Timetable::always(Some(4 << 20)),
        ..world.client_options("device")
    };
    let client = Client::start(
        options,
        push_job(&[&source], &world.link("")),
        TransferOptions::default(),
    )
    .unwrap();
    let home = Home::open(&world.path("server-home")).unwrap();
    let mut revoked = false;
    let outcome = world
        .drive(client, |_, events| {
            let moving =
                |event: &ClientEvent| matches!(event, ClientEvent::Progress(progress) if progress.bytes_done > 0);
            if !revoked && events.iter().any(moving) {
                let device = home.trust().devices().unwrap().remove(0).id;
                assert!(home.trust().revoke(&device, None).unwrap());
                revoked = true;
            }
        })
        .outcome;
    assert!(revoked);
    assert_eq!(code(&outcome), Some(CloseCode::Refused), "{outcome:?}");
    assert_eq!(snapshot(&world.share()), before);
    assert_eq!(
        code(&push_as(&mut world, "device", &source, &link)),
        Some(CloseCode::Refused)
    );
}

/// Row 22: a server with another key than the link names is left before any application byte, so
/// the secret in the link stays unspent and unknown to it.
#[test]
fn row_22_a_wrong_fingerprint_ends_before_any_application_byte() {
    let mut world = World::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    let link = world.invite(Rights::READ_WRITE);
    let text = link.to_string();
    let at = text.find('#').unwrap() + 1;
    let digit = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
    let wrong: Link = format!("{}{digit}{}", &text[..at], &text[at + 1..]).parse().unwrap();
    let outcome = push_as(&mut world, "device", &source, &wrong);
    assert!(
        matches!(outcome.result, Err(JobError::WrongServer { .. })),
        "{outcome:?}"
    );
    assert_eq!(outcome.summary.wire_received, 0, "nothing of the protocol was heard");
    for _ in 0..50 {
        let events = world.server.poll(Some(Duration::from_millis(1))).unwrap();
        world.server_events.extend(events);
    }
    assert!(world.server_events.is_empty(), "{:?}", world.server_events);
    assert_eq!(
        push_as(&mut world, "device", &source, &link).result,
        Ok(()),
        "the invite is still good"
    );
}

/// Row 22: a server that was met before and has another key now is refused without asking it.
#[test]
fn row_22_a_server_that_changed_its_key_is_refused() {
    let mut world = World::with(&WorldOptions {
        open: Rights::READ_WRITE,
        ..closed()
    });
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    let link = world.link("");
    assert_eq!(push_as(&mut world, "device", &source, &link).result, Ok(()));
    let other = World::with(&WorldOptions {
        open: Rights::READ_WRITE,
        ..closed()
    });
    let imposter = other.server.device().unwrap();
    let home = Home::open(&world.path("device")).unwrap();
    home.trust()
        .remember_server(&link.authority(), &imposter, "imposter")
        .unwrap();
    let outcome = push_as(&mut world, "device", &source, &link);
    assert!(
        matches!(outcome.result, Err(JobError::WrongServer { .. })),
        "{outcome:?}"
    );
}

/// Row 22: plain and TLS do not talk to each other, whichever side is which, and say so.
#[test]
fn row_22_there_is_no_downgrade_to_plain() {
    for plain in [true, false] {
        let mut world = World::with(&WorldOptions {
            plain,
            ..WorldOptions::default()
        });
        let source = world.path("f");
        fs::write(&source, b"f").unwrap();
        let options = ClientOptions {
            plain: !plain,
            ..world.client_options("device")
        };
        let job = push_job(&[&source], &world.link(""));
        let client = Client::start(options, job, TransferOptions::default()).unwrap();
        let outcome = world.drive(client, |_, _| {}).outcome;
        assert!(
            matches!(
                outcome.result,
                Err(JobError::NotSyncline { .. } | JobError::TurnedAway { .. })
            ),
            "{outcome:?}"
        );
        assert!(!world.share().join("f").exists());
    }
}
