//! `syncline revoke DEVICE`: takes a device's rights away, for one share or for all.
//! Never guesses: a text that fits two devices revokes none.

use super::complaint::Complaint;
use super::exit::Exit;
use super::report::plain;
use super::session::{Ending, Session};
use clap::Args;
use serde_json::json;
use syncline::model::ShareName;
use syncline::store::Device;

/// The flags and operands of `revoke`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline revoke 4XQ7-M2KD                by the id that `syncline devices` shows
  syncline revoke laptop --share Films     by name, for one share

A running server notices at once.")]
pub(crate) struct Flags {
    /// The device: its name, its id or the beginning of it
    device: String,
    /// Only for this share
    #[arg(long)]
    share: Option<String>,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let home = session.home()?;
    let trust = home.trust();
    let devices = trust.devices()?;
    let device = find(&devices, &flags.device)?;
    let share = match &flags.share {
        Some(name) => Some(share_of(device, name)?),
        None => None,
    };
    let revoked = trust.revoke(&device.id, share)?;
    let name = plain(&device.name);
    if !revoked {
        let what = format!("{name} ({}) had no rights to take away", device.id.short());
        return Err(Complaint::new(
            Exit::TargetMissing,
            what,
            "`syncline devices` lists what is there",
        ));
    }
    let scope = share.map_or_else(|| "everything".to_owned(), |share| format!("\"{share}\""));
    session.console.note(&format!(
        "{name} ({}) has lost its rights to {scope}",
        device.id.short()
    ));
    session.console.object(&json!({
        "event": "item", "revoked": device.id.to_string(), "name": device.name,
        "share": share.map(ShareName::as_str),
    }));
    Ok(Ending::of(Exit::Done))
}

/// Fewer characters than this are more likely a slip than an id.
const PREFIX_CHARS_MIN: usize = 3;

/// The one device that `text` fits: a full id, a name, or the beginning of an id in either spelling.
pub(super) fn find<'d>(devices: &'d [Device], text: &str) -> Result<&'d Device, Complaint> {
    // A full id is unmistakable, whatever another device may call itself.
    if let Some(device) = devices
        .iter()
        .find(|device| device.id.to_string().eq_ignore_ascii_case(text))
    {
        return Ok(device);
    }
    let fitting: Vec<_> = devices.iter().filter(|device| fits(device, text)).collect();
    match fitting.as_slice() {
        [device] => Ok(device),
        [] => {
            let what = format!(
                "no paired device is called \"{}\" or has an id that begins so",
                plain(text)
            );
            Err(Complaint::new(
                Exit::TargetMissing,
                what,
                "`syncline devices` lists them",
            ))
        }
        several => {
            let ids: Vec<_> = several.iter().map(|device| unmistakable(devices, device)).collect();
            let what = format!(
                "\"{}\" fits {} devices, so nothing was done",
                plain(text),
                several.len()
            );
            Err(Complaint::usage(what, format!("use an id: {}", ids.join(" or "))))
        }
    }
}

/// The short id, as `syncline devices` shows it; the full one where the short one fits another device too.
fn unmistakable(devices: &[Device], device: &Device) -> String {
    let short = device.id.short();
    let fitting = devices.iter().filter(|other| fits(other, &short)).count();
    if fitting == 1 { short } else { device.id.to_string() }
}

fn fits(device: &Device, text: &str) -> bool {
    let bare = |text: &str| text.replace('-', "").to_ascii_lowercase();
    let (short, hex, wanted) = (bare(&device.id.short()), device.id.to_string(), bare(text));
    let begins = wanted.len() >= PREFIX_CHARS_MIN && (short.starts_with(&wanted) || hex.starts_with(&wanted));
    device.name == text || begins
}

fn share_of<'d>(device: &'d Device, name: &str) -> Result<&'d ShareName, Complaint> {
    let found = device.shares.iter().find(|(share, _)| share.as_str() == name);
    found.map(|(share, _)| share).ok_or_else(|| {
        let what = format!("{} has no rights to \"{}\"", plain(&device.name), plain(name));
        Complaint::new(Exit::TargetMissing, what, "`syncline devices` lists what it has")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline::model::{DeviceId, Rights};

    fn device(first: u8, name: &str) -> Device {
        let mut id = [0xff; 32];
        id[0] = first;
        let shares = vec![(ShareName::parse("Films").unwrap(), Rights::READ)];
        Device {
            id: DeviceId(id),
            name: name.to_owned(),
            shares,
            paired_at: 0,
            last_seen: None,
        }
    }

    #[test]
    fn names_and_both_spellings_of_an_id_find_a_device() {
        let devices = [device(0x10, "laptop"), device(0x20, "phone")];
        let full = devices[1].id.to_string();
        let short = devices[1].id.short();
        for text in [
            "phone",
            &full,
            &full.to_uppercase(),
            &full[..6],
            &short,
            &short[..6],
            &short.to_lowercase().replace('-', ""),
        ] {
            assert_eq!(find(&devices, text).unwrap().name, "phone", "{text}");
        }
        assert_eq!(find(&devices, "tablet").unwrap_err().exit.code(), 10);
        assert_eq!(find(&devices, "").unwrap_err().exit.code(), 10);
    }

    #[test]
    fn an_ambiguous_text_revokes_nobody_and_a_name_cannot_hide_a_device() {
        let devices = [device(0x10, "phone"), device(0x20, "phone")];
        let complaint = find(&devices, "phone").unwrap_err();
        assert_eq!(complaint.exit.code(), 2);
        for device in &devices {
            assert!(complaint.advice.contains(&device.id.short()), "{}", complaint.advice);
            assert!(!complaint.advice.contains(&device.id.to_string()));
            assert_eq!(find(&devices, &device.id.short()).unwrap().id, device.id);
        }
        // The second calls itself as the first's id: the short form then fits both, the full one still works.
        let first = device(0x10, "laptop");
        let impostor = device(0x20, &first.id.short());
        let devices = [first, impostor];
        let complaint = find(&devices, &devices[0].id.short()).unwrap_err();
        assert!(complaint.advice.contains(&devices[0].id.to_string()));
        assert_eq!(find(&devices, &devices[0].id.to_string()).unwrap().name, "laptop");
    }

    #[test]
    fn a_share_that_the_device_does_not_have_is_an_error() {
        let device = device(1, "a");
        assert!(share_of(&device, "Films").is_ok());
        assert_eq!(share_of(&device, "Music").unwrap_err().exit.code(), 10);
    }
}
