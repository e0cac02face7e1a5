//! Random events on shards of several pools: limits hold, nothing is lost, and when everything is quiet nobody waits without need.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Checkout(usize),
    GiveBack(usize),
    Clean(usize),
    Close(usize),
    Leave(usize),
    Vanish(usize),
    Kill(usize),
    Deliver(usize),
    Wait,
    Quiet,
    Tick(usize),
    Later(u64),
    Pause(bool),
    Renew(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    prop_oneof![
        12 => client().prop_map(Step::Checkout),
        8 => client().prop_map(Step::GiveBack),
        2 => client().prop_map(Step::Clean),
        2 => client().prop_map(Step::Close),
        2 => client().prop_map(Step::Leave),
        1 => client().prop_map(Step::Vanish),
        1 => (0..20usize).prop_map(Step::Kill),
        8 => (1..4usize).prop_map(Step::Deliver),
        6 => Just(Step::Wait),
        3 => Just(Step::Quiet),
        1 => (0..WORKERS).prop_map(Step::Tick),
        2 => (0..50u64).prop_map(Step::Later),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => (0..POOLS.len()).prop_map(Step::Renew),
    ]
}

const WORKERS: usize = 3;
const CLIENTS: usize = 12;
const POOLS: [(&str, &str); 3] = [("a", "x"), ("a", "y"), ("b", "x")];

/// What a run of the simulation is about.
#[derive(Clone, Debug)]
struct Plan {
    pool_size: u32,
    max_db: u32,
    max_user: u32,
    single_use: bool,
    always_check: bool,
    round_robin: bool,
    dice: u64,
    steps: Vec<Step>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let flags = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        any::<bool>(),
    );
    let steps = prop::collection::vec(step(), 10..70);
    (1..4u32, 0..4u32, 0..4u32, flags, any::<u64>(), steps).prop_map(
        |(pool_size, max_db, max_user, flags, dice, steps)| Plan {
            pool_size,
            max_db,
            max_user,
            single_use: flags.0,
            always_check: flags.1,
            round_robin: flags.2,
            dice,
            steps,
        },
    )
}

impl Plan {
    fn settings(&self) -> PoolSettings {
        let calm = settings(self.pool_size);
        PoolSettings {
            max_db_connections: self.max_db,
            max_user_connections: self.max_user,
            server_round_robin: self.round_robin,
            server_lifetime: if self.single_use {
                Duration::ZERO
            } else {
                calm.server_lifetime
            },
            server_check_delay: if self.always_check {
                Duration::ZERO
            } else {
                calm.server_check_delay
            },
            ..calm
        }
    }
}

struct Sim<'a> {
    house: &'a mut House,
    plan: Plan,
    shards: Vec<Vec<Rc<Shard>>>,
    clients: Vec<Client>,
    paused: bool,
    now: Instant,
}

