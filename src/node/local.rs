//! Local ends of a client's job: which trees a push reads, and where a pull puts things.
//!
//! The rules are rsync's: a directory with a trailing slash means its contents, without one the
//! directory itself; a single file may get a new name. What was decided is told as [`Mapping`]s.

use super::agreement::{Agreement, Scope};
use super::events::JobError;
use super::options::{Durability, Mapping, Source};
use super::place::Place;
use super::source_tree::SourceTree;
use crate::model::{Entry, ItemCode, Kind, Link, Meta, RelPath, escape, system_reason};
use crate::store::{Filter, FoundKind, Root, inspect};
use crate::wire::{PullSource, TargetKind};
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The sources of a push, looked at.
pub(crate) struct Sources {
    found: Vec<FoundSource>,
    /// Those of several that cannot be read, as given.
    missing: Vec<(Vec<u8>, ItemCode)>,
}

struct FoundSource {
    given: String,
    root: Rc<Root>,
    /// The file in `root`, or nothing for a directory.
    file: Option<RelPath>,
    /// The name that it has at the receiver; `None` for contents only.
    name: Option<RelPath>,
    meta: Meta,
}

/// A push, ready to go.
pub(crate) struct PushPlan {
    pub(crate) trees: Vec<SourceTree>,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) top: Option<Meta>,
    /// Sources that cannot be read, as given; the others go.
    pub(crate) missing: Vec<(Vec<u8>, ItemCode)>,
}

impl Sources {
    /// Opens every source. When none can be read, the first is the error.
    pub(crate) fn open(sources: &[Source]) -> Result<Sources, JobError> {
        let (mut found, mut missing, mut first) = (Vec::new(), Vec::new(), None);
        for source in sources {
            match open_source(source) {
                Ok(opened) => found.push(opened),
                Err(error) => {
                    missing.push((source.path.as_os_str().as_bytes().to_vec(), code_of(source)));
                    first = first.or(Some(error));
                }
            }
        }
        if let (true, Some(error)) = (found.is_empty(), first) {
            return Err(error);
        }
        refuse_duplicates(found.iter().filter_map(|source| source.name.clone()))?;
        Ok(Sources { found, missing })
    }

    /// The directories of the share that a deletion may touch.
    pub(crate) fn scopes(&self, link: &Link) -> Result<Vec<Option<RelPath>>, JobError> {
        let directories = self.found.iter().filter(|source| source.file.is_none());
        directories
            .map(|source| source.destination(link.path.as_ref()))
            .collect()
    }

    /// Decides where each source goes, now that it is known what stands at the target.
    pub(crate) fn plan(self, link: &Link, kind: TargetKind) -> Result<PushPlan, JobError> {
        let target = link.path.as_ref();
        let alone = self.found.len() + self.missing.len() == 1;
        let rename = alone && target.is_some() && !link.trailing_slash && kind != TargetKind::Directory;
        let into_directory = !(rename && self.found[0].file.is_some());
        if into_directory && matches!(kind, TargetKind::File | TargetKind::Other) {
            let path = target.map_or_else(|| link.share.to_string(), RelPath::to_string);
            return Err(JobError::Target {
                path,
                reason: "it is not a directory".to_owned(),
            });
        }
        let mut plan = PushPlan {
            trees: Vec::new(),
            mappings: Vec::new(),
            top: None,
            missing: self.missing,
        };
        for source in self.found {
            let destination = match (rename && source.file.is_some(), target) {
                (true, Some(target)) => Some(target.clone()),
                _ => source.destination(target)?,
            };
            let shown = destination.as_ref().map_or_else(String::new, |path| format!("/{path}"));
            let slash = if source.name.is_none() { "/" } else { "" };
            plan.mappings.push(Mapping {
                source: source.given.clone(),
                target: format!("{}{shown}{slash}", link.share),
                path: destination.clone(),
            });
            if alone && source.name.is_none() {
                plan.top = Some(source.meta);
            }
            plan.trees.push(source.into_tree(destination));
        }
        Ok(plan)
    }
}

impl FoundSource {
    fn destination(&self, target: Option<&RelPath>) -> Result<Option<RelPath>, JobError> {
        match &self.name {
            None => Ok(target.cloned()),
            Some(name) => name
                .below(target)
                .map(Some)
                .map_err(|error| source_error(&self.given, error)),
        }
    }

