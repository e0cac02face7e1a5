//! The shortest examples: one cluster, one pooler, one client.

use crate::fixture::*;

#[tokio::test]
async fn a_query_goes_through() {
    bounded(60, async {
        let cluster = Cluster::shared();
        let db = cluster.fresh_db().await;
        let pooler = Ini::with_database(cluster, &db).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SELECT current_database()").await.value(), db);
        client.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn each_role_of_the_cluster_is_asked_for_its_own_method() {
    bounded(60, async {
        let cluster = Cluster::shared();
        for user in ["u_scram", "u_md5", "u_plain"] {
            let password = format!("{user}_pw");
            let mut direct =
                crate::proto::Conn::login(cluster.port, user, "postgres", Some(&password)).await;
            assert_eq!(direct.ok("SELECT current_user").await.value(), user);
            let mut conn = crate::proto::Conn::tcp(cluster.port).await;
            let error = conn
                .try_log_in(&[("user", user), ("database", "postgres")], Some("wrong"))
                .await;
            assert!(error.is_err(), "{user} with a wrong password");
        }
    })
    .await;
}
