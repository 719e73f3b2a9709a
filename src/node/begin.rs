//! The server's side of a transfer's beginning: from the request to a sending or receiving end.

use super::agreement::{Agreement, Scope};
use super::options::MaxDelete;
use super::peer::Transfer;
use super::place::Place;
use super::receiving::{Based, DeletePlan, Receiving, ReceivingPlan};
use super::sending::{Sending, SendingPlan};
use super::source_tree::SourceTree;
use crate::model::{CloseCode, DeviceId, Fault, Meta, RelPath};
use crate::reactor::ConnId;
use crate::store::{Filter, FilterError, FoundKind, Root, Rule};
use crate::wire::{Begin, Brake, PullSource, TargetKind, features};
use std::io;
use std::rc::Rc;

pub(super) fn stopping() -> Fault {
    Fault::new(CloseCode::Stopping, "the server is stopping")
}

pub(super) fn filter_of(begin: &Begin) -> Result<Filter, FilterError> {
    let rule = |rule: &crate::wire::Rule| match rule {
        crate::wire::Rule::Exclude(text) => Rule::Exclude(text.clone()),
        crate::wire::Rule::Include(text) => Rule::Include(text.clone()),
    };
    Filter::new(&begin.rules.iter().map(rule).collect::<Vec<_>>())
}

pub(super) fn target_kind(root: &Root, path: Option<&RelPath>) -> Result<TargetKind, Fault> {
    let Some(path) = path else {
        return Ok(TargetKind::Directory);
    };
    let found = root
        .probe(path)
        .map_err(|error| Fault::new(CloseCode::NotFound, error.reason()))?;
    Ok(match found.map(|found| found.kind) {
        None => TargetKind::Absent,
        Some(FoundKind::File { .. }) => TargetKind::File,
        Some(FoundKind::Directory) => TargetKind::Directory,
        Some(FoundKind::Symlink | FoundKind::Special) => TargetKind::Other,
    })
}

/// An empty share may empty the other side; one that is gone must not.
fn check_present(root: &Root) -> Result<(), Fault> {
    match root.is_gone() {
        Ok(false) => Ok(()),
        Ok(true) => Err(Fault::new(CloseCode::Gone, "the folder of this share is gone")),
        Err(error) => Err(Fault::new(CloseCode::Gone, error.reason())),
    }
}

pub(super) fn receive(
    owner: ConnId,
    peer: Option<DeviceId>,
    place: Rc<Place>,
    begin: Begin,
    filter: Filter,
    features: u64,
) -> Result<Transfer, Fault> {
    check_present(&place.root)?;
    let delete = match begin.flags.delete {
        false => None,
        true => {
            let seed = random_seed().map_err(|error| Fault::new(CloseCode::Internal, error.to_string()))?;
            Some(DeletePlan {
                scopes: begin.scopes,
                brake: brake_of(begin.brake),
                seed,
            })
        }
    };
    let plan = ReceivingPlan {
        place,
        peer,
        agreement: Agreement::new(Scope::Below(begin.target.clone()), filter),
        checksum: begin.flags.checksum,
        dry_run: begin.flags.dry_run,
        delta: features & features::DELTA != 0,
        in_place: begin.flags.in_place,
        resume: features & features::RESUME != 0,
        delete,
        top: begin.target,
        based: based_of(begin.flags.sync),
    };
    Ok(Transfer::Receiving(Box::new(Receiving::new(owner, plan))))
}

#[cfg(feature = "sync")]
fn based_of(sync: bool) -> Based {
    if sync { Based::Revisions } else { Based::Anything }
}

#[cfg(not(feature = "sync"))]
fn based_of(_: bool) -> Based {
    Based::Anything
}

pub(super) fn send(
    place: &Place,
    begin: &Begin,
    filter: Filter,
    features: u64,
) -> Result<(Transfer, TargetKind), Fault> {
    let root = &Rc::new(place.root.share());
    check_present(root)?;
    let (mut trees, mut missing) = (Vec::new(), Vec::new());
    let mut kind = TargetKind::Directory;
    let mut top: Option<Meta> = None;
    for PullSource { path, contents_only } in &begin.sources {
        kind = match target_kind(root, path.as_ref()) {
            // The directory above it became something else since the client heard of it.
            Err(_) if begin.flags.sync => TargetKind::Absent,
            found => found?,
        };
        if let (TargetKind::Absent, true, Some(path)) = (kind, begin.sources.len() > 1 || begin.flags.sync, path) {
            missing.push(path.clone());
            continue;
        }
        if kind == TargetKind::Absent {
            let path = path.as_ref().map_or_else(String::new, RelPath::to_string);
            return Err(Fault::new(
                CloseCode::NotFound,
                format!("there is no {path} in the share"),
            ));
        }
        let contents = *contents_only && kind == TargetKind::Directory;
        if contents {
            let found = match path {
                Some(path) => root.probe(path).ok().flatten(),
                None => root.own().ok(),
            };
            top = found.map(|found| found.meta);
        }
        let strip = match (path, contents) {
            (Some(_), _) if begin.flags.sync => None,
            (Some(path), false) => path.parent(),
            (path, _) => path.clone(),
        };
        trees.push(SourceTree {
            start: path.clone(),
            strip,
            is_single: begin.flags.sync,
            ..SourceTree::whole(Rc::clone(root))
        });
    }
    if trees.is_empty() && !missing.is_empty() && !begin.flags.sync {
        return Err(Fault::new(CloseCode::NotFound, "none of the paths is in the share"));
    }
    let alone = begin.sources.len() == 1;
    let plan = SendingPlan {
        trees,
        filter,
        checksum: begin.flags.checksum,
        features,
        deltas: Rc::clone(&place.deltas),
        resumes: Rc::clone(&place.resumes),
        top: top.filter(|_| alone),
        complete: missing.is_empty(),
        missing,
        selected: None,
    };
    Ok((
        Transfer::Sending(Box::new(Sending::new(plan))),
        if alone { kind } else { TargetKind::Directory },
    ))
}

fn brake_of(brake: Brake) -> MaxDelete {
    match brake {
        Brake::Default => MaxDelete::Default,
        Brake::Count(count) => MaxDelete::Count(count),
        Brake::Percent(percent) => MaxDelete::Percent(percent),
        Brake::Unlimited => MaxDelete::Unlimited,
    }
}

pub(super) fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}
