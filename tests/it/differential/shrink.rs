//! Makes a failing group of conversations smaller: whole clients, then units, then parts are left out as long as something still differs.

use std::time::{Duration, Instant};

use super::Difference;
use super::conversation::Conversation;

/// Shrinking is a service to the reader, not worth more than this.
const LIMIT: Duration = Duration::from_secs(60);
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
    for (i, conversation) in group.iter().enumerate() {
        let mut replace = |shorter: Conversation| {
            let mut copy = group.to_vec();
            copy[i] = shorter;
            out.push(copy);
        };
        // The first unit makes the conversation independent of earlier ones.
        for unit in 1..conversation.units.len() {
            let mut shorter = conversation.clone();
            shorter.units.remove(unit);
            replace(shorter);
        }
        for (number, unit) in conversation.units.iter().enumerate().skip(1) {
            let droppable = if unit.framed {
                1..unit.parts.len().saturating_sub(1)
            } else {
                0..unit.parts.len()
            };
            for part in droppable {
                let mut shorter = conversation.clone();
                shorter.units[number].parts.remove(part);
                replace(shorter);
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
