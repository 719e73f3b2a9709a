//! Tests of `Settle` in virtual time.

use super::*;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn changed(text: &str) -> Notice {
    Notice::Changed(Dirt::Path(path(text)))
}

fn tree(text: &str) -> Notice {
    Notice::Changed(Dirt::Tree(path(text)))
}

fn written(text: &str) -> Notice {
    Notice::Written(path(text))
}

/// Everything that gets ripe, with its time, when the loop sleeps until the time that it was told.
fn drain(settle: &mut Settle) -> Vec<(u64, Dirt)> {
    let mut ripe = Vec::new();
    let mut last = Tick(0);
    while let Some(now) = settle.poll_timeout() {
        assert!(now > last || last == Tick(0), "it asks for a time that was not enough");
        last = now;
        while let Some(dirt) = settle.poll_ripe(now) {
            ripe.push((now.0, dirt));
        }
    }
    assert!(settle.is_empty());
    ripe
}

// Protects the user's time and the disk: a file is looked at once, shortly after it was closed.
#[test]
fn a_path_is_ripe_when_it_is_quiet() {
    let mut settle = Settle::new();
    settle.note(Tick(100), changed("a"));
    settle.note(Tick(130), changed("a"));
    settle.note(Tick(110), changed("b"));
    assert_eq!(settle.poll_ripe(Tick(159)), None);
    assert_eq!(
        drain(&mut settle),
        [(160, Dirt::Path(path("b"))), (180, Dirt::Path(path("a")))]
    );
}

// Protects who asks what is there now from an answer that is a moment old.
#[test]
fn what_is_not_written_any_more_can_be_had_at_once() {
    let mut settle = Settle::new();
    settle.note(Tick(100), changed("a"));
    settle.note(Tick(100), written("open"));
    settle.note(Tick(100), tree("dir"));
    assert_eq!(settle.take_closed(), [Dirt::Path(path("a")), Dirt::Tree(path("dir"))]);
    assert!(settle.take_closed().is_empty(), "it is taken once");
    assert_eq!(
        drain(&mut settle),
        [(100 + SETTLE_OPEN_QUIET_MS, Dirt::Path(path("open")))]
    );
    settle.note(Tick(200), Notice::Changed(Dirt::All));
    assert_eq!((settle.take_closed(), settle.is_empty()), (vec![Dirt::All], true));
}

// Protects files that never rest from never being looked at, and others from being read half written.
#[test]
fn continuous_events_delay_for_a_bounded_time() {
    for (notice, latest) in [
        (changed("a"), SETTLE_LATEST_MS),
        (written("a"), SETTLE_OPEN_LATEST_MS),
        (tree("a"), SETTLE_LATEST_MS),
    ] {
        let mut settle = Settle::new();
        let mut ripe = Vec::new();
        for now in (1_000..31_000).step_by(10) {
            settle.note(Tick(now), notice.clone());
            ripe.extend(settle.poll_ripe(Tick(now)).map(|_| now));
        }
        let gaps: Vec<u64> = ripe.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(ripe[0], 1_000 + latest);
        // After one look the next event begins a new time.
        assert!(gaps.iter().all(|gap| (latest..=latest + 10).contains(gap)), "{gaps:?}");
    }
}

// Protects latency: a download that takes minutes is not read again and again, but at once when it is closed.
#[test]
fn an_open_file_waits_longer_until_it_is_closed() {
    let mut settle = Settle::new();
    for now in (0..3_000).step_by(500) {
        settle.note(Tick(now), written("a"));
        assert_eq!(settle.poll_ripe(Tick(now)), None);
    }
    settle.note(Tick(3_000), changed("a"));
    assert!(settle.poll_timeout() <= Some(Tick(3_050)));
    assert_eq!(drain(&mut settle), [(3_050, Dirt::Path(path("a")))]);
    // Closed once and written again: the time for closed files holds.
    settle.note(Tick(5_000), changed("a"));
    settle.note(Tick(5_010), written("a"));
    assert_eq!(drain(&mut settle), [(5_000 + SETTLE_LATEST_MS, Dirt::Path(path("a")))]);
}

// Protects from looking twice: what is beneath a dirty tree joins it, before and after, and nothing else does.
#[test]
fn a_tree_covers_what_is_beneath_it() {
    let mut settle = Settle::new();
    for (now, notice) in [
        (1, changed("d/x")),
        (2, tree("d/e/f")),
        (3, changed("d-1")),
        (4, changed("d")),
        (5, changed("da/x")),
        (6, tree("d")),
        (7, changed("d/e/f/g")),
        (8, tree("d/e")),
    ] {
        settle.note(Tick(now), notice);
    }
    assert_eq!(settle.len(), 3);
    let want = [
        (53, Dirt::Path(path("d-1"))),
        (55, Dirt::Path(path("da/x"))),
        (58, Dirt::Tree(path("d"))),
    ];
    assert_eq!(drain(&mut settle), want);
}