    fn into_tree(self, destination: Option<RelPath>) -> SourceTree {
        let whole = SourceTree::whole(self.root);
        match (self.file, self.name, destination) {
            (Some(file), _, renamed) => SourceTree {
                start: Some(file),
                renamed,
                ..whole
            },
            (None, None, prefix) => SourceTree { prefix, ..whole },
            (None, name, Some(path)) => {
                let top = Entry {
                    path: path.clone(),
                    kind: Kind::Directory,
                    meta: self.meta,
                };
                SourceTree {
                    prefix: Some(path),
                    name,
                    top: Some(top),
                    ..whole
                }
            }
            (None, name, None) => SourceTree { name, ..whole },
        }
    }
}

/// Refuses a second source of the same name: one of the two would end as a conflict copy of the other.
pub(crate) fn refuse_duplicates(names: impl Iterator<Item = RelPath>) -> Result<(), JobError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            let name = name.to_string();
            return Err(JobError::SameName { name });
        }
    }
    Ok(())
}

/// The names that the sources of a pull get.
pub(crate) fn pull_names(links: &[Link]) -> impl Iterator<Item = RelPath> {
    let named = links.iter().filter(|link| !link.trailing_slash);
    named.filter_map(|link| RelPath::parse(link.path.as_ref()?.name()).ok())
}

/// Why a source of several cannot be read.
fn code_of(source: &Source) -> ItemCode {
    match inspect(&source.path) {
        Err(error) => error.code(),
        Ok(facts) if facts.kind == FoundKind::Special => ItemCode::Special,
        Ok(_) => Root::open(&source.path).map_or_else(|error| error.code(), |_| ItemCode::Other),
    }
}

fn open_source(source: &Source) -> Result<FoundSource, JobError> {
    let given = escape(source.path.as_os_str().as_bytes());
    let facts = inspect(&source.path).map_err(|error| JobError::Source {
        path: given.clone(),
        reason: error.reason(),
    })?;
    let name = source.path.file_name().map(|name| RelPath::parse(name.as_bytes()));
    let name = name.transpose().map_err(|error| source_error(&given, error))?;
    let broken = |error: crate::store::FileError| JobError::Source {
        path: given.clone(),
        reason: error.reason(),
    };
    match facts.kind {
        FoundKind::Directory => {
            let root = Rc::new(Root::open(&source.path).map_err(broken)?);
            let name = if source.contents_only { None } else { name };
            Ok(FoundSource {
                given,
                root,
                file: None,
                name,
                meta: facts.meta,
            })
        }
        FoundKind::File { .. } => {
            // The file itself may be a link that the user named: what it leads to is meant.
            let real = std::fs::canonicalize(&source.path).map_err(|error| JobError::Source {
                path: given.clone(),
                reason: system_reason(&error),
            })?;
            let (Some(parent), Some(file)) = (real.parent(), real.file_name()) else {
                return Err(JobError::Source {
                    path: given,
                    reason: "it has no name".to_owned(),
                });
            };
            let root = Rc::new(Root::open(parent).map_err(broken)?);
            let file = RelPath::parse(file.as_bytes()).map_err(|error| source_error(&given, error))?;
            Ok(FoundSource {
                given,
                root,
                file: Some(file),
                name,
                meta: facts.meta,
            })
        }
        _ => Err(JobError::Source {
            path: given,
            reason: "it is neither a file nor a directory".to_owned(),
        }),
    }
}

fn source_error(given: &str, error: crate::model::PathError) -> JobError {
    JobError::Source {
        path: given.to_owned(),
        reason: format!("its name cannot be used: {error}"),
    }
}

/// Where a pull goes.
pub(crate) struct PullPlan {
    pub(crate) place: Place,
    pub(crate) agreement: Agreement,
    pub(crate) mappings: Vec<Mapping>,
    /// The directories that a deletion may touch.
    pub(crate) scopes: Vec<Option<RelPath>>,
}

/// What the server is asked for.
pub(crate) fn pull_sources(links: &[Link]) -> Vec<PullSource> {
    let source = |link: &Link| PullSource {
        path: link.path.clone(),
        contents_only: link.path.is_none() || link.trailing_slash,
    };
    links.iter().map(source).collect()
}

/// The wish of a user who pulls.
pub(crate) struct PullTarget<'a> {
    pub(crate) path: &'a Path,
    pub(crate) is_directory: bool,
    pub(crate) dry_run: bool,
    pub(crate) durability: Durability,
    /// An empty directory that stands for a target which a dry run must not make.
    pub(crate) nowhere: PathBuf,
}

