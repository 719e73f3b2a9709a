//! `syncline invite [DIR|SHARE]`: a link that lets one more device in, once.
//! Never talks to the server: the invite goes into the state directory that both share.

use super::address;
use super::complaint::Complaint;
use super::exit::Exit;
use super::push::show;
use super::quantity;
use super::report::plain;
use super::session::{Ending, Session};
use clap::Args;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};
use syncline::model::{DeviceId, Link, LinkSecret, Rights, ShareName};
use syncline::store::{Home, RunningServer};

/// The flags and operands of `invite`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline invite                             to the one share that is served here
  syncline invite Films --read-only           fetching only
  syncline invite ~/Share --expires 2h        more time to use it
  syncline invite Films --address nas.example.org:7171   as seen from elsewhere, also while nothing is served

A link works for one device and once; until then, whoever has it can come in.")]
pub(crate) struct Flags {
    /// The share, by its name or its folder [default: the only one]
    #[arg(value_name = "DIR|SHARE")]
    share: Option<OsString>,
    /// May fetch, but not change anything
    #[arg(long)]
    read_only: bool,
    /// How long the link holds
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = quantity::parse_duration)]
    expires: Duration,
    /// The address to write into the link
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let home = session.home()?;
    let place = find(&home, flags)?;
    let rights = if flags.read_only {
        Rights::READ
    } else {
        Rights::READ_WRITE
    };
    let invite = home
        .trust()
        .invite(&place.share, rights, flags.expires, SystemTime::now())?;
    let secret = LinkSecret {
        server: place.device,
        invite: Some(invite),
    };
    let link = Link {
        secret: Some(secret),
        ..place.link
    }
    .to_string();
    let share = &place.share;
    let valid = quantity::duration(flags.expires);
    session.console.note(&format!(
        "Lets one device into \"{share}\" ({rights}), once, within {valid}:"
    ));
    session.console.data(&link);
    session.console.object(&json!({
        "event": "item", "share": share.as_str(), "invite": link, "rights": rights.to_string(),
        "expires_seconds": flags.expires.as_secs(),
    }));
    Ok(Ending::of(Exit::Done))
}

struct Place {
    share: ShareName,
    device: DeviceId,
    link: Link,
}

fn find(home: &Home, flags: &Flags) -> Result<Place, Complaint> {
    let wanted = flags.share.as_deref();
    let running = home.running();
    let found = match (choose(&running, wanted), &flags.address) {
        (Err(_), Some(_)) if running.is_empty() => return while_stopped(home, flags),
        (found, _) => found?,
    };
    let (server, share) = found;
    let Some(device) = server.device else {
        let what = format!("\"{share}\" is served with --plain, which cannot tell who connects");
        return Err(Complaint::new(
            Exit::Error,
            what,
            "hand out its address, or serve it without --plain",
        ));
    };
    let link = match &flags.address {
        Some(text) => link_to(text, share)?,
        None => {
            let at = address::for_links(&server.listen);
            let at =
                at.ok_or_else(|| Complaint::new(Exit::Error, "the server listens nowhere", "use --address HOST:PORT"))?;
            address::link(at, share, None, None)
        }
    };
    Ok(Place {
        share: share.clone(),
        device,
        link,
    })
}

/// The server and share that were meant, among those that run.
fn choose<'r>(
    running: &'r [RunningServer],
    wanted: Option<&OsStr>,
) -> Result<(&'r RunningServer, &'r ShareName), Complaint> {
    let all = running
        .iter()
        .flat_map(|server| server.shares.iter().map(move |(name, path)| (server, name, path)));
    let full = wanted.and_then(|wanted| Path::new(wanted).canonicalize().ok());
    let fits = |name: &ShareName, path: &Path| match wanted {
        None => true,
        Some(wanted) => wanted == name.as_str() || full.as_deref().is_some_and(|full| same_folder(full, path)),
    };
    let mut fitting: Vec<_> = all
        .filter(|(_, name, path)| fits(name, path))
        .map(|(server, name, _)| (server, name))
        .collect();
    match (fitting.len(), wanted) {
        (1, _) => Ok(fitting.remove(0)),
        (0, _) if running.is_empty() => {
            let advice = "start one with `syncline serve DIR`; it prints an invite, too";
            Err(Complaint::new(
                Exit::Error,
                "no server runs here with this state directory",
                advice,
            ))
        }
        (0, None) => Err(Complaint::new(
            Exit::Error,
            "nothing is served here",
            "`syncline serve DIR`",
        )),
        (0, Some(wanted)) => {
            let what = format!("{} is not served here; what is: {}", show(wanted), names(running));
            Err(Complaint::new(Exit::TargetMissing, what, "name one of them"))
        }
        (_, None) => {
            let what = format!("several shares are served here: {}", names(running));
            Err(Complaint::usage(what, "name one of them: syncline invite SHARE"))
        }
        (_, Some(wanted)) => {
            let what = format!("{} is served more than once", show(wanted));
            Err(Complaint::usage(what, "name its folder: syncline invite DIR"))
        }
    }
}

