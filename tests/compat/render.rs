//! Messages of a server as text: one line for a reply, one per row for a console's table.

use crate::fixture::Table;
use crate::normal::{self, Names};
use crate::proto::{Frame, Reply};

/// One message in a word.
pub fn frame(frame: &Frame) -> String {
    let tag = char::from(frame.tag);
    match frame.tag {
        b'E' | b'N' => format!("{tag}({})", fields(frame)),
        b'C' => format!("C({})", frame.texts()[0]),
        b'Z' => format!("Z({})", frame.body.escape_ascii()),
        b'S' => {
            let (name, value) = frame.parameter();
            format!("S({name}={})", parameter(&name, &value))
        }
        b'K' => format!("K({} bytes)", frame.body.len()),
        b'R' => authentication(frame),
        b'T' => format!("T({})", columns(frame)),
        b'D' => format!("D({})", row(frame).join("|")),
        b't' | b'G' | b'H' | b'W' => format!("{tag}({})", crate::proto_hex(&frame.body)),
        b'd' => format!("d({})", frame.body.escape_ascii()),
        b'v' => format!("v({})", frame.body.escape_ascii()),
        _ if frame.body.is_empty() => tag.to_string(),
        _ => format!("{tag}({})", frame.body.escape_ascii()),
    }
}

fn parameter<'a>(name: &str, value: &'a str) -> &'a str {
    // The version of whatever PostgreSQL the tests have found.
    if name == "server_version" && value.contains('.') && !value.contains("bouncer") {
        "#"
    } else {
        value
    }
}

fn authentication(frame: &Frame) -> String {
    match frame.int() {
        0 => "R(ok)".to_string(),
        3 => "R(cleartext)".to_string(),
        5 => "R(md5)".to_string(),
        10 => format!(
            "R(sasl {})",
            frame.body[4..]
                .escape_ascii()
                .to_string()
                .replace("\\x00", " ")
                .trim()
        ),
        11 => "R(sasl continue)".to_string(),
        12 => "R(sasl final)".to_string(),
        other => format!("R({other})"),
    }
}

/// Severity, SQLSTATE and text, then the other fields; not where in PostgreSQL's source it was raised.
pub fn fields(frame: &Frame) -> String {
    let all = frame.fields();
    let get = |code| {
        all.iter()
            .find(|(c, _)| *c == code)
            .map_or("-", |(_, t)| t.as_str())
    };
    let mut text = format!("{} {} {}", get(b'S'), get(b'C'), get(b'M'));
    for (code, value) in &all {
        if !b"SCMFLR".contains(code) {
            text.push_str(&format!(" {}={value}", char::from(*code)));
        }
    }
    text.replace('\n', "\\n").replace('\t', "\\t")
}

fn columns(frame: &Frame) -> String {
    let reply = Reply {
        frames: vec![frame.clone()],
    };
    let columns: Vec<String> = reply
        .columns()
        .iter()
        .map(|(name, oid)| format!("{name}:{oid}"))
        .collect();
    columns.join(" ")
}

fn row(frame: &Frame) -> Vec<String> {
    let reply = Reply {
        frames: vec![frame.clone()],
    };
    let row = reply.rows().remove(0);
    row.into_iter()
        .map(|v| v.map_or("NULL".to_string(), |v| v.escape_debug().to_string()))
        .collect()
}

/// A reply in one line. The order of neighbouring ParameterStatus means nothing.
pub fn frames(all: &[Frame]) -> String {
    let mut words: Vec<String> = Vec::new();
    for same in all.chunk_by(|a, b| a.is(b'S') && b.is(b'S')) {
        let mut run: Vec<String> = same.iter().map(frame).collect();
        run.sort();
        words.extend(run);
    }
    words.join(" ")
}

/// What of a console's table is shown.
#[derive(Debug, Default, Clone)]
pub struct Selection {
    pub columns: Vec<String>,
    pub rows: Vec<(String, String)>,
    pub sorted: bool,
}

impl Selection {
    /// `COLUMN… [where KEY=VALUE…] [sorted]`; `*` for all columns.
    pub fn parse(text: &str) -> Selection {
        let mut out = Selection::default();
        let mut in_rows = false;
        for word in crate::scenario::words(text) {
            match word.as_str() {
                "where" => in_rows = true,
                "sorted" => out.sorted = true,
                "*" => {}
                _ if in_rows => {
                    let (k, v) = word.split_once('=').expect("where COLUMN=VALUE");
                    out.rows.push((k.to_string(), v.to_string()));
                }
                _ => out.columns.push(word),
            }
        }
        out
    }
}

/// A console's reply: its layout in a line, each row in a line, and the rest.
pub fn console(reply: &[Frame], selection: Option<&Selection>, names: &Names) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rows = Vec::new();
    let mut table: Option<Table> = None;
    let mut rest = Vec::new();
    for f in reply {
        match f.tag {
            b'T' => {
                let reply = Reply {
                    frames: vec![f.clone()],
                };
                let head = Table::new(&reply);
                lines.push(header(&head, selection, f));
                table = Some(head);
            }
            b'D' if table.is_some() => {
                let reply = Reply {
                    frames: vec![f.clone()],
                };
                let row = reply.rows().remove(0);
                if let Some(line) = table
                    .as_ref()
                    .and_then(|t| table_row(t, &row, selection, names))
                {
                    rows.push(line);
                }
            }
            _ => rest.push(frame(f)),
        }
    }
    if selection.is_some_and(|s| s.sorted) {
        rows.sort();
    }
    let rest = rest.join(" ");
    // Who selects columns knows them; only the rows are of interest.
    if table.is_some() && rest == "C(SHOW) Z(I)" && selection.is_some_and(|s| !s.columns.is_empty())
    {
        if rows.is_empty() {
            rows.push("(no rows)".to_string());
        }
        return rows;
    }
    lines.extend(rows);
    lines.push(rest);
    lines
}

fn header(table: &Table, selection: Option<&Selection>, frame: &Frame) -> String {
    match selection.filter(|s| !s.columns.is_empty()) {
        Some(s) => format!("T({})", s.columns.join(" ")),
        None if table.columns.is_empty() => "T()".to_string(),
        None => format!("T({})", columns(frame)),
    }
}

fn table_row(
    table: &Table,
    row: &[Option<String>],
    selection: Option<&Selection>,
    names: &Names,
) -> Option<String> {
    let find = |column: &str| table.columns.iter().position(|(name, _)| name == column);
    if let Some(s) = selection {
        let matches = s
            .rows
            .iter()
            .all(|(k, v)| find(k).is_some_and(|at| row[at].as_deref().unwrap_or("") == v.as_str()));
        if !matches {
            return None;
        }
    }
    let shown: Vec<usize> = match selection.filter(|s| !s.columns.is_empty()) {
        Some(s) => s
            .columns
            .iter()
            .map(|c| find(c).unwrap_or(usize::MAX))
            .collect(),
        None => (0..row.len()).collect(),
    };
    let cells: Vec<String> = shown
        .into_iter()
        .map(|at| {
            let value = row.get(at)?;
            let column = normal::column_name(&table.columns, row, at);
            let masked = normal::cell(&column, value.as_deref());
            Some(normal::port_cell(&column, &names.normal(&masked)))
        })
        .map(|c| c.unwrap_or_else(|| "(no such column)".to_string()))
        .collect();
    Some(cells.join(" | "))
}
