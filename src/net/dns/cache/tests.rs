use super::*;

/// A cache, a clock, and one name.
struct World {
    cache: Cache,
    now: Instant,
}

const HOST: &str = "db.example.com";

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ips(list: &str) -> Vec<IpAddr> {
    list.split_whitespace()
        .map(|ip| ip.parse().unwrap())
        .collect()
}

/// An answer of both families, from DNS.
fn answer(list: &str, ttl: u64) -> Answer {
    Answer {
        ttl: Some(secs(ttl)),
        ..Answer::local(ips(list))
    }
}

impl World {
    fn new() -> World {
        World::with(Rules::default())
    }

    fn with(rules: Rules) -> World {
        World {
            cache: Cache::new(rules),
            now: Instant::now(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Asks, and expects that a lookup has to be begun.
    fn begin(&mut self) {
        let ask = self.cache.ask(HOST, None, self.now);
        assert!(matches!(ask, Ask::Wait { begin: true, .. }), "{ask:?}");
    }

    fn answer(&mut self, list: &str, ttl: u64) -> Changes {
        self.found(Ok(answer(list, ttl)))
    }

    fn found(&mut self, found: Result<Answer, Failure>) -> Changes {
        self.cache.answered(HOST, found, self.now)
    }

    fn fail(&mut self, failure: Failure) -> Changes {
        self.found(Err(failure))
    }

    fn sites(&mut self) -> Vec<Arc<Site>> {
        match self.cache.ask(HOST, None, self.now) {
            Ask::Ready(sites) => sites,
            other => panic!("{other:?}"),
        }
    }

    /// Addresses in the order in which one connection would try them.
    fn order(&mut self) -> String {
        let sites = self.sites();
        let words: Vec<String> = sites.iter().map(|site| site.ip.to_string()).collect();
        words.join(" ")
    }

    fn site(&mut self, ip: &str) -> Arc<Site> {
        let ip: IpAddr = ip.parse().unwrap();
        let mut sites = self.sites().into_iter();
        sites.find(|site| site.ip == ip).unwrap()
    }

    fn due(&mut self) -> usize {
        self.cache.due(self.now).len()
    }

    fn row(&self) -> HostRow {
        self.cache.host_rows(self.now).remove(0)
    }
}

#[test]
fn one_lookup_serves_all_who_wait() {
    let mut world = World::new();
    world.begin();
    for _ in 0..3 {
        let ask = world.cache.ask(HOST, None, world.now);
        assert!(
            matches!(
                ask,
                Ask::Wait {
                    begin: false,
                    round: 0,
                    until: None
                }
            ),
            "{ask:?}"
        );
    }
    assert_eq!(world.cache.queries(), 1);
    world.answer("10.0.0.1", 60);
    assert_eq!(world.cache.queries(), 0);
    assert_eq!(world.order(), "10.0.0.1");
}

#[test]
fn who_has_waited_takes_what_came_even_if_it_is_not_to_be_kept() {
    let rules = Rules {
        max_ttl: Duration::ZERO,
        nxdomain_ttl: Duration::ZERO,
        ..Rules::default()
    };
    let mut world = World::with(rules);
    world.begin();
    world.answer("10.0.0.1", 60);
    assert!(matches!(
        world.cache.ask(HOST, Some(0), world.now),
        Ask::Ready(_)
    ));
    let next = world.cache.ask(HOST, None, world.now);
    assert!(
        matches!(
            next,
            Ask::Wait {
                begin: true,
                round: 1,
                ..
            }
        ),
        "{next:?}"
    );
    world.fail(Failure::NoName);
    let told = world.cache.ask(HOST, Some(1), world.now);
    assert!(matches!(told, Ask::Failed(Failure::NoName)), "{told:?}");
}

#[test]
fn an_answer_lives_as_long_as_the_shorter_of_its_record_and_the_setting() {
    for (record, expected) in [(0, 1), (1, 1), (5, 5), (15, 15), (3600, 15)] {
        let mut world = World::new();
        world.begin();
        world.answer("10.0.0.1", record);
        assert_eq!(world.row().ttl, secs(expected), "{record}");
        world.pass(secs(expected) - Duration::from_millis(1));
        world.order();
        world.pass(Duration::from_millis(1));
        world.begin();
    }
}

#[test]
fn what_is_not_from_dns_lives_as_long_as_the_setting() {
    let mut world = World::new();
    world.begin();
    world.found(Ok(Answer::local(ips("127.0.0.1 ::1"))));
    assert_eq!(world.row().ttl, secs(15));
    assert_eq!(world.row().addresses, ips("127.0.0.1 ::1"));
}

#[test]
fn failures_stand_for_their_own_time() {
    for failure in [Failure::NoName, Failure::NoAddress, Failure::Unavailable] {
        let rules = Rules {
            nxdomain_ttl: secs(3),
            ..Rules::default()
        };
        let mut world = World::with(rules);
        world.begin();
        world.fail(failure);
        world.pass(Duration::from_millis(2_999));
        let ask = world.cache.ask(HOST, None, world.now);
        assert!(
            matches!(ask, Ask::Failed(told) if told == failure),
            "{ask:?}"
        );
        world.pass(Duration::from_millis(1));
        world.begin();
        world.answer("10.0.0.1", 60);
        assert_eq!(world.order(), "10.0.0.1");
    }
}

#[test]
fn shorter_settings_count_for_what_is_known_already() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 3600);
    let max_ttl = secs(2);
    world.cache.set_rules(Rules {
        max_ttl,
        ..Rules::default()
    });
    assert_eq!(world.row().ttl, secs(2));
}

#[test]
fn connections_go_round_the_addresses() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1 10.0.0.2 ::1", 60);
    assert_eq!(world.order(), "10.0.0.1 10.0.0.2 ::1");
    assert_eq!(world.order(), "10.0.0.2 ::1 10.0.0.1");
    assert_eq!(world.order(), "::1 10.0.0.1 10.0.0.2");
    assert_eq!(world.order(), "10.0.0.1 10.0.0.2 ::1");
}