impl Sim<'_> {
    fn shard_of(&self, client: usize) -> Rc<Shard> {
        // Four clients of each pool, spread over the workers.
        self.shards[client % POOLS.len()][client / POOLS.len() % WORKERS].clone()
    }

    async fn apply(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Checkout(at) => {
                let shard = self.shard_of(at);
                let client = &mut self.clients[at];
                if client.lease.is_none() && !client.waits {
                    client.checkout(&shard, now);
                }
            }
            Step::GiveBack(at) if self.clients[at].lease.is_some() => {
                self.clients[at].give_back(now)
            }
            Step::Clean(at) => {
                let lease = self.clients[at].lease.take();
                lease
                    .into_iter()
                    .for_each(|lease| lease.clean(vec![b"DISCARD ALL".to_vec()]));
            }
            Step::Close(at) => drop(self.clients[at].lease.take()),
            Step::Leave(at) if self.clients[at].waits => {
                let shard = self.shard_of(at);
                let client = &mut self.clients[at];
                shard.leave(&client.ticket);
                if client.look() {
                    client.give_back(now);
                }
                client.waits = false;
            }
            // Without leaving the queue: a session that panics.
            Step::Vanish(at) => self.clients[at] = Client::default(),
            Step::Kill(pid) => self.house.postgres.kill(pid as u32),
            Step::Deliver(letters) => {
                for _ in 0..letters {
                    self.house.deliver_one(now);
                }
            }
            Step::Wait => {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
            Step::Quiet => self.quiet().await,
            Step::Tick(worker) => {
                let shards: Vec<_> = self.house.desks[worker].shards.values().cloned().collect();
                shards.iter().for_each(|shard| shard.tick(now));
            }
            Step::Later(seconds) => self.now += Duration::from_secs(seconds),
            Step::Pause(paused) => {
                self.paused = paused;
                self.house
                    .all_shards()
                    .iter()
                    .for_each(|shard| shard.pause(paused, now));
            }
            Step::Renew(pool) => {
                self.shards[pool][0].share.renew();
                self.shards[pool].iter().for_each(|shard| shard.renew(now));
            }
            Step::GiveBack(_) | Step::Leave(_) => {}
        }
        self.look();
    }

    fn look(&mut self) {
        for client in &mut self.clients {
            client.look();
            assert!(client.refused.is_none());
        }
        self.check();
    }

    fn check(&self) {
        let plan = &self.plan;
        for (pool, shards) in self.shards.iter().enumerate() {
            let share = &shards[0].share;
            assert!(share.servers() <= plan.pool_size as usize);
            let (database, user) = self.house.budget.servers_of(POOLS[pool].0, POOLS[pool].1);
            assert!(plan.max_db == 0 || database <= plan.max_db as usize);
            assert!(plan.max_user == 0 || user <= plan.max_user as usize);
            for (worker, shard) in shards.iter().enumerate() {
                self.check_shard(pool, worker, shard);
            }
        }
    }

    fn check_shard(&self, pool: usize, worker: usize, shard: &Shard) {
        let core = shard.core.borrow();
        let of_shard = |client: &usize| {
            client % POOLS.len() == pool && client / POOLS.len() % WORKERS == worker
        };
        let leases = (0..CLIENTS)
            .filter(of_shard)
            .filter(|at| self.clients[*at].lease.is_some());
        assert_eq!(core.lent(), leases.count(), "leases and loans differ");
        let cards = core.lent() + core.testing() + core.idle() + core.used();
        assert_eq!(shard.cards.borrow().len(), cards + shard.held_back());
        assert!(core.waiting() == 0 || core.idle() == 0 || core.is_paused());
    }

    /// When nothing moves any more, everybody who waits has a reason to.
    async fn quiet(&mut self) {
        loop {
            self.house.quiet(self.now).await;
            self.look();
            if self.house.heap.lock().is_empty() {
                break;
            }
        }
        for shards in &self.shards {
            let balances = shards.iter().map(|shard| shard.core.borrow().balance());
            let total: isize = balances.sum();
            assert_eq!(shards[0].share.balance(), total, "shown and true");
        }
        if self.paused {
            return;
        }
        for (pool, shards) in self.shards.iter().enumerate() {
            let waiting: usize = shards
                .iter()
                .map(|shard| shard.core.borrow().waiting())
                .sum();
            if waiting > 0 {
                assert_eq!(
                    self.resting(pool),
                    0,
                    "waits beside a server of pool {pool}"
                );
                assert!(!self.has_room(pool), "waits though pool {pool} has room");
            }
        }
    }

    fn resting(&self, pool: usize) -> usize {
        let cores = self.shards[pool].iter().map(|shard| shard.core.borrow());
        cores.map(|core| core.idle() + core.used()).sum()
    }

    /// A connection could be opened, at most after closing one that rests.
    fn has_room(&self, pool: usize) -> bool {
        let share = &self.shards[pool][0].share;
        let (database, user) = self.house.budget.servers_of(POOLS[pool].0, POOLS[pool].1);
        let plan = &self.plan;
        let full = |count: usize, limit: u32| limit > 0 && count >= limit as usize;
        if full(share.servers(), plan.pool_size) {
            return false;
        }
        let at_rest = |same: fn((&str, &str), (&str, &str)) -> bool| {
            (0..POOLS.len())
                .filter(|other| same(POOLS[pool], POOLS[*other]))
                .any(|other| {
                    // Where somebody waits, nothing is taken away.
                    self.shards[other]
                        .iter()
                        .any(|shard| shard.longest_rest().is_some())
                })
        };
        let database = !full(database, plan.max_db) || at_rest(|one, other| one.0 == other.0);
        let user = !full(user, plan.max_user) || at_rest(|one, other| one.1 == other.1);
        database && user
    }

    async fn finish(mut self) {
        self.apply(Step::Pause(false)).await;
        // Everybody who waits is served in the end.
        for _ in 0..200 {
            self.quiet().await;
            let holders = self
                .clients
                .iter_mut()
                .filter(|client| client.lease.is_some());
            let holders: Vec<_> = holders.collect();
            if holders.is_empty() {
                break;
            }
            holders
                .into_iter()
                .for_each(|client| client.give_back(self.now));
        }
        assert!(
            self.clients.iter().all(|client| !client.waits),
            "somebody starves"
        );
        for shard in self.house.all_shards() {
            let core = shard.core.borrow();
            assert_eq!(
                core.lent() + core.testing() + core.dialing() + core.waiting(),
                0
            );
            drop(core);
            shard.drop_resting(Reason::Dropped);
            assert!(shard.is_empty());
        }
        for (database, user) in POOLS {
            assert_eq!(self.house.budget.servers_of(database, user), (0, 0));
        }
    }
}

fn run(plan: Plan) {
    in_house(WORKERS, plan.dice, async |house| {
        let settings = plan.settings();
        let shards = POOLS.map(|(database, user)| house.pool(&key(database, user), &settings));
        let mut sim = Sim {
            shards: shards.to_vec(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            paused: false,
            now: Instant::now(),
            plan: plan.clone(),
            house,
        };
        for step in plan.steps {
            sim.apply(step).await;
        }
        sim.finish().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn limits_hold_and_nobody_waits_without_need(plan in plan()) {
        run(plan);
    }
}
