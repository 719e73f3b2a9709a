//! The names that are left out without anybody's rule: what systems and programs make for themselves.
//!
//! Only what nobody makes by intention, and what is of no use on another device. So neither `*~` nor `*.bak`,
//! `*.tmp`, `*.part` or `._*` are here: they may be all that is left of somebody's work. Sources: the default lists
//! of Nextcloud (`sync-exclude.lst`) and Dropbox, and what Syncthing and rclone name their temporary files.

/// In the syntax of a `.synclineignore`. A rule in such a file can bring any of them back.
pub(super) const LITTER: &[&str] = &[
    // macOS
    ".DS_Store",
    ".Spotlight-V100/",
    ".Trashes/",
    ".fseventsd/",
    ".TemporaryItems/",
    ".DocumentRevisions-V100/",
    // Windows
    "[Tt]humbs.db",
    "[Ee]hthumbs.db",
    "[Dd]esktop.ini",
    "$RECYCLE.BIN/",
    "System Volume Information/",
    // Linux: the trash of a volume, what fsck finds, files that are removed while they are open
    ".Trash-[0-9]*/",
    "/lost+found/",
    ".nfs0000*",
    ".fuse_hidden*",
    // Locks and swap files of programs that run
    ".~lock.*#",
    "~$*.doc*",
    "~$*.xls*",
    "~$*.ppt*",
    ".*.sw[opx]",
    // What other programs that sync keep for themselves
    ".dropbox.cache/",
    ".dropbox.attr",
    ".syncthing.*.tmp",
    "~syncthing~*.tmp",
];

/// Of these the files that go with a directory that is deleted, whatever the case of their letters.
pub(super) const DISPOSABLE: &[&[u8]] = &[b".DS_Store", b"Thumbs.db", b"ehthumbs.db", b"desktop.ini"];