#[test]
fn an_unreachable_address_comes_last_for_a_while() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1 10.0.0.2 10.0.0.3", 60);
    let bad = world.site("10.0.0.1");
    world.cache.note_unreachable(&bad, world.now);
    for _ in 0..3 {
        assert!(world.order().ends_with("10.0.0.1"));
    }
    world.pass(UNREACHABLE_MEMORY);
    let firsts: Vec<bool> = (0..3)
        .map(|_| world.order().starts_with("10.0.0.1"))
        .collect();
    assert_eq!(firsts.iter().filter(|first| **first).count(), 1);
}

#[test]
fn an_address_that_a_fresh_answer_lacks_is_gone() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1 10.0.0.2", 60);
    let (first, second) = (world.site("10.0.0.1"), world.site("10.0.0.2"));
    world.pass(secs(20));
    world.begin();
    let changes = world.answer("10.0.0.2 10.0.0.3", 60);
    assert_eq!(changes.retired, ips("10.0.0.1"));
    assert!(first.is_gone() && !second.is_gone());
    assert!(Arc::ptr_eq(&second, &world.site("10.0.0.2")));
}

#[test]
fn addresses_that_nobody_uses_go_without_a_word() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 60);
    world.pass(secs(20));
    world.begin();
    assert_eq!(world.answer("10.0.0.2", 60), Changes::default());
}

#[test]
fn an_outage_retires_nobody_and_the_last_good_answer_stays() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 60);
    let site = world.site("10.0.0.1");
    for _ in 0..5 {
        world.pass(secs(20));
        world.begin();
        assert!(world.fail(Failure::Unavailable).kept);
        assert_eq!(world.order(), "10.0.0.1");
        assert_eq!(world.row().addresses, ips("10.0.0.1"));
        assert!(!site.is_gone());
    }
    world.pass(LAST_GOOD_MAX);
    world.begin();
    assert!(!world.fail(Failure::Unavailable).kept);
    assert!(matches!(
        world.cache.ask(HOST, None, world.now),
        Ask::Failed(_)
    ));
}

#[test]
fn no_such_name_is_an_answer_but_closes_nothing() {
    for failure in [Failure::NoName, Failure::NoAddress] {
        let mut world = World::new();
        world.begin();
        world.answer("10.0.0.1", 60);
        let site = world.site("10.0.0.1");
        world.pass(secs(20));
        world.begin();
        assert_eq!(world.fail(failure), Changes::default());
        let ask = world.cache.ask(HOST, None, world.now);
        assert!(
            matches!(ask, Ask::Failed(told) if told == failure),
            "{ask:?}"
        );
        assert!(world.row().addresses.is_empty() && !site.is_gone());
        // Back where it was, it has not moved.
        world.pass(secs(20));
        world.begin();
        assert_eq!(world.answer("10.0.0.1", 60), Changes::default());
        assert!(Arc::ptr_eq(&site, &world.site("10.0.0.1")));
    }
}

