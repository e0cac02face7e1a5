//! Are two recordings the same? Every allowed difference stands here, with its reason.

use super::player::Event;
use crate::proto::Frame;

/// Differences between a direct connection and one through the pooler that are known and accepted. The login's ParameterStatus and
/// BackendKeyData differ too; they are not part of a recording.
type Exception = (&'static str, fn(&mut Frame));

const EXCEPTIONS: &[Exception] = &[
    (
        "an unknown or duplicate name of a prepared statement may be refused by the pooler, which knows the names of its clients; it says \
         what PostgreSQL says but does not claim to be a line of PostgreSQL's source",
        only_severity_code_and_message,
    ),
    (
        "a Bind with the wrong number of parameters is refused by PostgreSQL with a message that contains the statement's name, which is \
         the pooler's on the server's side",
        hide_statement_name,
    ),
    (
        "a Bind in a failed transaction block is refused with 25P02; if its statement has to be prepared on the server first, it is that \
         Parse which is refused, with the same words from another line of PostgreSQL's source",
        only_severity_code_and_message_of_25p02,
    ),
];

fn only_severity_code_and_message_of_25p02(frame: &mut Frame) {
    if frame.is(b'E') && frame.field(b'C').as_deref() == Some("25P02") {
        frame.body = frame.error_text().into_bytes();
    }
}

fn only_severity_code_and_message(frame: &mut Frame) {
    if frame.is(b'E') && matches!(frame.field(b'C').as_deref(), Some("26000" | "42P05")) {
        frame.body = frame.error_text().into_bytes();
    }
}

fn hide_statement_name(frame: &mut Frame) {
    let message = if frame.is(b'E') {
        frame.field(b'M')
    } else {
        None
    };
    let Some(message) = message else { return };
    if !message.starts_with("bind message supplies") {
        return;
    }
    let hidden = |text: &str| match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) => format!("{}?{}", &text[..first], &text[last..]),
        _ => text.to_string(),
    };
    let fields: Vec<String> = frame
        .fields()
        .iter()
        .map(|(code, text)| format!("{code}{}", hidden(text)))
        .collect();
    frame.body = fields.join("\n").into_bytes();
}

fn normal(event: &Event) -> Event {
    let mut event = event.clone();
    if let Event::Frame { frame, step } = &mut event {
        // A surplus frame may be read with one step or the next; its place among the frames is what counts.
        *step = 0;
        EXCEPTIONS.iter().for_each(|(_, apply)| apply(frame));
    }
    event
}

/// The first difference, described for a person.
pub fn first_difference(direct: &[Event], pooled: &[Event]) -> Option<String> {
    let same = direct
        .iter()
        .zip(pooled)
        .take_while(|(a, b)| a == b || normal(a) == normal(b))
        .count();
    if same == direct.len() && same == pooled.len() {
        return None;
    }
    let step = direct.get(same).or(pooled.get(same)).map_or(0, Event::step);
    let before: Vec<String> = direct[same.saturating_sub(3)..same]
        .iter()
        .map(|e| format!("      {e:?}"))
        .collect();
    let show = |events: &[Event]| {
        events[same.min(events.len())..]
            .iter()
            .take(3)
            .map(|e| format!("      {e:?}\n"))
            .collect::<String>()
    };
    Some(format!(
        "first difference in step {step}, frame {same} of {} and {}\n    the same before:\n{}\n    direct:\n{}    pooled:\n{}",
        direct.len(),
        pooled.len(),
        before.join("\n"),
        show(direct),
        show(pooled)
    ))
}
