//! Tasks that wake each other, are woken from elsewhere, panic, and are dropped.

use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio::sync::mpsc;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs until `done`.
fn run(executor: &mut Executor, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    executor
        .run(|_| {
            assert!(began.elapsed() < PATIENCE, "nothing happens");
            done()
        })
        .unwrap();
}

async fn give_way() {
    let mut gave = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn tasks_take_turns_and_start_others() {
    let mut executor = Executor::enter(PATIENCE).unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    for name in ["a", "b"] {
        let (seen, spawner) = (seen.clone(), executor.spawner());
        executor.spawner().spawn(Box::pin(async move {
            for turn in 0..3 {
                seen.borrow_mut().push(format!("{name}{turn}"));
                give_way().await;
            }
            let late = seen.clone();
            spawner.spawn(Box::pin(async move {
                late.borrow_mut().push(format!("{name}'"));
            }));
        }));
    }
    let all = seen.clone();
    run(&mut executor, move || all.borrow().len() == 8);
    let order = seen.borrow().join(" ");
    assert_eq!(order, "a0 b0 a1 b1 a2 b2 a' b'");
    assert!(executor.tasks.borrow().is_empty());
}

#[test]
fn a_panic_ends_one_task() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let mut executor = Executor::enter(PATIENCE).unwrap();
    let spawner = executor.spawner();
    spawner.spawn(Box::pin(async {
        give_way().await;
        panic!("in a task");
    }));
    let bomb = Bomb;
    spawner.spawn(Box::pin(async move {
        give_way().await;
        let _bomb = &bomb;
    }));
    let lives = Rc::new(Cell::new(false));
    let alive = lives.clone();
    spawner.spawn(Box::pin(async move {
        for _ in 0..5 {
            give_way().await;
        }
        alive.set(true);
    }));
    run(&mut executor, || lives.get());
    assert!(executor.tasks.borrow().is_empty());
}

#[test]
fn a_sleeping_worker_is_interrupted() {
    let mut executor = Executor::enter(PATIENCE).unwrap();
    let (send, mut receive) = mpsc::unbounded_channel();
    let got = Rc::new(Cell::new(0));
    let sum = got.clone();
    executor.spawner().spawn(Box::pin(async move {
        while let Some(n) = receive.recv().await {
            sum.set(sum.get() + n);
        }
    }));
    let home = executor.home.clone();
    let sender = std::thread::spawn(move || {
        while !home.sleeps.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        send.send(7).unwrap();
    });
    let began = Instant::now();
    executor.run(|_| got.get() > 0).unwrap();
    assert!(began.elapsed() < PATIENCE, "nobody has woken it");
    sender.join().unwrap();
}

#[test]
fn no_wake_up_from_elsewhere_is_lost() {
    const SENDERS: usize = 3;
    const MESSAGES: usize = 3_000;
    let mut executor = Executor::enter(PATIENCE).unwrap();
    let got = Arc::new(AtomicUsize::new(0));
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        // One at a time: the next is only sent when this one has arrived, so that a lost wake-up hangs.
        let (send, mut receive) = mpsc::channel(1);
        let arrived = got.clone();
        executor.spawner().spawn(Box::pin(async move {
            while receive.recv().await.is_some() {
                arrived.fetch_add(1, Ordering::SeqCst);
            }
        }));
        senders.push(std::thread::spawn(move || {
            (0..MESSAGES).for_each(|n| send.blocking_send(n).unwrap());
        }));
    }
    run(&mut executor, || {
        got.load(Ordering::SeqCst) == SENDERS * MESSAGES
    });
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
}

#[test]
fn a_waker_of_a_task_that_has_ended_gives_nobody_a_turn() {
    let mut executor = Executor::enter(PATIENCE).unwrap();
    let kept = Rc::new(RefCell::new(None));
    let keep = kept.clone();
    executor.spawner().spawn(Box::pin(poll_fn(move |cx| {
        keep.replace(Some(cx.waker().clone()));
        Poll::Ready(())
    })));
    run(&mut executor, || kept.borrow().is_some());
    let turns = Rc::new(Cell::new(0));
    let count = turns.clone();
    executor.spawner().spawn(Box::pin(poll_fn(move |_| {
        count.set(count.get() + 1);
        Poll::Pending
    })));
    run(&mut executor, || turns.get() == 1);
    let old = kept.borrow_mut().take().unwrap();
    old.wake();
    let mut rounds = 0;
    run(&mut executor, || {
        rounds += 1;
        rounds == 3 || executor_is_idle()
    });
    assert_eq!(turns.get(), 1);
}

fn executor_is_idle() -> bool {
    HERE.with(|here| here.queue.borrow().is_empty())
}

#[test]
fn timers_of_another_runtime_wake_tasks() {
    let timers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let _inside = timers.enter();
    let mut executor = Executor::enter(PATIENCE).unwrap();
    let over = Rc::new(Cell::new(false));
    let set = over.clone();
    executor.spawner().spawn(Box::pin(async move {
        let never = std::future::pending::<()>();
        let timed = tokio::time::timeout(Duration::from_millis(5), never).await;
        set.set(timed.is_err());
    }));
    run(&mut executor, || over.get());
}

#[test]
fn tasks_that_are_left_are_dropped_and_later_ones_do_not_run() {
    let token = Rc::new(());
    let mut executor = Executor::enter(PATIENCE).unwrap();
    let spawner = executor.spawner();
    let held = token.clone();
    spawner.spawn(Box::pin(async move {
        std::future::pending::<()>().await;
        drop(held);
    }));
    executor.run(|_| true).unwrap();
    assert_eq!(Rc::strong_count(&token), 2);
    drop(executor);
    assert_eq!(Rc::strong_count(&token), 1);
    spawner.spawn(Box::pin(async { panic!("it runs") }));
    Executor::enter(PATIENCE).unwrap().run(|_| true).unwrap();
}