// Protects changes after lost events: all is dirty, once, and told with what comes before and after.
#[test]
fn everything_covers_everything() {
    let mut settle = Settle::new();
    settle.note(Tick(1), changed("a"));
    settle.note(Tick(2), Notice::Changed(Dirt::All));
    settle.note(Tick(20), written("b"));
    assert_eq!((settle.len(), settle.poll_ripe(Tick(69))), (1, None));
    assert_eq!(drain(&mut settle), [(70, Dirt::All)]);
}

// Protects memory: a storm becomes directories, then directories at the top, then everything.
#[test]
fn a_storm_collapses_to_what_covers_it() {
    let storm = |name: &dyn Fn(usize) -> String, count: usize| {
        let mut settle = Settle::new();
        for number in 0..count {
            settle.note(Tick(number as u64 / 1_000), changed(&name(number)));
            assert!(settle.len() <= SETTLE_PATHS_MAX && settle.bytes <= SETTLE_BYTES_MAX);
            assert!(settle.queue.len() <= 2 * SETTLE_PATHS_MAX);
        }
        drain(&mut settle).into_iter().map(|(_, dirt)| dirt).collect::<Vec<_>>()
    };
    let in_two = storm(&|number| format!("d{}/f{number}", number % 2), 40_000);
    assert_eq!(in_two, [Dirt::Tree(path("d0")), Dirt::Tree(path("d1"))]);
    let in_many = storm(&|number| format!("top{}/d{number}/f", number % 3), 40_000);
    assert_eq!(in_many, ["top0", "top1", "top2"].map(|top| Dirt::Tree(path(top))));
    let at_the_top = storm(&|number| format!("f{number}"), 40_000);
    assert_eq!(at_the_top, [Dirt::All]);
    let few = storm(&|number| format!("f{number}"), SETTLE_PATHS_MAX);
    assert_eq!(few.len(), SETTLE_PATHS_MAX);
    let long = "x".repeat(250) + "/";
    let long = storm(&|number| format!("d/{}{number}", long.repeat(15)), SETTLE_PATHS_MAX);
    assert_eq!(long.len(), 1, "the bytes of paths are bounded, too");
}

/// Whether looking at `dirt` looks at `path`.
fn covers(dirt: &Dirt, path: &RelPath) -> bool {
    match dirt {
        Dirt::All => true,
        Dirt::Path(other) => other == path,
        Dirt::Tree(top) => path == top || path.as_bytes().starts_with(&[top.as_bytes(), b"/"].concat()),
    }
}

// The invariant, with random notices: whatever was told is covered by a later look, and no look is later than the
// longest delay.
#[test]
fn whatever_was_told_is_looked_at_later() {
    let seed = std::env::var("SYNCLINE_SEED").map_or(0x5e77, |text| text.parse().unwrap());
    println!("SYNCLINE_SEED={seed}");
    let mut state: u64 = seed;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let mut settle = Settle::new();
        let mut open: Vec<(u64, RelPath)> = Vec::new();
        let mut now = 0;
        for _ in 0..300 {
            now += random(40);
            let name = (0..=random(3)).map(|_| ["a", "b", "a-", "c"][random(4) as usize]);
            let name = path(&name.collect::<Vec<_>>().join("/"));
            let notice = match random(20) {
                0 => Notice::Changed(Dirt::All),
                1..4 => Notice::Changed(Dirt::Tree(name.clone())),
                4..10 => Notice::Written(name.clone()),
                _ => Notice::Changed(Dirt::Path(name.clone())),
            };
            settle.note(Tick(now), notice);
            open.push((now, name));
            while let Some(dirt) = settle.poll_ripe(Tick(now)) {
                open.retain(|(_, name)| !covers(&dirt, name));
            }
            let oldest = open.iter().map(|(told, _)| now - told).max();
            assert!(oldest <= Some(SETTLE_OPEN_LATEST_MS), "{oldest:?} ms");
            assert_eq!(open.is_empty(), settle.is_empty());
        }
        for (_, dirt) in drain(&mut settle) {
            open.retain(|(_, name)| !covers(&dirt, name));
        }
        assert_eq!(open, []);
    }
}
