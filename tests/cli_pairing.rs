//! Invites, devices and revocation between three homes, as three people would do it.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Sandbox, Served};
use std::fs;

fn invite(sandbox: &Sandbox, args: &[&str]) -> String {
    let run = sandbox.run_as("server", &[&["invite"], args].concat());
    run.expect(0).out.trim().to_owned()
}

fn served() -> (Sandbox, Served) {
    let sandbox = Sandbox::new();
    sandbox.file("file", b"content");
    let served = sandbox.serve(&[]);
    (sandbox, served)
}

#[test]
fn three_homes_pair_and_one_is_revoked() {
    let (sandbox, served) = served();
    let (first, second) = (served.invite(), invite(&sandbox, &["Share"]));
    let run = sandbox.run_as("anna", &["push", "file", &first]);
    assert!(run.expect(0).err.contains("Paired with "), "{}", run.err);
    sandbox.run_as("bert", &["push", "file", &second]).expect(0);
    // Once is once; but who is known needs no invite.
    sandbox
        .run_as("carl", &["push", "file", &first])
        .complains(6, "refused");
    sandbox
        .run_as("anna", &["pull", &served.link("/file"), "back"])
        .expect(0);
    assert_eq!(fs::read(sandbox.path("back")).unwrap(), b"content");
    let devices = sandbox.run_as("server", &["devices", "--json"]);
    let ids: Vec<String> = devices
        .expect(0)
        .objects()
        .iter()
        .filter_map(|object| object["device"].as_str().or(object["id"].as_str()).map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 2, "{}", devices.out);
    // One of the two is put out; which one is told by who can still come in.
    sandbox.run_as("server", &["revoke", &ids[0]]).expect(0);
    let after: Vec<i32> = ["anna", "bert"]
        .iter()
        .map(|home| sandbox.run_as(home, &["push", "file", &served.link("")]).code)
        .collect();
    assert!(after == [6, 0] || after == [0, 6], "{after:?}");
    sandbox.run_as("server", &["revoke", "nobody"]).complains(10, "nobody");
}

#[test]
fn an_invite_may_give_less_and_may_expire() {
    let (sandbox, served) = served();
    let read_only = invite(&sandbox, &["--read-only"]);
    sandbox
        .run_as("anna", &["push", "file", &read_only])
        .complains(6, "refused");
    sandbox.file("share/there", b"there");
    // Being refused did not cost the invite; it does for what it gives.
    let (link, secret) = read_only.split_once('#').expect("an invite has a secret");
    sandbox
        .run_as("anna", &["pull", &format!("{link}/there#{secret}"), "back"])
        .expect(0);
    sandbox
        .run_as("anna", &["pull", &served.link("/there"), "again"])
        .expect(0);
    // A time of nothing has passed as soon as it is used.
    let run = sandbox.run_as("server", &["invite", "--expires", "0s"]);
    if run.code == 0 {
        sandbox
            .run_as("bert", &["push", "file", run.out.trim()])
            .complains(6, "refused");
    } else {
        run.expect(2);
    }
}

#[test]
fn a_server_with_another_key_is_refused_with_code_6() {
    let (sandbox, served) = served();
    sandbox.run_as("anna", &["push", "file", &served.invite()]).expect(0);
    let listen = served.listen();
    drop(served);
    fs::remove_dir_all(sandbox.path("server")).unwrap();
    let again = sandbox.serve_at(&listen, &["--open", "write"]);
    let run = sandbox.run_as("anna", &["push", "file", &again.link("")]);
    run.complains(6, "not the one that was paired");
}

#[test]
fn status_reads_well_for_people_and_is_an_object_for_scripts() {
    let (sandbox, served) = served();
    sandbox.run_as("anna", &["push", "file", &served.invite()]).expect(0);
    let run = sandbox.run_as("anna", &["status", &served.link("")]);
    run.expect(0);
    assert!(!run.out.contains(['{', '[']), "JSON is for scripts: {}", run.out);
    assert!(
        run.out.contains("\"Share\"") && run.out.contains("1 transfer"),
        "{}",
        run.out
    );
    let json = sandbox.run_as("anna", &["status", "--json", &served.link("")]);
    assert_eq!(json.objects()[0]["shares"][0]["name"], "Share");
    let local = sandbox.run_as("server", &["status"]);
    assert!(local.expect(0).out.contains(&served.listen()), "{}", local.out);
    // A folder that is served is no folder that was never synced.
    let folder = sandbox.path("share").to_string_lossy().into_owned();
    let local = sandbox.run_as("server", &["status", &folder]);
    assert!(local.expect(0).out.contains(&served.listen()), "{}", local.out);
}
