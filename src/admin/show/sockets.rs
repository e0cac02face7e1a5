//! SHOW of connections: CLIENTS, SERVERS, SOCKETS.

use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::admin::table::{Cell, Table};
use crate::worker::report::SocketRow;

pub(super) fn connections(to: &mut Table, kind: char, rows: &[SocketRow]) {
    let zone = TimeZone::system();
    for row in rows {
        to.push_row(&cells(kind, row, row.state.into(), &zone));
    }
}

/// As CLIENTS and SERVERS, with the states' other names and how much is in buffers. There are no buffers that belong to a connection:
/// what cannot be passed on at once is kept until it can, and that is all there is to show. PgBouncer's positions are those in a
/// buffer that begins with these bytes.
pub(super) fn sockets(to: &mut Table, kind: char, rows: &[SocketRow]) {
    let zone = TimeZone::system();
    for row in rows {
        let mut cells = cells(kind, row, socket_state(kind, row.state).into(), &zone);
        cells.extend([
            row.held.into(),   // recv_pos
            0u32.into(),       // pkt_pos
            0u32.into(),       // pkt_remain
            0u32.into(),       // send_pos
            row.unsent.into(), // send_remain
            row.held.into(),   // pkt_avail
            row.unsent.into(), // send_avail
        ]);
        to.push_row(&cells);
    }
}

/// Those of [`sockets`] for which something is kept.
pub(super) fn active(mut rows: Vec<SocketRow>) -> Vec<SocketRow> {
    rows.retain(|row| row.held + row.unsent > 0);
    rows
}

/// A state as SHOW SOCKETS has it.
fn socket_state(kind: char, state: &str) -> String {
    match (kind, state) {
        ('C', "idle") => "cl_active".to_owned(),
        ('C', _) => format!("cl_{state}"),
        (_, "new") => "sv_login".to_owned(),
        _ => format!("sv_{state}"),
    }
}

fn cells<'a>(kind: char, row: &'a SocketRow, state: Cell<'a>, zone: &TimeZone) -> Vec<Cell<'a>> {
    vec![
        kind.to_string().into(),
        (&row.user).into(),
        (&row.database).into(),
        row.replication.into(),
        state,
        (&row.addr).into(),
        row.port.into(),
        (&row.local_addr).into(),
        row.local_port.into(),
        time(row.connect_time, zone).into(),
        time(row.request_time, zone).into(),
        row.wait.as_secs().into(),
        row.wait.subsec_micros().into(),
        row.close_needed.into(),
        pointer(row.ptr).into(),
        row.link.map(pointer).unwrap_or_default().into(),
        row.remote_pid.into(),
        (&row.tls).into(),
        (&row.application_name).into(),
        row.prepared_statements.into(),
        row.id.into(),
    ]
}

fn pointer(number: u64) -> String {
    format!("{number:#x}")
}

/// `YYYY-MM-DD HH:MM:SS TZ`; a time that no calendar has is the epoch.
fn time(time: SystemTime, zone: &TimeZone) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or_default();
    let zoned: Zoned = timestamp.to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_local_with_the_zone() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_219_580);
        assert_eq!(time(at, &TimeZone::UTC), "2026-11-21 00:06:20 UTC");
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(time(at, &berlin), "2026-11-21 01:06:20 CET");
    }

    #[test]
    fn states_of_sockets() {
        let got = [
            ('C', "active"),
            ('C', "idle"),
            ('C', "waiting"),
            ('S', "new"),
            ('S', "used"),
        ]
        .map(|(kind, state)| socket_state(kind, state));
        assert_eq!(
            got,
            [
                "cl_active",
                "cl_active",
                "cl_waiting",
                "sv_login",
                "sv_used"
            ]
        );
    }
}
