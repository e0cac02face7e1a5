//! Plays a conversation over one connection and records every frame after the login.

use super::conversation::{Chunks, Conversation, Ending, Step, Until};
use super::rng::Rng;
use crate::proto::{Conn, Exchange, Frame, msg};

/// What came back, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Frame {
        step: usize,
        frame: Frame,
    },
    /// The connection ended although it should not have.
    Closed {
        step: usize,
    },
    /// No frame came for a long time.
    Silence {
        step: usize,
    },
}

impl Event {
    pub fn step(&self) -> usize {
        match self {
            Event::Frame { step, .. } | Event::Closed { step } | Event::Silence { step } => *step,
        }
    }
}

/// What decides how far to read; follows the frames of both the direct and the pooled connection alike.
#[derive(Default)]
struct Progress {
    copying: bool,
    /// An error came since the last ReadyForQuery.
    failed: bool,
    ready: usize,
    answers: usize,
}

impl Progress {
    fn see(&mut self, frame: &Frame) {
        match frame.tag {
            b'G' => self.copying = true,
            b'E' => (self.failed, self.copying) = (true, false),
            b'Z' => (self.failed, self.copying, self.ready) = (false, false, self.ready + 1),
            // ParseComplete, BindComplete, CloseComplete; a description ends with T or n, an execution with C, I or s.
            b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b'I' | b's' => self.answers += 1,
            _ => {}
        }
    }

    fn reached(&self, until: Until) -> bool {
        match until {
            Until::Ready(count) => self.ready >= count,
            Until::Answers(count) => self.failed || self.answers >= count,
            Until::CopyOrReady => self.copying || self.ready >= 1,
            Until::CopyOrError => self.copying || self.failed,
        }
    }
}

/// Plays the whole conversation. The connection is logged in already.
pub async fn play(conversation: &Conversation, mut conn: Conn) -> Vec<Event> {
    let mut rng = Rng::new(conversation.seed ^ 0xC0FFEE);
    let mut events = Vec::new();
    let mut progress = Progress::default();
    let steps: Vec<&Step> = conversation.steps().collect();
    for (number, step) in steps.iter().enumerate() {
        let (messages, until) = match &step.unless_copying {
            Some((messages, count)) if !progress.copying => (messages, Until::Ready(*count)),
            _ => (&step.messages, step.until),
        };
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|m| m.bytes.iter().copied())
            .collect();
        if conversation.ending == Ending::Vanish && number + 1 == steps.len() {
            let cut = rng.below(bytes.len() + 1);
            conn.send(&bytes[..cut]).await;
            return events;
        }
        (progress.ready, progress.answers) = (0, 0);
        let chunks = cut(&bytes, conversation.chunks, &mut rng);
        let already = progress.reached(until);
        let (frames, end) = conn
            .exchange(&chunks, already, |frame| {
                progress.see(frame);
                progress.reached(until)
            })
            .await;
        events.extend(frames.into_iter().map(|frame| Event::Frame {
            step: number,
            frame,
        }));
        match end {
            Exchange::Enough => {}
            Exchange::Closed => {
                events.push(Event::Closed { step: number });
                return events;
            }
            Exchange::Silence => {
                events.push(Event::Silence { step: number });
                return events;
            }
        }
    }
    if conversation.ending == Ending::Terminate {
        let step = steps.len();
        let (frames, end) = conn.exchange(&[&msg::terminate()], false, |_| false).await;
        events.extend(frames.into_iter().map(|frame| Event::Frame { step, frame }));
        if end != Exchange::Closed {
            events.push(Event::Silence { step });
        }
    }
    events
}

fn cut<'a>(bytes: &'a [u8], how: Chunks, rng: &mut Rng) -> Vec<&'a [u8]> {
    let mut cuts = match how {
        Chunks::Whole => vec![],
        Chunks::Tiny if bytes.len() <= 2_000 => {
            let mut at = 0;
            std::iter::from_fn(|| {
                at += rng.between(1, 7);
                (at < bytes.len()).then_some(at)
            })
            .collect()
        }
        Chunks::Some | Chunks::Tiny => (0..rng.between(1, 5))
            .map(|_| rng.below(bytes.len() + 1))
            .collect(),
    };
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}
