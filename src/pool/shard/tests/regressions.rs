//! One test for each bug that there was.

use super::*;
use crate::config::LoadBalanceHosts;
use crate::server::owed::{Kind, Origin};

/// Test queries that the server has seen.
fn tests_seen(house: &House) -> usize {
    house.postgres.queries.borrow().len()
}

/// A client that has a server.
async fn served(house: &mut House, shard: &Rc<Shard>, now: Instant) -> Client {
    let mut client = Client::default();
    client.checkout(shard, now);
    house.quiet(now).await;
    assert!(client.look(), "no server");
    client
}

#[test]
fn a_server_that_rests_untested_helps_other_workers() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(1));
        let now = Instant::now();
        served(house, &shards[0], now).await.give_back(now);
        let later = now + Duration::from_secs(31);
        shards[0].tick(later);
        assert_eq!(shards[0].with_core(|core| core.used()), 1);
        let other = served(house, &shards[1], later).await;
        assert_eq!((other.pid(), tests_seen(house)), (1, 1));
    });
}

#[test]
fn many_dead_servers_are_passed_over_without_recursion() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(300))[0];
        let now = Instant::now();
        let mut clients: Vec<_> = (0..300).map(|_| Client::default()).collect();
        for client in &mut clients {
            client.checkout(shard, now);
        }
        house.quiet(now).await;
        for client in &mut clients {
            assert!(client.look());
            client.give_back(now);
        }
        house.postgres.kill_all().await;
        let client = served(house, shard, now).await;
        assert_eq!(client.pid(), 301);
        assert_eq!(shard.share().servers(), 1);
    });
}

#[test]
fn who_is_handed_a_dead_server_keeps_its_place() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(1))[0];
        let now = Instant::now();
        let mut holder = served(house, shard, now).await;
        let mut waiting = [Client::default(), Client::default()];
        for client in &mut waiting {
            client.checkout(shard, now);
        }
        house.postgres.kill_all().await;
        holder.give_back(now);
        house.quiet(now).await;
        assert!(waiting[0].look() && !waiting[1].look());
    });
}

#[test]
fn a_session_that_vanishes_from_the_queue_takes_no_server_with_it() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(1))[0];
        let now = Instant::now();
        let mut holder = served(house, shard, now).await;
        let (mut gone, mut next) = (Client::default(), Client::default());
        gone.checkout(shard, now);
        next.checkout(shard, now);
        drop(gone);
        holder.give_back(now);
        assert!(next.look());
        assert_eq!(next.pid(), 1, "the server was closed");
    });
}

#[test]
fn a_greeting_does_not_use_up_a_single_use_server() {
    in_house(1, 1, async |house| {
        let single_use = PoolSettings {
            server_lifetime: Duration::ZERO,
            ..settings(1)
        };
        let shard = &house.pool(&key("d", "u"), &single_use)[0];
        let now = Instant::now();
        let mut greeted = Client::default();
        greeted.ticket.login.set(true);
        greeted.checkout(shard, now);
        house.quiet(now).await;
        assert!(greeted.look());
        greeted.give_back(now);
        let mut client = served(house, shard, now).await;
        assert_eq!(client.pid(), 1);
        client.give_back(now);
        assert_eq!(shard.share().servers(), 0, "used twice");
    });
}

#[test]
fn an_abandoned_statement_is_cancelled() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(2))[0];
        let now = Instant::now();
        let mut busy = served(house, shard, now).await;
        let lease = busy.lease.as_mut().unwrap();
        lease.link.sent(Kind::Query, Origin::Client, None);
        drop(busy);
        let idle = served(house, shard, now).await;
        drop(idle);
        house.quiet(now).await;
        assert_eq!(
            *house.postgres.cancelled.borrow(),
            [1],
            "only the one that ran"
        );
        assert_eq!(shard.share().servers(), 0);
    });
}

