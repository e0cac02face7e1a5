//! The clients of a worker, counted by kind: for a scrape, which must not cost a worker with thousands of clients as many rows.
//!
//! Clients of one kind share their [`Profile`] and their [`ParamSet`], so they are told apart by two addresses; texts are made for
//! kinds only, and only for so many as are asked for.

use std::collections::HashMap;
use std::rc::Rc;

use super::Worker;
use super::report::{CensusRow, EVERYBODY_ELSE};
use super::rows::{application_name, shown_state};
use crate::client::profile::Profile;
use crate::server::params::ParamSet;

/// Clients that have everything in common.
struct Kind {
    profile: Rc<Profile>,
    params: Rc<ParamSet>,
    state: &'static str,
    clients: u64,
}

impl Worker {
    /// How many clients there are of each kind. The `most` largest kinds have rows of their own, the others are counted by state.
    pub(super) fn census(&self, most: usize) -> Vec<CensusRow> {
        let mut kinds = self.kinds();
        if kinds.len() > most {
            kinds.select_nth_unstable_by_key(most, |kind| std::cmp::Reverse(kind.clients));
        }
        let (told, rest) = kinds.split_at(most.min(kinds.len()));
        let mut rows: Vec<CensusRow> = told.iter().map(|kind| self.census_row(kind)).collect();
        for kind in rest {
            add_to_rest(&mut rows, most, kind);
        }
        rows
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: HashMap<(*const Profile, *const ParamSet, &str), Kind> = HashMap::new();
        for (card, _) in self.roster.borrow().values() {
            let Some(state) = shown_state(card) else {
                continue;
            };
            let (profile, params) = (card.profile(), card.params());
            let key = (Rc::as_ptr(&profile), Rc::as_ptr(&params), state);
            let kind = kinds.entry(key).or_insert_with(|| Kind {
                profile,
                params,
                state,
                clients: 0,
            });
            kind.clients += 1;
        }
        kinds.into_values().collect()
    }

    fn census_row(&self, kind: &Kind) -> CensusRow {
        CensusRow {
            database: kind.profile.database.clone(),
            user: kind.profile.user.clone(),
            application_name: application_name(&kind.params, &self.sessions.space),
            state: kind.state,
            clients: kind.clients,
        }
    }
}

/// Counts a kind that has no row of its own; the rows from `from` on are those of the rest.
fn add_to_rest(rows: &mut Vec<CensusRow>, from: usize, kind: &Kind) {
    if let Some(row) = rows[from..].iter_mut().find(|row| row.state == kind.state) {
        row.clients += kind.clients;
        return;
    }
    rows.push(CensusRow {
        database: EVERYBODY_ELSE.to_owned(),
        user: EVERYBODY_ELSE.to_owned(),
        application_name: EVERYBODY_ELSE.to_owned(),
        state: kind.state,
        clients: kind.clients,
    });
}