#[test]
fn a_slow_lookup_is_waited_for_only_if_there_is_nothing_better() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 5);
    world.pass(secs(5));
    let ask = world.cache.ask(HOST, None, world.now);
    let limit = world.now + STALE_PATIENCE;
    assert!(
        matches!(ask, Ask::Wait { until: Some(until), .. } if until == limit),
        "{ask:?}"
    );
    world.pass(STALE_PATIENCE);
    assert_eq!(world.order(), "10.0.0.1");
    world.answer("10.0.0.2", 5);
    assert_eq!(world.order(), "10.0.0.2");
}

#[test]
fn names_in_use_are_due_by_themselves_and_others_are_not() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 5);
    world.pass(secs(6));
    assert_eq!(world.due(), 0);
    world.begin();
    world.answer("10.0.0.1", 5);
    let server = world.site("10.0.0.1");
    assert_eq!(world.due(), 0);
    world.pass(secs(5));
    assert_eq!(world.due(), 1);
    assert_eq!(world.due(), 0, "under way already");
    world.answer("10.0.0.1", 5);
    drop(server);
    world.pass(secs(5));
    assert_eq!(world.due(), 0);
}

#[test]
fn names_in_use_are_not_looked_up_all_the_time() {
    let mut world = World::with(Rules {
        max_ttl: Duration::ZERO,
        nxdomain_ttl: Duration::ZERO,
        ..Rules::default()
    });
    world.begin();
    world.answer("10.0.0.1", 5);
    let Ask::Ready(_server) = world.cache.ask(HOST, Some(0), world.now) else {
        panic!("no answer")
    };
    world.pass(REFRESH_MIN - Duration::from_millis(1));
    assert_eq!(world.due(), 0);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.due(), 1);
    world.fail(Failure::Unavailable);
    assert_eq!(world.due(), 0);
    world.pass(REFRESH_MIN);
    assert_eq!(world.due(), 1);
}

#[test]
fn what_is_gone_does_not_keep_a_name_in_use() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 5);
    let _session = world.site("10.0.0.1");
    world.pass(secs(5));
    world.begin();
    world.answer("10.0.0.2", 5);
    world.pass(secs(5));
    assert_eq!(world.due(), 0);
}

#[test]
fn a_family_that_was_not_answered_stays_as_it_was() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1 ::1", 60);
    let (v4, v6) = (world.site("10.0.0.1"), world.site("::1"));
    for _ in 0..3 {
        world.pass(secs(20));
        world.begin();
        let half = Answer {
            v6: None,
            ..answer("10.0.0.2", 60)
        };
        world.found(Ok(half));
        assert!(v4.is_gone() && !v6.is_gone());
        assert_eq!(world.row().addresses, ips("::1 10.0.0.2"));
    }
    world.pass(secs(20));
    world.begin();
    assert_eq!(world.answer("10.0.0.2", 60).retired, ips("::1"));
}

#[test]
fn nothing_of_one_family_and_no_word_of_the_other_is_no_answer() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 60);
    let site = world.site("10.0.0.1");
    world.pass(secs(20));
    world.begin();
    let half = Answer {
        v6: None,
        ..answer("", 60)
    };
    assert!(world.found(Ok(half)).kept);
    assert_eq!(world.order(), "10.0.0.1");
    assert!(!site.is_gone());
}

#[test]
fn an_answer_that_may_be_another_ones_is_used_but_retires_nobody() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 60);
    let site = world.site("10.0.0.1");
    world.pass(secs(20));
    world.begin();
    let unsure = Answer {
        sure: false,
        ..answer("10.0.0.2", 60)
    };
    assert_eq!(world.found(Ok(unsure)), Changes::default());
    assert_eq!(world.order(), "10.0.0.2");
    assert!(!site.is_gone());
    world.pass(secs(20));
    world.begin();
    assert_eq!(world.answer("10.0.0.2", 60).retired, ips("10.0.0.1"));
}

#[test]
fn a_huge_answer_is_cut_and_retires_nobody() {
    let mut world = World::new();
    world.begin();
    world.answer("192.0.2.1", 60);
    let site = world.site("192.0.2.1");
    for round in 0..10 {
        world.pass(secs(20));
        world.begin();
        let all: Vec<String> = (0..200).map(|n| format!("10.0.{round}.{n}")).collect();
        assert!(world.answer(&all.join(" "), 60).retired.is_empty());
        assert_eq!(world.sites().len(), ADDRESSES_MAX);
    }
    assert!(world.cache.hosts[HOST].sites.len() <= SITES_MAX);
    assert!(!site.is_gone());
}

