//! Commands that wait, and what ends the waiting: the program, a CancelRequest, KILL_CLIENT, the client's leaving.

use super::*;
use crate::admin::fake::socket;

#[tokio::test]
async fn a_pause_waits() {
    let fake = Fake {
        slow: true,
        ..databases()
    };
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        client.query("PAUSE").await;
        assert_eq!(until_told(&fake).await, ["pause None"]);
        fake.finish.notify_one();
        assert_eq!(client.answers().await, ["C PAUSE"]);
    })
    .await;
}

#[tokio::test]
async fn cancelling_a_waiting_pause_resumes_and_answers() {
    let fake = Fake {
        slow: true,
        ..databases()
    };
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        for (command, resumed) in [
            ("PAUSE", "resume None"),
            ("PAUSE one", "resume Some(\"one\")"),
        ] {
            client.query(command).await;
            until_told(&fake).await;
            assert!(!desk.cancel(&[9; 8]), "no console has this key");
            assert!(desk.cancel(&[1; 8]));
            let expected = ["E SERROR C57014 Mcanceling command due to user request"];
            assert_eq!(client.answers().await, expected);
            assert_eq!(fake.told(), [resumed]);
        }
        // A late CancelRequest hits nothing.
        assert!(desk.cancel(&[1; 8]));
        assert_eq!(client.ask("RELOAD").await, ["C RELOAD"]);
    })
    .await;
}

#[tokio::test]
async fn cancelling_takes_back_only_what_the_command_did() {
    let fake = Fake {
        slow: true,
        ..databases()
    };
    fake.states
        .lock()
        .entry("one".to_owned())
        .or_default()
        .paused = true;
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        for command in ["PAUSE one", "WAIT_CLOSE one"] {
            client.query(command).await;
            until_told(&fake).await;
            desk.cancel(&[1; 8]);
            assert_eq!(client.answers().await.len(), 1);
            assert!(fake.told().is_empty());
        }
    })
    .await;
}

/// As with PgBouncer: whoever restarts the server by a script with a time limit relies on it.
#[tokio::test]
async fn a_pause_stays_when_its_client_leaves() {
    let fake = Fake {
        slow: true,
        ..databases()
    };
    let desk = Desk::new(Instant::now());
    let ending = with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        client.query("PAUSE").await;
        until_told(&fake).await;
    })
    .await;
    assert_eq!(ending, Ending::Left);
    assert!(fake.told().is_empty() && fake.state.lock().paused);
}

#[tokio::test]
async fn what_comes_while_a_command_waits_is_done_later() {
    let fake = Fake {
        slow: true,
        ..databases()
    };
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        client.query("WAIT_CLOSE").await;
        client.query("RELOAD").await;
        assert_eq!(until_told(&fake).await, ["wait_close None"]);
        tokio::task::yield_now().await;
        assert!(fake.told().is_empty());
        fake.finish.notify_one();
        assert_eq!(client.answers().await, ["C WAIT_CLOSE"]);
        assert_eq!(client.answers().await, ["C RELOAD"]);
    })
    .await;
}

#[tokio::test]
async fn clients_are_killed_by_id() {
    let mut fake = databases();
    fake.clients = vec![socket("joe", 5)];
    let not_found = refused("client not found");
    let script: &[(&str, &[&str])] = &[
        ("KILL_CLIENT 5", &["C KILL_CLIENT"]),
        ("KILL_CLIENT 6", &[&not_found]),
    ];
    check(&fake, Role::Admin, script).await;
    assert_eq!(fake.told(), ["kill_client 5", "kill_client 6"]);
}

#[tokio::test]
async fn consoles_are_killed_too() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    let victim = with_console(&fake, &desk, user(Role::Stats, 2), async |mut victim| {
        let killer = with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
            assert_eq!(desk.len(), 2);
            assert_eq!(client.ask("KILL_CLIENT 2").await, ["C KILL_CLIENT"]);
        });
        killer.await;
        assert_eq!(
            victim.answers().await,
            ["E SFATAL C08P01 Madmin forced disconnect", "EOF"]
        );
    });
    assert_eq!(victim.await, Ending::Killed);
    assert!(fake.told().is_empty());
}
