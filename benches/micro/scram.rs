//! SCRAM-SHA-256: what a login costs the pooler in either role, and what the 4096 rounds cost where they can't be avoided.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group};
use pgweir::auth::scram::{
    ClientExchange, DerivedKeys, Nonce, ScramKeys, ScramVerifier, ServerExchange, ServerSecret,
};

const PASSWORD: &[u8] = b"correct horse battery staple";
const SALT: &[u8] = b"0123456789abcdef";
const ROUNDS: u32 = 4096;

fn nonce() -> Nonce {
    Nonce::random().expect("the system has random bytes")
}

fn server(verifier: &Arc<ScramVerifier>) -> ServerExchange {
    ServerExchange::new(ServerSecret::known(verifier.clone()), nonce())
}

/// A whole exchange between the two roles; returns what the client has derived.
fn exchange(client: ClientExchange, server: ServerExchange) -> DerivedKeys {
    let (first, server) = server
        .on_client_first(&client.first())
        .expect("well-formed");
    let (proof, client) = client.on_server_first(&first).expect("well-formed");
    let (last, _) = server
        .on_client_final(&proof)
        .expect("the password is right");
    client.on_server_final(&last).expect("the server knows it")
}

fn scram(criterion: &mut Criterion) {
    let verifier = Arc::new(ScramVerifier::derive(PASSWORD, SALT, ROUNDS));
    let keys = ScramKeys::derive(PASSWORD, SALT, ROUNDS);
    let mut group = criterion.benchmark_group("scram");
    group.bench_function("derive keys from a password", |bencher| {
        bencher.iter(|| ScramKeys::derive(black_box(PASSWORD), SALT, ROUNDS));
    });
    group.bench_function("verify a client's proof", |bencher| {
        let prepare = || {
            let client = ClientExchange::from_keys(keys.clone(), nonce());
            let (first, awaiting) = server(&verifier)
                .on_client_first(&client.first())
                .expect("well-formed");
            (
                awaiting,
                client.on_server_first(&first).expect("well-formed").0,
            )
        };
        bencher.iter_batched(
            prepare,
            |(awaiting, proof)| awaiting.on_client_final(&proof),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("both roles, keys known", |bencher| {
        bencher.iter(|| {
            exchange(
                ClientExchange::from_keys(keys.clone(), nonce()),
                server(&verifier),
            )
        });
    });
    group.bench_function("both roles, password", |bencher| {
        bencher.iter(|| {
            exchange(
                ClientExchange::from_password(PASSWORD, nonce()),
                server(&verifier),
            )
        });
    });
    group.finish();
}

criterion_group!(benches, scram);