fn same_folder(full: &Path, path: &Path) -> bool {
    path == full || path.canonicalize().is_ok_and(|path| path == full)
}

fn names(running: &[RunningServer]) -> String {
    let all = running.iter().flat_map(|server| &server.shares);
    all.map(|(name, _)| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The link to a share at an address that the user wrote.
fn link_to(text: &str, share: &ShareName) -> Result<Link, Complaint> {
    let shown = plain(text);
    let bad = || {
        Complaint::usage(
            format!("{shown:?} is no HOST:PORT"),
            "such as --address nas.example.org:7171",
        )
    };
    let authority = match text.parse::<SocketAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => text.to_owned(),
    };
    if authority.contains(['/', '#', '?']) {
        return Err(bad());
    }
    let blank = Link {
        host: String::new(),
        port: 1,
        share: share.clone(),
        path: None,
        trailing_slash: false,
        secret: None,
    };
    let parsed: Link = format!("syncline://{authority}/x").parse().map_err(|_| bad())?;
    Ok(Link {
        host: parsed.host,
        port: parsed.port,
        ..blank
    })
}

/// An invite to a share that is not served at the moment: its name and address must be given.
fn while_stopped(home: &Home, flags: &Flags) -> Result<Place, Complaint> {
    let advice = "start the server first, or name both: syncline invite SHARE --address HOST:PORT";
    let name = flags
        .share
        .as_deref()
        .and_then(|name| Path::new(name).file_name())
        .and_then(OsStr::to_str);
    let name = name.ok_or_else(|| Complaint::usage("no server runs here, and no share is named", advice))?;
    let share = ShareName::parse(name)
        .map_err(|error| Complaint::usage(format!("{:?} cannot name a share: {error}", plain(name)), advice))?;
    let address = flags.address.as_deref().unwrap_or_default();
    Ok(Place {
        link: link_to(address, &share)?,
        share,
        device: own_device(home)?,
    })
}

/// This machine's device id, from the certificate that its server made at first use.
#[cfg(feature = "tls")]
fn own_device(home: &Home) -> Result<DeviceId, Complaint> {
    use sha2::{Digest, Sha256};
    let none = || {
        Complaint::new(
            Exit::Error,
            "this machine has no key yet",
            "run `syncline serve` once, it makes one",
        )
    };
    let mut refuse = || Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    let (certificate, _) = home.identity_or_create(&mut refuse).map_err(|_| none())?;
    let certificate = rustls::pki_types::CertificateDer::from(certificate);
    let parsed = webpki::EndEntityCert::try_from(&certificate).map_err(|_| none())?;
    Ok(DeviceId(Sha256::digest(parsed.subject_public_key_info()).into()))
}

#[cfg(not(feature = "tls"))]
fn own_device(_: &Home) -> Result<DeviceId, Complaint> {
    Err(Complaint::usage(
        "this syncline was built without TLS, so it has no invites",
        "use --plain with --open",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn server(shares: &[(&str, &str)]) -> RunningServer {
        let shares = shares
            .iter()
            .map(|(name, path)| (ShareName::parse(name).unwrap(), PathBuf::from(path)));
        RunningServer {
            pid: 1,
            listen: vec!["127.0.0.1:7171".parse().unwrap()],
            plain: false,
            device: Some(DeviceId([1; 32])),
            shares: shares.collect(),
        }
    }

    fn chosen(running: &[RunningServer], wanted: Option<&str>) -> Result<String, u8> {
        let found = choose(running, wanted.map(OsStr::new));
        found
            .map(|(_, name)| name.to_string())
            .map_err(|complaint| complaint.exit.code())
    }

    #[test]
    fn a_share_is_found_by_name_by_folder_or_because_it_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let running = [server(&[("Films", path), ("Music", "/nonexistent")])];
        assert_eq!(chosen(&running, Some("Music")), Ok("Music".to_owned()));
        assert_eq!(chosen(&running, Some(path)), Ok("Films".to_owned()));
        assert_eq!(chosen(&running, None), Err(2));
        assert_eq!(chosen(&running, Some("Other")), Err(10));
        assert_eq!(chosen(&running[..0], Some("Films")), Err(1));
        assert_eq!(chosen(&[server(&[("Films", "/x")])], None), Ok("Films".to_owned()));
        let twice = [server(&[("Films", "/x")]), server(&[("Films", "/y")])];
        assert_eq!(chosen(&twice, Some("Films")), Err(2));
    }

    #[test]
    fn the_address_of_the_link_can_be_set_and_hides_nothing_else() {
        let share = ShareName::parse("Films").unwrap();
        assert_eq!(
            link_to("nas.example.org:80", &share).unwrap().to_string(),
            "syncline://nas.example.org:80/Films"
        );
        assert_eq!(
            link_to("[::1]:80", &share).unwrap().to_string(),
            "syncline://[::1]:80/Films"
        );
        for bad in ["", "nas:x", "nas:0", "nas/evil", "a#b", "nas:1/x"] {
            assert!(link_to(bad, &share).is_err(), "{bad}");
        }
    }
}