#[test]
fn cancels_hold_a_server_back_before_it_is_cleaned() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(1))[0];
        let now = Instant::now();
        let mut client = served(house, shard, now).await;
        let lease = client.lease.take().unwrap();
        let (id, card) = (lease.card.id, lease.card.clone());
        card.cancels.set(2);
        shard.cancels.set(2);
        lease.clean(vec![b"DISCARD ALL".to_vec()]);
        house.quiet(now).await;
        assert_eq!((shard.held_back(), tests_seen(house)), (1, 0));
        assert!(!shard.is_quiet());
        shard.cancel_done(id, now);
        assert_eq!(shard.held_back(), 1, "one is still on its way");
        shard.cancel_done(id, now);
        house.quiet(now).await;
        assert_eq!((shard.held_back(), tests_seen(house)), (0, 1));
        assert_eq!(shard.with_core(|core| core.idle()), 1);
    });
}

#[test]
fn a_held_back_server_of_a_killed_pool_is_closed() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(1))[0];
        let now = Instant::now();
        let mut client = served(house, shard, now).await;
        let id = client.lease.as_ref().unwrap().card.id;
        client.lease.as_ref().unwrap().card.cancels.set(1);
        client.give_back(now);
        shard.drop_resting(Reason::Dropped);
        shard.retire();
        shard.cancel_done(id, now);
        assert_eq!(shard.share().servers(), 0);
        shard.cancel_done(id, now); // of a server that is no more
    });
}

#[test]
fn idle_timeouts_of_all_workers_together_leave_the_minimum() {
    in_house(3, 1, async |house| {
        let minimum = PoolSettings {
            min_pool_size: 2,
            ..settings(6)
        };
        let shards = house.pool(&key("d", "u"), &minimum);
        let now = Instant::now();
        let mut clients = Vec::new();
        for at in 0..6 {
            clients.push(served(house, &shards[at % 3], now).await);
        }
        for client in &mut clients {
            client.give_back(now);
        }
        for shard in &shards {
            shard.tick(now + Duration::from_secs(601));
        }
        assert_eq!(shards[0].share().servers(), 2);
    });
}

#[test]
fn workers_that_grow_a_pool_at_once_stop_at_the_minimum() {
    in_house(3, 1, async |house| {
        let minimum = PoolSettings {
            min_pool_size: 2,
            ..settings(2)
        };
        let shards = house.pool(&key("d", "u"), &minimum);
        let now = Instant::now();
        for shard in &shards {
            shard.clients.set(1);
        }
        for _ in 0..3 {
            for shard in &shards {
                shard.tick(now);
                assert!(shard.share().servers() <= 2);
            }
        }
        house.quiet(now).await;
        assert_eq!(shards[0].share().servers(), 2);
        assert!(house.heap.lock().is_empty(), "nobody was refused");
    });
}

#[test]
fn a_shrunken_pool_closes_no_more_than_it_must() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(4));
        let now = Instant::now();
        let mut clients = Vec::new();
        for at in 0..4 {
            clients.push(served(house, &shards[at % 2], now).await);
        }
        for client in &mut clients {
            client.give_back(now);
        }
        shards[0].share().set_limits(&settings(3));
        for shard in &shards {
            let recipe = house.recipe(shard.key());
            shard.configure(settings(3), recipe);
            shard.tick(now);
        }
        assert_eq!(shards[0].share().servers(), 3);
    });
}

#[test]
fn one_waiting_client_evicts_one_server_however_often_it_asks() {
    in_house(2, 1, async |house| {
        let crowded = PoolSettings {
            max_db_connections: 3,
            ..settings(3)
        };
        let rich = house.pool(&key("d", "rich"), &crowded);
        let poor = house.pool(&key("d", "poor"), &crowded);
        let now = Instant::now();
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(served(house, &rich[0], now).await);
        }
        for client in &mut clients {
            client.give_back(now);
        }
        let mut waiting = Client::default();
        waiting.checkout(&poor[1], now);
        for _ in 0..5 {
            poor[1].pump(now);
        }
        house.quiet(now).await;
        assert!(waiting.look());
        assert_eq!(
            (rich[0].share().servers(), poor[1].share().servers()),
            (2, 1)
        );
    });
}