impl PullTarget<'_> {
    /// Decides where things go; `kind` is what the only source is.
    pub(crate) fn plan(&self, links: &[Link], kind: TargetKind, filter: Filter) -> Result<PullPlan, JobError> {
        let shown = escape(self.path.as_os_str().as_bytes());
        let target_error = |reason: String| JobError::Target {
            path: shown.clone(),
            reason,
        };
        let here = std::fs::metadata(self.path).ok();
        let is_directory = here.as_ref().is_some_and(std::fs::Metadata::is_dir);
        let single_file = links.len() == 1 && kind == TargetKind::File;
        let only_name = links[0].path.as_ref().map(|path| path.name().to_vec());
        if let (true, Some(name), false) = (single_file, only_name, is_directory || self.is_directory) {
            return self.plan_renamed(&links[0], &name, filter);
        }
        if here.is_some() && !is_directory {
            return Err(target_error("it is a file, and a directory is needed".to_owned()));
        }
        let root = self
            .open(self.path, is_directory)
            .map_err(|error| target_error(error.reason()))?;
        let mut names = Vec::new();
        let mut scopes = Vec::new();
        let mut mappings = Vec::new();
        for (link, source) in links.iter().zip(pull_sources(links)) {
            let name = source
                .path
                .as_ref()
                .filter(|_| !source.contents_only)
                .map(|path| path.name().to_vec());
            let target = match &name {
                Some(name) => format!("{}/{}", shown.trim_end_matches('/'), escape(name)),
                None => format!("{}/", shown.trim_end_matches('/')),
            };
            mappings.push(Mapping {
                source: source_text(link),
                target,
                path: None,
            });
            let path = name.as_ref().and_then(|name| RelPath::parse(name).ok());
            if path.is_some() == name.is_some() && (links.len() > 1 || kind == TargetKind::Directory) {
                scopes.push(path);
            }
            names.push(name);
        }
        let given: Vec<Box<[u8]>> = names.iter().flatten().map(|name| name.as_slice().into()).collect();
        let scope = if given.len() == names.len() {
            Scope::Named(given.clone())
        } else {
            Scope::Below(None)
        };
        let place = self.place(root)?;
        Ok(PullPlan {
            place,
            agreement: Agreement::new(scope, filter).with_rules_for_the_sender(given),
            mappings,
            scopes,
        })
    }

    fn plan_renamed(&self, link: &Link, name: &[u8], filter: Filter) -> Result<PullPlan, JobError> {
        let shown = escape(self.path.as_os_str().as_bytes());
        let target_error = |reason: String| JobError::Target {
            path: shown.clone(),
            reason,
        };
        let file = self
            .path
            .file_name()
            .ok_or_else(|| target_error("it has no name".to_owned()))?;
        let local = RelPath::parse(file.as_bytes()).map_err(|error| target_error(error.to_string()))?;
        let offered = RelPath::parse(name).map_err(|error| target_error(error.to_string()))?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let root = self
            .open(parent, parent.is_dir())
            .map_err(|error| target_error(error.reason()))?;
        let mapping = Mapping {
            source: source_text(link),
            target: shown,
            path: None,
        };
        let agreement = Agreement::new(Scope::Renamed { offered, local }, filter);
        let place = self.place(root)?;
        Ok(PullPlan {
            place,
            agreement,
            mappings: vec![mapping],
            scopes: Vec::new(),
        })
    }

    /// The target as a place, without what a pull left there that was killed.
    fn place(&self, root: Root) -> Result<Place, JobError> {
        let place = Place::new(root, self.durability);
        if self.dry_run {
            return Ok(place);
        }
        // Before any content travels, and not for each file.
        place.root.check_writable().map_err(|error| JobError::Target {
            path: escape(self.path.as_os_str().as_bytes()),
            reason: error.reason(),
        })?;
        place.root.learn_folding();
        Ok(place)
    }

    fn open(&self, path: &Path, exists: bool) -> Result<Root, crate::store::FileError> {
        match (exists, self.dry_run) {
            (true, _) => Root::open(path),
            (false, true) => Root::create(&self.nowhere),
            (false, false) => Root::create(path),
        }
    }
}

fn source_text(link: &Link) -> String {
    let path = link.path.as_ref().map_or_else(String::new, |path| format!("/{path}"));
    let slash = if link.trailing_slash || link.path.is_none() {
        "/"
    } else {
        ""
    };
    format!("{}{path}{slash}", link.share)
}
