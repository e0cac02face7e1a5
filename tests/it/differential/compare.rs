//! Are two recordings the same? Every allowed difference stands here, with its reason. The login's ParameterStatus and
//! BackendKeyData differ; they are not part of a recording.

use super::player::Event;

/// In a failed transaction block nothing can be prepared. A Bind or Describe of a statement that the server at hand does not have
/// is then refused with 25P02 by the Parse that the pooler puts before it, where PostgreSQL might still describe the statement, or
/// find another fault with the Bind first. What follows up to ReadyForQuery is skipped on both sides.
fn refused_by_hidden_parse(pooled: &Event) -> bool {
    let Event::Frame { frame, .. } = pooled else {
        return false;
    };
    let field = |code| frame.field(code);
    frame.is(b'E')
        && field(b'C').as_deref() == Some("25P02")
        && field(b'R').as_deref() == Some("exec_parse_message")
}

/// How far both recordings agree: the first places where they don't, or their ends.
fn agreement(direct: &[Event], pooled: &[Event]) -> (usize, usize) {
    let (mut at, mut beside, mut in_failed_block) = (0, 0, false);
    let is_ready = |event: &Event| matches!(event, Event::Frame { frame, .. } if frame.is(b'Z'));
    while let (Some(a), Some(b)) = (direct.get(at), pooled.get(beside)) {
        if a == b || normal(a) == normal(b) {
            if let Event::Frame { frame, .. } = a
                && is_ready(a)
            {
                in_failed_block = frame.body == b"E";
            }
            (at, beside) = (at + 1, beside + 1);
            continue;
        }
        let next_ready = |events: &[Event]| events.iter().position(is_ready);
        match (next_ready(&direct[at..]), next_ready(&pooled[beside..])) {
            (Some(m), Some(n)) if in_failed_block && refused_by_hidden_parse(b) => {
                (at, beside) = (at + m, beside + n)
            }
            _ => break,
        }
    }
    (at, beside)
}

fn normal(event: &Event) -> Event {
    let mut event = event.clone();
    if let Event::Frame { step, .. } = &mut event {
        // A surplus frame may be read with one step or the next; its place among the frames is what counts.
        *step = 0;
    }
    event
}

/// The first difference, described for a person.
pub fn first_difference(direct: &[Event], pooled: &[Event]) -> Option<String> {
    let (same, beside) = agreement(direct, pooled);
    if same == direct.len() && beside == pooled.len() {
        return None;
    }
    let step = direct
        .get(same)
        .or(pooled.get(beside))
        .map_or(0, Event::step);
    let before: Vec<String> = direct[same.saturating_sub(3)..same]
        .iter()
        .map(|e| format!("      {e:?}"))
        .collect();
    let show = |events: &[Event], from: usize| {
        events[from..]
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
        show(direct, same),
        show(pooled, beside)
    ))
}
