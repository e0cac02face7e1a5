//! Makes a failing group of conversations smaller: whole clients, then units, parts, batches and messages are left out as long as something still differs.

use std::time::{Duration, Instant};

use super::Difference;
use super::conversation::{Conversation, Message, Step, Until};

/// Shrinking is a service to the reader, not worth more than this.
const LIMIT: Duration = Duration::from_secs(90);
/// A difference may depend on timing: so often is a smaller group tried before it counts as passing.
const ATTEMPTS: usize = 3;

/// Gives the smallest failing group found, with its difference.
pub async fn shrink(
    group: Vec<Conversation>,
    difference: Difference,
    mut check: impl AsyncFnMut(&[Conversation]) -> Option<Difference>,
) -> (Vec<Conversation>, Difference) {
    let deadline = Instant::now() + LIMIT;
    let mut best = (group, difference);
    let mut smaller = true;
    while smaller {
        smaller = false;
        for candidate in candidates(&best.0, best.1.member) {
            for _ in 0..ATTEMPTS {
                if Instant::now() > deadline {
                    return best;
                }
                if let Some(difference) = check(&candidate).await {
                    best = (candidate, difference);
                    smaller = true;
                    break;
                }
            }
            if smaller {
                break;
            }
        }
    }
    best
}

/// Smaller groups, the boldest first.
fn candidates(group: &[Conversation], culprit: usize) -> Vec<Vec<Conversation>> {
    let mut out = Vec::new();
    if group.len() > 1 {
        out.push(vec![group[culprit].clone()]);
        out.extend((0..group.len()).map(|i| without(group, i)));
    }
    let ways: [fn(&Conversation) -> Vec<Conversation>; 4] =
        [fewer_units, fewer_parts, fewer_batches, fewer_messages];
    for shorter in ways {
        for (i, conversation) in group.iter().enumerate() {
            for shorter in shorter(conversation) {
                let mut copy = group.to_vec();
                copy[i] = shorter;
                out.push(copy);
            }
        }
    }
    out
}

fn without(group: &[Conversation], i: usize) -> Vec<Conversation> {
    let mut copy = group.to_vec();
    copy.remove(i);
    copy
}

/// The first unit makes the conversation independent of earlier ones, so it always stays.
fn fewer_units(conversation: &Conversation) -> Vec<Conversation> {
    let drop_unit = |unit| {
        let mut shorter = conversation.clone();
        shorter.units.remove(unit);
        shorter
    };
    (1..conversation.units.len()).map(drop_unit).collect()
}

fn fewer_parts(conversation: &Conversation) -> Vec<Conversation> {
    let mut out = Vec::new();
    for (number, unit) in conversation.units.iter().enumerate().skip(1) {
        let parts = unit.parts.len();
        let droppable = if unit.framed {
            1..parts.saturating_sub(1)
        } else {
            0..parts
        };
        for part in droppable {
            let mut shorter = conversation.clone();
            shorter.units[number].parts.remove(part);
            out.push(shorter);
        }
    }
    out
}

/// Leaves out one of several batches that are sent in one step.
fn fewer_batches(conversation: &Conversation) -> Vec<Conversation> {
    edit_steps(conversation, |step| {
        let Until::Ready(count @ 2..) = step.until else {
            return vec![];
        };
        let ends: Vec<usize> = (0..step.messages.len())
            .filter(|i| step.messages[*i].is_sync())
            .collect();
        let mut out = Vec::new();
        for end in ends {
            let before = step.messages[..end]
                .iter()
                .rposition(|m| !m.is_extended() && !m.is_flush());
            let start = before.map_or(0, |i| i + 1);
            // A batch without messages between two others is a lone Sync, and as good as any.
            let mut messages = step.messages.clone();
            messages.drain(start..=end);
            out.push(Step::ready(messages, count - 1));
        }
        out
    })
}

/// Leaves out one message that no other needs to be valid: a statement parsed without a name might be another client's.
fn fewer_messages(conversation: &Conversation) -> Vec<Conversation> {
    edit_steps(conversation, |step| {
        if !matches!(step.until, Until::Ready(_)) {
            return vec![];
        }
        let droppable = |m: &Message| m.is_flush() || m.is_extended() && !m.is_unnamed_parse();
        let mut out = Vec::new();
        for i in (0..step.messages.len()).filter(|i| droppable(&step.messages[*i])) {
            let mut shorter = step.clone();
            shorter.messages.remove(i);
            out.push(shorter);
        }
        out
    })
}

/// All conversations in which one step is replaced by one of its edits. Steps of COPY and of transactions' ends stay as they are.
fn edit_steps(
    conversation: &Conversation,
    edits: impl Fn(&Step) -> Vec<Step>,
) -> Vec<Conversation> {
    let mut out = Vec::new();
    for (u, unit) in conversation.units.iter().enumerate().skip(1) {
        let ends_transactions = unit.what == "pipelined transaction";
        for (p, part) in unit.parts.iter().enumerate() {
            let frame = unit.framed && (p == 0 || p + 1 == unit.parts.len());
            for (s, step) in part.iter().enumerate() {
                if frame || ends_transactions || step.unless_copying.is_some() {
                    continue;
                }
                for edited in edits(step) {
                    let mut shorter = conversation.clone();
                    shorter.units[u].parts[p][s] = edited;
                    out.push(shorter);
                }
            }
        }
    }
    out
}