#[test]
fn a_server_that_comes_to_rest_makes_room_for_another_pool() {
    in_house(2, 1, async |house| {
        let crowded = PoolSettings {
            max_user_connections: 1,
            ..settings(1)
        };
        let first = house.pool(&key("a", "u"), &crowded);
        let second = house.pool(&key("b", "u"), &crowded);
        let now = Instant::now();
        let mut holder = served(house, &first[0], now).await;
        let mut waiting = Client::default();
        waiting.checkout(&second[1], now);
        house.quiet(now).await;
        assert!(!waiting.look());
        holder.give_back(now);
        house.quiet(now).await;
        assert!(waiting.look(), "has to wait for the clock");
    });
}

#[test]
fn a_failed_login_is_told_to_waiting_clients_on_all_workers() {
    in_house(3, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(5));
        house.postgres.refuse.replace(Some("28P01"));
        let now = Instant::now();
        let mut clients: Vec<_> = (0..6).map(|_| Client::default()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.checkout(&shards[at % 3], now);
        }
        house.quiet(now).await;
        for client in &mut clients {
            client.look();
            assert_eq!(
                client.refused.as_ref().map(|error| &*error.sqlstate),
                Some("28P01")
            );
        }
        let retry = settings(5).server_login_retry;
        assert!(shards[0].share().failing(now, retry).is_some());
        assert_eq!(shards[0].share().servers(), 0);
    });
}

#[test]
fn a_crashed_server_is_dialled_again_by_the_clock_and_then_by_all() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(2));
        house.postgres.crash.set(true);
        let now = Instant::now();
        let mut clients = [Client::default(), Client::default()];
        for (client, shard) in clients.iter_mut().zip(&shards) {
            client.checkout(shard, now);
        }
        house.quiet(now).await;
        assert!(
            clients
                .iter_mut()
                .all(|client| !client.look() && client.waits)
        );
        house.postgres.crash.set(false);
        let seen = house.postgres.logins.get();
        shards[0].tick(now + Duration::from_secs(1));
        house.quiet(now).await;
        assert_eq!(house.postgres.logins.get(), seen, "too early");
        let later = now + Duration::from_secs(60);
        shards[0].tick(later);
        house.quiet(later).await;
        assert!(clients.iter_mut().all(Client::look), "only one was served");
    });
}

#[test]
fn the_reserve_opens_after_its_timeout_and_not_before() {
    in_house(2, 1, async |house| {
        let reserve = PoolSettings {
            reserve_pool_size: 1,
            ..settings(1)
        };
        let shards = house.pool(&key("d", "u"), &reserve);
        let now = Instant::now();
        let _holder = served(house, &shards[0], now).await;
        let mut clients = [Client::default(), Client::default()];
        for (client, shard) in clients.iter_mut().zip(&shards) {
            client.checkout(shard, now);
        }
        let early = now + reserve.reserve_pool_timeout;
        shards.iter().for_each(|shard| shard.tick(early));
        house.quiet(early).await;
        assert!(clients.iter_mut().all(|client| !client.look()));
        let due = early + Duration::from_millis(1);
        shards.iter().for_each(|shard| shard.tick(due));
        house.quiet(due).await;
        assert_eq!(
            clients
                .iter_mut()
                .filter_map(|client| client.look().then_some(()))
                .count(),
            1
        );
        assert_eq!(shards[0].share().servers(), 2);
    });
}

#[test]
fn a_host_is_left_when_a_connect_fails_and_only_then() {
    in_house(1, 1, async |house| {
        let key = key("d", "u");
        let mut recipe = house.recipe(&key);
        let mut database = Database::new("d");
        let good = house.dir.path().display().to_string();
        database.hosts = vec![
            format!("{good}/nobody"),
            good,
            format!("{}/x", "/nonexistent"),
        ];
        database.load_balance_hosts = LoadBalanceHosts::Disable;
        recipe.database = Arc::new(database);
        let shard = &house.pool_by(&key, &settings(3), &recipe)[0];
        let now = Instant::now();
        let mut clients: Vec<_> = (0..3).map(|_| Client::default()).collect();
        for client in &mut clients {
            client.checkout(shard, now);
        }
        house.quiet(now).await;
        assert_eq!(shard.share().current_host(), 1, "three failed at once");
        let later = now + Duration::from_secs(60);
        shard.tick(later);
        house.quiet(later).await;
        assert!(clients.iter_mut().all(Client::look));
        assert_eq!(shard.share().current_host(), 1);
    });
}

