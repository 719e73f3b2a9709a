//! `syncline doctor [DIR]…`: looks for what could get in the way on this machine, and says the fix.
//! Never changes a setting; writes only into a directory of its own inside the state directory, and with
//! `--repair` damaged journals.

use super::address;
use super::complaint::{Complaint, reason};
use super::console::Console;
use super::exit::Exit;
use super::quantity;
use super::report::plain;
use super::scratch::Scratch;
use super::session::{Ending, Session};
use clap::Args;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::store::{Home, RunningServer};

mod journals;
mod names;

use journals::Mending;

/// The flags and operands of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Folders that are, or will be, shared
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// The address that a server would listen on
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:7171",
        value_delimiter = ','
    )]
    listen: Vec<String>,
    /// Mend damaged journals, of the folders and of the state directory; the damaged ones are kept
    #[arg(long)]
    repair: bool,
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: String,
    verdict: Verdict,
    text: String,
    /// What to do about it; empty when all is well.
    fix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn ok(check: &str, text: impl Into<String>) -> Finding {
        Finding {
            check: check.to_owned(),
            verdict: Verdict::Ok,
            text: text.into(),
            fix: String::new(),
        }
    }

    fn warn(check: &str, text: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            check: check.to_owned(),
            verdict: Verdict::Warn,
            text: text.into(),
            fix: fix.into(),
        }
    }

    fn fail(check: &str, text: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            check: check.to_owned(),
            verdict: Verdict::Fail,
            text: text.into(),
            fix: fix.into(),
        }
    }
}

/// Runs the command. A failed check is exit code 1; warnings alone are 0.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let listen = flags
        .listen
        .iter()
        .map(|text| address::parse_listen(text))
        .collect::<Result<Vec<_>, _>>()?;
    let path = session.home_path()?;
    let mending = if flags.repair { Mending::Repair } else { Mending::Look };
    let mut findings = Vec::new();
    let mut running = Vec::new();
    match Home::open(&path) {
        Ok(home) => {
            running = home.running();
            findings.extend(state(&home, &path));
            findings.push(space(&path));
            findings.extend(system_calls(home.path()));
            findings.extend(journals::of_home(&home, mending));
        }
        Err(error) => findings.push(Finding::fail(
            "state",
            plain(&error.to_string()),
            "correct that, or use --home DIR",
        )),
    }
    for folder in &flags.folders {
        findings.extend(look_at_folder(folder));
        findings.extend(journals::of_folder(folder, mending));
    }
    findings.extend(listen.iter().map(|&address| port(address, &running)));
    findings.push(clock(SystemTime::now()));
    findings.push(descriptors(getrlimit(Resource::Nofile).current));
    findings.push(hashing(has_sha()));
    findings.iter().for_each(|finding| tell(&session.console, finding));
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(Ending::of(if failed { Exit::Error } else { Exit::Done }))
}

/// What the engine would stumble over: who may come in, and who this device is.
fn state(home: &Home, path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = home.trust().devices() {
        let fix = "restore trust.json from a backup, or move it away and pair all devices again";
        findings.push(Finding::fail("trust", plain(&error.to_string()), fix));
    }
    #[cfg(feature = "tls")]
    if let Err(error) = syncline::node::stored_device(home) {
        let fix = "restore device.key and device.crt from a backup, or move both away and pair again";
        findings.push(Finding::fail("key", plain(&error), fix));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("state", format!("{} is usable", show(path))));
    }
    findings
}

fn tell(console: &Console, finding: &Finding) {
    let (verdict, name) = match finding.verdict {
        Verdict::Ok => (console.green("ok  "), "ok"),
        Verdict::Warn => (console.yellow("warn"), "warn"),
        Verdict::Fail => (console.red("fail"), "fail"),
    };
    console.data(&format!("{verdict}  {}: {}", finding.check, finding.text));
    if !finding.fix.is_empty() {
        console.data(&format!("      {}", finding.fix));
    }
    console.object(&json!({
        "event": "item", "check": finding.check, "result": name, "text": finding.text, "fix": finding.fix,
    }));
}

