//! What must hold for any bytes at all in a cold compare; see `bodies.rs`.

use syncline::delta::compare::{
    BlocksAnswer, ColdCompare, Compared, LeavesAnswer, RangesQuestion, TreeAnswer, TreeQuestion,
};
use syncline::delta::content_id;
use syncline::delta::index::{ChunkIndex, IndexView, build, root_of_leaves};

/// Questions from outside are refused, or answered from what there is; answers from outside are refused,
/// or give an index that is complete in its form. The first bytes say which, the rest is the body.
pub fn compare(data: &[u8]) {
    let (&[kind, seed, ..], body) = data.split_at(data.len().min(2)) else {
        return;
    };
    let new: Vec<u8> = (0..100_000u32)
        .flat_map(|at| (at / 7 * u32::from(seed | 1)).to_le_bytes())
        .collect();
    let mut basis = new.clone();
    basis.truncate(390_001);
    basis[200_000..210_000].fill(seed);
    match kind % 4 {
        0 => tree(body, &basis),
        1 => leaves(body, &basis),
        2 => blocks(body, &basis),
        _ => answers(body, &basis, &new),
    }
}

fn tree(body: &[u8], basis: &[u8]) {
    let length = basis.len() as u64;
    let Ok(question) = TreeQuestion::parse(body, length) else {
        return;
    };
    assert_eq!(question.encode(), body);
    let index = build(basis, 0);
    let view = IndexView::parse(&index).unwrap();
    let mut answer = TreeAnswer::new(question, length);
    while !answer.hash(&view, 10) {}
    while let Some(range) = answer.wants() {
        answer.push(&basis[range.start as usize..range.end as usize]);
    }
    assert!(answer.finish().len() <= 64 * 1024);
}

fn leaves(body: &[u8], basis: &[u8]) {
    let length = basis.len() as u64;
    let Ok(question) = RangesQuestion::parse(body, length) else {
        return;
    };
    let index = build(basis, 0);
    let (count, mut said) = (question.count(), Vec::new());
    let mut answer = LeavesAnswer::new(question, length);
    assert!(answer.step(&IndexView::parse(&index).unwrap(), usize::MAX, &mut said));
    assert_eq!(said.len() as u64, 5 * count);
}

fn blocks(body: &[u8], basis: &[u8]) {
    let length = basis.len() as u64;
    let Ok(question) = RangesQuestion::parse(body, length) else {
        return;
    };
    let (count, mut said) = (question.count(), Vec::new());
    let Some(mut answer) = BlocksAnswer::new(question, length) else {
        return;
    };
    while let Some(range) = answer.wants() {
        answer.push(&basis[range.start as usize..range.end as usize], &mut said);
    }
    assert!(said.len() as u64 <= 112 * count);
}

/// The body, cut in three, answers the questions as they come; a short one is made up to the right length.
fn answers(body: &[u8], basis: &[u8], new: &[u8]) {
    let length = basis.len() as u64;
    let index = build(new, 5);
    let view = IndexView::parse(&index).unwrap();
    let mut cold = ColdCompare::new(length, 5, 12).unwrap();
    let mut parts = body.chunks(body.len() / 3 + 1);
    let question = TreeQuestion::parse(&cold.question(), length).unwrap();
    let mut tree = TreeAnswer::new(question, length);
    let old = build(basis, 0);
    while !tree.hash(&IndexView::parse(&old).unwrap(), 1000) {}
    while let Some(range) = tree.wants() {
        tree.push(&basis[range.start as usize..range.end as usize]);
    }
    let mut told = tree.finish();
    damage(&mut told, parts.next().unwrap_or_default());
    if cold.take(told).is_err() {
        return;
    }
    let mut leaves: Vec<[u8; 32]> = Vec::new();
    loop {
        let asked = match cold.step(&view, &mut &new[..], 100_000).unwrap() {
            Compared::Working => continue,
            Compared::AskLeaves(body) => RangesQuestion::parse(&body, length).unwrap().count() * 5,
            Compared::AskBlocks(body) => {
                let question = RangesQuestion::parse(&body, length).unwrap();
                let (mut said, mut answer) = (Vec::new(), BlocksAnswer::new(question, length).unwrap());
                while let Some(range) = answer.wants() {
                    answer.push(&basis[range.start as usize..range.end as usize], &mut said);
                }
                said.len() as u64
            }
            Compared::AskIndex | Compared::Strange => return,
            Compared::Chunk(_, chunk) => {
                let ChunkIndex { leaves: more, crcs, .. } = chunk;
                assert!(crcs.len() <= 16 * more.len() && crcs.len() > 16 * (more.len() - 1));
                leaves.extend(more);
                continue;
            }
            Compared::Done => break,
        };
        let mut told = vec![0; asked as usize];
        damage(&mut told, parts.next().unwrap_or_default());
        if cold.take(told).is_err() {
            return;
        }
    }
    // Complete in form; only under the root when the answers were right.
    assert!(root_of_leaves(&leaves, length).is_some());
    std::hint::black_box(content_id(basis));
}

/// Changes bytes, and now and then the length.
fn damage(told: &mut Vec<u8>, how: &[u8]) {
    for pair in how.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([pair[0], pair[1]]));
        match told.get_mut(at) {
            Some(byte) => *byte ^= pair[2],
            None if pair[2] == 0 => told.push(0),
            None => {}
        }
    }
}
