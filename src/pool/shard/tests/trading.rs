//! Few servers, many workers: fair within the stated slack, and never stuck.

use super::*;

/// How long each client keeps a server.
const SERVICE: Duration = Duration::from_millis(1);
const CLIENTS_PER_WORKER: usize = 4;

/// How the servers come home.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    Plain,
    Cleaned,
    SingleUse,
    AlwaysChecked,
    Dropped,
}

/// Clients that want a server again as soon as they have given theirs back: the longest wait of any, in services, and how often the
/// least and the most lucky one was served.
fn longest_wait(workers: usize, pool_size: u32, usage: Use) -> (u32, usize, usize) {
    let mut settings = settings(pool_size);
    match usage {
        Use::SingleUse => settings.server_lifetime = Duration::ZERO,
        Use::AlwaysChecked => settings.server_check_delay = Duration::ZERO,
        _ => {}
    }
    in_house(workers, 1, async |house| {
        let shards = house.pool(&key("d", "u"), &settings);
        let mut now = Instant::now();
        let count = workers * CLIENTS_PER_WORKER;
        let mut clients: Vec<_> = (0..count).map(|_| Client::default()).collect();
        let (mut since, mut served) = (vec![now; count], vec![0; count]);
        let mut longest = Duration::ZERO;
        for (at, client) in clients.iter_mut().enumerate() {
            client.checkout(&shards[at % workers], now);
        }
        let rounds = 24 * count / pool_size as usize;
        for round in 0..rounds {
            house.quiet(now).await;
            let holders: Vec<_> = (0..count).filter(|at| clients[*at].look()).collect();
            assert_eq!(holders.len(), pool_size as usize, "a server is not in use");
            now += SERVICE;
            for at in holders {
                longest = longest.max(now - since[at]);
                served[at] += 1;
                match usage {
                    Use::Cleaned => {
                        let lease = clients[at].lease.take().unwrap();
                        lease.clean(vec![b"DISCARD ALL".to_vec()]);
                    }
                    // Every third client ends badly.
                    Use::Dropped if round % 3 == 0 => drop(clients[at].lease.take()),
                    _ => clients[at].give_back(now),
                }
                since[at] = now;
                clients[at].checkout(&shards[at % workers], now);
            }
        }
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        (
            (longest.as_micros() / SERVICE.as_micros()) as u32,
            *least,
            *most,
        )
    })
}

#[test]
fn few_servers_are_shared_fairly_among_workers() {
    for workers in [2, 4] {
        for pool_size in [1, 2] {
            for usage in [
                Use::Plain,
                Use::Cleaned,
                Use::SingleUse,
                Use::AlwaysChecked,
                Use::Dropped,
            ] {
                let (longest, least, most) = longest_wait(workers, pool_size, usage);
                // In strict order of arrival every wait would be this long.
                let strict = (workers * CLIENTS_PER_WORKER) as u32 / pool_size;
                let slack = (TRADE_SLACK.as_micros() / SERVICE.as_micros()) as u32;
                let what = format!("{usage:?}, {workers} workers, {pool_size} servers");
                assert!(
                    longest <= strict + 2 * slack + 2,
                    "{what}: waited {longest}, {strict} in order"
                );
                assert!(
                    least * 10 >= most * 7,
                    "{what}: served {least} to {most} times"
                );
            }
        }
    }
}