fn show(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

fn look_at_folder(folder: &Path) -> Vec<Finding> {
    let name = show(folder);
    if !folder.is_dir() {
        return vec![Finding::fail(
            "folder",
            format!("{name} is no directory that I can see"),
            "check the name and the permissions above it",
        )];
    }
    let access = rustix::fs::access(
        folder,
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    );
    let access = match access {
        Ok(()) => Finding::ok("folder", format!("{name} can be read and written")),
        Err(error) => Finding::warn(
            "folder",
            format!("{name} cannot be read and written: {}", reason(&error.into())),
            format!("as its owner: chmod u+rwx '{name}'; reading alone is enough to share it read-only"),
        ),
    };
    [access, space(folder)].into_iter().chain(names::look(folder)).collect()
}

/// Below this no transfer gets anywhere.
const SPACE_FAIL_BYTES: u64 = 64 << 20;
/// Below this the next large file may fill the disk.
const SPACE_WARN_BYTES: u64 = 1 << 30;

fn space(path: &Path) -> Finding {
    match rustix::fs::statvfs(path) {
        Ok(facts) => judge_space(path, facts.f_bavail.saturating_mul(facts.f_frsize)),
        Err(error) => {
            let text = format!("of {} is unknown: {}", show(path), reason(&error.into()));
            Finding::warn("free space", text, "check the mount")
        }
    }
}

fn judge_space(path: &Path, free: u64) -> Finding {
    let check = "free space";
    let text = format!("{} at {}", quantity::size(free), show(path));
    let fix = "free some space, or use another disk";
    match free {
        ..SPACE_FAIL_BYTES => Finding::fail(check, text, fix),
        SPACE_FAIL_BYTES..SPACE_WARN_BYTES => Finding::warn(check, text, fix),
        SPACE_WARN_BYTES.. => Finding::ok(check, text),
    }
}

fn port(address: SocketAddr, running: &[RunningServer]) -> Finding {
    let check = "port";
    let own = |server: &&RunningServer| server.listen.iter().any(|listen| listen.port() == address.port());
    if let (true, Some(server)) = (address.port() != 0, running.iter().find(own)) {
        return Finding::ok(
            check,
            format!("{address} is served by syncline, process {}", server.pid),
        );
    }
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(
            check,
            format!("{address} is free; others reach it as {}", address::reachable(address)),
        ),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::warn(
            check,
            format!("{address} is in use by another program"),
            format!(
                "find it with `ss -ltnp 'sport = :{}'`, or serve with another --listen",
                address.port()
            ),
        ),
        Err(error) => Finding::fail(
            check,
            format!("{address} cannot be used: {}", reason(&error)),
            "serve with another --listen",
        ),
    }
}

/// 2025-01-01, before the first release.
const CLOCK_SECONDS_MIN: u64 = 1_735_689_600;
/// 2100-01-01.
const CLOCK_SECONDS_MAX: u64 = 4_102_444_800;

fn clock(now: SystemTime) -> Finding {
    let fix = "set the clock (timedatectl set-ntp true); invites and file times depend on it";
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    match since {
        ..CLOCK_SECONDS_MIN => Finding::warn("clock", "it says a time before 2025", fix),
        CLOCK_SECONDS_MIN..CLOCK_SECONDS_MAX => Finding::ok("clock", "it says a plausible time"),
        CLOCK_SECONDS_MAX.. => Finding::warn("clock", "it says a time after 2100", fix),
    }
}

/// Room for a few hundred connections beside the files of their transfers.
const DESCRIPTORS_MIN: u64 = 1024;

fn descriptors(limit: Option<u64>) -> Finding {
    let check = "descriptors";
    match limit {
        None => Finding::ok(check, "no limit on open files"),
        Some(limit) if limit >= DESCRIPTORS_MIN => {
            Finding::ok(check, format!("{} files may be open", quantity::count(limit)))
        }
        Some(limit) => Finding::warn(
            check,
            format!("only {} files may be open", quantity::count(limit)),
            "raise it: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit",
        ),
    }
}

/// Whether the kernel and the file system of the state directory do what confinement and atomic
/// replacement need.
fn system_calls(home: &Path) -> Vec<Finding> {
    let scratch = match Scratch::create(home, "doctor-") {
        Ok(scratch) => scratch,
        Err(error) => {
            let text = format!("cannot write to {}: {}", show(home), reason(&error));
            return vec![Finding::fail(
                "state",
                text,
                "check its owner and mode, or use --home DIR",
            )];
        }
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::fs::openat2(
        CWD,
        scratch.path(),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )
    .and_then(|root| rustix::fs::openat2(&root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve));
    let confinement = match opened {
        Ok(_) => Finding::ok("openat2", "paths can be confined to a share"),
        Err(error) => Finding::fail(
            "openat2",
            format!("paths cannot be confined to a share: {}", reason(&error.into())),
            "use Linux 5.6 or later, and allow openat2 in the container's seccomp profile",
        ),
    };
    let exchange = match exchange(scratch.path()) {
        Ok(()) => Finding::ok("renameat2", "files can be replaced atomically"),
        Err(error) => Finding::fail(
            "renameat2",
            format!("files cannot be exchanged atomically: {}", reason(&error)),
            "use a file system such as ext4, XFS or Btrfs, on Linux 3.15 or later",
        ),
    };
    vec![confinement, exchange]
}

fn exchange(folder: &Path) -> io::Result<()> {
    let (one, two) = (folder.join("one"), folder.join("two"));
    std::fs::write(&one, "1")?;
    std::fs::write(&two, "2")?;
    rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)?;
    let third = folder.join("three");
    rustix::fs::renameat_with(CWD, &one, CWD, &third, RenameFlags::NOREPLACE)?;
    Ok(())
}