#[test]
fn a_connection_of_an_older_generation_serves_nobody() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(1))[0];
        let now = Instant::now();
        let mut client = Client::default();
        client.checkout(shard, now);
        shard.share().renew();
        shard.renew(now);
        house.quiet(now).await;
        assert!(client.look());
        assert_eq!(client.pid(), 2);
    });
}

#[test]
fn a_gift_to_a_paused_shard_is_closed_and_one_to_none_gives_its_slot_back() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(1));
        let now = Instant::now();
        for drop_it in [false, true] {
            let mut holder = served(house, &shards[0], now).await;
            let mut waiting = Client::default();
            waiting.checkout(&shards[1], now);
            holder.give_back(now);
            let is_gift = |mail: &(WorkerId, PoolMail)| matches!(mail.1, PoolMail::Gift(..));
            assert!(house.heap.lock().iter().any(is_gift));
            shards[1].leave(&waiting.ticket);
            if drop_it {
                let lost = std::mem::take(&mut *house.heap.lock());
                drop(lost);
            } else {
                shards[1].pause(true, now);
                house.quiet(now).await;
            }
            assert_eq!(shards[0].share().servers(), 0);
            shards[1].pause(false, now);
            house.quiet(now).await;
        }
    });
}

#[test]
fn a_paused_shard_shows_no_hunger() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(1));
        let now = Instant::now();
        let mut holder = served(house, &shards[0], now).await;
        let mut waiting = Client::default();
        waiting.checkout(&shards[1], now);
        shards[1].pause(true, now);
        holder.give_back(now);
        house.quiet(now).await;
        assert_eq!(shards[0].with_core(|core| core.idle()), 1);
        shards[1].pause(false, now);
        house.quiet(now).await;
        assert!(waiting.look());
    });
}

#[test]
fn a_test_that_is_dropped_closes_its_server_and_leaves_the_count() {
    in_house(1, 1, async |house| {
        let shard = &house.pool(&key("d", "u"), &settings(1))[0];
        let now = Instant::now();
        let mut client = served(house, shard, now).await;
        let lease = client.lease.take().unwrap();
        let other = LocalSet::new();
        {
            let _inside = other.enter();
            lease.clean(vec![b"DISCARD ALL".to_vec()]);
        }
        assert_eq!(shard.with_core(|core| core.testing()), 1);
        drop(other);
        assert_eq!(shard.with_core(|core| core.testing()), 0);
        assert_eq!(shard.share().servers(), 0);
    });
}

#[test]
fn a_replication_client_gets_the_place_of_a_resting_server() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(1));
        let now = Instant::now();
        served(house, &shards[0], now).await.give_back(now);
        let mut client = Client {
            waits: true,
            ..Client::default()
        };
        shards[0].dial_dedicated(ConnId(1 << 40), &client.ticket, Vec::new(), now);
        for _ in 0..200 {
            house.deliver_one(now);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        assert!(client.look());
        assert_eq!((client.pid(), shards[0].share().servers()), (2, 1));
        assert_eq!(
            shards[0]
                .take_dedicated_welcome(ConnId(1 << 40))
                .parameters
                .len(),
            1
        );
    });
}

#[test]
fn a_dropped_shard_attracts_no_more_gifts() {
    in_house(2, 1, async |house| {
        let key = key("d", "u");
        let shards = house.pool(&key, &settings(1));
        let now = Instant::now();
        let mut holder = served(house, &shards[0], now).await;
        let mut waiting = Client::default();
        waiting.checkout(&shards[1], now);
        assert!(shards[0].share().is_waiting(1));
        house.desks[1].shards.remove(&key);
        let first = shards[0].clone();
        drop(shards);
        assert!(!first.share().is_waiting(1));
        holder.give_back(now);
        assert_eq!(first.with_core(|core| core.idle()), 1);
    });
}

