//! What is assumed when a request is sent comes true or not: the consequences for the names and for the server's set.

use super::Statements;
use crate::server::link::ServerLink;
use crate::server::owed::Event;
use crate::server::prepared::Note;

/// Acts upon what became of requests; only absorbed ones that are to be answered are left. The names are missing when the client
/// is gone.
#[inline]
pub fn settle(link: &mut ServerLink, names: Option<&mut Statements>) {
    if !link.events.is_empty() {
        settle_some(link, names);
    }
}

fn settle_some(link: &mut ServerLink, mut names: Option<&mut Statements>) {
    let mut events = std::mem::take(&mut link.events);
    events.retain(|event| {
        match event {
            Event::Undone(note) => take_back(note, names.as_deref_mut(), link),
            Event::Done(note) => confirm(note, names.as_deref_mut(), link),
            Event::Answer(..) => {}
        }
        matches!(event, Event::Answer(..))
    });
    link.events = events;
}

fn confirm(note: &Note, names: Option<&mut Statements>, link: &mut ServerLink) {
    link.tainted |= matches!(note, Note::Taken);
    let Note::Duplicate {
        name,
        statement,
        new,
    } = note
    else {
        return;
    };
    // The server had lost the statement that should have stood in the way, and has the new one under its name now.
    link.prepared.remove(statement.id);
    link.tainted = true;
    if let Some(names) = names {
        names.names.insert(name, new.clone());
    }
}

fn take_back(note: &Note, names: Option<&mut Statements>, link: &mut ServerLink) {
    match note {
        Note::Named { name, now, sent } => {
            if let Some(names) = names {
                names.names.remove(name);
            }
            if *sent {
                link.prepared.remove(now.id);
            }
        }
        Note::Unnamed { name, was } => {
            if let Some(names) = names {
                names.names.insert(name, was.clone());
            }
        }
        Note::OnServer(statement) => link.prepared.remove(statement.id),
        Note::OffServer(statement) => link.prepared.restore(statement.clone()),
        Note::Duplicate { .. } | Note::Dropped { .. } | Note::Taken | Note::Suspect => {}
    }
}

/// The server has dropped all its statements at the client's demand: only those named by requests still in flight remain.
pub fn forget_all(names: &mut Statements, link: &mut ServerLink) {
    names.names.clear();
    names.sql = None;
    link.prepared.clear();
    link.sql.clear();
    for note in link.owed.notes() {
        match note {
            Note::Named { name, now, sent } => {
                names.names.insert(name, now.clone());
                if *sent {
                    link.prepared.insert(now.clone());
                }
            }
            Note::Unnamed { name, .. } => {
                names.names.remove(name);
            }
            Note::OnServer(statement) => link.prepared.insert(statement.clone()),
            Note::OffServer(statement) => link.prepared.remove(statement.id),
            Note::Duplicate { .. } | Note::Dropped { .. } | Note::Taken | Note::Suspect => {}
        }
    }
}
