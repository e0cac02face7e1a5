//! What differs from run to run is replaced by a fixed word: addresses of memory, process numbers, ports, times, names of folders. Each
//! rule is written down here; nothing else is hidden from the comparison.

use std::sync::LazyLock;

use regex_lite::Regex;

/// Pattern and replacement, applied in this order to every line of a transcript.
static RULES: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // Client and server ids in log prefixes, and SHOW's `ptr`.
        (r"\b([CS])-0x[0-9a-f]+: ", "$1: "),
        (r"\b0x[0-9a-f]{6,}\b", "0x#"),
        // Process numbers.
        (r"\bunix\([0-9]+\)", "unix(#)"),
        (r"\bunix\([0-9]+@[^)]*\)", "unix(#@#)"),
        (r"\bPID [0-9]+", "PID #"),
        // Ports that the kernel chose; the known ones have become names before.
        (r"\b127\.0\.0\.1:[0-9]+", "127.0.0.1:#"),
        (r"\[::1\]:[0-9]+", "[::1]:#"),
        // How long something has lasted.
        (r"\bage=[0-9]+s", "age=#s"),
        (r"\bage= [0-9]+s", "age= #s"),
        // Names that poolers give to statements on the server.
        (r"\b(?:PGBOUNCER|PGWEIR)_[0-9]+\b", "POOLER_#"),
        // The machine's limits on files depend on who runs the test.
        (
            r"kernel file descriptor limit: \S+ \(hard: \S+\)",
            "kernel file descriptor limit: # (hard: #)",
        ),
    ]
    .into_iter()
    .map(|(pattern, with)| (Regex::new(pattern).expect("a fixed pattern"), with))
    .collect()
});

/// The time, zone and process number that open a log line.
static STAMP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+ \S+ \[[0-9]+\] ").expect("a fixed pattern")
});

/// Names for values that are only known at run time: ports, folders.
#[derive(Debug, Default, Clone)]
pub struct Names(Vec<(String, String)>);

impl Names {
    /// From now on `value` is written `name`. Numbers are only replaced where they stand alone.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.retain(|(n, _)| n != name);
        self.0.push((name.to_string(), value.to_string()));
        // The longest first, so that no value hides inside another.
        self.0.sort_by_key(|(_, v)| std::cmp::Reverse(v.len()));
    }

    /// A line as it is compared.
    pub fn normal(&self, line: &str) -> String {
        let mut text = line.to_string();
        for (name, value) in &self.0 {
            text = replace_alone(&text, value, &format!("${name}"));
        }
        for (pattern, with) in RULES.iter() {
            if pattern.is_match(&text) {
                text = pattern.replace_all(&text, *with).into_owned();
            }
        }
        text
    }

    /// A line of a log as it is compared.
    pub fn normal_log(&self, line: &str) -> String {
        self.normal(&STAMP.replace(line, ""))
    }
}

/// Replaces a text where no letter or digit touches it.
fn replace_alone(text: &str, value: &str, with: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(value) {
        let before = rest[..at].chars().next_back();
        let after = rest[at + value.len()..].chars().next();
        let touches = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        out.push_str(&rest[..at]);
        if touches(before) || touches(after) {
            out.push_str(value);
        } else {
            out.push_str(with);
        }
        rest = &rest[at + value.len()..];
    }
    out.push_str(rest);
    out
}

/// A value of a console table, with what changes from run to run masked by its column's name.
pub fn cell(column: &str, value: Option<&str>) -> String {
    let Some(value) = value else {
        return "NULL".to_string();
    };
    let some = |v: &str| if v.is_empty() || v == "0" { v } else { "#" }.to_string();
    match column {
        "connect_time" | "request_time" => some(value),
        "wait" | "wait_us" | "maxwait_us" | "id" | "ttl" | "serial" => "#".to_string(),
        "ptr" | "link" | "remote_pid" => some(value),
        // Known ports have names, which are put in later.
        "fd" => "#".to_string(),
        // How full buffers are depends on the moment.
        "recv_pos" | "pkt_pos" | "pkt_remain" | "send_pos" | "send_remain" | "pkt_avail"
        | "send_avail" => "#".to_string(),
        // Averages depend on how long everything took.
        c if c.starts_with("avg_") => "#".to_string(),
        "xact_time" | "query_time" | "wait_time" | "total_xact_time" | "total_query_time"
        | "total_wait_time" => "#".to_string(),
        _ => value.to_string(),
    }
}

/// A row of a table of names and values is masked by the row's name; of STATS_AVERAGES, all numbers are.
pub fn column_name(columns: &[(String, u32)], row: &[Option<String>], at: usize) -> String {
    let name = |at: usize| columns.get(at).map_or("", |(name, _)| name.as_str());
    let is_totals = name(0) == "name" && name(1) == "value";
    if is_totals && at == 1 {
        return row[0].clone().unwrap_or_default();
    }
    let is_averages = columns.iter().any(|(c, _)| c == "avg_bind_count")
        && columns.iter().all(|(c, _)| !c.starts_with("total_"));
    let is_memory = name(1) == "size" && name(4) == "memtotal";
    if (is_averages || is_memory) && at > 0 {
        return "avg_".to_string();
    }
    name(at).to_string()
}

/// A port chosen by the kernel, in SHOW's columns; those of the fixture have been given names before.
pub fn port_cell(column: &str, value: &str) -> String {
    let chosen = value.parse::<u32>().is_ok_and(|n| n >= 1024);
    if matches!(column, "port" | "local_port") && chosen {
        "#".to_string()
    } else {
        value.to_string()
    }
}
