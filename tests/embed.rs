//! The example of embedding works, and stays within the memory that it names.

#![allow(clippy::unwrap_used)]

#[path = "../examples/embed.rs"]
#[allow(dead_code, unreachable_pub)]
mod embed;

// Protects hosts with little memory: a server and a client, with a file of 64 MiB between them.
#[test]
fn a_server_in_a_hosts_loop_stays_within_its_memory() {
    let place = tempfile::tempdir().unwrap();
    let measured = embed::push_to_itself(place.path()).unwrap();
    let summary = &measured.outcome.summary;
    assert_eq!(measured.outcome.result, Ok(()));
    assert_eq!((summary.files, summary.failed), (201, 0));
    assert_eq!(
        std::fs::metadata(place.path().join("share/source/film")).unwrap().len(),
        64 << 20
    );
    println!("{measured:?}");
    assert!(measured.before > 0 && measured.listening >= measured.before);
    let grown = measured.peak - measured.before;
    assert!(grown <= embed::MEMORY_LIMIT, "{grown} bytes");
}
