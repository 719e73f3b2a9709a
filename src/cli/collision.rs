//! Names that have no place on one side of a sync: in words, for people and for scripts.
//! Never finds out which these are.

use super::report::path_fields;
use serde_json::{Value, json};
use syncline::model::RelPath;

/// `d/b stays on the server only: to this file system its name and d/B are one; rename one of them`.
pub(crate) fn text(path: &RelPath, with: Option<&RelPath>, is_here: bool) -> String {
    match (is_here, with) {
        (true, Some(with)) => {
            format!(
                "{path} stays on the server only: to this file system its name and {with} are one; rename one of them"
            )
        }
        (true, None) => {
            format!("{path} stays on the server only: to this file system its name is another one's; rename it")
        }
        (false, _) => {
            format!("{path} stays here only: to the server's file system its name is another one's; rename it")
        }
    }
}

/// The same as an object.
pub(crate) fn object(path: &RelPath, with: Option<&RelPath>, is_here: bool) -> Value {
    let mut object = path_fields(path.as_bytes());
    let fields = json!({
        "event": "status", "state": "collision", "with": with.map(ToString::to_string),
        "missing": if is_here { "here" } else { "server" },
    });
    object.extend(fields.as_object().cloned().unwrap_or_default());
    Value::Object(object)
}