#[test]
fn an_unused_pool_says_for_how_long() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(1));
        let now = Instant::now();
        let mut client = served(house, &shards[0], now).await;
        assert_eq!(
            shards[1].unused_for(now),
            None,
            "another worker has a server"
        );
        client.give_back(now);
        shards[0].drop_resting(Reason::IdleTimeout);
        assert!(shards[0].unused_for(now).is_some());
        let later = now + Duration::from_secs(60);
        shards[1].tick(later);
        let unused = shards[1].unused_for(later).unwrap();
        assert!(unused > Duration::from_secs(59));
    });
}

#[test]
fn two_clients_on_two_workers_need_no_third_server() {
    for dice in 1..20 {
        in_house(2, dice, async |house| {
            let shards = house.pool(&key("d", "u"), &settings(10));
            let now = Instant::now();
            let (mut one, mut other) = (Client::default(), Client::default());
            one.checkout(&shards[0], now);
            other.checkout(&shards[1], now);
            while !one.look() && !other.look() {
                house.deliver_one(now);
                tokio::task::yield_now().await;
            }
            // It goes to the client who waits; this one comes again before the other's own server is there.
            let (first, second, at) = if one.lease.is_some() {
                (&mut one, &mut other, 0)
            } else {
                (&mut other, &mut one, 1)
            };
            first.give_back(now);
            first.checkout(&shards[at], now);
            house.quiet(now).await;
            assert!(first.look() && second.look());
            assert_eq!(shards[0].share().servers(), 2, "with the dice {dice}");
        });
    }
}

#[test]
fn who_counted_on_a_server_of_another_worker_opens_one_when_it_does_not_come() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(10));
        let now = Instant::now();
        let (mut gone, mut stays) = (Client::default(), Client::default());
        gone.checkout(&shards[0], now);
        shards[0].leave(&gone.ticket);
        stays.checkout(&shards[1], now);
        let dialing = |at: usize| shards[at].with_core(|core| core.dialing());
        assert_eq!((dialing(0), dialing(1)), (1, 0));
        // Another client comes there, who has not waited as long but is nearer.
        let mut nearer = Client::default();
        nearer.checkout(&shards[0], now);
        house.quiet(now).await;
        assert!(nearer.look() && stays.look());
        assert_eq!(house.postgres.logins.get(), 2);
    });
}

#[test]
fn who_counted_on_a_server_of_another_worker_hears_that_it_failed() {
    in_house(2, 1, async |house| {
        let mut settings = settings(10);
        settings.server_login_retry = Duration::ZERO;
        let shards = house.pool(&key("d", "u"), &settings);
        let now = Instant::now();
        house.postgres.crash.set(true);
        let (mut gone, mut stays) = (Client::default(), Client::default());
        gone.checkout(&shards[0], now);
        shards[0].leave(&gone.ticket);
        stays.checkout(&shards[1], now);
        while shards[0].with_core(|core| core.dialing()) > 0 {
            house.deliver_one(now);
            tokio::task::yield_now().await;
        }
        house.postgres.crash.set(false);
        house.quiet(now).await;
        assert!(stays.look(), "nobody told it");
    });
}

#[test]
fn who_counted_on_a_server_that_was_closed_on_arrival_opens_one() {
    in_house(2, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings(10));
        let now = Instant::now();
        let mut holder = served(house, &shards[0], now).await;
        let (mut first, mut second) = (Client::default(), Client::default());
        first.checkout(&shards[1], now);
        holder.give_back(now);
        second.checkout(&shards[0], now);
        assert_eq!(shards[0].with_core(|core| core.dialing()), 0);
        // The one on its way, and the one being opened, are of no use any more.
        shards[0].share().renew();
        shards.iter().for_each(|shard| shard.renew(now));
        house.quiet(now).await;
        assert!(first.look() && second.look());
        assert_eq!(shards[0].share().servers(), 2);
    });
}