fn hashing(has_sha: Option<bool>) -> Finding {
    match has_sha {
        Some(true) => Finding::ok("processor", "it has SHA-256 instructions"),
        Some(false) => Finding::warn(
            "processor",
            "it has no SHA-256 instructions, so hashing is several times slower",
            "nothing to fix; in a virtual machine, pass the host's processor through",
        ),
        None => Finding::ok("processor", "not an x86-64 or ARM64 one; hashing is portable code"),
    }
}

fn has_sha() -> Option<bool> {
    #[cfg(target_arch = "x86_64")]
    return Some(std::is_x86_feature_detected!("sha"));
    #[cfg(target_arch = "aarch64")]
    return Some(std::arch::is_aarch64_feature_detected!("sha2"));
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    None
}

#[cfg(test)]
mod tests {
    use super::super::console::{Format, Verbosity, capture};
    use super::*;

    #[test]
    fn every_warning_and_failure_says_the_fix() {
        let path = Path::new("/x");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        let findings = [
            (judge_space(path, 1), Verdict::Fail),
            (judge_space(path, SPACE_FAIL_BYTES), Verdict::Warn),
            (judge_space(path, SPACE_WARN_BYTES), Verdict::Ok),
            (clock(UNIX_EPOCH), Verdict::Warn),
            (clock(UNIX_EPOCH - Duration::from_secs(1)), Verdict::Warn),
            (clock(UNIX_EPOCH + Duration::from_secs(CLOCK_SECONDS_MIN)), Verdict::Ok),
            (
                clock(UNIX_EPOCH + Duration::from_secs(CLOCK_SECONDS_MAX)),
                Verdict::Warn,
            ),
            (descriptors(Some(256)), Verdict::Warn),
            (descriptors(None), Verdict::Ok),
            (hashing(Some(false)), Verdict::Warn),
            (port(taken, &[]), Verdict::Warn),
            (look_at_folder(Path::new("/nonexistent")).remove(0), Verdict::Fail),
        ];
        for (finding, verdict) in findings {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.fix.is_empty(), verdict == Verdict::Ok, "{finding:?}");
        }
    }

    #[test]
    fn a_port_of_our_own_server_is_no_problem() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = RunningServer {
            pid: 7,
            listen: vec![address],
            plain: false,
            device: None,
            shares: Vec::new(),
        };
        assert_eq!(port(address, &[server]).verdict, Verdict::Ok);
    }

    /// A state directory that a server could not start with is not called usable, and no key is made.
    #[test]
    fn damaged_trust_and_keys_are_found_with_their_fix() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::open(place.path()).unwrap();
        let failed = |home: &Home| -> Vec<String> {
            let findings = state(home, place.path());
            let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail);
            failed
                .map(|finding| format!("{}: {}", finding.check, finding.fix))
                .collect()
        };
        assert!(failed(&home).is_empty());
        assert!(!place.path().join("device.key").exists());
        std::fs::write(place.path().join("trust.json"), "{damaged").unwrap();
        let found = failed(&Home::open(place.path()).unwrap());
        assert!(found[0].contains("restore trust.json"), "{found:?}");
        if cfg!(feature = "tls") {
            use std::os::unix::fs::PermissionsExt;
            for name in ["device.key", "device.crt"] {
                let path = place.path().join(name);
                std::fs::write(&path, "damaged").unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
            let found = failed(&Home::open(place.path()).unwrap());
            assert!(found.len() == 2 && found[1].contains("restore device.key"), "{found:?}");
        }
    }

    #[test]
    fn a_look_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let (console, out, _) = capture::console(Format::Json, Verbosity::Normal);
        let session = Session::new(console, Some(home.path().to_owned()));
        let flags = Flags {
            folders: vec![home.path().to_owned()],
            repair: false,
            listen: vec!["127.0.0.1:0".to_owned()],
        };
        run(&session, &flags).unwrap();
        let left = std::fs::read_dir(home.path()).unwrap().filter_map(Result::ok);
        assert!(
            left.into_iter()
                .all(|entry| !entry.file_name().to_string_lossy().starts_with("doctor-"))
        );
        for line in out.text().lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["event"], "item", "{line}");
        }
    }
}