#[test]
fn addresses_that_rotate_are_given_time() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 1);
    let first = world.site("10.0.0.1");
    world.pass(secs(1));
    world.begin();
    assert_eq!(world.answer("10.0.0.2", 1).retired, ips("10.0.0.1"));
    assert!(first.is_gone());
    let second = world.site("10.0.0.2");
    world.pass(secs(1));
    world.begin();
    let changes = world.answer("10.0.0.1", 1);
    assert!(changes.rotates && changes.retired.is_empty());
    let again = world.site("10.0.0.1");
    assert!(!again.is_gone() && first.is_gone());
    for turn in 0..100 {
        world.pass(secs(1));
        world.begin();
        let list = if turn % 2 == 0 {
            "10.0.0.2"
        } else {
            "10.0.0.1"
        };
        assert_eq!(world.answer(list, 1), Changes::default(), "{turn}");
    }
    assert!(!second.is_gone() && !again.is_gone());
    // One of them leaves for good.
    for gone_for in 2..ROTATION_ABSENCE.as_secs() {
        world.pass(secs(1));
        world.begin();
        assert_eq!(
            world.answer("10.0.0.1", 1),
            Changes::default(),
            "{gone_for}"
        );
    }
    world.pass(secs(1));
    world.begin();
    assert_eq!(world.answer("10.0.0.1", 1).retired, ips("10.0.0.2"));
    assert!(second.is_gone() && !again.is_gone());
    // And after a quiet time a move is a move again.
    world.pass(ROTATION_MEMORY);
    world.begin();
    assert_eq!(world.answer("10.0.0.9", 1).retired, ips("10.0.0.1"));
}

#[test]
fn a_name_that_nobody_uses_is_forgotten() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 60);
    let server = world.site("10.0.0.1");
    world.pass(2 * LAST_GOOD_MAX);
    assert_eq!(world.due(), 1);
    world.answer("10.0.0.1", 60);
    drop(server);
    world.pass(LAST_GOOD_MAX - secs(1));
    world.due();
    assert_eq!(world.cache.host_rows(world.now).len(), 1);
    world.pass(secs(1));
    world.due();
    assert!(world.cache.host_rows(world.now).is_empty());
}

#[test]
fn a_new_serial_makes_the_zones_names_due() {
    let mut world = World::with(Rules {
        max_ttl: secs(3600),
        zone_check_period: secs(10),
        ..Rules::default()
    });
    let zone = "example.com";
    assert!(world.cache.zones_due(world.now).is_empty());
    world.begin();
    world.answer("10.0.0.1", 3600);
    let _server = world.site("10.0.0.1");
    assert_eq!(world.cache.zones_due(world.now), [zone.into()]);
    assert!(world.cache.zones_due(world.now).is_empty(), "under way");
    assert_eq!(world.cache.queries(), 1);
    world.cache.zone_answered(zone, Some(7), world.now);
    let row = ZoneRow {
        name: zone.into(),
        serial: 7,
        names: 1,
    };
    assert_eq!(world.cache.zone_rows(), [row]);
    for serial in [Some(7), None, Some(7)] {
        world.pass(secs(10));
        assert_eq!(world.cache.zones_due(world.now).len(), 1);
        world.cache.zone_answered(zone, serial, world.now);
        assert_eq!(world.due(), 0);
    }
    world.pass(secs(10));
    world.cache.zones_due(world.now);
    world.cache.zone_answered(zone, Some(8), world.now);
    assert_eq!(world.due(), 1);
}

#[test]
fn zones_are_watched_only_if_that_is_wanted_and_only_of_names_from_dns() {
    let mut world = World::new();
    world.begin();
    world.answer("10.0.0.1", 60);
    assert!(world.cache.zones_due(world.now).is_empty());
    let watching = Rules {
        zone_check_period: secs(10),
        ..Rules::default()
    };
    world.cache.set_rules(watching);
    assert_eq!(world.cache.zones_due(world.now).len(), 1);
    world.cache.set_rules(Rules::default());
    assert!(world.cache.zones_due(world.now).is_empty());
    let rows = world.cache.zone_rows();
    assert_eq!((rows.len(), rows[0].serial), (1, 0));
    world.cache.set_rules(watching);
    world.pass(secs(15));
    world.begin();
    world.found(Ok(Answer::local(ips("127.0.0.1"))));
    assert!(world.cache.zones_due(world.now).is_empty());
    assert!(world.cache.zone_rows().is_empty());
}

#[test]
fn the_zone_is_what_follows_the_first_dot() {
    for (name, zone) in [
        ("db.example.com", Some("example.com")),
        ("db.example.com.", Some("example.com")),
        ("db", None),
        ("db.", None),
        ("", None),
    ] {
        assert_eq!(zone_of(name), zone, "{name}");
    }
}
